"""The parts of the networks: self-attention and spectral norm of both, conditional batch norm of G."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

Extras = Literal["queries_keys", "maps", "parts"]
Layer = TypeVar("Layer", bound=nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.Embedding)

# Attention weights that are worked on at a time: on a CPU they stay in its cache, which is 1.7 x faster; on a
# GPU several copies of them fit into its memory.
CACHED_WEIGHTS, GPU_WEIGHTS = 1 << 22, 1 << 28
SMALLEST = 1e-12  # length that a vector is divided by in power iteration


class Override(NamedTuple):
    """What takes the place of an attention layer's own in one call (activation patching); None: its own.

    gamma   a number, for the learned scalar
    maps    (B, N, N), or (1, N, N) for all of a batch, of any numbers, for the attention; N = H*W
    values  n positions (n,) of integers, and what these tell instead of their own values, (n, C)
    """

    gamma: float | None = None
    maps: Tensor | None = None
    values: tuple[Tensor, Tensor] | None = None


class SelfAttention(nn.Module):
    """Every position of a feature map attends to every position (Zhang et al. 2018, section 3).

    From x (B, C, H, W), 1x1 convolutions make a query and a key of d = C // 8 numbers (at least one) and a
    value of C numbers at each of the N = H*W positions:

        attention = softmax(q @ k^T)        (B, N, N)
        y = x + gamma * (attention @ v)     (B, N, C), and then the shape of x

    `attention[b, i, j]` is how much position `i` attends to position `j`, a position being
    `row * W + column`; every row sums to 1. Logits are q . k, without 1/sqrt(d). `gamma` is one learned
    number that starts at 0, so that the layer starts as the identity.

    `fused = True` computes the same through `F.scaled_dot_product_attention`, which has kernels that never
    store the map. These have no double backward: leave it off for WGAN-GP.
    """

    def __init__(self, channels: int, spectral: bool = True) -> None:
        super().__init__()
        inner = max(1, channels // 8)
        self.query = spectral_norm(nn.Conv2d(channels, inner, 1), spectral)
        # A bias of keys would add the same to all logits of a row, which softmax does not see. Its gradient
        # would be rounding errors alone, and Adam makes full steps of these: the bias drifts until bfloat16
        # has no digits left for what differs between keys.
        self.key = spectral_norm(nn.Conv2d(channels, inner, 1, bias=False), spectral)
        self.value = spectral_norm(nn.Conv2d(channels, channels, 1), spectral)
        self.gamma = nn.Parameter(torch.zeros(()))
        self.fused = False

    def forward(
        self, x: Tensor, override: Override | None = None, extras: Extras | None = None
    ) -> Tensor | tuple[Tensor, Any]:
        """Map x (B, C, H, W) to the same shape, with `override` in the place of the layer's own.

        extras="queries_keys" returns (y, (q, k)) with q and k of (B, N, d); extras="maps" returns
        (y, attention) with attention of (B, N, N), the given one if there is one; extras="parts" returns
        (y, (x, q, k, v)), with x and v of (B, N, C). Raises ValueError where x does not have these four axes,
        or maps have another shape.
        """
        if x.ndim != 4:
            raise ValueError(f"x must have the shape (B, C, H, W), but has {tuple(x.shape)}")
        gamma, maps, values = override or Override()
        if maps is not None:
            maps = _for_each(maps, len(x), x.shape[2] * x.shape[3])
        q, k, v = (_by_position(project(x)) for project in (self.query, self.key, self.value))
        if values is not None:
            at, told = values
            v = v.index_copy(1, at, told.to(v).expand(len(v), -1, -1))
        if maps is None and extras == "maps":
            maps = _attention(q, k)
        attended = self._attend(q, k, v) if maps is None else maps.to(v.dtype) @ v  # (B, N, C)
        y = x + (self.gamma if gamma is None else gamma) * attended.transpose(1, 2).reshape(x.shape)
        if extras is None:
            return y
        return y, {"maps": maps, "queries_keys": (q, k), "parts": (_by_position(x), q, k, v)}[extras]

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """`_attention(q, k) @ v`, without keeping the maps of a whole batch."""
        if self.fused:
            # One width for all three and each position in one piece, or the fused kernels step aside; zeros
            # change neither logits nor sums.
            wide = (F.pad(t, (0, v.shape[2] - t.shape[2]))[:, None].contiguous() for t in (q, k, v))
            return F.scaled_dot_product_attention(*wide, scale=1.0)[:, 0]
        chunk = max(1, (GPU_WEIGHTS if q.is_cuda else CACHED_WEIGHTS) // q.shape[1] ** 2)
        parts = zip(q.split(chunk), k.split(chunk), v.split(chunk), strict=True)
        return torch.cat([_attention(a, b).to(c.dtype) @ c for a, b, c in parts])


def _by_position(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, N, C)."""
    return x.flatten(2).transpose(1, 2)


def _attention(q: Tensor, k: Tensor) -> Tensor:
    """Queries and keys (B, N, d) -> each query's weights on all keys (B, N, N)."""
    return torch.softmax(q @ k.transpose(1, 2), dim=-1)


def _for_each(maps: Tensor, count: int, positions: int) -> Tensor:
    """Given maps as one (positions, positions) for each of `count` images. Raises ValueError."""
    if maps.shape not in [(batch, positions, positions) for batch in (1, count)]:
        wanted = f"({count}, {positions}, {positions}) or (1, {positions}, {positions})"
        raise ValueError(f"maps must have the shape {wanted}, but have {tuple(maps.shape)}")
    return maps.expand(count, -1, -1)


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


