// On a Space the page stands in a frame as high as itself, and the window around it scrolls. What is to stay in sight
// follows that window: --above and --below are the parts of the frame, in pixels, that it hides at either end, --window
// is its height, and --shift is how far below its place a part stands that is sticky where the page itself scrolls.
(() => {
  const root = document.documentElement;
  const STICKY = { '#tour-view': 8, '#training-view .transport': 0 }; // and how many pixels below the upper end
  const GAP = 12; // pixels between the card of the tour and what has the focus
  const PATIENCE = 1000; // ms in which a frame has grown with what it shows
  let around = null; // the window, as it was told last
  let limited = false; // the frame does not grow, and so it scrolls
  let tallest = { width: 0, height: 0 }; // of the window while it was so wide: bars of a browser come and go
  let wanted = { top: 0, until: 0 }; // where the window was scrolled to; before the frame has grown it may not get there
  let timer = 0;
  let focused = 0; // when the focus moved last, until the visitor or the page does something else

  const framed = () => around !== null && !limited;
  const follows = () => framed() && !document.fullscreenElement;
  const upper = () => around.scrollTop - around.offsetTop; // end of the window, in pixels of the frame

  function follow() {
    const on = follows(), top = on ? upper() : 0;
    if (on) {
      const { clientWidth: width, clientHeight: height } = around; // the frame may be told before it is as wide, or later
      tallest = { width, height: Math.max(height, width === tallest.width ? tallest.height : 0) };
    }
    sagan.hidden = { above: Math.max(0, top), below: on ? Math.max(0, innerHeight - top - around.clientHeight) : 0 };
    for (const [side, size] of Object.entries(sagan.hidden)) root.style.setProperty(`--${side}`, `${size}px`);
    root.style.setProperty('--window', on ? `${tallest.height}px` : '100vh');
    root.classList.toggle('framed', framed());
    if (on) for (const [part, gap] of Object.entries(STICKY)) shift(document.querySelector(part), top + gap);
    // When the focus moved, it may not have been known yet where the card stands.
    if (Date.now() < focused + PATIENCE) uncover(document.activeElement);
  }

  /** Let a part stand at `top` or below, but not outside of what holds it. */
  function shift(part, top) {
    if (!part) return;
    const { top: now, height } = part.getBoundingClientRect(), { bottom } = part.parentElement.getBoundingClientRect();
    const place = now - (parseFloat(part.style.getPropertyValue('--shift')) || 0);
    part.style.setProperty('--shift', `${Math.max(0, Math.min(top, bottom - height) - place)}px`);
  }

  /** Scroll as scrollIntoView does with { block: 'start' } or 'nearest'. */
  sagan.scrollTo = (target, block = 'start') => {
    focused = 0;
    if (!follows()) return target.scrollIntoView({ block });
    const { top, bottom } = target.getBoundingClientRect(), { above, below } = sagan.hidden;
    let to = top - parseFloat(getComputedStyle(target).scrollMarginTop);
    if (block === 'nearest') {
      const up = top - above, down = bottom - (innerHeight - below);
      if (up * down <= 0) return; // all of it is in sight, or nothing else
      to = upper() + (Math.abs(up) < Math.abs(down) ? up : down);
    }
    wanted = { top: to, until: Date.now() + PATIENCE };
    parentIFrame.scrollToOffset(0, to);
  };

  function resized() {
    follow();
    if (follows() && Date.now() < wanted.until) parentIFrame.scrollToOffset(0, wanted.top);
  }

  /** Browsers bring what has the focus into the window, but there the card of the tour may cover it. */
  function uncover(target) {
    const tour = document.querySelector('#tour-view');
    if (!follows() || !tour?.offsetHeight || tour.contains(target) || !target.matches(':focus-visible')) return;
    const card = tour.getBoundingClientRect(), part = target.getBoundingClientRect();
    if (part.left >= card.right || part.right <= card.left || part.top >= card.bottom || part.bottom <= card.top) return;
    const isAbove = card.top - upper() < around.clientHeight / 3;
    const down = isAbove ? part.top - card.bottom - GAP : Math.min(part.bottom - card.top + GAP, part.top - upper());
    parentIFrame.scrollToOffset(0, upper() + down);
  }

  /** From a page that is scrolled in its frame, Gradio would conclude that the frame is high enough. */
  function scrolled() {
    if (!follows() || !scrollY) return;
    scrollTo(0, 0);
    timer ||= setTimeout(() => {
      [timer, limited] = [0, root.scrollHeight > innerHeight + 50];
      follow();
    }, PATIENCE);
  }

  function begin() {
    const frame = globalThis.parentIFrame;
    if (!frame || around) return;
    let others = null; // Gradio asks too, while it shows a message; the window answers one alone
    frame.getPageInfo((info) => { around = info; follow(); others?.(info); });
    frame.getPageInfo = (ask) => { others = ask || null; if (around) others?.(around); };
  }

  addEventListener('gradio:iframe-resizer-ready', begin, { once: true });
  addEventListener('resize', resized);
  addEventListener('scroll', scrolled);
  addEventListener('focusin', ({ target }) => { focused = Date.now(); uncover(target); });
  for (const by of ['wheel', 'touchmove', 'pointerdown', 'keydown']) { // a key that moves the focus comes before it moves
    addEventListener(by, () => { focused = 0; }, { capture: true, passive: true });
  }
  document.addEventListener('fullscreenchange', follow);
  follow();
  begin();
})();
