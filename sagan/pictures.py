"""The pictures that a run leaves behind: faces from fixed noise, what they attend to, and its curves."""

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from sagan import heatmaps
from sagan.checkpoint import replace_file
from sagan.classes import Classes
from sagan.data import to_uint8
from sagan.losses import PENALTIES
from sagan.networks import Generator, side_of
from sagan.seeds import inputs

FACES = 64
ATTENTION_FACES = 8


@torch.inference_mode()
def faces(generator: Generator, path: Path, classes: Classes) -> None:
    """Save 64 faces, from seeds 0 to 63, as one picture. The generator is in eval mode."""
    shown = (inputs(generator, [seed], classes.in_turn([seed])) for seed in range(FACES))
    images = torch.cat([generator(*one) for one in shown])
    _save(heatmaps.sheet(to_uint8(images), columns=8), path)


@torch.inference_mode()
def attention(generator: Generator, path: Path, classes: Classes) -> None:
    """Save the first 8 of those faces: plain, then a row for each attention layer, its map of one query."""
    columns = []
    for seed in range(ATTENTION_FACES):  # one at a time: at 64x64 a map takes 64 MiB
        images, maps = generator(*inputs(generator, [seed], classes.in_turn([seed])), extras="maps")
        (face,) = to_uint8(images)
        column = [heatmaps.enlarge(face, 128)]
        for layer, (weights,) in maps.items():  # (n*n, n*n)
            x, y = heatmaps.cell(heatmaps.EYE, side_of(layer))
            position = y * side_of(layer) + x
            attended = weights[position].float().cpu().numpy()  # (n*n,)
            column.append(heatmaps.overlay(face, attended, position, size=128))
        columns.append(np.concatenate([np.asarray(picture.convert("RGB")) for picture in column]))
    _save(Image.fromarray(np.concatenate(columns, 1)), path)


def curves(history: list[dict[str, float]], path: Path) -> None:
    """Save losses, scores, gammas and what was measured over thousands of images; floors are dashed.

    Rows without a step or a number of images are left out. Where no row tells any of these, nothing is saved.
    """
    history = [row for row in history if row.keys() >= {"step", "images"}]
    measured = [row for row in history if "frechet_distance" in row]
    columns = dict.fromkeys(name for row in history for name in row)
    panels = {
        "loss": (history, [name for name in columns if name.endswith("_loss") or name in PENALTIES]),
        "score": (history, [name for name in ("d_real", "d_fake") if name in columns]),
        "gamma": (history, [name for name in columns if "_gamma_" in name]),
        "distance": (measured, [name for name in ("frechet_distance",) if name in columns]),
        "share": (measured, [name for name in ("precision", "recall") if name in columns]),
    }
    panels = {title: (rows, names) for title, (rows, names) in panels.items() if rows and names}
    if not panels:
        return
    figure = Figure(figsize=(9, 3 * len(panels)), layout="constrained")
    every_axes = figure.subplots(len(panels), sharex=True, squeeze=False).flat
    for axes, (title, (rows, names)) in zip(every_axes, panels.items(), strict=True):
        kimg = [row["images"] / 1000 for row in rows]
        for name in names:
            values, label = [row.get(name, np.nan) for row in rows], name.replace("_", " ")
            (line,) = axes.plot(kimg, values, label=label, marker="." if rows is measured else None)
            if f"floor_{name}" in rows[-1]:
                floor = rows[-1][f"floor_{name}"]
                axes.axhline(floor, color=line.get_color(), linestyle="--", label=f"{label} of real images")
        axes.set_ylabel(title)
        axes.grid(alpha=0.3)
        axes.legend(loc="upper left")
    axes.set_xlabel("kimg (thousand real images shown)")
    replace_file(path, lambda new: figure.savefig(new, dpi=100))


def _save(image: Image.Image, path: Path) -> None:
    replace_file(path, image.save)
