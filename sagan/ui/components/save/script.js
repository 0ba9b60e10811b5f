// Taking something home: the view as a picture, drawn here; a figure for a slide and the raw maps, made by Python.
const saving = (() => {
  const { texts } = props;
  const { lab } = sagan;
  const menu = element.querySelector('.save'), status = element.querySelector('.status'), error = element.querySelector('.error');
  const stem = () => `sagan-attention-${sagan.named(sagan.face)}${sagan.ofClass(sagan.face)}`;

  function view() {
    const words = {
      title: [document.querySelector('#face-view .name')?.textContent, sagan.face.class_name].filter(Boolean).join(', '),
      direction: texts[`view_${lab.state.direction}`],
      scale: element.querySelector('.scale .unit').textContent,
      ticks: [...element.querySelectorAll('.ticks span')].map(({ textContent }) => textContent),
    };
    const cards = [...element.querySelectorAll('.card')];
    const picture = sagan.snapshot({
      words, cards, panels: layers.panels.filter(({ figure }) => !figure.hidden), bar: element.querySelector('.scale canvas'),
      opacity: Number(getComputedStyle(element.querySelector('.field')).opacity),
    });
    sagan.download(picture.toDataURL('image/png'), `${stem()}.png`);
  }

  /** What a figure shows: the pins or, without any, the point that is lit, of the layer in focus. */
  function figure(kind) {
    const { pins, direction, scale } = lab.state;
    const shown = pins.length ? pins : [{ ...layers.lit(), colour: 0 }];
    return {
      svg: Number(kind === 'svg'), layer: layers.panels.indexOf(layers.focus()),
      backward: Number(direction === 'backward'), own: Number(scale === 'own'),
      pins: shown.flatMap(({ x, y }) => [x, y]), colours: shown.map(({ colour }) => colour),
    };
  }

  menu.addEventListener('click', ({ target }) => {
    const kind = target.closest('[data-save]')?.dataset.save; // translated words have tags of their own
    if (!kind || !sagan.face) return;
    menu.open = false;
    menu.querySelector('summary').focus();
    if (kind === 'view') return view();
    status.textContent = texts.saving;
    error.textContent = '';
    if (kind === 'npz') trigger('maps', { number: Date.now() });
    else trigger('figure', { number: Date.now(), ...figure(kind) });
  });
  document.addEventListener('click', ({ target }) => { if (!menu.contains(target)) menu.open = false; });
  menu.addEventListener('focusout', ({ relatedTarget }) => { if (relatedTarget && !menu.contains(relatedTarget)) menu.open = false; });
  element.addEventListener('keydown', (event) => { // Escape closes the menu, and leaves nothing else
    if (event.key !== 'Escape' || !menu.open) return;
    event.stopPropagation();
    menu.open = false;
    menu.querySelector('summary').focus();
  });

  return {
    /** Hand out a file {url, orig_name} that Python made. */
    receive({ file }) {
      sagan.download(file.url, file.orig_name);
    },
  };
})();
