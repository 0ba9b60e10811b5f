// Attention from queries and keys, as plain functions that know nothing of the page.
globalThis.saganAttention = (() => {
  // The last colour, in times uniform. The scale is fixed, so that even attention looks even.
  const CEILING = 64;
  const FAINTEST = 0.4; // opacity of the first colour, so that the face stays visible where nothing is attended to

  /** Base64 of little-endian float32 -> Float32Array. */
  function floats(base64) {
    return new Float32Array(Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)).buffer);
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

  /** The entropy of a row in bits, from 0 to log2(n). */
  function entropy(weights) {
    let bits = 0;
    for (const w of weights) if (w > 0) bits -= w * Math.log2(w);
    return bits;
  }

  /** The position of the largest weight. */
  function strongest(weights) {
    let best = 0;
    for (let j = 1; j < weights.length; j++) if (weights[j] > weights[best]) best = j;
    return best;
  }

  /** The position that holds the point (x, y), both shares from 0 to 1 of a picture of side x side cells. */
  function position(x, y, side) {
    const cell = (share) => Math.min(side - 1, Math.max(0, Math.floor(share * side)));
    return cell(y) * side + cell(x);
  }

  /** Where a weight stands on the colour scale: 0 for uniform or less, 1 for CEILING x uniform, logarithmic. */
  function level(times) {
    return times <= 1 ? 0 : Math.min(1, Math.log2(times) / Math.log2(CEILING));
  }

  /** Write a row as RGBA into `pixels` (4 n bytes). `table` holds 256 RGB colours; weaker is more transparent. */
  function paint(weights, table, pixels) {
    const n = weights.length;
    for (let j = 0; j < n; j++) {
      const share = level(weights[j] * n);
      const colour = 3 * Math.round(255 * share);
      pixels[4 * j] = table[colour];
      pixels[4 * j + 1] = table[colour + 1];
      pixels[4 * j + 2] = table[colour + 2];
      pixels[4 * j + 3] = Math.round(255 * (FAINTEST + (1 - FAINTEST) * Math.sqrt(share)));
    }
  }

  return { CEILING, floats, halves, row, entropy, strongest, position, level, paint };
})();
