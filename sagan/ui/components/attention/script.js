// The current face and its attention, and the faces worth a look.
const { texts } = props;

function offerCurated() {
  const choices = element.querySelector('.choices');
  element.querySelector('.curated').hidden = !props.curated.length;
  props.curated.forEach(({ seed, text }, index) => {
    const button = document.createElement('button'), title = document.createElement('b');
    Object.assign(button, { type: 'button', className: 'button' });
    title.textContent = sagan.fill(texts.curated_seed, { seed });
    button.append(title, text);
    button.addEventListener('click', () => trigger('curated', { index }));
    choices.append(button);
  });
}

document.body.style.setProperty('--heat', props.opacity);
offerCurated();
sagan.on('face', (face) => {
  if (face.query) layers.light(face.query, face.text);
  element.dataset.seed = face.seed_a;
  layers.show(face.picture, (name) => {
    const { q, k, gamma } = face.layers.find((layer) => layer.name === name);
    return { q: saganAttention.floats(q), k: saganAttention.floats(k), gamma };
  });
});
