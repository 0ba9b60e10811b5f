// What the views share: the current face, of which there is always one, and how they ask Python for more.
globalThis.sagan = (() => {
  const events = ['face', 'link', 'late', 'asked', 'pause', 'preview', 'sheet', 'failed', 'block', 'tour', 'score', 'tab'];
  const listeners = Object.fromEntries(events.map((name) => [name, new Set()]));
  let newest = { asked: 0 }; // becomes `page.face` once its picture is decoded
  const asksForFaces = (id) => id === 'face-view' || id === 'tour-view';
  const LOST = 120000; // ms after which an answer is not waited for any more: the queue may be long
  // How many were sent, and how many of those after `counted` are not answered yet. Gradio may tell of the newest of
  // several answers alone; with the newest of all, no older one is waited for.
  let requests = 0, out = 0, counted = 0;
  let overtaken = false; // controls were set by an answer after a newer request had read them, or may have been
  let opened = false; // what the link says was told
  let edited = null; // the slider that was since the newest request: another seed begins a new way, and so counts most
  let previewed = null; // how many requests were sent when a way drew its last picture, until the face is another

  /** All answers are in, or will not come: the controls say what the face is, whatever older answers set meanwhile. */
  function settleControls() {
    if (!newest.image) return; // the first face is still to come
    newest.asked = requests;
    if (!overtaken) return;
    overtaken = false;
    page.emit('late');
  }

  const page = {
    tab: '', // on screen; '' is the one that a visit begins with
    face: null, // {seed_a, seed_b, t, psi, label, image, layers, picture, ...}
    t: null, // where the way is that plays, if one does

    /**
     * Make the face described by Python the current one, once its picture is decoded. The newest request wins.
     */
    async show(description) {
      const face = JSON.parse(description);
      if (face.view && !opened) { // at once: the face of the link may be overtaken
        opened = true;
        page.emit('link', face);
      }
      if (face.asked > counted) out = Math.max(0, out - 1);
      if (face.asked === requests) {
        if (out) overtaken = true;
        [out, counted] = [0, requests];
      }
      const late = face.asked < newest.asked; // answers may overtake each other
      if (!late) newest = face;
      if (late || newest.asked < requests) overtaken = true;
      if (newest.asked === requests || !out) settleControls();
      if (late) return;
      face.picture = await page.decode(face.image);
      if (face !== newest) return; // a newer face came in the meantime
      page.face = face;
      page.emit('face', face);
    },

    /**
     * Listen to "face" (the current face, now and whenever it changes), "link" (once: the `view` that the address of
     * the page names, and the `notice` of what in it was ignored), "late" (an older answer set controls to what
     * the newest face is not), "asked" (a request for a face is on its way), "pause" (a way that plays has to stop and
     * make its picture the current face), "preview" (a picture of a way that plays, before Python knows of it),
     * "sheet" (how many faces are wanted now), "failed" (the request of the view with this id will not be answered),
     * "block" (the id of a block of the networks that was chosen), "tour" (the step at which to begin the tour),
     * "score" (what is said of the discriminator's score of the face, "" while it is not shown) or "tab" (another one
     * is on screen).
     */
    on(name, listener) {
      listeners[name].add(listener);
      if (name === 'face' && page.face) listener(page.face);
    },

    emit(name, value) {
      for (const listener of listeners[name]) listener(value);
    },

    /** What the controls have to say for the newest face: seed A, seed B, t, truncation, class. */
    values: () => [newest.seed_a, newest.seed_b, newest.t, newest.psi, newest.label],

    /** Whether a newer face is on its way. */
    pending: () => newest.asked < requests,

    /** The same after "late"; but while a newer face is wanted, the controls stay as they are `now`. */
    returned(now) {
      const values = page.values(), pending = edited !== null || page.pending();
      overtaken ||= pending || values.some((value, i) => value !== now[i]); // by one that is not numbered yet
      return pending ? now : values;
    },

    /**
     * Numbers brought into their [minimum, maximum, whether whole], if they have one; null, an empty box, counts as 0.
     * A box that says a fraction where the face has a whole number is set right with the answer.
     */
    within: (ranges, values) =>
      values.map((value, i) => {
        if (!ranges[i]) return value;
        const [least, most, whole] = ranges[i], inside = Math.min(Math.max(value, least), most);
        if (whole && inside % 1) overtaken = true;
        return whole ? Math.round(inside) : inside;
      }),

    /** The values of a request for a face, the first of them replaced by the request's number, which counts up. */
    numbered([, ...values]) {
      page.emit('asked');
      edited = null;
      out++;
      return [++requests, ...values];
    },

    /**
     * The same for a slider. Gradio may postpone its event until a newer request was sent: its answer is a late one, and
     * that of the seed is then in the request of the other sliders, whose third value is t.
     */
    numberedIfEdited([, ...values]) {
      if (edited === null) return [-1, ...values];
      if (edited === 'seed' && values.length === page.values().length) {
        values[2] = 0;
        overtaken = true; // the slider says another t
      }
      return page.numbered([0, ...values]);
    },

    /** The face on screen; a way that plays is paused for it. Null where that face does not come. */
    settled() {
      if (page.t !== null) previewed = requests; // it may have drawn none yet
      if (previewed === null) return page.face;
      const before = previewed;
      return new Promise((done) => {
        const end = (face) => {
          listeners.face.delete(settle);
          listeners.failed.delete(fail);
          done(face);
        };
        const settle = (face) => { if (face.asked > before) end(face); };
        const fail = (id) => { if (asksForFaces(id) && !page.pending()) end(null); };
        page.on('failed', fail);
        listeners.face.add(settle);
        page.emit('pause');
      });
    },

    /** The address that opens a face, and what stands around it. */
    link(face) {
      const query = new URLSearchParams({ seed: face.seed_a, seed_b: face.seed_b, t: face.t, psi: face.psi });
      if (face.label !== null) query.set('class', face.label);
      for (const [name, value] of sagan.lab.query()) query.set(name, value);
      if (page.tab) query.set('tab', page.tab);
      return `${location.origin}${location.pathname}?${query}`;
    },

    /** Whether a word of an address is one that `link` may say. */
    isOurs: (word) => ['seed', 'seed_b', 't', 'psi', 'class', 'tab'].includes(word) || sagan.lab.says(word),

    /** What files call a face: its seed, or those between which it lies and how far along in percent. */
    named: ({ seed_a, seed_b, t }) => (t === 0 ? seed_a : t === 1 ? seed_b : `${seed_a}-${seed_b}-${Math.round(100 * t)}`),

    /** What they add where there are classes. */
    ofClass: ({ label }) => (label === null ? '' : `-class-${label}`),

    /** Draw a picture, or its part [x, y, width, height], over a whole canvas, smoothly. */
    draw(canvas, picture, part = [0, 0, picture.width, picture.height]) {
      const context = canvas.getContext('2d');
      context.imageSmoothingQuality = 'high';
      context.drawImage(picture, ...part, 0, 0, canvas.width, canvas.height);
    },

    /**
     * Keep what a view shows up to date: `ask(number)` sends a request to Python when the view is on screen and
     * stale, one at a time; it returns false where it cannot ask yet. Call `stale()` when its inputs changed and
     * `answered(number)` on the reply. A request that failed, or is lost, is told by `sorry` in the view's `.error`.
     * What follows a dragged slider waits `rest` ms for it.
     */
    keepFresh(element, sorry, ask, rest = 120) {
      let stale = true, seen = false, working = false, pending = 0, timer = 0;
      const wait = (on) => {
        element.classList.toggle('waiting', on);
        element.setAttribute('aria-busy', on);
      };
      const check = () => {
        wait(stale || pending > 0 || working);
        if (!stale || !seen || pending || working) return;
        clearTimeout(timer);
        timer = setTimeout(() => {
          const number = Date.now();
          [stale, pending] = [false, number];
          if (ask(number) === false) [stale, pending] = [true, 0];
          else setTimeout(() => { if (pending === number) fail(); }, LOST);
        }, rest);
      };
      const fail = () => { // the next try is when something changes or the view is opened
        element.querySelector('.error').textContent = sorry;
        [stale, pending] = [true, 0];
        wait(false);
      };
      page.on('failed', (id) => { if (element.closest(`#${id}`)) fail(); });
      new IntersectionObserver((entries) => { seen = entries.at(-1).isIntersecting; check(); }).observe(element);
      return {
        stale() { stale = true; check(); },
        answered(number) { if (number === pending) pending = 0; check(); },
        /** Wait for what an answer leads to, and may take its time. */
        async during(work) {
          working = true;
          check();
          try {
            return await work;
          } finally {
            working = false;
            check();
          }
        },
      };
    },

    /**
     * Do `work` with the element of a selector as soon as it is on screen, and `still` holds until then. A tab that was
     * never open may take some `frames` to appear.
     */
    onceShown(selector, work, still = () => true, frames = 120) {
      if (!still()) return;
      const target = document.querySelector(selector);
      if (target?.offsetParent) work(target);
      else if (frames) requestAnimationFrame(() => page.onceShown(selector, work, still, frames - 1));
    },

    /** Let what plays in an element `pause` when it is not on screen, as when its tab is left. */
    whenLeft(element, pause) {
      new IntersectionObserver((entries) => { if (!entries.at(-1).isIntersecting) pause(); }).observe(element);
    },

    /** Whether a key is pressed together with one that leaves it to the browser. */
    browsersOwn: ({ altKey, ctrlKey, metaKey }) => altKey || ctrlKey || metaKey,

    /** Put values into the {names} of a sentence. */
    fill: (sentence, values) => sentence.replace(/{(\w+)}/g, (_, name) => values[name]),

    /** Set a text, if it is another one: in a live region it is read out when it is set. */
    say(target, text) {
      if (target.textContent !== text) target.textContent = text;
    },

    /** Draw a table of 256 RGB colours over a canvas of as many pixels. */
    bar(canvas, table) {
      const context = canvas.getContext('2d'), image = context.createImageData(256, 1);
      saganAttention.colours(Uint8Array.from({ length: 256 }, (_, level) => level), table, image.data);
      context.putImageData(image, 0, 0);
    },

    /** A number in so many digits after the point, with a true minus. */
    signed: (value, digits) => value.toFixed(digits).replace('-', '−'),

    /** A number in three digits or so, with a true minus. */
    figure(value) {
      const size = Number(Math.abs(value).toPrecision(3)), digits = size >= 100 || !size ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;
      return (size && size < 0.0005 ? value.toExponential(0) : value.toFixed(digits)).replaceAll('-', '−');
    },

    /** A gamma in two places, and in more where these would be zeros. */
    gamma: (value) => (value && Math.abs(value) < 0.01 ? sagan.figure(value) : sagan.signed(value, 2)),

    download(address, file) {
      Object.assign(document.createElement('a'), { href: address, download: file }).click();
    },

    async decode(address) {
      const picture = new Image();
      picture.src = address;
      await picture.decode();
      return picture;
    },
  };
  document.addEventListener('input', ({ target }) => {
    const slider = target.closest('#seed, #seed-b, #t, #psi')?.id;
    if (slider && (edited !== 'seed' || slider === 't')) edited = slider;
  }, true);
  page.on('tab', (name) => { page.tab = name; });
  page.on('preview', () => { previewed = requests; });
  page.on('face', () => { if (!page.pending()) previewed = null; });
  page.on('failed', (id) => { // who asked for a face is not kept waiting for it, once none is on its way
    if (!asksForFaces(id)) return;
    out = Math.max(0, out - 1);
    overtaken = true; // the controls may say what never came
    if (!out) settleControls();
    if (!page.pending()) previewed = null;
  });
  return page;
})();
