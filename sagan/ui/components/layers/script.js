// Attention under the pointer. All layers answer for the same point of the picture, drawn by the browser alone.
// A part of other components: `props` has layers, texts, table and query, and they call `layers.show`.
const layers = (() => {
  const { texts } = props;
  const math = saganAttention;
  const table = Uint8Array.from(atob(props.table), (c) => c.charCodeAt(0)); // 256 RGB colours
  const caption = element.querySelector('.caption');
  const [hover, hoverLong] =
    matchMedia('(hover: none)').matches ? [texts.touch, texts.touch_long] : [texts.hover, texts.hover_long];
  const spoken = element.querySelector('.spoken');
  const views = [...element.querySelectorAll('figure[data-layer]')].map((figure, i) => {
    const { side, name } = props.layers[i];
    const part = (selector) => figure.querySelector(selector);
    const cells = Object.assign(document.createElement('canvas'), { width: side, height: side });
    const context = cells.getContext('2d');
    return {
      name, side, cells, context, figure,
      n: side * side,
      pixels: context.createImageData(side, side),
      picture: part('.picture'), face: part('.face'), field: part('.field'), query: part('.query'), key: part('.key'),
      gamma: part('.gamma'), best: part('.best'), entropy: part('.entropy'), spread: part('.spread'),
      q: null, k: null,
    };
  });
  for (const { field } of views) field.getContext('2d').globalCompositeOperation = 'copy'; // replace, never add up

  let point = props.query; // [x, y], shares of the picture
  let pinned = false, speak = false, frame = 0;

  /** Put a marker on the cell of a position. */
  function mark(marker, position, side) {
    const size = 100 / side;
    marker.hidden = false;
    marker.style.cssText =
      `left:${(position % side) * size}%;top:${Math.floor(position / side) * size}%;width:${size}%;height:${size}%`;
  }

  function draw() {
    frame = 0;
    if (!views[0]?.q) return;
    const sentences = [];
    for (const layer of views) {
      const { side, n } = layer;
      const query = math.position(...point, side);
      const weights = math.row(layer.q, layer.k, n, query);
      const strongest = math.strongest(weights), bits = math.entropy(weights);
      math.paint(weights, table, layer.pixels.data);
      layer.context.putImageData(layer.pixels, 0, 0);
      sagan.draw(layer.field, layer.cells);
      mark(layer.query, query, side);
      mark(layer.key, strongest, side);
      const values = {
        name: layer.name, times: (weights[strongest] * n).toFixed(1), bits: bits.toFixed(1),
        most: Math.log2(n), places: Math.round(2 ** bits).toLocaleString('en'), all: n.toLocaleString('en'),
      };
      layer.best.textContent = sagan.fill(texts.best_value, values);
      layer.entropy.textContent = sagan.fill(texts.entropy_value, values);
      layer.spread.textContent = sagan.fill(texts.spread, values);
      Object.assign(layer.figure.dataset, { query, key: strongest, weight: weights[strongest], entropy: bits });
      sentences.push(sagan.fill(texts.spoken, values));
    }
    element.dataset.drawn = Number(element.dataset.drawn ?? 0) + 1;
    if (speak) spoken.textContent = sentences.join(' ');
    speak = false;
  }

  function ask() {
    frame ||= requestAnimationFrame(draw);
  }

  function pin(on) {
    pinned = on;
    element.classList.toggle('pinned', on);
    caption.textContent = on ? texts.pinned : hoverLong;
  }

  function look(picture, event) {
    const box = picture.getBoundingClientRect();
    const share = (at, length) => Math.min(1 - 1e-6, Math.max(0, at / length));
    point = [share(event.clientX - box.left, box.width), share(event.clientY - box.top, box.height)];
    ask();
  }

  const REST = 150; // ms after which a finger that stays on a picture is followed

  /**
   * Follow a finger in all directions once it rested, or where it starts sideways, which `touch-action` leaves to us.
   * One that starts up or down scrolls the page, and the browser cancels its pointer.
   */
  function followFinger(picture) {
    let timer = 0, held = false, last = null;
    const letGo = () => { clearTimeout(timer); held = false; };
    picture.addEventListener('pointerdown', (event) => {
      if (event.pointerType !== 'touch') return;
      last = event;
      timer = setTimeout(() => { held = true; look(picture, last); }, REST);
    });
    picture.addEventListener('pointermove', (event) => { last = event; });
    picture.addEventListener('pointerup', letGo);
    picture.addEventListener('pointercancel', letGo);
    picture.addEventListener('touchmove', (event) => { if (held) event.preventDefault(); }, { passive: false });
  }

  const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  for (const { picture, side } of views) {
    followFinger(picture);
    picture.addEventListener('pointermove', (event) => { if (!pinned) look(picture, event); });
    picture.addEventListener('click', (event) => {
      const finger = event.pointerType === 'touch'; // does not hover, so a tap looks and there is nothing to pin
      if (finger || !pinned) look(picture, event);
      pin(!finger && !pinned);
    });
    picture.addEventListener('keydown', (event) => {
      if (event.key in STEPS) {
        // From the middle of this layer's cell to the middle of the next.
        point = point.map((share, axis) => {
          const cell = Math.floor(share * side) + STEPS[event.key][axis];
          return (Math.min(side - 1, Math.max(0, cell)) + 0.5) / side;
        });
        speak = true;
        ask();
      } else if (event.key === 'Enter' || event.key === ' ') pin(!pinned);
      else if (event.key === 'Escape') pin(false);
      else return;
      event.preventDefault();
    });
  }
  function drawScale() {
    const canvas = element.querySelector('.scale canvas'), context = canvas.getContext('2d');
    const bar = context.createImageData(256, 1);
    for (let i = 0; i < 256; i++) bar.data.set([...table.subarray(3 * i, 3 * i + 3), 255], 4 * i);
    context.putImageData(bar, 0, 0);
    for (let times = 1; times <= math.CEILING; times *= 4) {
      const prefix = times === 1 ? '≤ ' : times === math.CEILING ? '≥ ' : '';
      element.querySelector('.scale .ticks').append(Object.assign(document.createElement('span'), { textContent: `${prefix}${times} ×` }));
    }
  }
  if (views.length) { // a film may have no attention layers
    drawScale();
    pin(false);
    element.addEventListener('keydown', (event) => { if (event.key === 'Escape') pin(false); });
  }

  return {
    /** Show a picture and, by layer name, what `of(name)` gives: {q, k, gamma}, vectors as float arrays. */
    show(picture, of) {
      for (const layer of views) {
        const { q, k, gamma } = of(layer.name);
        Object.assign(layer, { q, k });
        layer.gamma.textContent = gamma.toFixed(2).replace('-', '−');
        sagan.draw(layer.face, picture);
      }
      cancelAnimationFrame(frame);
      draw();
    },

    /** Light the query at `at`, [x, y] in shares of the picture, and say `text` of it, if there is any. */
    light(at, text) {
      point = at;
      pin(false);
      if (text) caption.textContent = `${text} ${hover}`;
    },
  };
})();
