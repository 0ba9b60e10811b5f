const texts = props.texts;
let told = 0; // the timer after which "copied" goes
const said = element.querySelector('output');
const byHand = element.querySelector('.by-hand'), field = byHand.querySelector('input');

element.querySelector('.theme').addEventListener('click', () => {
  const dark = document.body.classList.toggle('dark'), address = new URL(location);
  address.searchParams.set('__theme', dark ? 'dark' : 'light'); // Gradio's word, for when the page is loaded again
  history.replaceState(history.state, '', address);
});

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
    clearTimeout(told);
    told = setTimeout(() => { if (said.textContent === texts.copied) said.textContent = ''; }, 2500);
  } catch { // no clipboard without https: offer the link itself
    byHand.hidden = false;
    field.value = link;
    field.focus();
    field.select();
  }
});
const outdated = () => {
  byHand.hidden = true;
  if (said.textContent !== texts.copied) said.textContent = '';
};
sagan.on('face', outdated);
sagan.on('tab', outdated);
sagan.lab.on(outdated);
