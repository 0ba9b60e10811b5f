// Spectral norm of one layer: its singular values, and the power iteration line by line. All of a layer comes at once.
const { texts } = props;
const part = (selector) => element.querySelector(selector);
const select = part('select'), slider = part('input'), play = part('.play'), error = part('.error');
const lines = [...element.querySelectorAll('.algebra li')];
const TURN = 3; // lines of a round: v, u, σ; the two others follow after the last round
const fresh = sagan.keepFresh(element, texts.failed, (number) => trigger('want', { number, layer: chosen, seed }));
const { figure } = sagan;

let chosen = props.first; // number of the layer
let seed = 1; // of the random vector
let layer = null; // what Python said of it
let at = 0, playing = 0;

// Singular values, largest first; both scales logarithmic

const LEFT = 5, TOP = 14, BOTTOM = 96, FAINTEST = 1e-4; // values below this share of the largest lie on the lower edge

function drawValues() {
  const { before, after } = layer, curves = [before ?? [], after], count = after.length;
  const top = Math.max(...curves.flatMap((values) => [...values.slice(0, 1)]));
  const least = Math.min(...curves.flatMap((values) => [...values]).filter((value) => value > 0));
  const bottom = Math.min(Math.max(least, top * FAINTEST), top / 2);
  const across = (rank) => LEFT + ((100 - LEFT) * Math.log(rank)) / Math.log(count === 1 ? 2 : count);
  const down = (value) => TOP + ((BOTTOM - TOP) * Math.log(top / Math.max(value, bottom))) / Math.log(top / bottom);

  [part('.values path.before'), part('.values path.after')].forEach((path, c) => {
    const corners = Array.from(curves[c], (value, i) => `${across(i + 1).toFixed(3)} ${down(value).toFixed(3)}`);
    path.setAttribute('d', corners.length ? `M${corners.join('L')}` : '');
  });
  for (const [name, values] of [['before', before], ['after', after]]) {
    const place = values ? `left:${LEFT}%;top:${down(values[0])}%` : '';
    for (const mark of [part(`.dot.${name}`), part(`.mark.${name}`)]) Object.assign(mark, { hidden: !values }).style.cssText = place;
    part(`.mark.${name}`).textContent = values ? figure(values[0]) : '';
    part(`.lines .${name}`).hidden = !values;
  }
  const apart = before ? down(after[0]) - down(before[0]) : Infinity; // in percent; labels this close would overlap
  part('.mark.after').classList.toggle('below', Math.abs(apart) < 5 && apart >= 0);
  part('.mark.before').classList.toggle('below', Math.abs(apart) < 5 && apart < 0);
  const drop = { x1: LEFT, x2: LEFT, y1: before ? down(before[0]) : 0, y2: before ? down(after[0]) : 0 };
  for (const [name, value] of Object.entries(drop)) part('.drop').setAttribute(name, value);
  drawTicks(top, bottom, count, across, down);

  const said = sagan.fill(texts[`${count === 1 ? 'one' : 'said'}_${before ? 'both' : 'after'}`], {
    sigma: before && figure(before[0]), least: before && figure(before.at(-1)), largest: figure(after[0]), small: figure(after.at(-1)),
  });
  sagan.say(part('.said'), before ? said : `${said} ${texts.not_known}`);
  part('.values .plot').setAttribute('aria-label', sagan.fill(texts.values_label, { layer: select.selectedOptions[0].textContent, said }));
}

/** Round numbers on both axes: heights 1, 2 and 5 of a decade, or only 1 where there are many; ranks 1, 10, 100 and the last. */
function drawTicks(top, bottom, count, across, down) {
  const heights = [];
  for (let decade = 10 ** Math.floor(Math.log10(bottom)); decade <= top * 1.001; decade *= 10)
    for (const digit of top / bottom > 50 ? [1] : [1, 2, 5]) heights.push(decade * digit);
  const shown = heights.filter((height) => height >= bottom * 0.999 && height <= top * 1.001);
  part('.grid').innerHTML = shown.map((height) => `<line x2="100" y1="${down(height)}" y2="${down(height)}"/>`).join('');
  part('.heights').replaceChildren(...shown.map((height) => tick(String(Number(height.toPrecision(1))), 'top', down(height))));
  const ranks = [1, 10, 100].filter((rank) => rank < count / 2);
  part('.values .ticks').replaceChildren(...[...ranks, count].map((rank) => tick(rank, 'left', across(rank))));
}

function tick(text, edge, percent) {
  const label = Object.assign(document.createElement('span'), { textContent: text });
  label.style[edge] = `${percent}%`;
  return label;
}

// The power iteration: moment 0 is the random vector, every other one a line of the algebra

const rounds = () => layer.sigmas.length - 1;
const last = () => TURN * rounds() + 2;

/** Where a moment stands: its round, its line (0: none yet), and after how many rounds u and σ are what they are. */
function stand(moment) {
  const all = rounds(), after = Math.max(0, moment - TURN * all);
  return {
    round: Math.min(all, Math.ceil(moment / TURN)),
    line: after ? TURN + after : moment && ((moment - 1) % TURN) + 1,
    u: Math.min(all, Math.floor((moment + 1) / TURN)),
    sigma: Math.min(all, Math.floor(moment / TURN)),
  };
}

