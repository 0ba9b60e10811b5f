"""Activations for tests that compare two ways of training."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch.nn.functional as F


@contextmanager
def smooth() -> Iterator[None]:
    """Activations and losses without a kink: at one, a rounding error changes a gradient by far more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "relu", lambda x, inplace=False: F.softplus(x))
        patch.setattr(
            F, "leaky_relu", lambda x, slope, inplace=False: slope * x + (1 - slope) * F.softplus(x)
        )
        yield
