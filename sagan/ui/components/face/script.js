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
  notice.textContent = face.notice ?? '';
  canvas.setAttribute('aria-label', sagan.fill(texts.alt, { name: name.textContent }));
  sagan.draw(canvas, face.picture);
  element.dataset.seed = seed_a;
  element.dataset.t = t;
});

sagan.on('late', () => trigger('late')); // the controls return to the face that is shown
sagan.on('preview', (picture) => sagan.draw(canvas, picture));

element.querySelector('.download').addEventListener('click', async () => {
  if (!sagan.face) return;
  const { image } = await sagan.settled();
  sagan.download(image, `sagan-${name.textContent.replace(/\W+/g, '-').toLowerCase()}.png`);
});

watch('value', receive);
receive();
