// On a Space the page stands in a frame as high as itself, and the window around it scrolls. What is to stay in sight
// follows that window: --above and --below are the parts of the frame, in pixels, that it hides at either end.
(() => {
  const root = document.documentElement;
  const PATIENCE = 1000; // ms in which a frame that grows with what it shows has grown
  let around = null; // the window, as it was told last
  let wanted = { top: 0, until: 0 }; // where that window was scrolled to; it may not reach there before the frame has grown

  const framed = () => around !== null && !document.fullscreenElement;

  function follow() {
    const top = framed() ? around.scrollTop - around.offsetTop : 0;
    sagan.hidden = {
      above: Math.max(0, top),
      below: framed() ? Math.max(0, innerHeight - top - around.clientHeight) : 0,
    };
    for (const [side, size] of Object.entries(sagan.hidden)) root.style.setProperty(`--${side}`, `${size}px`);
    root.classList.toggle('framed', around !== null);
  }

  /** Scroll as scrollIntoView does with { block: 'start' } or 'nearest'. */
  sagan.scrollTo = (target, block = 'start') => {
    if (!framed()) return target.scrollIntoView({ block });
    const { top, bottom } = target.getBoundingClientRect(), { above, below } = sagan.hidden;
    if (block === 'nearest' && top >= above && bottom <= innerHeight - below) return;
    wanted = { top: scrollY + top - parseFloat(getComputedStyle(target).scrollMarginTop), until: Date.now() + PATIENCE };
    parentIFrame.scrollToOffset(0, wanted.top);
  };

  function resized() {
    follow();
    if (framed() && Date.now() < wanted.until) parentIFrame.scrollToOffset(0, wanted.top);
  }

  const begin = () => globalThis.parentIFrame?.getPageInfo((told) => { around = told; follow(); });
  addEventListener('gradio:iframe-resizer-ready', begin);
  addEventListener('resize', resized);
  addEventListener('scroll', () => { if (framed()) scrollTo(0, 0); }); // Gradio would take the frame for too high
  document.addEventListener('fullscreenchange', follow);
  follow();
  begin();
})();
