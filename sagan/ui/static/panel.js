// One picture of a face with the map of one layer over it: its field, its markers and its measures in words.
sagan.panel = (() => {
  const math = saganAttention;
  const MEASURES = ['best', 'next', 'entropy', 'distance', 'outside', 'total'];
  const fixed = (value) => sagan.signed(value, 1);
  const percent = (share) => (share > 0.9995 ? '> 99.9' : fixed(100 * share)); // softmax leaves none out, so never 100
  const whole = (value) => Math.round(value).toLocaleString('en');
  const rough = (value) => (value < 9.95 ? fixed(value) : whole(value)); // as exact as the codes of average maps

  /** Put a marker on the cell of a position. */
  function mark(marker, position, side) {
    const share = 100 / side;
    marker.hidden = false;
    marker.style.cssText =
      `left:${(position % side) * share}%;top:${Math.floor(position / side) * share}%;width:${share}%;height:${share}%`;
  }

  /** The panel in `figure` of a layer {name, side, ...}, over pictures `size` pixels wide, with 256 colours in `table`. */
  function panel(figure, layer, { texts, table, size }) {
    const { side } = layer, n = side * side;
    const part = (selector) => figure.querySelector(selector);
    const cells = Object.assign(document.createElement('canvas'), { width: side, height: side });
    const context = cells.getContext('2d'), pixels = context.createImageData(side, side);
    const keys = Array.from({ length: 5 }, () => Object.assign(document.createElement('i'), { className: 'key', hidden: true }));
    const said = Object.fromEntries(MEASURES.map((name) => [name, part(`.${name}`)]));
    const share = part('.share'), query = part('.query'), field = part('.field'), mean = part('.mean'), gamma = part('.gamma'), mix = part('.mix');
    for (const canvas of [field, mean?.querySelector('canvas')]) if (canvas) canvas.getContext('2d').globalCompositeOperation = 'copy'; // replace, never add up
    part('.keys').append(...keys.toReversed()); // the strongest on top

    const self = {
      ...layer, n, figure, picture: part('.picture'), face: part('.face'), field,
      q: null, k: null, factor: 0,
      rows: null, // normalisers, once they were needed
      codes: null, // the average map

      /** Paint a map over a whole canvas: on the shared scale, or from 0 to its own maximum. */
      paint(canvas, weights) {
        math.paint(weights, table, pixels.data, sagan.lab.state.scale === 'own' ? self.most(weights) : null);
        context.putImageData(pixels, 0, 0);
        sagan.draw(canvas, cells);
      },

      most: (weights) => weights[math.strongest(weights, 1)[0]],

      /** A position in words, its column and row counted from 0. */
      place: (position) => sagan.fill(texts.place, { column: position % side, row: Math.floor(position / side) }),

      /** A weight in words: times uniform. */
      times: (weight) => fixed(weight * n),

      /** Take queries, keys and gamma of a face; null while they are not there. */
      take(given) {
        const { q, k, gamma: factor } = given ?? { q: null, k: null, gamma: 0 };
        Object.assign(self, { q, k, factor, rows: null });
        if (gamma) gamma.textContent = given ? sagan.gamma(factor) : '–';
      },

      /** Say how much each layer counts in the combined map. */
      blend(shares) { mix.textContent = shares.map((share) => `${Math.round(100 * share)} %`).join(' + '); },

      /** Draw the map of a point and say its measures; returns their values by name. */
      show({ weights, position }) {
        const best = math.strongest(weights), times = best.map((key) => weights[key] * n);
        const { total, bits, distance, outside } = math.measures(weights, position, side, size);
        self.paint(field, weights);
        mark(query, position, side);
        keys.forEach((key, i) => (i < best.length ? mark(key, best[i], side) : (key.hidden = true)));
        const values = {
          name: layer.title, times: fixed(times[0]), bits: fixed(bits), most: Math.log2(n), total: fixed(total),
          share: percent(weights[best[0]]), next: times.slice(1).map(rough).join(' · '),
          distance: fixed(distance), outside: percent(outside), places: whole(2 ** bits), all: whole(n),
          here: self.place(position), there: self.place(best[0]),
        };
        for (const name of MEASURES) said[name].textContent = sagan.fill(texts[`${name}_value`], values);
        share.textContent = sagan.fill(texts.share_value, values);
        if (!layer.combined) part('.spread').textContent = sagan.fill(texts.spread, values);
        figure.weights = weights;
        Object.assign(figure.dataset, { query: position, key: best[0], keys: best, weight: weights[best[0]], entropy: bits, distance, outside, total });
        return values;
      },

      /** Draw the average map of a point, if averages are `on`; while there is none, its room stays. */
      showMean(on, answer) {
        if (!mean) return;
        mean.hidden = !on;
        mean.style.visibility = answer ? '' : 'hidden';
        if (!answer) return;
        self.paint(mean.querySelector('canvas'), answer.weights);
        part('.mean .top').textContent = sagan.fill(texts.average_top, { times: rough(self.most(answer.weights) * n) });
        mark(mean.querySelector('.here'), answer.position, side);
        mean.weights = answer.weights;
      },

      /** Show nothing, while there is no map. */
      clear() {
        figure.weights = null;
        field.getContext('2d').clearRect(0, 0, field.width, field.height);
        for (const marker of [query, ...keys]) marker.hidden = true;
        for (const name of MEASURES) said[name].textContent = '–';
        share.textContent = '';
      },
    };
    return self;
  }
  return Object.assign(panel, { mark });
})();
