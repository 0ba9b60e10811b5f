"""What the faces of seeds are made from: latents, and the classes that go with them."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sagan.latents import from_seeds, truncate
from sagan.networks import Generator


def inputs(
    generator: Generator,
    seeds: Sequence[int],
    truncation: float = 1.0,
    labels: Sequence[int] | None = None,
    class_counts: Sequence[int] = (),
) -> tuple[Tensor, Tensor | None]:
    """What a generator makes the faces of these seeds from: latents (B, z_dim), and labels (B,) or None.

    With classes, unless `labels` names them, the seeds go through them in turn (`labels_in_turn`).
    """
    config, device = generator.config, next(generator.parameters()).device
    z = torch.from_numpy(truncate(from_seeds(seeds, config.z_dim), truncation)).to(device)
    if not config.num_classes:
        return z, None
    if labels is None:
        labels = labels_in_turn(seeds, learned_classes(config.num_classes, class_counts))
    return z, torch.as_tensor(labels, device=device)


def labels_in_turn(seeds: Sequence[int], classes: Sequence[int]) -> list[int]:
    """One of `classes`, those that were learned, for each seed: seed n shows number n modulo how many."""
    return [classes[seed % len(classes)] for seed in seeds]


def labels_in_proportion(num_classes: int, count: int, class_counts: Sequence[int] = ()) -> np.ndarray:
    """Labels int64 (count,) in which classes are as frequent as class_counts says, in one shuffled order.

    Where class_counts is empty, all are equally frequent.
    """
    ends = np.cumsum(class_counts or [1] * num_classes)
    places = (np.arange(count) + 0.5) / count * ends[-1]
    labels = np.searchsorted(ends, places, side="right")
    return np.random.default_rng(0).permutation(labels)


def learned_classes(num_classes: int, class_counts: Sequence[int] = ()) -> tuple[int, ...]:
    """The classes that class_counts says had images, lowest first; all of them where it is empty."""
    return tuple(label for label, count in enumerate(class_counts or [1] * num_classes) if count)
