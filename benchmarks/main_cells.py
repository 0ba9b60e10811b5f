"""The few cells of an attention layer that receive most: who looks at them, and what for.

    python -m benchmarks.main_cells --checkpoint checkpoints/celeba64 --out runs/cells

This is about the coarsest attention layer of a trained generator. figures.json says how much of all weight
the five main cells of a face receive, how far the parts of the picture that look at them differ in colour,
and what becomes of the colours of those who look at the two commonest ones when these tell what they tell in
another face; and for all layers, what becomes of their maps if each weight counts times the length of its
value. looked_at.png and told.png show it.
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from math import isqrt
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from benchmarks.common import carry_out, sheet
from sagan import checkpoint, heatmaps, latents
from sagan.commands import run_program
from sagan.networks import side_of
from sagan.sampler import Sampler

FACES = 64  # seeds 0 to 63
MAIN = 5  # cells of a face
COMMON = 2  # cells that are among the main ones in most faces
SHOWN = 6  # faces of a picture
MUCH, LITTLE = 0.5, 0.05  # of a position's weight
FEWEST = 4  # positions of a mean colour, and faces of a share of the way


def colours(face: np.ndarray, side: int) -> np.ndarray:
    """The mean colour of what lies below each position of a layer: uint8 (S, S, 3) -> (side*side, 3)."""
    squares = face.reshape(side, len(face) // side, side, -1, 3).astype(np.float64)
    return squares.mean((1, 3)).reshape(-1, 3)


def explained(values: np.ndarray, groups: np.ndarray) -> float:
    """Which share of the variance of values (N, C) lies between groups (N,): 1 where each is all alike."""
    spread = np.square(values - values.mean(0)).sum()
    within = sum(np.square(part - part.mean(0)).sum() for g in set(groups) for part in [values[groups == g]])
    return 1 - within / spread


def toward(before: np.ndarray, after: np.ndarray, aim: np.ndarray) -> tuple[float, float] | None:
    """How far colours (N, 3) have gone to where they would: the share of the way, and the correlation.

    What is not known, NaN, is left out; None where that leaves too few. Both are above 0 by chance, since
    `before` is in both.
    """
    known = np.isfinite(before + after + aim)
    if known.all(1).sum() < FEWEST:
        return None
    way, gone = (aim - before)[known], (after - before)[known]
    correlation = np.corrcoef(way, gone)[0, 1] if gone.any() else 0
    return float(way @ gone / (way @ way)), float(correlation)


def colours_where(sure: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """The mean colour of the positions `sure` (N, n*n) in each of N faces: (N, 3), NaN where they are few."""
    side = isqrt(sure.shape[1])
    means = np.full((len(faces), 3), np.nan)
    for mean, face, where in zip(means, faces, sure, strict=True):
        if where.sum() >= FEWEST:
            mean[:] = colours(face, side)[where].mean(0)
    return means


def regions(faces: np.ndarray, off: np.ndarray, maps: np.ndarray) -> dict[str, object]:
    """How much the main cells of faces (N, S, S, 3) with maps (N, n*n, n*n) receive, and from whom.

    off are the same faces with the layer off.
    """
    side = isqrt(maps.shape[1])
    ranked = np.array([heatmaps.receiving_most(weights, 2 * MAIN) for weights in maps])
    main, after = ranked[:, :MAIN], ranked[:, MAIN:]
    share = [weights[:, cells].sum(1).mean() for weights, cells in zip(maps, main, strict=True)]
    first = [np.isin(weights.argmax(1), cells).mean() for weights, cells in zip(maps, main, strict=True)]

    def told_by_groups(pictures: np.ndarray, cells: np.ndarray, before: int = 0) -> float:
        """Median share of the variance of colours; groups of a face are those of the face so many before."""
        groups = [weights[:, some].argmax(1) for weights, some in zip(maps, cells, strict=True)]
        below = [colours(picture, side) for picture in pictures]
        shares = [explained(values, groups[i - before]) for i, values in enumerate(below)]
        return round(float(np.median(shares)), 3)

    often = Counter(main.ravel().tolist()).most_common(COMMON)
    return {
        "share of weight": round(float(np.median(share)), 3),
        "share of weight, 5th and 95th percentile": np.quantile(share, [0.05, 0.95]).round(3).tolist(),
        "positions with a main cell as strongest key": round(float(np.median(first)), 3),
        "commonest cells, [row, column, faces]": [[*divmod(cell, side), count] for cell, count in often],
        "variance of colours explained": told_by_groups(faces, main),
        "by the groups of the next five cells": told_by_groups(faces, after),
        "by another face's groups": told_by_groups(faces, main, before=1),
        "with the layer off": told_by_groups(off, main),
    }


def lengths(sampler: Sampler, latent: np.ndarray) -> dict[str, object]:
    """What becomes of maps if each weight counts times the length of what its key tells.

    Weights alone do not say how much comes from a place (Kobayashi et al. 2020, arXiv:2004.10102). Medians
    over the faces of latents (N, z_dim), by layer: how much of the weight then lies elsewhere, also with what
    all values share left out, in how many rows the strongest key stays, and how long the values of the main
    cells are, as a multiple of the mean.
    """
    by_layer = {layer: [] for layer in sampler.layers}
    for z in latent:
        for layer, values in sampler.values(z).items():
            weights = sampler.attention(z, layer)
            sizes = np.linalg.norm(values, axis=1)
            counted = times(weights, sizes)
            apart = times(weights, np.linalg.norm(values - values.mean(0), axis=1))
            by_layer[layer].append(
                {
                    "weight that lies elsewhere": elsewhere(weights, counted),
                    "without what all values share": elsewhere(weights, apart),
                    "rows whose strongest key stays": (counted.argmax(1) == weights.argmax(1)).mean(),
                    "length of main cells' values": sizes[heatmaps.receiving_most(weights, MAIN)].mean()
                    / sizes.mean(),
                }
            )
    return {
        layer: {name: round(float(np.median([face[name] for face in faces])), 3) for name in faces[0]}
        for layer, faces in by_layer.items()
    }


def times(weights: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Rows (N, n*n) whose weights count times the sizes (n*n,) of their keys; they sum to 1 again.

    A row of which nothing is left, because all its keys have the size 0, stays as it is.
    """
    counted = weights * sizes
    total = counted.sum(1, keepdims=True)
    return np.divide(counted, total, out=np.array(weights, float), where=total > 0)


