// The gamma dials: what attention adds to this face. Python makes it again for every value that a dial passes.
const { texts } = props;
const { lab } = sagan;
const part = (selector) => element.querySelector(selector);
const fold = part('.fold'), content = part('.content');
const dials = props.dials.map(({ name, gamma }) => {
  const dial = [...element.querySelectorAll('.dial')].find(({ dataset }) => dataset.dial === name);
  return { name, gamma, dial, slider: dial.querySelector('input'), said: dial.querySelector('output') };
});
const times = () => props.dials.map(({ name }) => lab.state.gammas[name] ?? 1);
const fresh = sagan.keepFresh(content, texts.failed, (number) => (sagan.face ? trigger('want', { number, times: times() }) : false), 0);

function turn(name, value) {
  const { [name]: before, ...others } = lab.state.gammas;
  lab.set({ gammas: value === 1 ? others : { ...others, [name]: value } });
}

for (const { name, dial, slider } of dials) {
  slider.addEventListener('input', () => turn(name, Number(slider.value)));
  dial.querySelector('.off').addEventListener('click', () => turn(name, 0));
  dial.querySelector('.learned').addEventListener('click', () => turn(name, 1));
}

lab.on((state, changes) => {
  if (!('gammas' in changes)) return;
  times().forEach((value, i) => {
    const { slider, said, gamma } = dials[i];
    slider.value = value;
    said.textContent = sagan.fill(texts.value, { gamma: sagan.gamma(value * gamma), times: value.toFixed(2) });
    slider.setAttribute('aria-valuetext', said.textContent);
  });
  if (Object.keys(state.gammas).length) fold.open = true; // a link brought them
  fresh.stale();
});

async function receive() {
  const value = props.value;
  if (!value) return;
  fresh.answered(value.number);
  const names = ['off', 'dialled', 'difference'];
  const images = await Promise.all(names.map((name) => sagan.decode(value[name])));
  if (props.value !== value) return; // a newer one came meanwhile
  names.forEach((name, i) => sagan.draw(part(`[data-picture="${name}"]`), images[i]));
  part('.amplified').textContent = sagan.fill(texts.amplified, { factor: value.factor, change: value.change.toFixed(1) });
  part('.error').textContent = '';
  Object.assign(content.dataset, { shown: value.number, factor: value.factor });
}

sagan.on('face', fresh.stale);
watch('value', receive);
receive();
