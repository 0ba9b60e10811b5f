// The guided tour: a card above the tabs. Python shows the face of a step; the rest is set here.
const { texts, steps } = props;
const { lab } = sagan;
const part = (selector) => element.querySelector(selector);
const card = part('.card'), error = part('.error'), back = part('.back'), next = part('.next');

let wanted = null; // the number of the step that was asked for last, null outside the tour
let shown = null; // that of the step on the card
let before = null; // what the page was when the tour began, until it is that again or has another face
let leaving = null; // for as long, {step}: the one on the card that was left
let early = null; // the step that was asked for before there was a face, or before the last tour was left
let marked = null;

const folds = () => [...document.querySelectorAll('details.fold')];

function go(index) {
  if (!sagan.face || leaving) {
    early = index;
    return;
  }
  before ??= { lab: { ...lab.state }, values: sagan.values(), open: folds().filter(({ open }) => open) };
  wanted = index;
  error.textContent = '';
  trigger('go', { index });
}

function mark(target) {
  marked?.classList.remove('toured');
  marked = target;
  marked?.classList.add('toured');
}

function openTab(tab) {
  card.dataset.tab = tab;
  trigger('turn');
}

/** Mark and scroll to what a step is about, as soon as its tab has it. */
function point(index) {
  sagan.onceShown(steps[index].shows, (target) => {
    mark(target);
    sagan.scrollTo(target);
  }, () => index === wanted);
}

/** Keep what a step is about beside the card, also when the card becomes another size. */
function keepRoom() {
  if (shown === null) return;
  document.body.style.setProperty('--tour', `${card.offsetHeight}px`);
  globalThis.parentIFrame?.size(); // the frame does not notice the room that is left for it
  point(shown);
}

function show(index) {
  const { title, say, do: task, see, dice, tab, lab: state, pins, unfold } = steps[index];
  const first = shown === null;
  shown = index;
  card.hidden = false;
  document.body.classList.add('touring');
  part('.count').textContent = sagan.fill(texts.count, { number: index + 1, all: steps.length });
  part('.title').textContent = title;
  part('.say').textContent = say;
  part('.do span').textContent = task;
  part('.see p').textContent = see;
  part('.see').open = false;
  part('.dice').hidden = !dice;
  [...part('.dots').children].forEach((dot, i) => dot.classList.toggle('done', i <= index));
  if (index === 0 && document.activeElement === back) next.focus({ preventScroll: true }); // a disabled button has none
  back.disabled = index === 0;
  next.textContent = index === steps.length - 1 ? texts.finish : texts.next;
  card.dataset.step = index;
  lab.set({ ...lab.FIRST, ...state });
  for (const pin of [...pins, pins[0]]) lab.pin(...pin); // the first is the chosen one
  for (const details of folds()) details.open = unfold !== '' && details.closest(`#${unfold}`) !== null;
  openTab(tab);
  keepRoom();
  if (first) next.focus({ preventScroll: true });
}

/** Leave the tour: the page becomes what it was before. */
function leave() {
  early = null;
  if (wanted === null) return;
  const { lab: state, values: [seed_a, seed_b, t, psi, label], open } = before;
  leaving = { step: shown };
  wanted = shown = null;
  card.hidden = true;
  document.querySelector('.projector[aria-pressed="true"]')?.click(); // it leads back to the Attention tab alone
  document.body.classList.remove('touring');
  mark(null);
  lab.set(state);
  for (const details of folds()) details.open = open.includes(details);
  openTab('lesson');
  trigger('leave', { seed_a, seed_b, t, psi, label });
  // The focus goes back to where the tour begins.
  sagan.onceShown('#lesson-view .start', (start) => start.focus({ preventScroll: true }), () => shown === null);
}

// The buttons say what is shown, and quick clicks run ahead of it.
back.addEventListener('click', () => go(Math.max(0, wanted - 1)));
next.addEventListener('click', () => (shown === steps.length - 1 ? leave() : go(Math.min(steps.length - 1, wanted + 1))));
part('.leave').addEventListener('click', leave);
part('.dice').addEventListener('click', () => document.querySelector('#dice').click()); // it may be far from what it changes
document.addEventListener('keydown', ({ key }) => { // before others: of projector, menus and tour, one at a time
  const others = document.querySelector('body.projector, details.save[open], #label [aria-expanded="true"]');
  if (key === 'Escape' && !others) leave();
}, true);
new ResizeObserver(keepRoom).observe(card);
sagan.on('tour', go);
sagan.on('score', (text) => { part('.score').textContent = text; });
sagan.on('face', ({ step }) => {
  const ours = step !== undefined && wanted !== null;
  if (!sagan.pending()) {
    wanted = ours ? step : shown; // if another face was asked for meanwhile, a step never comes
    if (wanted === null) before = leaving = null; // nor the tour
  }
  if (ours) show(step);
  goNow();
});

/** Go to a step that was asked for too early, if it is not any more. */
function goNow() {
  if (early === null || leaving) return;
  const index = early;
  early = null;
  go(index);
}

sagan.on('failed', (id) => { // once no face is on its way, what the tour asked for will not come
  const ours = element.closest(`#${id}`) || (id === 'face-view' && wanted !== shown) || leaving;
  if (!before || sagan.pending() || !ours) return;
  const step = leaving ? leaving.step : shown;
  const isLeft = leaving && `${sagan.values()}` === `${before.values}`; // it was a face after it that failed
  leaving = null;
  if (isLeft || step === null) before = null;
  if (isLeft) return goNow();
  early = null;
  wanted = step;
  if (step !== shown) show(step); // so that it can be left again
  const inLesson = document.querySelector('#lesson-view .start')?.offsetParent; // else it was to begin from the header
  const said = step !== null ? error : document.querySelector(inLesson ? '#lesson-view .error' : '#header-view output');
  said.textContent = texts.failed;
});
