// The pins of the lab: a card for each, with its maps, which stay while faces come and go. A part beside "layers".
const pins = (() => {
  const { texts, colours } = props;
  const { lab } = sagan;
  const section = element.querySelector('.pins'), list = section.querySelector('.cards');
  const touch = matchMedia('(hover: none)').matches;
  const clear = section.querySelector('.clear'), hint = section.querySelector('.hint');
  const cards = new Map(); // by pin
  let frame = 0;

  function make(tag, className, ...children) {
    const made = Object.assign(document.createElement(tag), { className });
    made.append(...children);
    return made;
  }

  function card(pin) {
    const number = make('span', 'pin number'), name = make('b', ''), remove = make('button', 'button remove', '×');
    const maps = make('button', 'maps');
    maps.type = remove.type = 'button';
    const item = make('li', 'card', make('div', 'title', number, name, remove), maps);
    item.style.cssText = `--pin:${colours[pin.colour].fill};--ink:${colours[pin.colour].ink}`;
    const gone = () => {
      const next = item.nextElementSibling ?? item.previousElementSibling;
      lab.unpin(pin);
      (next?.querySelector('.maps') ?? element.querySelector('.picture')).focus();
    };
    remove.addEventListener('click', gone);
    maps.addEventListener('click', () => {
      lab.set({ chosen: pin });
      layers.speak();
    });
    item.addEventListener('keydown', (event) => {
      if (['Delete', 'Backspace'].includes(event.key) && !sagan.browsersOwn(event)) gone();
    });
    return { item, number, name, remove, maps, drawn: [] };
  }

  /** As many pictures in a card as there are layers, each a face, a field and a marker. */
  function frames({ maps, drawn }, count) {
    if (drawn.length === count) return drawn;
    const canvas = (className) => Object.assign(make('canvas', className), { width: 192, height: 192 });
    const made = Array.from({ length: count }, () => {
      const face = canvas('face'), field = canvas('field'), here = make('i', 'here'), says = make('span', 'says');
      field.getContext('2d').globalCompositeOperation = 'copy';
      return { face, field, here, says, whole: make('span', '', make('span', 'map', face, field, here), says) };
    });
    maps.replaceChildren(...made.map(({ whole }) => whole));
    drawn.splice(0, Infinity, ...made);
    return drawn;
  }

  function drawCard(pin, i) {
    const { item, number, name, remove, maps } = cards.get(pin);
    const values = { number: i + 1, x: pin.x, y: pin.y };
    number.textContent = i + 1;
    name.textContent = sagan.fill(texts.pin, values);
    remove.setAttribute('aria-label', sagan.fill(texts.pin_remove, values));
    item.classList.toggle('chosen', pin === lab.state.chosen);
    maps.setAttribute('aria-pressed', pin === lab.state.chosen);
    const place = layers.placeOf(pin), answers = layers.answers(place)?.filter(({ panel }) => !panel.combined);
    const shown = layers.panels.filter(({ combined, network }) => !combined && network === lab.state.network);
    const drawn = frames(cards.get(pin), shown.length);
    drawn.forEach(({ face, field, here, says }, at) => {
      const panel = shown[at], { side } = panel, position = saganAttention.position(...place, side);
      const weights = answers?.[at].weights ?? null; // to come, while the discriminator looks
      let [times, bits] = ['–', '–'];
      sagan.draw(face, panel.face);
      sagan.panel.mark(here, position, side);
      if (weights) {
        panel.paint(field, weights);
        times = panel.times(panel.most(weights));
        bits = saganAttention.measures(weights, position, side, props.size).bits.toFixed(1);
      } else field.getContext('2d').clearRect(0, 0, field.width, field.height);
      says.textContent = sagan.fill(texts.pin_says, { name: panel.name, times, bits });
      field.weights = weights;
    });
    values.says = drawn.map(({ says }) => says.textContent).join('; '); // a label hides what the button holds
    maps.setAttribute('aria-label', sagan.fill(texts.pin_show, values));
  }

  function draw() {
    frame = 0;
    const { pins } = lab.state;
    for (const [pin, { item }] of cards) if (!pins.includes(pin)) { item.remove(); cards.delete(pin); }
    for (const pin of pins) {
      if (!cards.has(pin)) cards.set(pin, card(pin));
      if (!cards.get(pin).item.isConnected) list.append(cards.get(pin).item);
    }
    pins.forEach(drawCard);
    clear.disabled = !pins.length;
    hint.textContent = pins.length ? '' : touch ? texts.pins_hint_touch : texts.pins_hint;
    section.dataset.pins = pins.length;
    offerMost();
  }

  /** Pin the places that receive most in a layer instead of any others, choose the first, and show who looks at them. */
  function pinMost({ q, k, n, side }) {
    const middle = (cell) => Math.floor(((cell + 0.5) * props.size) / side);
    const best = saganAttention.strongest(saganAttention.received(q, k, n), lab.MOST);
    lab.clear();
    lab.set({ direction: 'backward' });
    for (const position of [...best, best[0]]) lab.pin(middle(position % side), middle(Math.floor(position / side)));
  }

  const offers = layers.panels.filter(({ combined }) => !combined).map((panel) => {
    const button = make('button', 'button', panel.name);
    button.type = 'button';
    button.setAttribute('aria-label', sagan.fill(texts.pin_most_of, { name: panel.name }));
    button.addEventListener('click', () => pinMost(panel));
    section.querySelector('.most').append(button);
    return { panel, button };
  });

  function offerMost() {
    for (const { panel, button } of offers) {
      button.hidden = panel.network !== lab.state.network;
      button.disabled = !panel.q;
    }
  }

  const ask = () => { frame ||= requestAnimationFrame(draw); };
  clear.addEventListener('click', () => {
    lab.clear();
    element.querySelector('.picture').focus({ preventScroll: true }); // the button has nothing left to do
  });
  section.querySelector('.pin-here').addEventListener('click', () => layers.pin());
  lab.on((state, changes) => {
    if (['pins', 'chosen', 'direction', 'scale', 'network', 'layer'].some((name) => name in changes)) ask();
  });
  return { draw: ask };
})();
