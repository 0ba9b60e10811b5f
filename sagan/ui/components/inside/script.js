// Both networks, block by block. What a face looks like in all blocks comes at once; a click shows another block without a request.
const { texts } = props;
const blocks = new Map(props.networks.flatMap((network) => network.blocks.map((block) => [block.id, { ...block, network }])));
const table = saganAttention.bytes(props.table); // 256 RGB colours
const part = (selector) => element.querySelector(selector);
const buttons = [...element.querySelectorAll('[data-block]')];
const cells = [...element.querySelectorAll('.cells figure')];
const error = part('.error'), open = part('.open');
const fresh = sagan.keepFresh(element, texts.failed, (number) => (sagan.face ? trigger('want', { number }) : false));

let chosen = props.first;
let drawn = null; // by block: {low, high, levels, gamma}, of the newest face that is here

/** Write levels from 0 to 255 as colours into a canvas of as many pixels. */
function paint(canvas, width, levels) {
  Object.assign(canvas, { width, height: levels.length / width });
  const context = canvas.getContext('2d'), image = context.createImageData(canvas.width, canvas.height);
  saganAttention.colours(levels, table, image.data);
  context.putImageData(image, 0, 0);
}

/** Say what the chosen block does; of a face it only needs gamma. */
function describe() {
  const block = blocks.get(chosen), gamma = drawn?.[chosen].gamma;
  sagan.say(part('.name'), sagan.fill(texts.chosen, { network: block.network.title, block: block.long }));
  sagan.say(part('.does'), sagan.fill(block.does, { gamma: gamma === undefined ? '–' : sagan.figure(gamma) }));
  sagan.say(part('.counted'), block.counted);
  part('.score').hidden = block.kind !== 'score';
  part('.maps').hidden = block.kind === 'score';
  cells.forEach((cell, i) => (cell.hidden = i >= block.shape[0]));
  open.hidden = !(block.is_attention && props.can_open);
  for (const button of buttons) button.setAttribute('aria-pressed', button.dataset.block === chosen);
}

function draw() {
  describe();
  if (!drawn) return;
  const { kind, shape: [, , side] } = blocks.get(chosen), { low, high, levels } = drawn[chosen];
  const bytes = saganAttention.bytes(levels), size = bytes.length / low.length;
  if (kind === 'score') part('.score').textContent = sagan.fill(texts.score_of, { score: sagan.figure(low[0]) });
  else {
    low.forEach((least, i) => {
      const [canvas, caption] = cells[i].children;
      const values = { number: i + 1, low: sagan.figure(least), high: sagan.figure(high[i]) };
      paint(canvas, side, bytes.subarray(i * size, (i + 1) * size));
      canvas.setAttribute('aria-label', sagan.fill(texts.map, values));
      caption.textContent = sagan.fill(least < high[i] ? texts.range : texts.flat, values);
    });
  }
  element.dataset.block = chosen;
}

function receive() {
  if (!props.value) return;
  const value = JSON.parse(props.value);
  error.textContent = value.error ?? '';
  element.classList.remove('empty');
  if (!value.error) {
    drawn = value.blocks;
    draw();
    Object.assign(element.dataset, { seed: value.seed, t: value.t });
  }
  fresh.answered(value.number);
}

for (const button of buttons)
  button.addEventListener('click', () => {
    chosen = button.dataset.block;
    draw();
    sagan.emit('block', chosen);
    sagan.scrollTo(part('.maps:not([hidden]), .score:not([hidden])'), 'nearest');
  });

open.addEventListener('click', () => {
  const { network, name } = blocks.get(chosen);
  sagan.lab.set({ network: network.name, layer: name.replace('attention ', '') });
  trigger('attend');
  // The button goes with its tab: the focus goes on to the face.
  const face = '#attention-view .in-focus .picture';
  sagan.onceShown(face, (picture) => picture.focus({ preventScroll: true }));
});

sagan.bar(part('.scale canvas'), table);
element.classList.add('empty');
describe();
sagan.on('face', ({ picture }) => {
  for (const canvas of element.querySelectorAll('.thumb')) sagan.draw(canvas, picture);
  fresh.stale();
});
watch('value', receive);
receive();
