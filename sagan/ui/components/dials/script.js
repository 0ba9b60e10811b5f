// The gamma dials: what attention adds to this face. Python makes it again for every value that a dial passes, and
// for every choice of maps.
const { texts } = props;
const { lab } = sagan;
const part = (selector) => element.querySelector(selector);
const fold = part('.fold'), content = part('.content');
const dials = props.dials.map(({ name, gamma }) => {
  const dial = [...element.querySelectorAll('.dial')].find(({ dataset }) => dataset.dial === name);
  return { name, gamma, dial, slider: dial.querySelector('input'), said: dial.querySelector('output') };
});
const AT_PINS = ['masked', 'told'], OF_B = ['b', 'told']; // choices that have to do with pins, and with face B
const choices = [...element.querySelectorAll('.maps input')];
const times = () => props.dials.map(({ name }) => lab.state.gammas[name] ?? 1);
const fresh = sagan.keepFresh(content, texts.failed, ask, 0);

function ask(number) {
  if (!sagan.face) return false;
  const maps = choices.findIndex(({ value }) => value === lab.state.maps);
  trigger('want', { number, times: times(), maps, pins: lab.state.pins.flatMap(({ x, y }) => [x, y]) });
}

function turn(name, value) {
  const { [name]: before, ...others } = lab.state.gammas;
  lab.set({ gammas: value === 1 ? others : { ...others, [name]: value } });
}

for (const { name, dial, slider } of dials) {
  slider.addEventListener('input', () => turn(name, Number(slider.value)));
  dial.querySelector('.off').addEventListener('click', () => turn(name, 0));
  dial.querySelector('.learned').addEventListener('click', () => turn(name, 1));
}

/** By what face B is the face itself: where both have one seed, at the end of a walk, or where all faces are one. */
function whySame({ seed_a, seed_b, t, psi }) {
  if (psi === 0) return 'psi';
  return seed_a === seed_b ? 'seed' : t === 1 && 't';
}

// Perhaps nothing is pinned, or all is off.
function sayHow() {
  const { face } = sagan, { maps, pins } = lab.state;
  const same = OF_B.includes(maps) && face && whySame(face);
  const off = maps !== 'own' && times().every((value) => value === 0), nothing = AT_PINS.includes(maps) && !pins.length;
  part('.how').textContent = off ? texts.no_gammas : same ? texts.same[same] : nothing ? texts.no_pins : texts.how[maps];
}

for (const choice of choices) choice.addEventListener('change', () => lab.set({ maps: choice.value }));

lab.on((state, changes) => {
  const dialled = 'gammas' in changes || 'maps' in changes;
  if (!dialled && !('pins' in changes && AT_PINS.includes(state.maps))) return;
  for (const choice of choices) choice.checked = choice.value === state.maps;
  sayHow();
  times().forEach((value, i) => {
    const { slider, said, gamma } = dials[i];
    slider.value = value;
    said.textContent = sagan.fill(texts.value, { gamma: sagan.gamma(value * gamma), times: value.toFixed(2) });
    slider.setAttribute('aria-valuetext', said.textContent);
  });
  if (dialled && (Object.keys(state.gammas).length || state.maps !== 'own')) fold.open = true; // a link brought them
  fresh.stale();
});

async function receive() {
  const value = props.value;
  if (!value) return;
  fresh.answered(value.number);
  const names = ['off', 'dialled', 'difference', 'learned'];
  const images = await Promise.all(names.map((name) => sagan.decode(value[name])));
  if (props.value !== value) return; // a newer one came meanwhile
  names.forEach((name, i) => sagan.draw(part(`[data-picture="${name}"]`), images[i]));
  const grey = { factor: value.factor, change: value.change.toFixed(1), other: value.other?.toFixed(1) };
  sagan.say(part('.amplified'), sagan.fill(value.other === null ? texts.amplified : texts.amplified_maps, grey));
  const learned = value.seed_b === null ? texts.as_learned : sagan.fill(texts.b, { seed: value.seed_b });
  part('.face').textContent = learned;
  part('[data-picture="learned"]').setAttribute('aria-label', learned);
  part('.error').textContent = '';
  Object.assign(content.dataset, { shown: value.number, factor: value.factor });
}

sagan.on('face', () => { sayHow(); fresh.stale(); });
watch('value', receive);
receive();