def elsewhere(a: np.ndarray, b: np.ndarray) -> float:
    """Which share of their weight rows (N, n*n) that sum to 1 have in other places: 0 alike, 1 apart."""
    return float(np.abs(a - b).sum(1).mean() / 2)


def told(
    sampler: Sampler, latent: np.ndarray, values: Sequence[np.ndarray], cells: Sequence[int]
) -> np.ndarray:
    """The faces of latents (N, z_dim) whose `cells` tell what they tell in the face before: (N, S, S, 3).

    values are what the positions of the coarsest layer tell in each face, (n*n, C).
    """
    layer = coarsest(sampler)
    given = [{cell: values[i - 1][cell] for cell in cells} for i in range(len(latent))]
    pairs = zip(latent, given, strict=True)
    return np.stack([sampler.faces(z[None], values={layer: some})[0] for z, some in pairs])


def changes(
    sampler: Sampler, faces: np.ndarray, maps: np.ndarray, latent: np.ndarray, cells: Sequence[int]
) -> tuple[dict[str, object], np.ndarray]:
    """What changes where `cells` tell what they tell in the face before: figures, and the faces so made."""
    side = isqrt(maps.shape[1])
    values = [sampler.values(z)[coarsest(sampler)] for z in latent]
    made = told(sampler, latent, values, cells)
    looks = maps[:, :, list(cells)].sum(2)  # (N, n*n)
    moved = np.stack(
        [colours(np.abs(a.astype(int) - b), side).mean(1) for a, b in zip(made, faces, strict=True)]
    )
    sure = looks > MUCH
    before = colours_where(sure, faces)
    aim = np.roll(before, 1, axis=0)
    after = colours_where(sure, made)
    by_chance = (toward(before, after, np.roll(before, shift, axis=0)) for shift in range(2, len(faces)))
    chance = [figures for figures in by_chance if figures]
    others = [cell for cell in range(maps.shape[1]) if cell not in cells]
    bands = {
        "more than half": sure,
        "between": (looks <= MUCH) & (looks >= LITTLE),
        "less than a twentieth": looks < LITTLE,
    }
    ways = {
        "these two": (before, after, aim),
        "all the others": (before, colours_where(sure, told(sampler, latent, values, others)), aim),
        "all": (before, colours_where(sure, told(sampler, latent, values, range(maps.shape[1]))), aim),
    }
    return {
        "faces with enough who look": int(np.isfinite(aim + before).all(1).sum()),
        "grey levels, by the weight that goes there": {
            name: round(float(moved[band].mean()), 1) if band.any() else None for name, band in bands.items()
        },
        "share of the way to the other's colour, and correlation, where these are told": {
            name: rounded(toward(*of_three)) for name, of_three in ways.items()
        },
        "the same to faces that told nothing": rounded(np.mean(chance, axis=0) if chance else None),
        "gamma": round(sampler.gammas[coarsest(sampler)], 2),
    }, made


