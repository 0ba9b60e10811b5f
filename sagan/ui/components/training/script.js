// The film of the training and its curves. Both come once, when the tab is first opened; from then on the browser is alone.
const { texts, seeds, side } = props;
const slider = element.querySelector('.transport input');
const play = element.querySelector('.play');
const said = element.querySelector('.moment');
const error = element.querySelector('.error');
const buttons = [...element.querySelectorAll('.strip button')];
const SECONDS = 8; // from the first moment to the last
const FEW = 40; // points of the metric that are marked each, since nothing was measured between them
const fresh = sagan.keepFresh(element, texts.failed, (number) => trigger('want', { number }));

let moments = []; // [{step, images, otherRun}]
let film = null; // arrays by name, those of all moments and faces one after the other
let loading = false;
let at = 0, chosen = 0, playing = 0;

// The film

/** The part of an array that belongs to face `i` of the moment. */
function of(array, i) {
  const length = array.length / moments.length / seeds.length, from = (at * seeds.length + i) * length;
  return array.subarray(from, from + length);
}

const face = Object.assign(document.createElement('canvas'), { width: side, height: side });
const image = face.getContext('2d').createImageData(side, side);

/** Draw face `i` of the moment on the small canvas, pixel by pixel. */
function develop(i) {
  const rgb = of(film.faces, i);
  for (let from = 0, to = 0; from < rgb.length; image.data[to++] = 255)
    for (let channel = 0; channel < 3; channel++) image.data[to++] = rgb[from++];
  face.getContext('2d').putImageData(image, 0, 0);
  return face;
}

function drawLayers() {
  layers.show(develop(chosen), ({ name }) => ({
    q: saganAttention.halves(of(film[`${name}/q`], chosen)),
    k: saganAttention.halves(of(film[`${name}/k`], chosen)),
    gamma: film[`${name}/gamma`][at],
  }));
}

function choose(i) {
  chosen = i;
  buttons.forEach((button, j) => button.setAttribute('aria-pressed', i === j));
  element.dataset.seed = seeds[i];
  if (film) drawLayers();
}

// The curves, over log2(1 + kimg), on which the moments are about evenly spread

const place = (images) => Math.log2(1 + images / 1000);
const whole = (number) => number.toLocaleString('en');
const brief = new Intl.NumberFormat('en', { notation: 'compact', maximumSignificantDigits: 3 });
const { figure } = sagan;
const charts = props.charts.map(({ id, lines }) => {
  const chart = element.querySelector(`[data-chart="${id}"]`), all = (selector) => [...chart.querySelectorAll(selector)];
  return {
    id, chart, names: lines, plot: chart.querySelector('.plot'), cursor: chart.querySelector('.cursor'),
    title: chart.querySelector('h2').textContent, paths: all('.curves path'), points: chart.querySelector('.points'), dots: all('.dot'), values: all('.lines b'),
    lines: [], low: 0, high: 1,
  };
});
let end = 1; // images shown at the right edge

const across = (images) => (100 * place(images)) / place(end);
const down = ({ low, high }, value) => 100 - (90 * (value - low)) / (high - low || 1) - 5;

function drawCurves(curves) {
  end = Math.max(...curves.flat(2).map(([images]) => images), ...moments.map(({ images }) => images));
  charts.forEach((chart, c) => {
    chart.lines = curves[c];
    const values = chart.lines.flat().map(([, value]) => value);
    chart.low = Math.min(...values);
    chart.high = Math.max(...values);
    const corner = ([images, value]) => `${across(images).toFixed(2)} ${down(chart, value).toFixed(2)}`;
    chart.lines.forEach((points, i) => chart.paths[i].setAttribute('d', `M${points.map(corner).join('L')}`));
    const few = chart.id === 'metric' && chart.lines[0].length <= FEW ? chart.lines[0] : [];
    chart.points.setAttribute('d', few.map((point) => `M${corner(point)}h0`).join(''));
    chart.chart.querySelector('.high').textContent = figure(chart.high);
    chart.chart.querySelector('.low').textContent = figure(chart.low);
    drawAxis(chart.chart);
  });
}

function drawAxis(chart) {
  const ticks = [0, end];
  for (let images = 1000; images < end; images *= 10) if (across(images) > 12 && across(images) < 86) ticks.splice(-1, 0, images);
  chart.querySelector('.images').replaceChildren(...ticks.map((images) => {
    const tick = Object.assign(document.createElement('span'), { textContent: brief.format(images) });
    tick.style.left = `${across(images)}%`;
    return tick;
  }));
  const lines = (all, kind = '') => all.map((images) => `<line class="${kind}" x1="${across(images)}" x2="${across(images)}" y2="100"/>`).join('');
  chart.querySelector('.grid').innerHTML = lines(ticks.slice(1, -1)) + lines(props.joints, 'joint');
}

