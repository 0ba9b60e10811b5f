// A server that was started anew with another model: nothing on the page fits its answers, and perhaps not its events.
(() => {
  const ask = globalThis.fetch;
  const NOTED = 1000; // ms after which the address says what the visitor has just done
  let model = null; // that of the first answer

  globalThis.fetch = async (...request) => {
    const answer = await ask(...request), named = answer.headers.get('sagan-model');
    model ??= named;
    if (named === null || named === model) return answer;
    setTimeout(() => location.reload(), NOTED);
    return new Promise(() => {}); // nobody gets it
  };
})();
