"""What a link says of the attention lab: direction, scale, network, layer in focus, pins, maps and dials."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gradio as gr

from sagan import heatmaps
from sagan.ui import texts
from sagan.ui.work import numbers_of

if TYPE_CHECKING:
    from sagan.sampler import Sampler

MOST_PINS = len(heatmaps.PIN_COLOURS)
MOST_TIMES = 3  # a dial goes from 0 to 3 times the learned gamma
MAPS = ("own", "strongest", "uniform", "b", "masked", "told")  # whose maps, or values, the dials work with
COMBINED = "combined"
DIAL = "gamma_"

Pin = tuple[int, int]  # a pixel of the face: column, row


def view_from_link(query: Mapping[str, str], sampler: "Sampler") -> tuple[dict[str, Any], list[str]]:
    """What of a link concerns the lab, as the browser takes it over, and what in it is not valid.

    Reads direction, scale, network, layer and maps; pins as "column-row_column-row", pixels of the face; and
    for each layer gamma_LAYER, a multiple of the learned gamma. The page of a model without attention has no
    lab.
    """
    if not sampler.layers:
        return {}, []
    names = {"generator": sampler.layers, "discriminator": sampler.discriminator_layers}
    layers = names.get(query.get("network", "generator"), sampler.layers)
    choices = {
        "direction": ("forward", "backward"),
        "scale": ("shared", "own"),
        "network": [network for network, layers in names.items() if layers],
        "maps": MAPS,
        "layer": layers if len(layers) < 2 else (*layers, COMBINED),
    }
    view = {name: query[name] for name, allowed in choices.items() if query.get(name) in allowed}
    ignored = [f"{name}={query[name]}" for name in choices if name in query and name not in view]
    pins, bad_pins = _pins(query["pins"], sampler.config.image_size) if "pins" in query else ([], [])
    gammas, bad_gammas = _gammas(query, sampler.layers)
    view |= {name: value for name, value in (("pins", pins), ("gammas", gammas)) if value}
    return view, ignored + bad_pins + bad_gammas


def _pins(text: str, size: int) -> tuple[list[Pin], list[str]]:
    """The first five pins that lie in a picture `size` pixels wide, and what is left out."""
    parts = {_pin(part) or part: part for part in text.split("_")}  # the same pin twice is one pin
    pins = [pin for pin in parts if isinstance(pin, tuple) and max(pin) < size][:MOST_PINS]
    out = [part for pin, part in parts.items() if pin not in pins]
    if len(out) == 1:
        return pins, [f"pins={out[0]}"]
    return pins, [texts.IGNORED_PINS.format(count=len(out), all=len(parts))] if out else []


def _pin(text: str) -> Pin | None:
    match = re.fullmatch(r"([0-9]{1,4})-([0-9]{1,4})", text)
    return (int(match[1]), int(match[2])) if match else None


def pins_of(event: gr.EventData, size: int, counts: range) -> list[Pin]:
    """The `pins` that a view's script sent with its event, as many as `counts` allows."""
    numbers = range(2 * counts.start, 2 * counts.stop, 2)
    places = numbers_of(event, "pins", size - 1, numbers)
    return list(zip(places[::2], places[1::2], strict=True))


def cell_of(pin: Pin, size: int, side: int) -> int:
    """The position, row * side + column, of the cell that holds a pixel of a picture `size` pixels wide."""
    column, row = (at * side // size for at in pin)
    return row * side + column


def _gammas(query: Mapping[str, str], layers: tuple[str, ...]) -> tuple[dict[str, float], list[str]]:
    gammas, bad = {}, []
    for name in query:
        if name.startswith(DIAL):
            times = _times(query[name]) if name.removeprefix(DIAL) in layers else None
            if times is None:
                bad.append(f"{name}={query[name]}")
            else:
                gammas[name.removeprefix(DIAL)] = times
    return gammas, bad


def _times(text: str) -> float | None:
    try:
        times = float(text)
    except ValueError:
        return None
    return times if 0 <= times <= MOST_TIMES else None
