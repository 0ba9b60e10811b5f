"""Attention rows -> numbers, colours and pictures.

A row is the weights of one query over all keys, (n*n,) or (n, n), and sums to 1. A face is uint8 (S, S, 3).
"""

from collections.abc import Callable, Sequence
from functools import cache
from math import ceil, isqrt, sqrt
from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOUR_MAP = "inferno"
# Okabe and Ito's sky blue, vermillion, yellow, reddish purple and blue: of their seven colours, the five that
# colour-blind people tell apart best.
PIN_COLOURS = ("#56B4E9", "#D55E00", "#F0E442", "#CC79A7", "#0072B2")
EYE = (0.37, 0.52)  # (x, y) in shares of the picture: on an aligned face, the left eye
OPACITY = 0.6  # of the weights over a face
FIGURE_PIXELS = 512  # of each picture in a figure
CEILING = 64  # times uniform: where the scale that maps share ends, as on the page
LEAST_SCALE = (
    4.0  # times uniform: below it, a row's own maximum would make near-uniform attention look strong
)


def times_uniform(row: np.ndarray) -> np.ndarray:
    """The weights in units of uniform attention: 1 where a key gets what it would get if all got the same."""
    return row * row.size


def entropy_bits(row: np.ndarray) -> float:
    """The entropy of a row in bits: 0 if one key gets everything, log2(n*n) if all get the same.

    Raises ValueError where the weights do not sum to 1, as those of a whole map do not.
    """
    weights = np.asarray(row, np.float64)
    if abs(weights.sum() - 1) > 0.01:
        raise ValueError(f"The weights of one row sum to 1, but these sum to {weights.sum():.4g}.")
    weights = weights[weights > 0]
    return float(-(weights * np.log2(weights)).sum())


def mean_distance(row: np.ndarray, query: int, side: int, image_size: int) -> float:
    """How far a query looks on average, in pixels of the picture: distances to the keys, times their weights.

    side is n, the cells in a row of the layer; the picture is image_size pixels wide. Raises ValueError where
    the row does not have n*n weights or there is no such query.
    """
    down, right = _offsets(row, query, side)
    return float(image_size / side * (np.hypot(down, right) * np.ravel(row)).sum(dtype=np.float64))


def share_outside(row: np.ndarray, query: int, side: int) -> float:
    """The share of a query's weight that lies outside the 3x3 cells around it.

    One convolution could not have reached there; at a border there are fewer cells around it. side and
    errors are those of `mean_distance`.
    """
    down, right = _offsets(row, query, side)
    outside = np.maximum(abs(down), abs(right)) > 1
    return float(np.ravel(row)[outside].sum(dtype=np.float64))


def cell(point: tuple[float, float], side: int) -> tuple[int, int]:
    """The column and the row of the cell below a point (x, y) in shares of the picture, `side` cells wide."""
    x, y = (min(side - 1, int(share * side)) for share in point)
    return x, y