/** The newest point of a line that is not later than the moment. */
const known = (points) => points.findLast(([images]) => images <= moments[at].images + 0.5);

function drawCursors() {
  const x = across(moments[at].images);
  for (const chart of charts) {
    chart.cursor.setAttribute('x1', x);
    chart.cursor.setAttribute('x2', x);
    const spoken = chart.lines.map((points, i) => {
      const point = known(points), value = point ? figure(point[1]) : '–';
      chart.values[i].textContent = value;
      chart.dots[i].hidden = !point;
      if (point) chart.dots[i].style.cssText = `left:${across(point[0])}%;top:${down(chart, point[1])}%`;
      return `${chart.names[i]} ${value}`;
    });
    chart.plot.setAttribute('aria-label', sagan.fill(texts.chart, { title: chart.title, values: spoken.join(', ') }));
  }
}

// The moment

function show(moment) {
  at = moment;
  slider.value = at;
  const { step, images, otherRun } = moments[at];
  said.textContent = sagan.fill(texts.at, { step: whole(step), images: whole(images) }) + (otherRun ? '*' : '');
  slider.setAttribute('aria-valuetext', said.textContent);
  Object.assign(element.dataset, { step, images });
  if (film) {
    buttons.forEach((button, i) => sagan.draw(button.firstElementChild, develop(i)));
    drawLayers();
  }
  drawCursors();
}

function pause() {
  clearInterval(playing);
  playing = 0;
  play.textContent = texts.play;
}

play.addEventListener('click', () => {
  if (playing) return pause();
  if (moments.length < 2) return;
  if (at === moments.length - 1) show(0);
  play.textContent = texts.pause;
  playing = setInterval(() => {
    show(at + 1);
    if (at === moments.length - 1) pause();
  }, (1000 * SECONDS) / moments.length);
});

slider.addEventListener('input', () => { pause(); if (moments.length) show(Number(slider.value)); });

/** Go to the moment nearest to the pointer on a curve. */
function scrub(event) {
  if (!moments.length) return;
  const box = event.currentTarget.getBoundingClientRect(), x = (100 * (event.clientX - box.left)) / box.width;
  const distance = ({ images }) => Math.abs(across(images) - x);
  pause();
  show(moments.reduce((best, moment, i) => (distance(moment) < distance(moments[best]) ? i : best), 0));
}

for (const { plot } of charts) {
  let from = null; // where a finger is that has not moved sideways yet: up or down it scrolls the page
  plot.addEventListener('pointerdown', (event) => {
    if (!event.isPrimary) return;
    from = event.pointerType === 'mouse' ? null : event;
    if (!from) scrub(event);
  });
  plot.addEventListener('pointermove', (event) => {
    if (!event.buttons || !event.isPrimary) return;
    if (from && Math.abs(event.clientX - from.clientX) <= Math.abs(event.clientY - from.clientY)) return;
    from = null;
    scrub(event);
  });
  plot.addEventListener('click', scrub); // a finger taps
}

buttons.forEach((button, i) => button.addEventListener('click', () => {
  choose(i);
  trigger('pick', { seed: seeds[i] });
}));

async function receive() {
  const value = props.value;
  if (!value) return;
  fresh.answered(value.number); // what takes its time from here on is a download that shows how far it is
  if (loading || moments.length) return;
  loading = true;
  error.textContent = '';
  try {
    if (value.film) {
      const progress = (share) => { said.textContent = sagan.fill(texts.loading, { percent: Math.round(100 * share) }); };
      film = sagan.files.arrays(await fresh.during(sagan.files.fetch(value.film, progress)));
      moments = Array.from(film.step, (step, i) => (
        { step: Number(step), images: Number(film.images[i]), otherRun: Boolean(film.other_run?.[i]) }));
    } else moments = value.moments;
  } catch {
    return sagan.emit('failed', element.closest('.view').id);
  } finally {
    loading = false;
  }
  if (moments.some(({ otherRun }) => otherRun)) element.querySelector('.help').append(document.createElement('br'), texts.other_run);
  slider.max = moments.length - 1;
  drawCurves(value.curves);
  show(moments.length - 1);
}

sagan.whenLeft(element, pause);
choose(0);
sagan.on('face', ({ seed_a, t, label }) => {
  const i = seeds.indexOf(seed_a);
  if (i >= 0 && t === 0 && i !== chosen && (label === null || label === props.labels[i])) choose(i);
});
watch('value', receive);
receive();
