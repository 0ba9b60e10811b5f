// Files that the browser reads itself.
sagan.files = {
  /** Fetch a file {url, size} into an ArrayBuffer and tell `progress` the share that is there. */
  async fetch({ url, size }, progress = () => {}) {
    const response = await fetch(url);
    if (!response.ok) throw new Error(response.statusText);
    const reader = response.body.getReader(), parts = [];
    let got = 0;
    for (let part; !(part = await reader.read()).done; parts.push(part.value)) progress((got += part.value.length) / size);
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
