// The way from seed A to seed B: its strip, and its pictures played by the browser without a request.
const texts = props.texts;
const canvas = element.querySelector('.picture');
const strip = element.querySelector('.strip');
const play = element.querySelector('.play');
const error = element.querySelector('.error');
const fresh = sagan.keepFresh(element, texts.failed, (number) => (wanted ? trigger('want', { number }) : false));
const SECONDS = 4; // from A to B

let way = null; // {key, frames, picture}: all frames below each other in one picture
let wanted = null; // key of the way that belongs to the current face
let playing = 0, t = 0, heading = 1;

const key = ({ seed_a, seed_b, psi, label }) => [seed_a, seed_b, psi, label].join(' ');

/** Only the way of the current face can be played. */
function offerPlay() {
  play.disabled = way?.key !== wanted;
}

function place(share) {
  t = share;
  strip.style.setProperty('--t', share);
  element.dataset.t = share;
}

/** Draw the way at share `t`: its two nearest frames, one over the other. */
function drawFrame() {
  const at = t * (way.frames - 1), low = Math.floor(at), side = way.picture.naturalWidth;
  const context = canvas.getContext('2d');
  sagan.draw(canvas, way.picture, [0, low * side, side, side]);
  if (at > low) {
    context.globalAlpha = at - low;
    sagan.draw(canvas, way.picture, [0, (low + 1) * side, side, side]);
    context.globalAlpha = 1;
  }
}

function showFace({ t: share, picture }) {
  place(share);
  sagan.draw(canvas, picture);
}

function drawStrip() {
  const side = way.picture.naturalWidth, buttons = [...strip.children];
  buttons.forEach((button, i) => {
    const frame = Math.round((i / (buttons.length - 1)) * (way.frames - 1));
    sagan.draw(button.firstChild, way.picture, [0, frame * side, side, side]);
  });
}

async function receive() {
  const value = props.value;
  if (!value) return;
  error.textContent = value.error ?? '';
  if (!value.error) {
    way = { key: key(value), frames: value.frames, picture: await sagan.decode(value.image) };
    element.querySelector('.a').textContent = sagan.fill(texts.a, { seed: value.seed_a });
    element.querySelector('.b').textContent = sagan.fill(texts.b, { seed: value.seed_b });
    drawStrip();
    offerPlay();
  }
  fresh.answered(value.number);
}

const hundredths = (share) => Math.round(100 * share) / 100; // as the slider has them

function tick(before) {
  return (now) => {
    if (!playing) return;
    let next = t + (heading * (now - before)) / 1000 / SECONDS;
    if (next <= 0 || next >= 1) heading = next >= 1 ? -1 : 1;
    place(Math.min(1, Math.max(0, next)));
    drawFrame();
    sagan.emit('preview', canvas);
    sagan.t = hundredths(t);
    trigger('tick');
    playing = requestAnimationFrame(tick(now));
  };
}

function stop() {
  cancelAnimationFrame(playing);
  playing = 0;
  sagan.t = null;
  play.textContent = texts.play;
}

/** Stop where it is: only now Python hears of that face. */
function pause() {
  if (!playing) return;
  stop();
  jump(t);
}

function jump(share) {
  trigger('jump', { t: hundredths(share) });
}

play.addEventListener('click', () => {
  if (playing) return pause();
  play.textContent = texts.pause;
  sagan.t = hundredths(t);
  playing = requestAnimationFrame(tick(performance.now()));
});

for (let i = 0; i < props.count; i++) {
  const share = i / (props.count - 1), button = document.createElement('button');
  button.type = 'button';
  button.setAttribute('aria-label', sagan.fill(texts.step, { percent: Math.round(100 * share) }));
  button.append(Object.assign(document.createElement('canvas'), { width: 128, height: 128 }));
  button.addEventListener('click', () => { stop(); jump(share); });
  strip.append(button);
}
strip.style.setProperty('--count', props.count);

// Playing stops when the tab is left or the way changes.
sagan.whenLeft(canvas, pause);
sagan.on('pause', pause);
sagan.on('asked', stop); // somebody touched a control
// The slider itself at once, or a tick on its way would take it back.
document.addEventListener('input', ({ target }) => { if (playing && target.closest('#t')) stop(); }, true);
sagan.on('face', (face) => {
  const same = wanted === key(face);
  if (same && playing) return;
  stop();
  showFace(face);
  wanted = key(face);
  offerPlay();
  if (!same) fresh.stale();
});
sagan.on('failed', () => { // no face came where the way was paused
  if (sagan.face && !playing && !sagan.pending()) showFace(sagan.face);
});
watch('value', receive);
receive();
