// A grid of faces. It asks Python for a sheet when it is on screen; a click makes a face the current one.
const texts = props.texts;
const grid = element.querySelector('.grid');
const error = element.querySelector('.error');
const fresh = sagan.keepFresh(element, texts.failed, (number) => trigger('want', { number }));
let sheet = { seeds: [] };
let wanted = null; // truncation and class of the current face, as a string

/** Lay out `count` cells: the space is there before the pictures are. */
function reserve(count) {
  grid.classList.toggle('few', count <= 12);
  while (grid.children.length > count) grid.lastChild.remove();
  while (grid.children.length < count) {
    const cell = document.createElement('button');
    cell.type = 'button';
    cell.setAttribute('aria-label', texts.waiting);
    cell.append(Object.assign(document.createElement('img'), { alt: '', hidden: true }));
    grid.append(cell);
  }
}

function mark() {
  const current = sagan.face ? sheet.seeds.indexOf(sagan.named(sagan.face)) : -1;
  [...grid.children].forEach((cell, i) => {
    const seed = sheet.seeds[i];
    if (seed === undefined) return;
    const here = i === current;
    cell.setAttribute('aria-current', here);
    cell.setAttribute('aria-label', sagan.fill(here ? texts.current : texts.face, { seed }));
    cell.tabIndex = i === Math.max(0, current) ? 0 : -1; // one tab stop; arrow keys move inside
  });
}

function receive() {
  const value = props.value;
  if (!value) return;
  error.textContent = value.error ?? '';
  if (!value.error) {
    sheet = value;
    element.classList.remove('empty');
    reserve(sheet.seeds.length);
    sheet.images.forEach((image, i) => Object.assign(grid.children[i].firstChild, { src: image, hidden: false }));
    mark();
  }
  fresh.answered(value.number);
}

grid.addEventListener('click', (event) => {
  const i = [...grid.children].indexOf(event.target.closest('button'));
  if (i >= 0 && i < sheet.seeds.length) trigger('pick', { seed: sheet.seeds[i] });
});

grid.addEventListener('keydown', (event) => {
  if (sagan.browsersOwn(event)) return;
  const columns = getComputedStyle(grid).gridTemplateColumns.split(' ').length;
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
  const next = grid.children[[...grid.children].indexOf(document.activeElement) + step];
  if (!next) return;
  event.preventDefault();
  document.activeElement.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
});

element.querySelector('.download').addEventListener('click', () => {
  const pictures = [...grid.querySelectorAll('img:not([hidden])')];
  if (!pictures.length) return;
  const columns = Math.ceil(Math.sqrt(pictures.length));
  const side = pictures[0].naturalWidth, gap = 2, pitch = side + gap;
  const canvas = document.createElement('canvas');
  canvas.width = columns * pitch + gap;
  canvas.height = Math.ceil(pictures.length / columns) * pitch + gap;
  const context = canvas.getContext('2d');
  context.fillStyle = 'white';
  context.fillRect(0, 0, canvas.width, canvas.height);
  pictures.forEach((picture, i) =>
    context.drawImage(picture, gap + (i % columns) * pitch, gap + Math.floor(i / columns) * pitch));
  sagan.download(canvas.toDataURL('image/png'), `sagan-sheet-${sheet.seeds[0]}${sagan.ofClass(sheet)}.png`);
});

// The controls under the grid report here: how many faces are wanted now.
sagan.on('sheet', (count) => {
  reserve(count);
  fresh.stale();
});

element.classList.add('empty');
reserve(props.count);
sagan.on('face', (face) => {
  mark();
  const before = wanted;
  wanted = `${face.psi} ${face.label}`;
  if (wanted !== before) fresh.stale();
});
watch('value', receive);
receive();
