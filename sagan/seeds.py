"""What a generator makes the faces of seeds from."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sagan.latents import from_seeds, truncate
from sagan.networks import Generator

Labels = Sequence[int] | np.ndarray  # a class for each face


def inputs(
    generator: Generator, seeds: Sequence[int], labels: Labels | None, truncation: float = 1.0
) -> tuple[Tensor, Tensor | None]:
    """What a generator makes the faces of these seeds from: latents (B, z_dim), and labels (B,) or None.

    labels are those that `Classes` gives, in turn or in proportion: None for an unconditional model.
    """
    device = next(generator.parameters()).device
    z = torch.from_numpy(truncate(from_seeds(seeds, generator.config.z_dim), truncation)).to(device)
    return z, None if labels is None else torch.as_tensor(labels, device=device)
