"""The gamma dials of the Attention tab: the face without attention, as dialled, and the difference.

Dialled is also whose maps: the face's own ones, their strongest keys alone, uniform ones, those of face B, or
its own without the keys of the pinned places. Or its own, while the pinned places tell the values of face B.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np

from sagan import inside
from sagan.networks import side_of
from sagan.ui import pictures, texts
from sagan.ui.components import view
from sagan.ui.controls import Controls
from sagan.ui.current import CurrentFace, check_label, labels_of
from sagan.ui.lab import MAPS, MOST_PINS, MOST_TIMES, Pin, cell_of, pins_of
from sagan.ui.work import CHOICE, in_worker, number_of, numbers_of

if TYPE_CHECKING:
    from sagan.sampler import QueriesKeys, Sampler

MOST_FACTOR = 64  # of the difference
GREY = 128


def gamma_dials(controls: Controls) -> None:
    """Build the section and its event."""
    sampler = controls.sampler
    dials = view(
        "dials",
        texts=texts.DIALS,
        dials=[
            {"name": name, "title": texts.DIALS["dial"].format(name=name), "gamma": sampler.gammas[name]}
            for name in sampler.layers
        ],
        most=MOST_TIMES,
        maps=[{"value": value, "text": texts.DIALS["maps"][value]} for value in MAPS],
    )

    count = len(sampler.layers)

    async def want(event: gr.EventData, face: CurrentFace) -> dict[str, Any]:
        number = number_of(event, "number")
        times = numbers_of(event, "times", MOST_TIMES, range(count, count + 1), float)
        maps = MAPS[number_of(event, "maps", len(MAPS) - 1)]
        pins = pins_of(event, sampler.config.image_size, range(MOST_PINS + 1))
        return {"number": number} | await in_worker(compare, sampler, face, times, maps, pins)

    controls.about_face(dials.want, want, dials, **CHOICE)


def compare(
    sampler: "Sampler", face: CurrentFace, times: list[float], maps: str = "own", pins: Sequence[Pin] = ()
) -> dict[str, Any]:
    """Four pictures: a face with attention off, as dialled, the difference, and the face as learned.

    Dialled is every gamma, `times` the learned one, and `maps`, one of MAPS: "masked" are the face's own ones
    without the keys at the `pins`, and with "told" the places of the pins have the values of face B. Where
    face B has a part in it, it is B that is shown as learned, and its seed is given, as are the factor
    that the difference was amplified by, its mean over pixels in grey levels, and for all but its own maps
    the same mean of what these alone change: the picture as dialled against that of the same gammas with its
    own. Raises ValueError for a face that cannot be.
    """
    face = replace(face, label=check_label(face.label, sampler.config.num_classes))
    other = replace(face, seed_a=face.seed_b, t=0.0)
    if face.t == 0:
        face = replace(face, seed_b=face.seed_a)  # the same face whoever B is: it is not made again for that
    of_b = maps in ("b", "told")
    source = other if of_b else face
    without = _without(sampler, face)
    learned, _ = _learned(sampler, source)
    with_it = own = _dialled(sampler, face, tuple(times))
    if maps == "told":
        with_it = _made(sampler, face, times, values=_values(sampler, source, pins))
    elif maps != "own":
        with_it = _made(sampler, face, times, _maps(sampler, source, maps, pins))
    difference, factor = amplified(without, with_it)
    shown = {"off": without, "dialled": with_it, "difference": difference, "learned": learned}
    return {name: pictures.png_uri(image) for name, image in shown.items()} | {
        "factor": factor,
        "change": _apart(with_it, without),
        "other": None if maps == "own" else _apart(with_it, own),
        "seed_b": source.seed_a if of_b else None,
    }


def _made(
    sampler: "Sampler",
    face: CurrentFace,
    times: Sequence[float],
    maps: dict[str, np.ndarray] | None = None,
    values: dict[str, dict[int, np.ndarray]] | None = None,
) -> np.ndarray:
    """A face with every gamma `times` the learned one, its own maps and values or these, uint8 (S, S, 3)."""
    z, label = face.inputs(sampler.config)
    gammas = {name: factor * sampler.gammas[name] for name, factor in zip(sampler.layers, times, strict=True)}
    return sampler.faces(z[None], labels_of(label), gammas, maps, values)[0]


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    """The mean difference of two pictures in grey levels."""
    return float(np.abs(a.astype(int) - b).mean())


def _maps(sampler: "Sampler", face: CurrentFace, kind: str, pins: Sequence[Pin]) -> dict[str, np.ndarray]:
    """The maps of one of MAPS that are not a face's own by layer, (n*n, n*n), from a face as learned."""
    if kind == "uniform":
        places = {name: side_of(name) ** 2 for name in sampler.layers}
        return {name: np.full((n, n), 1 / n, np.float32) for name, n in places.items()}
    if kind == "masked":
        cells, (_, queries_keys) = _cells(sampler, pins), _learned(sampler, face)
        return {name: inside.attention(q, k, cells[name]) for name, (q, k) in queries_keys.items()}
    learned = _attention(sampler, face)
    return learned if kind == "b" else {name: strongest(weights) for name, weights in learned.items()}