def rounded(figures: Sequence[float] | None) -> list[float] | None:
    """Figures to two places, None where there are none."""
    return None if figures is None else [round(float(figure), 2) for figure in figures]


def coarsest(sampler: Sampler) -> str:
    """The layer with the fewest positions."""
    return min(sampler.layers, key=side_of)


def draw_looked_at(faces: np.ndarray, maps: np.ndarray, path: Path) -> None:
    """Save a row for each face: itself, and over it who looks at each of its main cells, which are framed."""
    side, size = isqrt(maps.shape[1]), faces.shape[1]
    figure = Figure(figsize=(1.5 * (1 + MAIN), 1.5 * len(faces)), layout="constrained")
    grid = figure.subplots(len(faces), 1 + MAIN, squeeze=False)
    for row, face, weights in zip(grid, faces, maps, strict=True):
        row[0].imshow(face)
        for axes, cell in zip(row[1:], heatmaps.receiving_most(weights, MAIN), strict=True):
            axes.imshow(face // 3)
            y, x = (at * size / side for at in divmod(int(cell), side))
            extent = (-0.5, size - 0.5, size - 0.5, -0.5)
            looks = weights[:, cell].reshape(side, side)
            seen = (looks / MUCH).clip(0, 1)
            axes.imshow(seen, cmap=heatmaps.COLOUR_MAP, alpha=seen**0.5, vmin=0, vmax=1, extent=extent)
            frame = {"fill": False, "edgecolor": "deepskyblue", "linewidth": 2}
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), size / side, size / side, **frame))
    for axes in grid.flat:
        axes.set_axis_off()
    checkpoint.replace_file(path, lambda new: figure.savefig(new, dpi=70))


def run(options: argparse.Namespace) -> None:
    """Write the figures and both pictures."""
    sampler = Sampler.load(options.checkpoint)
    if not sampler.layers:
        raise ValueError(f"The generator in '{options.checkpoint}' has no attention.")
    if sampler.config.num_classes:
        raise ValueError("This is for models without classes.")
    options.out.mkdir(parents=True, exist_ok=True)
    latent = latents.from_seeds(range(FACES), sampler.config.z_dim)
    faces = sampler.faces(latent)
    maps = np.stack([sampler.attention(z, coarsest(sampler)) for z in latent])
    off = sampler.faces(latent, gammas={coarsest(sampler): 0})
    figures = regions(faces, off, maps)
    side = isqrt(maps.shape[1])
    cells = [row * side + column for row, column, _ in figures["commonest cells, [row, column, faces]"]]
    changed, made = changes(sampler, faces, maps, latent, cells)
    counted = {"if weights count times the lengths of values": lengths(sampler, latent)}
    text = json.dumps(figures | changed | counted, indent=2)
    print(text)
    checkpoint.replace_file(options.out / "figures.json", lambda new: new.write_text(f"{text}\n"))
    draw_looked_at(faces[:SHOWN], maps[:SHOWN], options.out / "looked_at.png")
    shown, before = slice(1, 2 * SHOWN), slice(2 * SHOWN - 1)
    rows = {"face": faces[shown], "another": faces[before], "told by it": made[shown]}
    sheet(rows, options.out / "told.png")


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    carry_out(run, parser, arguments)


if __name__ == "__main__":
    run_program(main)
