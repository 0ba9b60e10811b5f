"""Fresh random inputs for every run of the tests, and the same ones again for `pytest --seed`."""

import random
import zlib

import numpy as np
import torch

draw = random.Random()  # not the module's own generator, which Gradio's queue draws from while a page is open


def seed_all(seed: int, name: str) -> None:
    """Let what is drawn next follow from the seed of the run and the name of who draws it alone."""
    mixed = zlib.crc32(f"{seed} {name}".encode())
    draw.seed(mixed)
    torch.manual_seed(mixed)


def fresh_rng() -> np.random.Generator:
    """A generator of numbers that nothing else in the test draws."""
    return np.random.default_rng(draw.getrandbits(64))
