"""What several benchmarks use: commands on a checkpoint, sheets of faces, images to train on, a clock."""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from sagan import checkpoint, heatmaps
from sagan.commands import refusal
from sagan.data import load_images
from sagan.device import pick_device
from sagan.metrics import INCEPTION, Measurement, load_features

IMAGES = 2048


def sheet(faces: dict[str, np.ndarray], path: Path) -> None:
    """Save one row of faces, uint8 (N, S, S, 3), for each name; all have as many."""
    (columns,) = {len(some) for some in faces.values()}
    figure = Figure(figsize=(1.7 + columns, 1.02 * len(faces)), layout="constrained")
    every_axes = figure.subplots(len(faces))
    for axes, (name, some) in zip(every_axes, faces.items(), strict=True):
        axes.imshow(heatmaps.sheet(some, columns=columns))
        axes.set_ylabel(name, rotation=0, ha="right", va="center")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    checkpoint.replace_file(path, lambda new: figure.savefig(new, dpi=70, bbox_inches="tight"))


def carry_out(
    run: Callable[[argparse.Namespace], None],
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
) -> None:
    """Run a command on a checkpoint that writes into a folder; what cannot be done is said in a sentence."""
    parser.add_argument("--checkpoint", required=True, metavar="SOURCE", help="as in `python app.py --help`")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    options = parser.parse_args(arguments)
    try:
        run(options)
    except ValueError as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(refusal(error))


def add_measuring(parser: argparse.ArgumentParser) -> None:
    """The options that `measuring` reads."""
    add = parser.add_argument
    add("--reference", nargs="+", metavar="SOURCE", help="held-out images; without them, no FID or KID")
    add("--crop", type=int, metavar="PIXELS", help="as in training (default: the shorter side)")
    add("--features", default=INCEPTION, metavar="NETWORK", help="as in `python -m sagan.metrics --help`")
    add("--count", type=int, metavar="N", help="images on each side, as there")
    add("--device", default="auto")


def measuring(options: argparse.Namespace, image_size: int) -> Measurement | None:
    """What to measure generators with; None where no reference is named. Raises ValueError."""
    if options.reference:
        images = load_images(options.reference, image_size, options.crop).images
        device = pick_device(options.device)
        return Measurement(load_features(options.features, device), images, options.count, device)
    if options.count is not None or options.features != INCEPTION:
        raise ValueError("--count and --features say how to measure: name what to measure with --reference.")
    return None


def random_images() -> np.ndarray:
    """uint8 (2048, 64, 64, 3)."""
    return np.random.default_rng().integers(256, size=(IMAGES, 64, 64, 3), dtype=np.uint8)


def elapsed(step: Callable[[], object], steps: int, device: str) -> float:
    """How long so many steps take on this device, in seconds."""
    start = time.perf_counter()
    for _ in range(steps):
        step()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