def as_matrix(weight: Tensor, transposed: bool = False) -> Tensor:
    """A weight (out, in, H, W), (out, in) or, transposed, (in, out, H, W) as a matrix (out, in*H*W)."""
    if weight.ndim == 2:
        return weight
    last = weight.permute(0, 2, 3, 1)  # contiguous where the weight is in channels_last memory
    return last.flatten(0, 2).T if transposed else last.flatten(1)


class SpectralNorm(nn.Module):
    """The parametrization `weight / sigma`, sigma its largest singular value.

    Miyato et al. 2018, arXiv:1802.05957. The weight is taken as a matrix M with one row per output. Buffers
    u and v estimate its first singular vectors: one power iteration per training forward, none in eval mode,
    15 at the start; sigma = u^T M v. The gradient sees u and v as constants, as in the paper.

    PyTorch's own parametrization computes the same. This one never copies a weight that lies in
    `torch.channels_last` memory, and goes over it less often in the backward pass.
    """

    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor, transposed: bool = False) -> None:
        super().__init__()
        self.transposed = transposed
        matrix = self.matrix(weight.detach())
        for name, size in zip("uv", matrix.shape, strict=True):
            self.register_buffer(name, F.normalize(torch.randn(size).to(weight), dim=0))
        self.held: Tensor | None = None  # by `normalised_once`
        self.start(matrix)

    def matrix(self, weight: Tensor) -> Tensor:
        """A weight as M."""
        return as_matrix(weight, self.transposed)

    def start(self, matrix: Tensor) -> None:
        """Estimate the singular vectors of a matrix that is new."""
        for _ in range(15):
            self.iterate(matrix)

    @torch.no_grad()
    def iterate(self, matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One power iteration: u towards the first left singular vector, v towards the first right one.

        Returns both, in memory of their own, and u^T M v, which is the length of M^T u.
        """
        u = F.normalize(matrix @ self.v, dim=0)
        back = matrix.T @ u
        sigma = back.norm()
        v = back / sigma.clamp(min=SMALLEST)
        self.u.copy_(u)
        self.v.copy_(v)
        return u, v, sigma

    def forward(self, weight: Tensor) -> Tensor:
        """weight / sigma, in the precision of the weight also under autocast."""
        if self.held is not None:
            return self.held
        with torch.autocast(weight.device.type, enabled=False):
            matrix = self.matrix(weight.detach())
            if self.training:
                u, v, sigma = self.iterate(matrix)
            else:
                u, v = self.u.clone(), self.v.clone()
                sigma = u @ (matrix @ v)
            return _DivideBySigma.apply(weight, u, v, sigma, self.matrix)


class _DivideBySigma(torch.autograd.Function):
    """W / sigma, sigma = u^T M v and M = matrix(W), with the gradient (G - <G, W / sigma> u v^T) / sigma."""

    @staticmethod
    def forward(
        ctx, weight: Tensor, u: Tensor, v: Tensor, sigma: Tensor, matrix: Callable[[Tensor], Tensor]
    ) -> Tensor:
        normalised = weight / sigma
        ctx.save_for_backward(normalised, u, v, sigma)
        ctx.matrix = matrix
        return normalised

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        normalised, u, v, sigma = ctx.saved_tensors
        four = normalised.ndim == 4
        memory = torch.channels_last if four else torch.contiguous_format  # so that its matrix is a view
        result = torch.empty_like(normalised, memory_format=memory).copy_(gradient)
        share = (result * normalised).sum()
        ctx.matrix(result).addr_(share * u, v, alpha=-1).div_(sigma)
        return result, None, None, None, None


def spectral_norm(module: Layer, enabled: bool = True) -> Layer:
    """Divide `module.weight` by its largest singular value; `enabled=False` returns the module untouched."""
    if enabled:
        norm = SpectralNorm(module.weight, isinstance(module, nn.ConvTranspose2d))
        parametrize.register_parametrization(module, "weight", norm, unsafe=True)
    return module


def normalised_modules(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules of a network whose weights are spectrally normalised, with their names."""
    for name, module in network.named_modules():
        if parametrize.is_parametrized(module, "weight"):
            yield name, module


@torch.no_grad()
def estimate_anew(network: nn.Module) -> None:
    """Let the power iterations of a network begin anew, for weights that they do not know."""
    for _, module in normalised_modules(network):
        norm = module.parametrizations.weight[0]
        norm.start(norm.matrix(module.parametrizations.weight.original))


@contextmanager
def normalised_once(*networks: nn.Module) -> Iterator[None]:
    """Inside the block every spectrally normalised weight of `networks` is computed once.

    So a weight that is read several times costs a single power iteration.
    """
    held = []
    try:
        for network in networks:
            for _, module in normalised_modules(network):
                norm = module.parametrizations.weight[0]
                if norm.held is None:  # an enclosing block's stays
                    norm.held = module.weight
                    held.append(norm)
        yield
    finally:
        for norm in held:
            norm.held = None


def exact_weight(module: nn.Module) -> Tensor:
    """The weight of a spectrally normalised module over its largest singular value, exact to float32."""
    weight = module.parametrizations.weight.original.detach()
    matrix = module.parametrizations.weight[0].matrix(weight)
    return weight / singular_values(matrix.double())[0].to(weight.dtype)


def singular_values(matrix: Tensor) -> Tensor:
    """All min(rows, columns) of them, the largest first, of a float64 matrix.

    They are the roots of the eigenvalues of W W^T: an SVD's, in less time. Those below 1e-7 of the largest
    are lost in rounding.
    """
    small = matrix if len(matrix) <= matrix.shape[1] else matrix.T
    return torch.linalg.eigvalsh(small @ small.T).flip(0).clamp(min=0).sqrt()
