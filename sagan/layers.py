"""The parts that both networks share: self-attention, spectral norm and conditional batch norm."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

Extras = Literal["queries_keys", "maps"]

CACHED_WEIGHTS = (
    1 << 22
)  # attention weights a CPU works on at a time: they stay in its cache, which is 1.7 x faster


def spectral_norm(module: nn.Module, enabled: bool = True) -> nn.Module:
    """Divide `module.weight` by its largest singular value (Miyato et al. 2018, arXiv:1802.05957).

    PyTorch's own parametrization does the work: one power iteration a training forward, none in eval mode,
    and the right axis for transposed convolutions. `enabled=False` returns the module untouched.
    """
    return parametrizations.spectral_norm(module) if enabled else module


@contextmanager
def normalised_once(*networks: nn.Module) -> Iterator[None]:
    """Inside the block every spectrally normalised weight of `networks` is computed once, in float32.

    A training step that runs a network under autocast opens this block around it: the power iteration keeps
    its precision, and a weight that is read several times costs a single iteration.
    """
    with parametrize.cached():
        for network in networks:
            for module in network.modules():
                if parametrize.is_parametrized(module, "weight"):
                    device = module.parametrizations.weight.original.device
                    with torch.autocast(device.type, enabled=False):
                        _ = module.weight
        yield


def exact_weight(module: nn.Module) -> Tensor:
    """The weight of a spectrally normalised module over its largest singular value, exact to float32.

    The singular value is the root of the largest eigenvalue of W W^T in float64: an SVD's, in less time.
    """
    weight = module.parametrizations.weight.original.detach()
    axis = 1 if isinstance(module, nn.ConvTranspose2d) else 0
    matrix = weight.transpose(0, axis).flatten(1).double()
    matrix = matrix if len(matrix) <= matrix.shape[1] else matrix.T
    sigma = torch.linalg.eigvalsh(matrix @ matrix.T)[-1].sqrt()
    return weight / sigma.to(weight.dtype)


class SelfAttention(nn.Module):
    """`x + gamma * attended`: every position attends to every position (Zhang et al. 2018, section 3).

    Queries and keys have `channels // 8` dimensions (at least one), values `channels`. Logits are q . k,
    without 1/sqrt(d). `attention[b, i, j]` is how much position `i` attends to position `j`; a position is
    `row * width + column` and every row sums to 1. `gamma` is one scalar that starts at 0, so that the layer
    starts as the identity.

    `fused = True` computes the same through `F.scaled_dot_product_attention`, which never stores the map.
    It has no double backward: leave it off for WGAN-GP.
    """

    def __init__(self, channels: int, spectral: bool = True) -> None:
        super().__init__()
        inner = max(1, channels // 8)
        self.query = spectral_norm(nn.Conv2d(channels, inner, 1), spectral)
        self.key = spectral_norm(nn.Conv2d(channels, inner, 1), spectral)
        self.value = spectral_norm(nn.Conv2d(channels, channels, 1), spectral)
        self.gamma = nn.Parameter(torch.zeros(()))
        self.fused = False

    def forward(self, x: Tensor, gamma: float | None = None, extras: Extras | None = None):
        """Map x (B, C, H, W) to the same shape.

        gamma replaces the learned scalar in this call. extras="queries_keys" returns (y, (q, k)) with q and k
        of (B, H*W, d); extras="maps" returns (y, attention) with attention of (B, H*W, H*W).
        """
        q, k, v = (_positions(project(x)) for project in (self.query, self.key, self.value))  # (B, H*W, d)
        maps = None
        if extras == "maps":
            maps = torch.softmax(q @ k.transpose(1, 2), dim=-1)  # (B, H*W, H*W)
            attended = maps.to(v.dtype) @ v
        elif self.fused:
            # One width for all three, or the fused kernels step aside; zeros change neither logits nor sums.
            wide = (F.pad(t, (0, v.shape[2] - t.shape[2]))[:, None] for t in (q, k))
            attended = F.scaled_dot_product_attention(*wide, v[:, None], scale=1.0)[:, 0]
        else:
            chunk = len(x) if x.is_cuda else max(1, CACHED_WEIGHTS // q.shape[1] ** 2)
            parts = zip(q.split(chunk), k.split(chunk), v.split(chunk), strict=True)
            attended = torch.cat(
                [torch.softmax(a @ b.transpose(1, 2), -1).to(c.dtype) @ c for a, b, c in parts]
            )
        attended = attended.transpose(1, 2).reshape(x.shape)
        y = x + (self.gamma if gamma is None else gamma) * attended
        if extras is None:
            return y
        return y, (q, k) if extras == "queries_keys" else maps


def _positions(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H*W, C)."""
    return x.flatten(2).transpose(1, 2)


class ConditionalBatchNorm2d(nn.Module):
    """Batch norm whose gain and bias are looked up by class (de Vries et al. 2017, arXiv:1707.00683).

    The tables start at gain 1 and bias 0 and are not spectrally normalised.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain = nn.Embedding(num_classes, channels)
        self.bias = nn.Embedding(num_classes, channels)
        nn.init.ones_(self.gain.weight)
        nn.init.zeros_(self.bias.weight)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """x (B, C, H, W), labels (B,) of integers -> (B, C, H, W)."""
        gain, bias = (table(labels)[:, :, None, None].to(x.dtype) for table in (self.gain, self.bias))
        return self.norm(x) * gain + bias
