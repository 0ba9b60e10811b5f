// Files that the browser reads itself.
sagan.files = {
  STALLED: 300000, // ms without a byte after which a file is not waited for any more

  /** Fetch a file {url, size} into an ArrayBuffer and tell `progress` the share that is there. */
  async fetch({ url, size }, progress = () => {}) {
    const stalled = new AbortController(), parts = [];
    let got = 0, timer = 0;
    const goOn = () => {
      clearTimeout(timer);
      timer = setTimeout(() => stalled.abort(), sagan.files.STALLED);
    };
    goOn();
    try {
      const response = await fetch(url, { signal: stalled.signal });
      if (!response.ok) throw new Error(response.statusText);
      const reader = response.body.getReader();
      for (let part; !(part = await reader.read()).done; parts.push(part.value)) {
        progress((got += part.value.length) / size);
        goOn();
      }
    } finally {
      clearTimeout(timer);
    }
    return new Blob(parts).arrayBuffer();
  },

  /** The arrays of a safetensors file by name; float16 stays as its bits. What its header tells is in `about`. */
  arrays(file) {
    const KINDS = { U8: Uint8Array, I64: BigInt64Array, F16: Uint16Array, F32: Float32Array };
    const length = Number(new DataView(file).getBigUint64(0, true)), start = 8 + length;
    const { __metadata__, ...header } = JSON.parse(new TextDecoder().decode(new Uint8Array(file, 8, length)));
    const arrays = Object.entries(header).map(([name, { dtype, data_offsets: [from, to] }]) =>
      [name, new KINDS[dtype](file.slice(start + from, start + to))]);
    return { ...Object.fromEntries(arrays), about: __metadata__ };
  },
};
