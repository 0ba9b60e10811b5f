"""Fixtures that several test files share."""

import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

torch.set_num_threads(1)  # on networks this small, threads cost more than they give
# A shell starts its background jobs with Ctrl-C ignored, and so would the commands that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
collect_ignore = [] if torch.cuda.is_available() else ["test_gpu.py"]


@pytest.fixture
def make_images(tmp_path: Path) -> Callable[..., Path]:
    """make_images(count, size=32, folder="images", suffix=".png") -> a folder in tmp_path of random images.

    They are named 0000.png, 0001.png, ...; size is a side or (width, height) in pixels.
    """

    def make(
        count: int, size: int | tuple[int, int] = 32, folder: str = "images", suffix: str = ".png"
    ) -> Path:
        width, height = (size, size) if isinstance(size, int) else size
        target = tmp_path / folder
        target.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = np.random.default_rng().integers(0, 256, (height, width, 3), np.uint8)
            Image.fromarray(pixels).save(target / f"{i:04}{suffix}")
        return target

    return make