function show(moment) {
  at = moment;
  slider.value = at;
  const { round, line, u, sigma } = stand(at);
  const truth = (layer.before ?? layer.after)[0], angle = layer.angles[u], estimate = sigma ? layer.sigmas[sigma] : null;
  lines.forEach((item, i) => {
    if (i + 1 === line) item.setAttribute('aria-current', 'step');
    else item.removeAttribute('aria-current');
  });
  const values = {
    round, line, rounds: rounds(), angle: angle.toFixed(1), truth: figure(truth), sigma: estimate && figure(estimate),
    percent: estimate && ((100 * estimate) / truth).toFixed(1), largest: estimate && figure(truth / estimate),
  };
  const text = line ? sagan.fill(line > TURN ? texts.done : texts.round, values) : texts.start;
  part('.moment').textContent = text;
  slider.setAttribute('aria-valuetext', text);
  const now = ['', sagan.fill(texts.angle_now, values), estimate ? values.sigma : '', estimate ? sagan.fill(texts.divided_now, values) : '', ''];
  lines.forEach((item, i) => (item.querySelector('.now').textContent = now[i]));
  turn(u, values);
  climb(sigma, truth, values);
  Object.assign(element.dataset, { moment: at, round, line, angle, sigma: estimate ?? '' });
}

/** Turn the arrow of u; the directions of earlier rounds stay as marks on the arc. */
function turn(u, values) {
  const arrow = part('.u');
  arrow.removeAttribute('hidden');
  arrow.setAttribute('transform', `rotate(${-layer.angles[u]} 6 92)`);
  part('.trail').innerHTML = layer.angles.slice(0, u).map((angle) => `<line x1="87" x2="93" y1="92" y2="92" transform="rotate(${-angle} 6 92)"/>`).join('');
  const radians = (layer.angles[u] * Math.PI) / 180, name = part('.name');
  name.removeAttribute('hidden');
  name.setAttribute('x', 6 + 62 * Math.cos(radians) - 7 * Math.sin(radians));
  name.setAttribute('y', 92 - 62 * Math.sin(radians) - 7 * Math.cos(radians));
  part('.dial .reading').textContent = `${values.angle}°`;
  part('.dial svg').setAttribute('aria-label', sagan.fill(texts.angle_label, values));
}

function climb(sigma, truth, values) {
  const most = 1.1 * truth, down = (value) => 100 - (100 * value) / most;
  const corners = layer.sigmas.slice(1, sigma + 1).map((value, i) => [(100 * (i + 1)) / rounds(), down(value)]);
  part('.estimate path').setAttribute('d', corners.length ? `M${corners.map((corner) => corner.map((x) => x.toFixed(3)).join(' ')).join('L')}` : '');
  const dot = part('.estimate .dot'), here = corners.at(-1);
  dot.hidden = !here;
  if (here) dot.style.cssText = `left:${here[0]}%;top:${here[1]}%`;
  for (const edge of ['y1', 'y2']) part('.truth').setAttribute(edge, down(truth));
  const high = part('.high');
  high.style.top = `${down(truth)}%`;
  high.textContent = values.truth;
  part('.estimate .reading').textContent = sagan.fill(sigma ? texts.of_truth : texts.none_of_truth, values);
  part('.estimate .plot').setAttribute('aria-label', sagan.fill(sigma ? texts.estimate_label : texts.no_estimate, values));
}

function pause() {
  clearTimeout(playing);
  playing = 0;
  play.textContent = texts.play;
}

/** The first two rounds slowly enough to read along, the last two lines too. */
const wait = () => (at < 2 * TURN || at >= last() - 2 ? 700 : 110); // ms

function advance() {
  show(at + 1);
  if (at === last()) pause();
  else playing = setTimeout(advance, wait());
}

play.addEventListener('click', () => {
  if (playing) return pause();
  if (at === last()) show(0);
  play.textContent = texts.pause;
  playing = setTimeout(advance, 300);
});

part('.step').addEventListener('click', () => {
  pause();
  show(at === last() ? 0 : at + 1);
  const { line } = stand(at);
  part('.spoken').textContent = [part('.moment'), ...(line ? [lines[line - 1].querySelector('.now')] : [])].map((said) => said.textContent).join(' ');
});

slider.addEventListener('input', () => { pause(); show(Number(slider.value)); });

part('.again').addEventListener('click', () => {
  seed = Math.floor(Math.random() * 2 ** 32);
  ask();
});

// The layer

function ask() {
  pause();
  fresh.stale();
}

function choose(number) {
  select.value = number;
  if (number === chosen) return;
  chosen = number;
  ask();
}

function receive() {
  const value = props.value;
  if (!value) return;
  error.textContent = value.error ?? '';
  if (!value.error) {
    layer = { ...value, before: value.before && saganAttention.floats(value.before), after: saganAttention.floats(value.after) };
    const [rows, columns] = value.matrix;
    part('.matrix').textContent = sagan.fill(texts.matrix, { shape: value.shape.join(' × '), rows, columns });
    slider.max = last();
    for (const control of [slider, play, part('.step'), part('.again')]) control.disabled = false;
    part('.estimate .ticks').replaceChildren(...[0, 1, 2, 3].map((i) => tick(Math.round((i * rounds()) / 3), 'left', (100 * i) / 3)));
    drawValues();
    show(0);
    Object.assign(element.dataset, { layer: value.layer, seed: value.seed });
  }
  fresh.answered(value.number);
}

select.value = chosen;
select.addEventListener('change', () => choose(Number(select.value)));
sagan.whenLeft(element, pause);
sagan.on('block', (id) => { const first = props.layers.findIndex(({ block }) => block === id); if (first >= 0) choose(first); });
watch('value', receive);
receive();
