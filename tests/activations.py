"""Activations for tests that compare two ways of training."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch.nn.functional as F
from torch import Tensor

from sagan import networks


@contextmanager
def smooth() -> Iterator[None]:
    """Networks whose activations have no kink: at one, a rounding error changes a gradient by far more."""

    def relu(x: Tensor, inplace: bool = False) -> Tensor:
        return F.silu(x)

    def leaky_relu(x: Tensor, slope: float, inplace: bool = False) -> Tensor:
        return slope * x + (1 - slope) * F.silu(x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "F", SimpleNamespace(relu=relu, leaky_relu=leaky_relu))
        yield
