element.querySelector('.line').textContent = props.line;

// The card may be folded away. Followed as a link, "#card" would open the page anew: its address has a query.
element.querySelector('.card')?.addEventListener('click', (event) => {
  event.preventDefault();
  document.querySelector('#card .label-wrap:not(.open)')?.click();
  // Once it is unfolded, or the page would be too short to scroll.
  requestAnimationFrame(() => requestAnimationFrame(() => sagan.scrollTo(document.querySelector('#card'))));
});
