// Attention under the pointer. All layers answer for the same point of the picture, drawn by the browser alone.
// A part of other components: `props` has layers, size, texts, table, colours and query, and they call `layers.show`.
// With `props.lab` the layers of two networks take turns, and direction and layer in focus follow the lab.
const layers = (() => {
  const { texts, size } = props;
  const { lab } = sagan;
  const math = saganAttention;
  const table = math.bytes(props.table); // 256 RGB colours
  const touch = matchMedia('(hover: none)').matches;
  element.classList.toggle('touched', touch);
  const [hover, forwardHint, backwardHint, pinned] = touch
    ? [texts.touch, texts.touch_long, texts.touch_backward, texts.pinned_touch]
    : [texts.hover, texts.hover_long, texts.hover_backward, texts.pinned];
  const hint = () => (backward() ? backwardHint : forwardHint);
  const part = (selector) => element.querySelector(selector);
  const caption = part('.caption'), spoken = part('.spoken'), unit = part('.scale .unit');
  const panels = [...element.querySelectorAll('figure[data-layer]')].map((figure, i) =>
    sagan.panel(figure, props.layers[i], { texts, table, size }));

  let point = props.query; // [x, y], shares of the picture
  let speak = false, frame = 0;
  let ends = null; // of the codes of average maps, in log2 of times uniform
  let ofPoint = false; // whether the caption is of one point of one face: it goes with it

  const active = () => panels.filter(({ network }) => !network || network === lab.state.network);
  const backward = () => Boolean(props.lab) && lab.state.direction === 'backward';
  const pixel = (at) => at.map((share) => Math.min(size - 1, Math.floor(share * size)));
  const middle = (at) => at.map((pixel) => (pixel + 0.5) / size);
  const placeOf = ({ x, y }) => middle([x, y]);

  function weightsOf(panel, position) {
    const { q, k, n } = panel;
    if (!backward()) return math.row(q, k, n, position);
    panel.rows ??= math.normalisers(q, k, n); // once a face
    return math.column(q, k, n, position, panel.rows);
  }

  /** The maps of a point, [{panel, position, weights}], `of(panel, position)` in its layers; null where they are not there. */
  function answers(at, of = weightsOf) {
    const shown = active(), single = shown.filter((panel) => !panel.combined);
    if (!single.length || single.some((panel) => !panel.q)) return null;
    const shares = math.shares(single.map(({ factor }) => factor));
    const maps = single.map((panel, i) => ({ side: panel.side, share: shares[i], weights: of(panel, math.position(...at, panel.side)) }));
    return shown.map((panel) => ({
      panel, position: math.position(...at, panel.side),
      weights: panel.combined ? math.combine(maps).weights : maps[single.indexOf(panel)].weights,
    }));
  }

  function draw() {
    frame = 0;
    const maps = answers(point);
    drawAverages();
    for (const panel of maps ? [] : active()) panel.clear();
    if (!maps) return;
    const values = maps.map(({ panel, ...map }) => panel.show(map));
    if (lab.state.scale === 'own') sayScale(maps);
    element.dataset.drawn = Number(element.dataset.drawn ?? 0) + 1;
    const sentence = backward() ? texts.spoken_backward : texts.spoken;
    if (speak) spoken.textContent = values.map((value) => sagan.fill(sentence, value)).join(' ');
    speak = false;
  }

  function ask() {
    frame ||= requestAnimationFrame(draw);
  }

  function drawAverages() {
    const on = lab.state.average && active().every(({ combined, codes }) => combined || codes);
    const maps = on && answers(point, ({ codes, n }, position) => math.average(codes, ends, n, position, backward()));
    active().forEach((panel, i) => panel.showMean(on, maps ? maps[i] : null));
  }

  /** A dot for every pin. */
  function drawDots() {
    for (const { picture } of panels) {
      picture.querySelector('.dots').replaceChildren(...lab.state.pins.map((pin, i) => {
        const mark = Object.assign(document.createElement('i'), { className: 'pin', textContent: i + 1 });
        const [x, y] = placeOf(pin), { fill, ink } = props.colours[pin.colour];
        mark.style.cssText = `left:${100 * x}%;top:${100 * y}%;--pin:${fill};--ink:${ink}`;
        mark.classList.toggle('chosen', pin === lab.state.chosen);
        return mark;
      }));
    }
  }

  // Words

  /** What the colours mean: the same for all maps, or of each map its own maximum, which is told. */
  function sayScale(maps = []) {
    const own = lab.state.scale === 'own';
    const shared = [1, 4, 16, 64].map((times) => `${{ 1: '≤ ', [math.CEILING]: '≥ ' }[times] ?? ''}${times} ×`);
    const ticks = own ? ['0', '¼', '½', '¾', texts.largest] : shared;
    part('.scale .ticks').replaceChildren(...ticks.map((tick) => Object.assign(document.createElement('span'), { textContent: tick })));
    const tops = maps.map(({ panel, weights }) => `${panel.short} ${panel.times(panel.most(weights))} ×`).join(', ');
    unit.textContent = own ? sagan.fill(texts.scale_own, { tops }) : texts.scale;
  }

  function sayDirection() {
    const words = backward() ? { query: texts.key, keys: texts.queries, best: texts.best_backward } : texts;
    part('.query-name').textContent = words.query;
    part('.keys-name').textContent = words.keys;
    for (const name of element.querySelectorAll('.best-name')) name.textContent = words.best;
    element.classList.toggle('backward', backward());
  }

  function sayPins() {
    ofPoint = false;
    const { length } = lab.state.pins;
    caption.textContent = length ? sagan.fill(pinned, { count: length, most: lab.MOST }) : hint();
  }

  // Pointing

  function look(at, by) {
    point = at;
    if (ofPoint) sayPins();
    if (by !== 'mouse') {
      speak = by === 'keys';
      lab.set({ place: pixel(at), ...(lab.state.chosen && { chosen: null }) });
    }
    if (by === 'touch') {
      element.classList.add('touched'); // then pins need a button
      sayPins();
    }
    ask();
  }

  function leave() {
    if (!lab.state.chosen) return;
    point = placeOf(lab.state.chosen);
    ask();
  }

  /** The pin whose dot is at a point of a picture. */
  function dotAt(picture, [x, y]) {
    const { width } = picture.getBoundingClientRect();
    const far = (pin) => Math.hypot(x - placeOf(pin)[0], y - placeOf(pin)[1]) * width;
    return lab.state.pins.findLast((pin) => far(pin) < 11);
  }

  function pick(panel, at, by) {
    const there = by === 'mouse' && dotAt(panel.picture, at);
    if (there) {
      lab.unpin(there);
      look(at, by);
    } else if (!lab.pin(...pixel(point))) caption.textContent = sagan.fill(texts.full, { most: lab.MOST });
  }

  /** Remove the pin in the cell of the point, else the chosen or the newest one. */
  function drop({ side }) {
    const { pins, chosen } = lab.state;
    const cell = math.position(...point, side);
    const gone = pins.findLast((pin) => math.position(...placeOf(pin), side) === cell) ?? chosen ?? pins.at(-1);
    if (gone) lab.unpin(gone);
  }

  function inFocus() {
    const shown = active();
    return shown.find(({ name }) => name === lab.state.layer) ?? shown.reduce((best, panel) => (!panel.combined && panel.side > (best?.side ?? 0) ? panel : best), null);
  }

  function inTurn() {
    const shown = active(), focus = inFocus();
    for (const panel of panels) {
      panel.figure.hidden = !shown.includes(panel);
      panel.figure.classList.toggle('in-focus', panel === focus);
      panel.figure.querySelector('.focus')?.setAttribute('aria-pressed', panel === focus);
    }
  }

  for (const panel of panels) {
    sagan.pointer(panel.picture, panel.side, {
      point: () => point, look, leave, pick: (at, by) => pick(panel, at, by), drop: () => drop(panel),
    });
    panel.figure.querySelector('.focus')?.addEventListener('click', () => lab.set({ layer: panel.name }));
  }
  if (panels.length) { // a film may have no attention layers
    sagan.bar(part('.scale canvas'), table);
    caption.textContent = hint();
    lab.on((state, changes) => {
      if (changes.chosen) point = placeOf(changes.chosen);
      else if (changes.place) point = middle(changes.place);
      if ('pins' in changes || 'chosen' in changes) drawDots();
      if ('pins' in changes) sayPins();
      if ('scale' in changes) sayScale();
      if ('direction' in changes) sayDirection();
      if ('direction' in changes || 'network' in changes) sayPins();
      if (props.lab && ('network' in changes || 'layer' in changes)) inTurn();
      ask();
    });
  }

  const redraw = () => { cancelAnimationFrame(frame); draw(); };

  return {
    panels,
    answers,
    placeOf,
    focus: inFocus,

    /** The pixel {x, y} that is lit. */
    lit() {
      const [x, y] = pixel(point);
      return { x, y };
    },

    /** Show a picture and what `of(layer)` gives of each of `props.layers`: {q, k, gamma}, vectors as float arrays, or null. */
    show(picture, of) {
      for (const [i, panel] of panels.entries()) {
        sagan.draw(panel.face, i ? panels[0].face : picture); // made smooth once
        if (!panel.combined) panel.take(of(panel));
      }
      this.blend();
      redraw();
    },

    /** Give the layers of a network what came later than the picture. */
    add(network, of) {
      for (const panel of panels) if (panel.network === network && !panel.combined) panel.take(of(panel));
      this.blend();
      redraw();
    },

    blend() {
      for (const panel of panels) {
        if (!panel.combined) continue;
        const single = panels.filter(({ network, combined }) => network === panel.network && !combined);
        if (single.every(({ q }) => q)) panel.blend(math.shares(single.map(({ factor }) => factor)));
      }
    },

    /** Give each layer its average map, `of(layer)`, as codes from [low, high], in log2 of times uniform. */
    average(of, between) {
      ends = between;
      for (const panel of panels) if (!panel.combined) panel.codes = of(panel) ?? null;
      ask();
    },

    pin: () => pick(null, point, 'keys'),

    /** Say to screen readers what is drawn next. */
    speak: () => { speak = true; },

    /** Light the query at `at`, [x, y] in shares of the picture, and say `text` of it, if there is any. */
    light(at, text) {
      lab.set({ place: pixel(at), chosen: null });
      point = at;
      sayPins();
      if (!text) return;
      caption.textContent = `${text} ${hover}`;
      ofPoint = true;
    },

    intoSight: () => sagan.scrollTo(part('.layers')),

    /** Another face: what was told of the one before is not said of it. */
    forget() {
      if (ofPoint) sayPins();
    },
  };
})();