def _values(sampler: "Sampler", face: CurrentFace, pins: Sequence[Pin]) -> dict[str, dict[int, np.ndarray]]:
    """What the places of the pins tell in a face as learned, by layer and position."""
    of_all = _learned_values(sampler, face)
    return {
        name: {cell: of_all[name][cell] for cell in cells} for name, cells in _cells(sampler, pins).items()
    }


def _cells(sampler: "Sampler", pins: Sequence[Pin]) -> dict[str, set[int]]:
    """The positions of the pins in each layer."""
    size = sampler.config.image_size
    return {name: {cell_of(pin, size, side_of(name)) for pin in pins} for name in sampler.layers}


def strongest(weights: np.ndarray) -> np.ndarray:
    """A map (n*n, n*n) whose rows give all of their weight to the strongest key."""
    alone = np.zeros_like(weights)
    alone[np.arange(len(weights)), weights.argmax(1)] = 1
    return alone


@lru_cache(maxsize=32)
def _without(sampler: "Sampler", face: CurrentFace) -> np.ndarray:
    """A face with attention off, which stays while its dials turn."""
    return _made(sampler, face, (0.0,) * len(sampler.layers))


@lru_cache(maxsize=32)
def _dialled(sampler: "Sampler", face: CurrentFace, times: tuple[float, ...]) -> np.ndarray:
    """A face with its own maps and every gamma `times` the learned one, uint8 (S, S, 3)."""
    return _learned(sampler, face)[0] if set(times) == {1} else _made(sampler, face, times)


@lru_cache(maxsize=32)
def _learned(sampler: "Sampler", face: CurrentFace) -> tuple[np.ndarray, "QueriesKeys"]:
    """A face as learned, uint8 (S, S, 3), and its queries and keys."""
    return sampler.face_and_queries_keys(*face.inputs(sampler.config))


@lru_cache(maxsize=4)  # 4 MB each with layers of 16 and 32
def _attention(sampler: "Sampler", face: CurrentFace) -> dict[str, np.ndarray]:
    """The maps of a face as learned by layer, (n*n, n*n)."""
    return {name: inside.attention(q, k) for name, (q, k) in _learned(sampler, face)[1].items()}


@lru_cache(maxsize=4)  # 0.4 MB each with layers of 16 and 32
def _learned_values(sampler: "Sampler", face: CurrentFace) -> dict[str, np.ndarray]:
    """The values of a face as learned by layer, (n*n, C)."""
    return sampler.values(*face.inputs(sampler.config))


def amplified(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, int]:
    """after - before around middle grey, times the largest power of 2 from 1 to 64 that clips nothing.

    uint8 (S, S, 3) and the factor. At factor 1 half the range or more is clipped all the same.
    """
    difference = after.astype(int) - before
    factor = MOST_FACTOR
    while factor > 1 and factor * np.abs(difference).max() >= GREY:
        factor //= 2
    return np.clip(GREY + factor * difference, 0, 255).astype(np.uint8), factor
