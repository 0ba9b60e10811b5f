// Attention from queries and keys, as plain functions that know nothing of the page.
globalThis.saganAttention = (() => {
  // The last colour, in times uniform. The scale is fixed, so that even attention looks even.
  const CEILING = 64;
  const FAINTEST = 0.4; // opacity of the first colour, so that the face stays visible where nothing is attended to

  /** Base64 -> Uint8Array. */
  function bytes(base64) {
    const text = atob(base64), values = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) values[i] = text.charCodeAt(i);
    return values;
  }

  /** Base64 of little-endian float32 -> Float32Array. */
  function floats(base64) {
    return new Float32Array(bytes(base64).buffer);
  }

  // The value of every pattern of 16 bits, as float16; those of infinity and NaN never come.
  const HALVES = Float32Array.from({ length: 1 << 16 }, (_, bits) => {
    const exponent = (bits >> 10) & 31, fraction = (bits & 1023) / 1024;
    return (bits >> 15 ? -1 : 1) * 2 ** (Math.max(1, exponent) - 15) * (fraction + (exponent ? 1 : 0));
  });

  /** The bits of float16 numbers, as Uint16Array -> Float32Array. */
  function halves(bits) {
    return Float32Array.from(bits, (pattern) => HALVES[pattern]);
  }

  /** Row `i` of softmax(q k^T) over n positions, as Float64Array; q and k are n x d, row by row. */
  function row(q, k, n, i) {
    const d = q.length / n;
    const query = Float64Array.from(q.subarray(i * d, (i + 1) * d));
    const weights = new Float64Array(n);
    let top = -Infinity;
    for (let j = 0, at = 0; j < n; j++) {
      let logit = 0;
      for (let t = 0; t < d; t++) logit += query[t] * k[at++];
      weights[j] = logit;
      if (logit > top) top = logit;
    }
    let sum = 0;
    for (let j = 0; j < n; j++) sum += weights[j] = Math.exp(weights[j] - top);
    for (let j = 0; j < n; j++) weights[j] /= sum;
    return weights;
  }

  /** log(sum_j exp(q_i . k_j)) of every row i, as Float64Array: what a column needs to know of the rows. */
  function normalisers(q, k, n) {
    const d = q.length / n, keys = Float64Array.from(k);
    const logits = new Float64Array(n), query = new Float64Array(d);
    return Float64Array.from({ length: n }, (_, i) => {
      for (let t = 0; t < d; t++) query[t] = q[i * d + t];
      let top = -Infinity, sum = 0;
      for (let j = 0, at = 0; j < n; j++) {
        let logit = 0;
        for (let t = 0; t < d; t++) logit += query[t] * keys[at++];
        logits[j] = logit;
        if (logit > top) top = logit;
      }
      for (let j = 0; j < n; j++) sum += Math.exp(logits[j] - top);
      return top + Math.log(sum);
    });
  }

  /** Column `j` of softmax(q k^T): how much every position looks at j; `rows` are the `normalisers`. */
  function column(q, k, n, j, rows) {
    const d = q.length / n, key = Float64Array.from(k.subarray(j * d, (j + 1) * d));
    const weights = new Float64Array(n);
    for (let i = 0, at = 0; i < n; i++) {
      let logit = 0;
      for (let t = 0; t < d; t++) logit += q[at++] * key[t];
      weights[i] = Math.exp(logit - rows[i]);
    }
    return weights;
  }

  /** What every position receives from all together, as Float64Array: the sums of the columns, 1 on average. */
  function received(q, k, n) {
    const sums = new Float64Array(n);
    for (let i = 0; i < n; i++) row(q, k, n, i).forEach((weight, j) => { sums[j] += weight; });
    return sums;
  }

  /**
   * Row or column `at` of an average map, n x n codes row by row, as Float64Array of weights. They go from code 0,
   * 2 ** low times uniform, to code 255, 2 ** high times uniform.
   */
  function average(codes, [low, high], n, at, backward) {
    const [from, step] = backward ? [at, n] : [at * n, 1];
    return Float64Array.from({ length: n }, (_, i) => 2 ** (low + (codes[from + i * step] * (high - low)) / 255) / n);
  }

  /** How much each layer counts when maps are combined: |gamma| as shares that sum to 1; equal if all are 0. */
  function shares(gammas) {
    const sum = gammas.reduce((total, gamma) => total + Math.abs(gamma), 0);
    return gammas.map((gamma) => (sum ? Math.abs(gamma) / sum : 1 / gammas.length));
  }

  /**
   * The mean of maps [{weights, side, share}] on the finest of their grids, as {weights, side}. A coarse cell spreads
   * its weight evenly over the fine cells that it covers.
   */
  function combine(maps) {
    const side = Math.max(...maps.map((map) => map.side)), weights = new Float64Array(side * side);
    for (const map of maps) {
      const fine = side / map.side, share = map.share / fine ** 2;
      for (let y = 0, i = 0; y < side; y++) {
        const line = Math.floor(y / fine) * map.side;
        for (let x = 0; x < side; x++) weights[i++] += share * map.weights[line + Math.floor(x / fine)];
      }
    }
    return { weights, side };
  }

  /** The positions of the `count` largest weights, the largest first. */
  function strongest(weights, count = 5) {
    const best = [];
    for (let j = 0; j < weights.length; j++) {
      if (best.length === count && weights[j] <= weights[best[count - 1]]) continue;
      let at = best.length;
      while (at && weights[j] > weights[best[at - 1]]) at--;
      best.splice(at, 0, j);
      if (best.length > count) best.pop();
    }
    return best;
  }

  /**
   * What a map says in numbers, seen from position `at` of a grid of side x side cells in a picture `size` pixels wide:
   * total      the sum of the weights: 1 for a row; for a column, times what a position receives on average
   * bits       its entropy, from 0 to log2(n)
   * distance   the mean distance from `at` in pixels, from cell centre to cell centre
   * outside    the share beyond the 3 x 3 cells around `at`
   * Entropy, distance and share are of the weights over their total.
   */
  function measures(weights, at, side, size) {
    const column = at % side, line = (at - column) / side;
    let total = 0, bits = 0, distance = 0, outside = 0;
    for (const w of weights) total += w;
    for (let y = -line, j = 0; y < side - line; y++) {
      for (let x = -column; x < side - column; x++, j++) {
        const w = total && weights[j] / total;
        if (!w) continue;
        bits -= w * Math.log2(w);
        distance += w * Math.sqrt(x * x + y * y);
        if (x > 1 || x < -1 || y > 1 || y < -1) outside += w;
      }
    }
    return { total, bits, distance: (distance * size) / side, outside };
  }

  /** The position that holds the point (x, y), both shares from 0 to 1 of a picture of side x side cells. */
  function position(x, y, side) {
    const cell = (share) => Math.min(side - 1, Math.max(0, Math.floor(share * side)));
    return cell(y) * side + cell(x);
  }

  /** Where a weight stands on the shared scale: 0 for uniform or less, 1 for CEILING x uniform, logarithmic. */
  function level(times) {
    return times <= 1 ? 0 : Math.min(1, Math.log2(times) / Math.log2(CEILING));
  }

  /** Write levels from 0 to 255 as RGBA into `pixels`, by a table of 256 RGB colours. */
  function colours(levels, table, pixels) {
    for (let i = 0, to = 0; i < levels.length; i++) {
      for (let from = 3 * levels[i]; from < 3 * levels[i] + 3; from++) pixels[to++] = table[from];
      pixels[to++] = 255;
    }
  }

  /**
   * Write a map as RGBA into `pixels` (4 n bytes). `table` holds 256 RGB colours; weaker is more transparent. The scale
   * is the shared one or, if `most` is given, linear from 0 to this weight.
   */
  function paint(weights, table, pixels, most = null) {
    const n = weights.length;
    for (let j = 0; j < n; j++) {
      const share = most === null ? level(weights[j] * n) : Math.min(1, weights[j] / most || 0);
      const colour = 3 * Math.round(255 * share);
      pixels[4 * j] = table[colour];
      pixels[4 * j + 1] = table[colour + 1];
      pixels[4 * j + 2] = table[colour + 2];
      pixels[4 * j + 3] = Math.round(255 * (FAINTEST + (1 - FAINTEST) * Math.sqrt(share)));
    }
  }

  return {
    CEILING, bytes, floats, halves, row, normalisers, column, received, average, shares, combine, strongest, measures, position,
    colours, paint,
  };
})();
