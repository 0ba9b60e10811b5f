"""Files of the attention lab: a figure for a slide, and the raw maps."""

from io import BytesIO
from math import isqrt
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sagan import heatmaps, inside
from sagan.networks import discriminator_key
from sagan.ui import texts
from sagan.ui.current import CurrentFace
from sagan.ui.lab import COMBINED, Pin, cell_of

if TYPE_CHECKING:
    from sagan.sampler import Sampler

DPI = 200


class Wanted(NamedTuple):
    """What a figure shows: maps of a layer, or of all of a network combined, at up to five pins."""

    network: str
    layer: str
    pins: list[Pin]
    colours: list[int]
    backward: bool = False
    own: bool = False  # each map its own scale


def figure(sampler: "Sampler", face: CurrentFace, wanted: Wanted, kind: str) -> bytes:
    """A figure for a slide as the bytes of a file, kind "png" or "svg". Raises ValueError."""
    image, side, columns = _maps(sampler, face, wanted)
    size = sampler.config.image_size
    shares = [((x + 0.5) / size, (y + 0.5) / size) for x, y in wanted.pins]
    drawn = heatmaps.attention_figure(
        image,
        shares,
        [columns[cell_of(pin, size, side)] for pin in wanted.pins],
        [heatmaps.PIN_COLOURS[colour] for colour in wanted.colours],
        shared=not wanted.own,
        unit=texts.FIGURE_UNIT[wanted.backward].format(layer=_named(wanted)),
    )
    buffer = BytesIO()
    drawn.savefig(buffer, format=kind, dpi=DPI)
    return buffer.getvalue()


def _named(wanted: Wanted) -> str:
    if wanted.network == "generator":
        return wanted.layer
    return discriminator_key(wanted.layer)


def raw_maps(sampler: "Sampler", face: CurrentFace) -> bytes:
    """`Sampler.raw_maps` of a face as the bytes of an .npz file. Raises ValueError."""
    about = {"seed_a": face.seed_a, "seed_b": face.seed_b, "t": float(face.t), "psi": float(face.psi)}
    buffer = BytesIO()
    np.savez_compressed(buffer, **sampler.raw_maps(*face.inputs(sampler.config), about=about))
    return buffer.getvalue()


def _maps(sampler: "Sampler", face: CurrentFace, wanted: Wanted) -> tuple[np.ndarray, int, np.ndarray]:
    """The face, the side of the grid, and by position its row or, backward, its column: (n*n, n*n)."""
    z, label = face.inputs(sampler.config)
    image, vectors = sampler.face_and_queries_keys(z, label)
    gammas = sampler.gammas
    if wanted.network == "discriminator":
        vectors = sampler.discriminator_queries_keys(image, label)
        gammas = sampler.discriminator_gammas
    names = list(vectors) if wanted.layer == COMBINED else [wanted.layer]
    maps = {name: inside.attention(*vectors[name]).astype(np.float64) for name in names}
    whole = combined(maps, {name: gammas[name] for name in names})
    return image, isqrt(len(whole)), whole.T if wanted.backward else whole


def combined(maps: dict[str, np.ndarray], gammas: dict[str, float]) -> np.ndarray:
    """The mean of maps {layer: (n*n, n*n)} weighted by |gamma|, on the finest of their grids.

    A coarse cell spreads its weight evenly over the fine cells that it covers.
    """
    sizes = {name: abs(gammas[name]) for name in maps}
    total = sum(sizes.values())
    finest = max(len(attention) for attention in maps.values())
    whole = np.zeros((finest, finest))
    for name, attention in maps.items():
        side, fine = isqrt(len(attention)), isqrt(finest // len(attention))
        cells = np.arange(side * side).reshape(side, side).repeat(fine, 0).repeat(fine, 1).ravel()
        share = sizes[name] / total if total else 1 / len(maps)
        whole += share / fine**2 * attention[np.ix_(cells, cells)]
    return whole
