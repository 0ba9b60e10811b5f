"""Attention rows -> numbers, colours and pictures.

A row is the weights of one query over all keys, (n*n,) or (n, n), and sums to 1. A face is uint8 (S, S, 3).
"""

from functools import cache
from math import ceil, isqrt, sqrt

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw

COLOUR_MAP = "inferno"
LEAST_SCALE = (
    4.0  # times uniform: below it, a row's own maximum would make near-uniform attention look strong
)


def times_uniform(row: np.ndarray) -> np.ndarray:
    """The weights in units of uniform attention: 1 where a key gets what it would get if all got the same."""
    return row * row.size


def entropy_bits(row: np.ndarray) -> float:
    """The entropy of a row in bits: 0 if one key gets everything, log2(n*n) if all get the same."""
    weights = np.asarray(row, np.float64)
    weights = weights[weights > 0]
    return float(-(weights * np.log2(weights)).sum())


@cache
def colour_table(name: str = COLOUR_MAP) -> np.ndarray:
    """One of Matplotlib's colour maps as (256, 3) uint8, read-only."""
    table = colormaps[name](np.arange(256), bytes=True)[:, :3].copy()
    table.flags.writeable = False
    return table


def colour(row: np.ndarray, vmax: float, cmap: str = COLOUR_MAP) -> np.ndarray:
    """Weights (h, w) -> colours (h, w, 3) uint8: 0 gets the map's first colour, vmax and more the last."""
    return colour_table(cmap)[np.round(255 * np.clip(row / vmax, 0, 1)).astype(np.uint8)]


def full_scale(row: np.ndarray) -> float:
    """The weight that gets the last colour: the row's largest, or 4 x uniform if that is more."""
    return max(float(row.max()), LEAST_SCALE / row.size)


def overlay(
    face: np.ndarray,
    row: np.ndarray,
    query: int,
    size: int = 256,
    opacity: float = 0.6,
    vmax: float | None = None,
) -> Image.Image:
    """A face with one row of attention over it, `size` pixels wide.

    The face is enlarged smoothly, the weights lie over it as a smooth field of this opacity (0 to 1), and a
    square marks the cell of the query position (row * width + column). vmax is the weight that gets the last
    colour, by default `full_scale(row)`. Raises ValueError where there is no such query.
    """
    side = isqrt(row.size)
    if not 0 <= query < row.size:
        raise ValueError(f"The query is {query}, but this layer has positions 0 to {row.size - 1}.")
    weights = Image.fromarray(np.asarray(row, np.float32).reshape(side, side))
    field = np.asarray(weights.resize((size, size), Image.Resampling.BICUBIC))
    heat = Image.fromarray(colour(field, full_scale(row) if vmax is None else vmax))
    picture = Image.blend(enlarge(face, size), heat, opacity)

    y, x = (cell * size // side for cell in divmod(query, side))
    last = (query // side + 1) * size // side - 1 - y
    pen = ImageDraw.Draw(picture)
    pen.rectangle((x - 1, y - 1, x + last + 1, y + last + 1), outline="black")
    pen.rectangle((x, y, x + last, y + last), outline="white")
    return picture


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
