// Where a visitor points on a picture: with a mouse, a finger or the arrow keys.
sagan.pointer = (() => {
  const REST = 150; // ms after which a finger that stays on a picture is followed
  const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  /** [x, y] of an event in shares of the picture, always inside it. */
  function shares(picture, event) {
    const box = picture.getBoundingClientRect();
    const share = (at, length) => Math.min(1 - 1e-6, Math.max(0, at / length));
    return [share(event.clientX - box.left, box.width), share(event.clientY - box.top, box.height)];
  }

  /**
   * Tell what a visitor does with a picture of side x side cells. All get a point [x, y] in shares of it:
   * look(point, by)   points at it, by 'mouse', 'touch' or 'keys'; point() is where keys start from
   * leave()           the mouse has left
   * pick(point, by)   clicks with the mouse, or presses Enter
   * drop()            presses Delete
   */
  return (picture, side, { point, look, leave, pick, drop }) => {
    // A pen is taken for a finger: not all pens hover.
    const by = ({ pointerType }) => (pointerType === 'mouse' ? 'mouse' : 'touch');
    let pressed = 'mouse'; // by what: older browsers do not say it of a click
    let timer = 0, held = false, last = null;
    const letGo = () => { clearTimeout(timer); held = false; };

    // A finger is followed in all directions once it rested, or where it starts sideways, which `touch-action` leaves to
    // us. Of one that starts up or down, which scrolls the page, and of two, which zoom, the browser cancels the pointer.
    picture.addEventListener('pointerdown', (event) => {
      pressed = by(event);
      if (pressed === 'mouse' || !event.isPrimary) return;
      last = event;
      timer = setTimeout(() => { held = true; look(shares(picture, last), 'touch'); }, REST);
    });
    picture.addEventListener('pointermove', (event) => {
      if (!event.isPrimary) return;
      last = event;
      look(shares(picture, event), by(event));
    });
    picture.addEventListener('pointerup', letGo);
    picture.addEventListener('pointercancel', letGo);
    picture.addEventListener('touchmove', (event) => { if (held && event.touches.length === 1) event.preventDefault(); }, { passive: false });
    picture.addEventListener('pointerleave', (event) => { if (by(event) === 'mouse') leave(); });
    picture.addEventListener('click', (event) => {
      const at = shares(picture, event);
      look(at, pressed);
      if (pressed === 'mouse') pick(at, 'mouse'); // a finger does not hover, so a tap only looks
    });
    picture.addEventListener('keydown', (event) => {
      if (sagan.browsersOwn(event)) return;
      const step = STEPS[event.key];
      if (step) {
        // From the middle of this layer's cell to the middle of the next.
        const next = (share, axis) => Math.min(side - 1, Math.max(0, Math.floor(share * side) + step[axis]));
        look(point().map((share, axis) => (next(share, axis) + 0.5) / side), 'keys');
      } else if (event.key === 'Enter' || event.key === ' ') pick(point(), 'keys');
      else if (event.key === 'Delete' || event.key === 'Backspace') drop();
      else return;
      event.preventDefault();
    });
  };
})();
