// Receives the current face from Python, hands it to all views, and shows it.
const texts = props.texts;
const canvas = element.querySelector('canvas');
const name = element.querySelector('.name');
const notice = element.querySelector('.notice');

function receive() {
  if (props.value) sagan.show(props.value);
}

sagan.on('face', (face) => {
  const { seed_a, seed_b, t } = face;
  if (t === 0 || t === 1) name.textContent = sagan.fill(texts.seed, { seed: t ? seed_b : seed_a });
  else name.textContent = sagan.fill(texts.between, { percent: Math.round(100 * t), seed_a, seed_b });
  canvas.setAttribute('aria-label', sagan.fill(texts.alt, { name: name.textContent }));
  sagan.draw(canvas, face.picture);
  element.dataset.seed = seed_a;
  element.dataset.t = t;
});

sagan.on('link', ({ notice: text }) => { notice.textContent = text; });
sagan.on('asked', () => { notice.textContent = ''; }); // by somebody who may have read it

// Who waits sees it, but a quick answer dims nothing.
const SLOW = 300; // ms
let timer = 0;

function wait(on) {
  clearTimeout(timer);
  const dim = (so) => document.body.classList.toggle('waiting-for-face', so);
  timer = on ? setTimeout(dim, SLOW, true) : 0;
  if (!on) dim(false);
}
sagan.on('asked', () => { if (!timer) wait(true); });
sagan.on('face', () => wait(sagan.pending()));
sagan.on('failed', () => {
  if (sagan.pending()) return;
  wait(false);
  if (!sagan.face) notice.textContent = texts.none; // the address still says which one was wanted
  if (sagan.face && sagan.t === null) sagan.draw(canvas, sagan.face.picture); // in the place of a way's last picture
});

// The address says what is shown, so that a page that is loaded again shows it again. Words of others in it stay, and
// during the tour what was shown before.
let writing = 0, toured = null; // a face of the tour, which is on screen until that from before comes back

function noteInAddress() {
  if (document.body.classList.contains('touring')) toured = sagan.face;
  clearTimeout(writing);
  writing = setTimeout(() => {
    const { face } = sagan; // one of a step may come when the tour is left
    if (!face || face === toured || face.step !== undefined || sagan.t !== null) return;
    const { searchParams: said } = new URL(sagan.link(face));
    for (const [word, value] of new URLSearchParams(location.search)) if (!sagan.isOurs(word)) said.append(word, value);
    history.replaceState(history.state, '', `${location.pathname}?${said}${location.hash}`);
  }, 500);
}
sagan.on('face', noteInAddress);
sagan.on('failed', noteInAddress);
sagan.on('tab', noteInAddress);
sagan.lab.on(noteInAddress);

sagan.on('late', () => trigger('late')); // the controls return to the face that is shown
sagan.on('preview', (picture) => sagan.draw(canvas, picture));

// Gradio's reset leads to what a slider was when its tab was opened first, which may be what a link said.
document.addEventListener('click', (event) => {
  const slider = event.target.closest('.reset-button')?.closest('[id]');
  if (!(slider?.id in props.starts)) return;
  event.stopPropagation();
  const box = slider.querySelector('input[type=number]');
  box.value = props.starts[slider.id];
  box.dispatchEvent(new Event('input', { bubbles: true }));
}, true);

element.querySelector('.download').addEventListener('click', async () => {
  if (!sagan.face) return;
  const face = await sagan.settled();
  if (face) sagan.download(face.image, `sagan-seed-${sagan.named(face)}${sagan.ofClass(face)}.png`);
});

watch('value', receive);
receive();
