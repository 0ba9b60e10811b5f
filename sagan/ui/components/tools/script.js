// The switches of the lab and its projector mode. A part beside "layers".
(() => {
  const { lab } = sagan;
  const tools = element.querySelector('.tools'), body = document.body.classList;
  const projector = tools.querySelector('.projector');

  for (const input of tools.querySelectorAll('input')) {
    const { name } = input.closest('fieldset').dataset;
    input.addEventListener('change', () => {
      const value = input.type === 'checkbox' ? input.checked : input.value;
      lab.set(name === 'network' ? { network: value, layer: null } : { [name]: value });
    });
  }
  lab.on((state) => {
    for (const input of tools.querySelectorAll('input')) {
      const value = state[input.closest('fieldset').dataset.name];
      input.checked = input.type === 'checkbox' ? value : input.value === value;
    }
  });

  // Full screen where the browser has it; the page's own large view everywhere.
  function project(on) {
    body.toggle('projector', on);
    projector.setAttribute('aria-pressed', on);
    projector.textContent = on ? props.texts.projector_off : props.texts.projector;
    if (on) document.documentElement.requestFullscreen?.().catch(() => {});
    else if (document.fullscreenElement) document.exitFullscreen();
    if (on) layers.intoSight();
    else sagan.scrollTo(projector, 'nearest');
  }
  projector.addEventListener('click', () => project(!body.contains('projector')));
  document.addEventListener('fullscreenchange', () => {
    if (document.fullscreenElement) layers.intoSight();
    else project(false);
  });
  document.addEventListener('keydown', (event) => {
    if (event.key === 'Escape' && body.contains('projector')) project(false);
  });
})();
