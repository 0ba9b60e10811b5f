const texts = props.texts;
const said = element.querySelector('output');
const byHand = element.querySelector('.by-hand'), field = byHand.querySelector('input');

element.querySelector('.theme').addEventListener('click', () => document.body.classList.toggle('dark'));

element.querySelector('.tour')?.addEventListener('click', () => {
  said.textContent = '';
  sagan.emit('tour', 0);
});

element.querySelector('.link')?.addEventListener('click', async () => {
  if (!sagan.face) return;
  const face = await sagan.settled();
  if (!face) return;
  const link = sagan.link(face);
  try {
    await navigator.clipboard.writeText(link);
    said.textContent = texts.copied;
    setTimeout(() => (said.textContent = ''), 2500);
  } catch { // no clipboard without https: offer the link itself
    byHand.hidden = false;
    field.value = link;
    field.focus();
    field.select();
  }
});
const outdated = () => { byHand.hidden = true; };
sagan.on('face', outdated);
sagan.on('tab', outdated);
sagan.lab.on(outdated);
