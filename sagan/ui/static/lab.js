// What the attention lab shows besides the face: pins, direction, scale, network, layer in focus, maps, dials. Views read
// `sagan.lab.state`, change it by these functions alone, and are told; links carry it.
sagan.lab = (() => {
  const MOST = 5;
  const LINKED = ['direction', 'scale', 'network', 'layer', 'maps']; // links carry these where they are not as at first
  const listeners = new Set();
  const FIRST = { // the state of a first visit
    direction: 'forward', // or 'backward': what a point looks at, or who looks at it
    scale: 'shared', // or 'own'
    network: 'generator', // or 'discriminator'
    layer: null, // in focus: the name of a layer of that network or 'combined'; null for the finest
    maps: 'own', // or 'strongest', 'uniform', 'b', and at the pins 'masked', 'told': what the dials' pictures are made with
    average: false, // the map over many faces stands beside the face's own
    gammas: {}, // dials: {layer: times the learned gamma}, where it is not 1
    pins: [], // [{x, y, colour}], the oldest first; a pin is a pixel of the face, its colour a number from 0 to 4
    chosen: null, // the pin that the layers return to when the pointer leaves them
    place: null, // [x, y], the pixel that was last pointed at by keys, by a finger or by the page itself
  };
  const state = { ...FIRST };
  const free = (pins) => [...Array(MOST).keys()].find((colour) => pins.every((pin) => pin.colour !== colour));
  const at = (x, y) => state.pins.find((pin) => pin.x === x && pin.y === y);

  const lab = {
    MOST,
    FIRST,
    state,

    /** Change some of the state; everyone who listens is told what. */
    set(changes) {
      Object.assign(state, changes);
      for (const listener of listeners) listener(state, changes);
    },

    /** Listen to changes: `listener(state, changes)`, now with all of it and whenever something changes. */
    on(listener) {
      listeners.add(listener);
      listener(state, state);
    },

    /** Pin the pixel (x, y), which becomes the chosen one. False if there are five pins already. */
    pin(x, y) {
      const there = at(x, y);
      if (!there && state.pins.length === MOST) return false;
      const pin = there ?? { x, y, colour: free(state.pins) };
      lab.set({ pins: there ? state.pins : [...state.pins, pin], chosen: pin });
      return true;
    },

    unpin(pin) {
      const pins = state.pins.filter((other) => other !== pin);
      lab.set({ pins, chosen: state.chosen === pin ? (pins.at(-1) ?? null) : state.chosen });
    },

    clear: () => lab.set({ pins: [], chosen: null }),

    /** The pixel whose computation is shown: that of the chosen or newest pin, else the last place. */
    subject() {
      const pin = state.chosen ?? state.pins.at(-1);
      return pin ? [pin.x, pin.y] : state.place;
    },

    /** What a link says of the lab: [name, value] of all that is not as on a first visit. */
    query() {
      const { pins, gammas, ...rest } = state;
      return [
        ...LINKED.filter((name) => rest[name] !== FIRST[name]).map((name) => [name, rest[name]]),
        ...(pins.length ? [['pins', pins.map(({ x, y }) => `${x}-${y}`).join('_')]] : []),
        ...Object.entries(gammas).map(([layer, times]) => [`gamma_${layer}`, times]),
      ];
    },

    /** Whether a word of a link is one of `query`. */
    says: (word) => LINKED.includes(word) || word === 'pins' || word.startsWith('gamma_'),

    /** Take over what a link said: {pins: [[x, y], ...], ...}. */
    open({ pins = [], ...rest }) {
      lab.set(rest);
      for (const [x, y] of pins) lab.pin(x, y);
    },
  };
  sagan.on('link', ({ view }) => lab.open(view));
  return lab;
})();
