const texts = props.texts;
const said = element.querySelector('output');

element.querySelector('.theme').addEventListener('click', () => document.body.classList.toggle('dark'));

element.querySelector('.link')?.addEventListener('click', async () => {
  if (!sagan.face) return;
  const link = sagan.link(await sagan.settled());
  try {
    await navigator.clipboard.writeText(link);
    said.textContent = texts.copied;
    setTimeout(() => (said.textContent = ''), 2500);
  } catch { // no clipboard without https: offer the link itself
    const field = Object.assign(document.createElement('input'), { value: link, readOnly: true, ariaLabel: texts.copy_by_hand });
    said.replaceChildren(texts.copy_by_hand, field);
    field.select();
  }
});
