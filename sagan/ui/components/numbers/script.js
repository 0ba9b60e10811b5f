// The computation behind one point, with its real values. A part of the formula and its numbers light up together.
const { texts, size } = props;
const { lab } = sagan;
const part = (selector) => element.querySelector(selector);
const content = part('.content'), explain = part('.explain');
const fresh = sagan.keepFresh(content, texts.failed, (number) => {
  const { query, index } = subject();
  return sagan.face ? trigger('want', { number, layer: index, query }) : false;
});

/** The layer in focus or, where that has no numbers, the finest, and in it the position of the pin or place. */
function subject() {
  const named = props.layers.findIndex(({ name }) => lab.state.network === 'generator' && name === lab.state.layer);
  const finest = props.layers.reduce((best, { side }, i) => (side > props.layers[best].side ? i : best), 0);
  const index = named < 0 ? finest : named, { side, name } = props.layers[index];
  const [x, y] = lab.subject() ?? [size / 2, size / 2];
  return { index, name, x, y, query: saganAttention.position((x + 0.5) / size, (y + 0.5) / size, side) };
}

const said = (value, digits = 2) => sagan.signed(value, digits).replace(/^−(?=[0.]*$)/, '');

/** A table cell or span of text. */
function box(tag, text, name = '', kind = '') {
  const made = Object.assign(document.createElement(tag), { textContent: text, className: kind });
  if (name) made.dataset.part = name;
  return made;
}

function vector(values) {
  const made = box('span', '', '', 'vector');
  made.append(...values.map((value) => box('span', said(value))));
  return made;
}

function cell(name, ...children) {
  const made = box('td', '', name);
  made.append(...children);
  return made;
}

function receive() {
  const value = props.value;
  if (!value) return;
  part('.error').textContent = '';
  const { name, side } = props.layers[value.layer], n = side * side;
  const place = (position) => sagan.fill(texts.place, { column: position % side, row: Math.floor(position / side) });
  part('.first').textContent = value.width > props.channels ? sagan.fill(texts.first, { count: props.channels }) : texts.every;
  part('.where').textContent = sagan.fill(texts.where, { name, place: place(value.query), width: value.width });
  part('.query .vector').replaceWith(vector(value.q));
  part('.keys tbody').replaceChildren(...value.keys.map((key, j) => {
    const row = document.createElement('tr'), weight = value.weights[j];
    row.append(
      box('td', place(key), '', 'number'),
      cell('k', vector(value.k[j])),
      box('td', said(value.logits[j]), 'logits', 'number'),
      box('td', sagan.fill(texts.weight, { weight: said(weight, 4), times: said(weight * n, 1) }), 'weights', 'number'),
      cell('values', vector(value.values[j])),
    );
    return row;
  }));
  const held = value.weights.reduce((sum, weight) => sum + weight, 0);
  const percent = held > 0.995 && value.keys.length < n ? '> 99' : Math.round(100 * held) || '< 1'; // softmax leaves none out
  part('.rest').textContent = sagan.fill(texts.rest, { percent, all: n.toLocaleString('en') });
  part('.gamma').textContent = said(value.gamma, 3);
  const sums = { attended: value.attended, gamma: value.attended.map((v) => v * value.gamma), x: value.x, y: value.y };
  for (const [name, values] of Object.entries(sums)) {
    const row = part(`.sum [data-part="${name}"]`);
    row.replaceChildren(row.firstElementChild, ...values.map((v) => box('td', said(v))));
  }
  const added = value.added === null ? '' : sagan.fill(texts.added, { times: said(value.added) });
  part('.added').textContent = added;
  Object.assign(content.dataset, { layer: name, query: value.query, shown: value.number });
  fresh.answered(value.number);
}

/** Light a part of the formula and its numbers, and say what it is. */
function light(target) {
  const name = target.closest?.('[data-part]')?.dataset.part;
  if (!name) return;
  for (const other of element.querySelectorAll('[data-part]')) other.classList.toggle('lit', other.dataset.part === name);
  explain.textContent = texts.parts[name];
}
for (const event of ['pointerover', 'focusin', 'click']) content.addEventListener(event, ({ target }) => light(target));

/** On a narrow screen the numbers of a part may lie aside: bring the first of them into sight. */
function reach({ target }) {
  if (!target.closest('.formula [data-part]')) return;
  const box = part('.scroll'), lit = part('.scroll td.lit, .scroll tr.lit');
  if (!lit) return;
  const { left, right } = box.getBoundingClientRect(), { left: from, right: to } = lit.getBoundingClientRect();
  if (from < left || Math.min(to, from + right - left) > right) box.scrollLeft += from - left;
}
for (const event of ['focusin', 'click']) content.addEventListener(event, reach);

for (const input of element.querySelectorAll('.switch input')) {
  input.addEventListener('change', () => lab.set({ network: 'generator', layer: input.value }));
}
lab.on((state, changes) => {
  for (const input of element.querySelectorAll('.switch input')) input.checked = input.value === subject().name;
  if (['pins', 'chosen', 'place', 'layer', 'network'].some((name) => name in changes)) fresh.stale();
});
sagan.on('face', fresh.stale);
watch('value', receive);
receive();
