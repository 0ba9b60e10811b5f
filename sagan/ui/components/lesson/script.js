// The way into the tour, and the worksheet: Python writes it, the browser opens it as a page of its own.
const { texts } = props;
const link = element.querySelector('.worksheet'), error = element.querySelector('.error');
const fresh = sagan.keepFresh(element.querySelector('.lesson'), texts.failed, (number) => trigger('want', { number }));

function begin(index) {
  error.textContent = '';
  sagan.emit('tour', index);
}

element.querySelector('.start').addEventListener('click', () => begin(0));
element.querySelectorAll('.step').forEach((step, index) => step.addEventListener('click', () => begin(index)));

function receive() {
  const value = props.value;
  if (!value) return;
  // A page made here has no address of its own, so that its link needs that of this page.
  const sheet = new DOMParser().parseFromString(value.html, 'text/html');
  for (const open of sheet.querySelectorAll('a[data-query]')) {
    open.href = `${location.origin}${location.pathname}${open.dataset.query}`;
    open.textContent = open.href;
  }
  if (link.href) URL.revokeObjectURL(link.href);
  link.href = URL.createObjectURL(new Blob([`<!doctype html>${sheet.documentElement.outerHTML}`], { type: 'text/html' }));
  link.removeAttribute('aria-disabled');
  if (error.textContent === texts.failed) error.textContent = ''; // and not what is said of a step
  fresh.answered(value.number);
}
watch('value', receive);
receive();
