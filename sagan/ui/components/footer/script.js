element.querySelector('.line').textContent = props.line;

// The card may be folded away.
element.querySelector('.card')?.addEventListener('click', () => document.querySelector('#card .label-wrap:not(.open)')?.click());