def _offsets(row: np.ndarray, query: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Of every key, how many cells it lies below the query, and how many to the right of it."""
    if np.size(row) != side * side:
        raise ValueError(f"A layer {side} cells wide has {side * side} weights in a row, not {np.size(row)}.")
    check_query(query, side * side)
    rows, columns = np.divmod(np.arange(side * side), side)
    return rows - query // side, columns - query % side


def receiving_most(attention: np.ndarray, count: int) -> np.ndarray:
    """The keys of a map (n*n, n*n) that receive most from all queries, the first of them most: (count,)."""
    return np.argsort(-attention.sum(0), kind="stable")[:count]


def check_query(query: object, positions: int) -> int:
    """The query as an int. Raises ValueError where it is none of the positions 0 to positions - 1."""
    if isinstance(query, bool) or not isinstance(query, Integral) or not 0 <= query < positions:
        raise ValueError(f"The query is {query!r}, but this layer has positions 0 to {positions - 1}.")
    return int(query)


@cache
def colour_table() -> np.ndarray:
    """The colour map of all attention, Matplotlib's inferno, as (256, 3) uint8, read-only."""
    table = colormaps[COLOUR_MAP](np.arange(256), bytes=True)[:, :3].copy()
    table.flags.writeable = False
    return table


def colour(shares: np.ndarray) -> np.ndarray:
    """Shares (h, w) -> colours (h, w, 3) uint8: 0 and less get the table's first, 1 and more its last."""
    return colour_table()[np.round(255 * np.clip(shares, 0, 1)).astype(np.uint8)]


def full_scale(row: np.ndarray) -> float:
    """The weight that gets the last colour: the row's largest, or 4 x uniform if that is more."""
    return max(float(row.max()), LEAST_SCALE / row.size)


def overlay(
    face: np.ndarray,
    row: np.ndarray,
    query: int,
    size: int = 256,
    vmax: float | None = None,
) -> Image.Image:
    """A face with one row of attention over it, `size` pixels wide.

    The face is enlarged smoothly, the weights lie over it as a smooth field through which it is seen, and a
    square marks the cell of the query position (row * width + column). vmax is the weight that gets the last
    colour, by default `full_scale(row)`. Raises ValueError where there is no such query.
    """
    side = isqrt(row.size)
    check_query(query, row.size)
    most = (full_scale(row) if vmax is None else vmax) * row.size
    picture = _blend(face, row, size, lambda times: times / most)
    y, x = (at * size // side for at in divmod(query, side))
    last = (query // side + 1) * size // side - 1 - y
    pen = ImageDraw.Draw(picture)
    pen.rectangle((x - 1, y - 1, x + last + 1, y + last + 1), outline="black")
    pen.rectangle((x, y, x + last, y + last), outline="white")
    return picture


def shared_scale(times: np.ndarray) -> np.ndarray:
    """Where weights, times uniform, stand on the scale of all maps: 0 to 1 x, then logarithmic to 1 at 64."""
    return np.clip(np.log2(np.maximum(times, 1)) / np.log2(CEILING), 0, 1)


def _blend(
    face: np.ndarray,
    row: np.ndarray,
    size: int,
    scale: Callable[[np.ndarray], np.ndarray],  # times uniform -> share of the colours
) -> Image.Image:
    side = isqrt(row.size)
    weights = Image.fromarray(np.asarray(times_uniform(row), np.float32).reshape(side, side))
    field = np.asarray(weights.resize((size, size), Image.Resampling.BICUBIC))
    return Image.blend(enlarge(face, size), Image.fromarray(colour(scale(field))), OPACITY)


def enlarge(face: np.ndarray, size: int) -> Image.Image:
    """A face as a picture `size` pixels wide, bicubic."""
    return Image.fromarray(face).resize((size, size), Image.Resampling.BICUBIC)


def sheet(faces: np.ndarray, columns: int | None = None, gap: int = 2) -> Image.Image:
    """Faces (N, S, S, 3) in rows on white, `gap` pixels apart; by default as square as N allows."""
    count, side = faces.shape[:2]
    columns = columns or ceil(sqrt(count))
    pitch = side + gap
    picture = Image.new("RGB", (columns * pitch + gap, ceil(count / columns) * pitch + gap), "white")
    for i, face in enumerate(faces):
        row, column = divmod(i, columns)
        picture.paste(Image.fromarray(face), (gap + column * pitch, gap + row * pitch))
    return picture


def attention_figure(
    face: np.ndarray,
    pins: Sequence[tuple[float, float]],
    maps: Sequence[np.ndarray],
    colours: Sequence[str] = PIN_COLOURS,
    *,
    shared: bool = True,
    unit: str = "times uniform",
) -> "Figure":
    """A figure for a slide: the face with a numbered point for each pin, and beside it the map of each pin.

    pins are (x, y) in shares of the picture, maps a row (n*n,) or column for each. All maps have the page's
    one scale, by logarithm from 1 to 64 times uniform, so that pins and figures compare and weak maps are
    seen beside strong ones; with shared=False each has its own, from 0 to its own maximum. Bars are in
    `unit`. Save it by `figure.savefig("x.png", dpi=200)` or `figure.savefig("x.svg")`. Raises ValueError
    where there is no pin, or one without a map, a colour or a place in the picture.
    """
    if not 1 <= len(pins) <= len(colours) or len(pins) != len(maps):
        raise ValueError(
            f"A figure shows 1 to {len(colours)} pins with a map each, but was given {len(pins)} pins and "
            f"{len(maps)} maps."
        )
    for x, y in pins:
        if not (0 <= x <= 1 and 0 <= y <= 1):
            raise ValueError(f"The pin ({x}, {y}) is outside the picture, which runs from 0 to 1.")
    maps = [np.ravel(row) for row in maps]
    for row in maps:
        if row.size != isqrt(row.size) ** 2 or not np.isfinite(row).all():
            raise ValueError(f"A map must be n*n finite weights, but one has {row.size} numbers.")
    return _draw_figure(face, pins, maps, colours, shared, unit)


def _draw_figure(face, pins, maps, colours, shared, unit) -> "Figure":
    from matplotlib.cm import ScalarMappable  # these take half a second, which the start of the page has not
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    largest = [times_uniform(row).max() or 1 for row in maps]
    height = 3 if shared else 3.6  # the bars lie beside the maps, or below them
    figure = Figure(figsize=(2.5 * (len(pins) + 1) + shared, height), layout="compressed")
    (left, *others) = figure.subplots(1, len(pins) + 1)
    whole = {"extent": (0, 1, 1, 0), "interpolation": "nearest"}  # axes in shares of the picture
    left.imshow(enlarge(face, FIGURE_PIXELS), **whole)
    parts = zip(others, pins, maps, colours, largest, strict=False)
    for number, (axes, (x, y), row, chosen, most) in enumerate(parts, 1):
        scale = shared_scale if shared else Normalize(0, most)
        axes.imshow(_blend(face, row, FIGURE_PIXELS, scale), **whole)
        axes.set_title(number)
        side = isqrt(row.size)
        corner = tuple(at / side for at in cell((x, y), side))
        edge = [withStroke(linewidth=4, foreground="black")]
        axes.add_patch(Rectangle(corner, 1 / side, 1 / side, fill=False, edgecolor=chosen, path_effects=edge))
        left.plot(x, y, "o", markersize=15, color=chosen, markeredgecolor="black", clip_on=False)
        white = {"color": "white", "path_effects": [withStroke(linewidth=2, foreground="black")]}
        left.text(x, y, number, ha="center", va="center_baseline", fontsize=9, **white)
        for spine in axes.spines.values():
            spine.set(color=chosen, linewidth=4)
        if not shared:
            bar = ScalarMappable(scale, COLOUR_MAP)
            figure.colorbar(bar, ax=axes, label=unit, orientation="horizontal")
    if shared:
        bar = ScalarMappable(LogNorm(1, CEILING), COLOUR_MAP)
        place = {"fraction": 0.1 / len(others), "pad": 0.02 / len(others)}
        ticks = figure.colorbar(bar, ax=others, label=unit, **place).ax.yaxis
        ticks.set_ticks([1, 4, 16, CEILING], labels=["≤ 1", "4", "16", f"≥ {CEILING}"], minor=False)
        ticks.set_ticks([], minor=True)
    for axes in (left, *others):
        axes.set(xticks=[], yticks=[])
    return figure
