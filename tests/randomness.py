"""Fresh random inputs for every run of the tests, and the same ones again for `pytest --seed`."""

import random
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

draw = random.Random()  # not the module's own generator, which Gradio's queue draws from while a page is open


def seed_all(seed: int, name: str) -> None:
    """Let what is drawn next follow from the seed of the run and the name of who draws it alone."""
    mixed = zlib.crc32(f"{seed} {name}".encode())
    draw.seed(mixed)
    torch.manual_seed(mixed)


def fresh_rng() -> np.random.Generator:
    """A generator of numbers that nothing else in the test draws."""
    return np.random.default_rng(draw.getrandbits(64))


def random_images(
    parent: Path, count: int, size: int | tuple[int, int] = 32, folder: str = "images", suffix: str = ".png"
) -> Path:
    """Make a folder in `parent` of random images: 0000.png, 0001.png, ...

    size is a side or (width, height) in pixels.
    """
    width, height = (size, size) if isinstance(size, int) else size
    target = parent / folder
    target.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        pixels = fresh_rng().integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(target / f"{i:04}{suffix}")
    return target
