// The lab: the current face and its attention in both networks, the average over many faces, and faces worth a look.
const { texts } = props;
const { lab } = sagan;
const status = element.querySelector('.status'), error = element.querySelector('.error');
const vectors = ({ q, k, gamma }) => ({ q: saganAttention.floats(q), k: saganAttention.floats(k), gamma });
const among = (given) => ({ name }) => vectors(given.find((layer) => layer.name === name));

/** On a small screen the choices lie far below the pictures that they change. */
function comeIntoSight() {
  const { top, bottom, height } = layers.focus().picture.getBoundingClientRect();
  const { above, below } = sagan.hidden;
  if (bottom < above + height / 2 || top > innerHeight - below - height / 2) layers.intoSight();
}

function offerCurated() {
  const choices = element.querySelector('.choices');
  element.querySelector('.curated').hidden = !props.curated.length;
  props.curated.forEach(({ seed, text }, index) => {
    const button = document.createElement('button'), title = document.createElement('b');
    Object.assign(button, { type: 'button', className: 'button' });
    title.textContent = sagan.fill(texts.curated_seed, { seed });
    button.append(title, text);
    button.addEventListener('click', () => {
      lab.set({ direction: 'forward', network: 'generator', layer: null }); // of these the sentence speaks
      comeIntoSight();
      trigger('curated', { index });
    });
    choices.append(button);
  });
}

// The discriminator looks at the face when somebody wants to see it

const inTurn = () => lab.state.network === 'discriminator';
const fresh = sagan.keepFresh(element, texts.failed, (number) => {
  if (inTurn()) return sagan.face ? trigger('discriminator', { number }) : false;
  fresh.answered(number);
}, 0);
let score = null; // of the face that is shown, once it is known

function sayScore() {
  const known = inTurn() && score !== null;
  status.textContent = known ? sagan.fill(texts.score, { score: sagan.signed(score, 2) }) : '';
  sagan.emit('score', status.textContent);
}

function receiveDiscriminator({ number, of, score: given, layers: vectorsOf }) {
  const { seed_a, seed_b, t, psi, label } = sagan.face;
  if (JSON.stringify(of) === JSON.stringify([seed_a, seed_b, t, psi, label])) {
    score = given;
    layers.add('discriminator', among(vectorsOf));
    pins.draw();
    sayScore();
  }
  fresh.answered(number);
}

// The average over many faces comes once, as a file

let averages = 'none'; // then 'asked', 'coming' and 'here'

function wantAverages() {
  if (!props.averages) {
    lab.set({ average: false });
    status.textContent = texts.no_averages;
  } else if (averages === 'none') {
    averages = 'asked';
    trigger('average', { number: Date.now() });
  }
}

async function receiveAverages({ file }) {
  if (averages !== 'asked') return;
  averages = 'coming';
  const progress = (share) => sagan.say(status, sagan.fill(texts.averages_loading, { percent: 10 * Math.floor(10 * share) })); // read out
  try {
    const { about, ...codes } = sagan.files.arrays(await sagan.files.fetch(file, progress));
    for (const said of element.querySelectorAll('.faces')) said.textContent = sagan.fill(texts.average, about);
    layers.average(({ id }) => codes[id], [Number(about.low), Number(about.high)]);
    averages = 'here';
    sayScore();
  } catch {
    averages = 'asked';
    sagan.emit('failed', element.closest('.view').id);
  }
}

sagan.on('failed', (id) => {
  if (!element.closest(`#${id}`)) return;
  sayScore();
  if (averages === 'asked') {
    averages = 'none';
    lab.set({ average: false });
  }
});

function receiveFile(value) {
  saving.receive(value);
  sayScore();
}

const receivers = { discriminator: receiveDiscriminator, average: receiveAverages, file: receiveFile };

function receive() {
  if (!props.value) return;
  error.textContent = '';
  receivers[props.value.kind](props.value);
}

document.body.style.setProperty('--heat', props.opacity);
offerCurated();
lab.on((state, changes) => {
  if (changes.average) wantAverages();
  if (!('network' in changes)) return;
  if (inTurn() && score === null) fresh.stale();
  sayScore();
});
sagan.on('face', (face) => {
  error.textContent = '';
  if (face.query) layers.light(face.query, face.text);
  else layers.forget();
  element.dataset.seed = face.seed_a;
  score = null;
  const own = among(face.layers);
  layers.show(face.picture, (layer) => (layer.network === 'generator' ? own(layer) : null));
  pins.draw();
  sayScore();
  fresh.stale();
});
watch('value', receive);
receive();
