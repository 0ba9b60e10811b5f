// The lab as one picture: its panels with their markers, the maps of the pins, and the bar that says what colours mean.
sagan.snapshot = (() => {
  const WIDE = 384, GAP = 24, LINE = 24; // pixels
  const FONT = '"Source Sans Pro", system-ui, sans-serif';

  /** Draw a line of text at (x, y), no wider than `width`. */
  function write(context, text, x, y, { size = 16, bold = false, colour = '#1f2937', width } = {}) {
    context.font = `${bold ? '700 ' : ''}${size}px ${FONT}`;
    context.fillStyle = colour;
    context.fillText(text, x, y, width);
  }

  /** Outline a shape in white between two black lines, as the page does. */
  function outline(context, shape, widths = [4, 2], colours = ['black', 'white']) {
    context.beginPath();
    shape();
    widths.forEach((width, i) => {
      Object.assign(context, { lineWidth: width, strokeStyle: colours[i] });
      context.stroke();
    });
  }

  const cellOf = (position, side, wide) => [((position % side) * wide) / side, (Math.floor(position / side) * wide) / side, wide / side];

  function drawPanel(context, { figure, face, field, side }, x, y, opacity) {
    const { query, keys } = figure.dataset;
    context.drawImage(face, x, y, WIDE, WIDE);
    if (!figure.weights) return;
    context.globalAlpha = opacity;
    context.drawImage(field, x, y, WIDE, WIDE);
    context.globalAlpha = 1;
    for (const key of keys.split(',')) {
      const [left, top, cell] = cellOf(Number(key), side, WIDE);
      outline(context, () => context.arc(x + left + cell / 2, y + top + cell / 2, cell / 2 - 1, 0, 7));
    }
    const [left, top, cell] = cellOf(Number(query), side, WIDE);
    outline(context, () => context.rect(x + left, y + top, cell, cell));
  }

  function drawPins(context, dots, x, y) {
    for (const dot of dots) {
      const style = getComputedStyle(dot), [left, top] = ['left', 'top'].map((edge) => (WIDE * parseFloat(dot.style[edge])) / 100);
      context.beginPath();
      context.arc(x + left, y + top, 11, 0, 7);
      context.fillStyle = style.backgroundColor;
      context.fill();
      outline(context, () => context.arc(x + left, y + top, 11, 0, 7), [4, 2]);
      context.textAlign = 'center';
      write(context, dot.textContent, x + left, y + top + 5, { size: 14, bold: true, colour: style.color });
      context.textAlign = 'left';
    }
  }

  function drawCard(context, card, x, y, wide, opacity) {
    const colour = getComputedStyle(card).borderTopColor;
    context.fillStyle = colour;
    context.fillRect(x, y, wide, 5);
    write(context, card.querySelector('b').textContent, x, y + LINE, { bold: true });
    [...card.querySelectorAll('.map')].forEach((map, i) => {
      const top = y + LINE + 10 + i * (wide + LINE), [face, field] = map.querySelectorAll('canvas');
      context.drawImage(face, x, top, wide, wide);
      context.globalAlpha = opacity;
      context.drawImage(field, x, top, wide, wide);
      context.globalAlpha = 1;
      const { left, top: down, width } = map.querySelector('.here').style;
      const [a, b, cell] = [left, down, width].map((share) => (parseFloat(share) * wide) / 100);
      outline(context, () => context.rect(x + a, top + b, cell, cell), [5, 3], ['black', colour]);
      write(context, map.nextElementSibling.textContent, x, top + wide + 17, { size: 14, width: wide });
    });
  }

  /** The picture as a canvas, of the panels and cards that are on screen. */
  return ({ words, panels, cards, bar, opacity }) => {
    const averages = panels.map(({ figure }) => figure.weights && figure.querySelector('.mean:not([hidden])'));
    const averaged = averages.some(Boolean), maps = cards[0]?.querySelectorAll('.map').length ?? 0;
    const width = Math.max(2, panels.length) * (WIDE + GAP) + GAP, wide = (width - GAP) / 5 - GAP;
    const top = 2 * LINE + GAP, below = top + WIDE + 3 * LINE + (averaged ? WIDE + 2 * LINE : 0);
    const height = below + (cards.length ? maps * (wide + LINE) + 3 * LINE : 0) + 3 * LINE;
    const canvas = Object.assign(document.createElement('canvas'), { width, height });
    const context = canvas.getContext('2d');
    context.imageSmoothingQuality = 'high';
    context.fillStyle = 'white';
    context.fillRect(0, 0, width, height);
    write(context, words.title, GAP, GAP + 12, { size: 22, bold: true });
    write(context, words.direction, GAP, GAP + 12 + LINE);
    panels.forEach((panel, i) => {
      const x = GAP + i * (WIDE + GAP), { figure, short } = panel;
      drawPanel(context, panel, x, top, opacity);
      drawPins(context, figure.querySelectorAll('.pin'), x, top);
      write(context, figure.querySelector('h2').innerText.replace(/\s+/g, ' '), x, top + WIDE + LINE, { bold: true, width: WIDE });
      const said = ['best', 'entropy'].map((name) => figure.querySelector(`.${name}`).textContent).join(' · ');
      write(context, said, x, top + WIDE + 2 * LINE, { width: WIDE });
      if (!averages[i]) return;
      context.fillStyle = 'black';
      context.fillRect(x, top + WIDE + 3 * LINE, WIDE, WIDE);
      context.drawImage(averages[i].querySelector('canvas'), x, top + WIDE + 3 * LINE, WIDE, WIDE);
      write(context, `${short}: ${averages[i].innerText.trim()}`, x, top + 2 * WIDE + 4 * LINE, { width: WIDE });
    });
    cards.forEach((card, i) => drawCard(context, card, GAP + i * (wide + GAP), below, wide, opacity));
    const last = height - 2 * LINE;
    context.drawImage(bar, GAP, last - 16, 320, 12);
    words.ticks.forEach((tick, i) => {
      const share = i / (words.ticks.length - 1);
      context.textAlign = share === 0 ? 'left' : share === 1 ? 'right' : 'center';
      write(context, tick, GAP + 320 * share, last + 14, { size: 14 });
    });
    context.textAlign = 'left';
    write(context, words.scale, GAP, last + 34, { size: 14, width: width - 2 * GAP });
    return canvas;
  };
})();
