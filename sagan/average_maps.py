"""This face or every face? The attention of every query, averaged over many faces and kept in 8 bits.

    python -m sagan.average_maps --checkpoint checkpoints/mine

writes average_maps.safetensors into the checkpoint folder, a companion file of its generator. It holds uint8
codes (n*n, n*n) of each attention layer: "16x16" and so on of the generator, "discriminator 8x8" and so on of
the discriminator as it sees the same faces. Row i is query position i; a code stands for

    2 ** (LOW + code * (HIGH - LOW) / 255) times uniform

at most 2.2 percent off, code 0 for anything less and code 255 for anything more. The header gives the count
of faces: those of the seeds from 0 on; with classes, these go through them in turn (`Classes.in_turn`).
"""

import argparse
import math
import sys
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sagan import checkpoint
from sagan.checkpoint import AVERAGE_MAPS, CheckpointError
from sagan.classes import Classes
from sagan.commands import add_checkpoint, run_program
from sagan.data import to_batch, to_uint8
from sagan.networks import Discriminator, Generator, SaganConfig, discriminator_key, layer_name
from sagan.seeds import inputs

COUNT = 256
LOW, HIGH = -6, 10  # log2 of times uniform; on a 32x32 map a query that looks at one key alone reaches 10
HEADER_BYTES = 1 << 14  # enough for names and shapes


def encode(weights: np.ndarray) -> np.ndarray:
    """Attention (n*n, n*n) -> uint8 codes."""
    with np.errstate(divide="ignore"):
        levels = (np.log2(weights * weights.shape[-1]) - LOW) * 255 / (HIGH - LOW)
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def decode(codes: np.ndarray) -> np.ndarray:
    """uint8 codes -> float32, times uniform."""
    return np.exp2(LOW + codes.astype(np.float32) * ((HIGH - LOW) / 255))


@torch.inference_mode()
def average(
    generator: Generator,
    discriminator: Discriminator | None,
    seeds: Iterable[int],
    classes: Classes,
) -> dict[str, np.ndarray]:
    """The mean attention over the faces of these seeds, float64 (n*n, n*n) by layer, from plain networks.

    One face at a time, so it takes no more memory for more of them. Without a discriminator it is of the
    generator alone.
    """
    sums: dict[str, Tensor] = {}
    count = 0
    for count, seed in enumerate(seeds, 1):  # noqa: B007
        z, label = inputs(generator, [seed], classes.in_turn([seed]))
        images, maps = generator(z, label, extras="maps")
        if discriminator is not None:
            seen = to_batch(to_uint8(images))  # as on the page
            _, of_discriminator = discriminator(seen, label, extras="maps")
            maps |= {discriminator_key(layer): value for layer, value in of_discriminator.items()}
        for layer, (attention,) in maps.items():
            zeros = torch.zeros_like(attention, dtype=torch.float64)
            sums.setdefault(layer, zeros).add_(attention)
    return {layer: (total / count).cpu().numpy() for layer, total in sums.items()}


def find(folder: Path, config: SaganConfig) -> Path | None:
    """The file of a checkpoint; None where there is none or, with a warning, one that cannot be used."""

    def checked(path: Path) -> Path:
        read(path, config)
        return path

    return checkpoint.read_companion(folder, AVERAGE_MAPS, "The average maps are", checked)


def read(path: Path, config: SaganConfig) -> dict[str, np.ndarray]:
    """The codes by layer, uint8 (n*n, n*n). Raises CheckpointError where they do not fit the networks."""
    names = {layer_name(side): side for side in config.g_attention}
    names |= {discriminator_key(layer_name(side)): side for side in config.d_attention}
    expected = {name: (side * side, side * side) for name, side in names.items()}
    size = sum(math.prod(shape) for shape in expected.values())
    codes = checkpoint.load_tensors(path, expected, size + HEADER_BYTES)  # larger: not uint8
    if not all(tensor.dtype == torch.uint8 for tensor in codes.values()):
        raise CheckpointError(f"'{path}' must hold codes of 8 bits, uint8.")
    return {name: codes[name].numpy() for name in expected}


def write(folder: Path, count: int = COUNT) -> Path:
    """Average over the seeds 0 to count - 1 behind a progress bar, and write the file; returns its path.

    Raises ValueError, among them CheckpointError, where that cannot be done, and OSError where the disk
    refuses.
    """
    if count < 1:
        raise ValueError(f"--count must be at least 1, but was {count}.")
    sha = checkpoint.generator_hash(folder)
    generator, discriminator = checkpoint.load_generator(folder), checkpoint.load_discriminator(folder)
    _, classes = checkpoint.load_config(folder)
    if not generator.attention and not discriminator.attention:
        raise ValueError(f"The networks in '{folder}' have no attention layers.")
    with closing(tqdm(range(count), unit=" faces", desc="Averaging")) as seeds:
        maps = average(generator, discriminator, seeds, classes)
    for layer, weights in maps.items():
        if not np.isfinite(weights).all():
            raise CheckpointError(f"The attention of '{layer}' in '{folder}' is not made of finite numbers.")
    codes = {layer: torch.from_numpy(encode(weights)) for layer, weights in maps.items()}
    about = {"count": str(count), "low": str(LOW), "high": str(HIGH)}
    checkpoint.add_companion(folder, AVERAGE_MAPS, codes, sha, about)
    return folder / AVERAGE_MAPS


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return 0, or 130 after Ctrl-C. What cannot be done exits with status 2.

    The file appears when it is complete, or not at all.
    """
    parser = argparse.ArgumentParser(
        prog="python -m sagan.average_maps",
        description="Average the attention of a checkpoint over many faces, and keep it in its folder.",
    )
    add_checkpoint(parser)
    add = parser.add_argument
    add("--count", type=int, default=COUNT, help="how many faces, seeds 0 and up (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        path = write(checkpoint.find(options.checkpoint), options.count)
    except ValueError as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(
            f"The average maps of '{options.checkpoint}' could not be written: {error.strerror or error}."
        )
    except KeyboardInterrupt:
        print("Stopped; nothing was written.", file=sys.stderr)
        return 130
    print(f"'{path}' holds the average over {options.count} faces.")
    return 0


if __name__ == "__main__":
    run_program(main)
