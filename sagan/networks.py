"""The generator, the discriminator, and the one dataclass that describes both."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sagan.layers import ConditionalBatchNorm2d, Extras, Override, SelfAttention, spectral_norm

IMAGE_SIZES = (32, 64, 128)
MAX_WIDTH, MAX_Z_DIM, MAX_CLASSES, MAX_RESIDUAL = 512, 1024, 10_000, 16

NetworkExtras = Extras | Literal["activations"]


@dataclass(frozen=True)
class SaganConfig:
    """Everything needed to rebuild both networks; saved as JSON beside the weights.

    Widths are the channels of the largest feature map (image_size / 2); halving its side doubles them.
    Attention and residual blocks are placed by the side of the feature map they work on; a side that is named
    twice has two residual blocks. Raises ValueError for what can't be built.
    """

    image_size: int = 64
    z_dim: int = 128
    num_classes: int = 0  # 0: an unconditional model
    g_width: int = 64
    d_width: int = 64
    g_attention: tuple[int, ...] | None = None  # None: 16 and 32, or 8 and 16 where images are 32 pixels wide
    d_attention: tuple[int, ...] = (4, 8)  # an image meets the larger first
    g_residual: tuple[int, ...] = ()
    d_residual: tuple[int, ...] = ()
    d_spectral_norm: bool = True  # off for WGAN-GP, which fights it

    def __post_init__(self) -> None:
        fits = type(self.image_size) is int and self.image_size in IMAGE_SIZES
        _check(fits, "image_size", self.image_size, f"one of {IMAGE_SIZES}")
        for name, low, high in (
            ("z_dim", 1, MAX_Z_DIM),
            ("num_classes", 0, MAX_CLASSES),
            ("g_width", 1, MAX_WIDTH),
            ("d_width", 1, MAX_WIDTH),
        ):
            value = getattr(self, name)
            _check(
                type(value) is int and low <= value <= high, name, value, f"an integer from {low} to {high}"
            )
        _check(
            isinstance(self.d_spectral_norm, bool), "d_spectral_norm", self.d_spectral_norm, "true or false"
        )
        if self.g_attention is None:
            object.__setattr__(self, "g_attention", (8, 16) if self.image_size == 32 else (16, 32))
        for name in ("g_attention", "d_attention", "g_residual", "d_residual"):
            sides = getattr(self, name)
            _check(isinstance(sides, list | tuple), name, sides, "a list of feature map sides")
            fits = all(type(side) is int and side in self.sides for side in sides)
            _check(fits, name, sides, f"taken from {self.sides}")
            if name.endswith("attention"):
                sides = set(sides)
            else:
                _check(len(sides) <= MAX_RESIDUAL, name, sides, f"at most {MAX_RESIDUAL} sides")
            object.__setattr__(self, name, tuple(sorted(sides)))

    @property
    def sides(self) -> tuple[int, ...]:
        """The sides of the feature maps in both networks, from 4 to image_size / 2."""
        return tuple(4 * 2**i for i in range((self.image_size // 8).bit_length()))

    def can_become(self, other: "SaganConfig") -> bool:
        """Whether networks of this kind fit into those of another: the same, or with more residual blocks.

        A change of `d_spectral_norm` makes no difference: such a discriminator is trained from scratch.
        """
        grown = dataclasses.replace(
            self,
            g_residual=other.g_residual,
            d_residual=other.d_residual,
            d_spectral_norm=other.d_spectral_norm,
        )
        return (
            grown == other
            and includes(other.g_residual, self.g_residual)
            and includes(other.d_residual, self.d_residual)
        )

    def channels(self, width: int, side: int) -> int:
        """Channels of the feature map of this side in a network of this width."""
        return width * self.image_size // (2 * side)


class Generator(nn.Module):
    """Latents -> images: transposed convolutions with batch norm, and self-attention on some feature maps.

    `spectral=False` builds it without the parametrization, for weights that are already normalised.
    """

    def __init__(self, config: SaganConfig, spectral: bool = True) -> None:
        super().__init__()
        self.config = config
        channels = [config.channels(config.g_width, side) for side in config.sides]
        first = nn.ConvTranspose2d(config.z_dim, channels[0], 4, bias=False)  # 1x1 -> 4x4
        growing = (
            nn.ConvTranspose2d(a, b, 4, stride=2, padding=1, bias=False) for a, b in pairwise(channels)
        )
        self.blocks = nn.ModuleList(
            GeneratorBlock(c, config.num_classes, spectral) for c in (first, *growing)
        )
        self.residual = _residual(config, "g", lambda c: GeneratorResidual(c, config.num_classes, spectral))
        self.attention = _attention(config, config.g_width, config.g_attention, spectral)
        self.to_image = spectral_norm(nn.ConvTranspose2d(channels[-1], 3, 4, stride=2, padding=1), spectral)

    def forward(
        self,
        z: Tensor,
        labels: Tensor | None = None,
        overrides: Mapping[str, Override] | None = None,
        extras: NetworkExtras | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Any]]:
        """Map z (B, z_dim), and labels (B,) where there are classes, to images (B, 3, S, S) in [-1, 1].

        overrides says by layer name ("16x16") what takes the place of that layer's own. With extras, returns
        (images, {layer: extra}) with what `SelfAttention.forward` returns; with extras="activations",
        (images, {block: its output}) of all blocks in the order data meets them, "4x4", ..., "16x16",
        "attention 16x16", ..., "image"; a residual block has no entry of its own: its output stands under the
        convolution before it. Raises ValueError where labels are missing, not wanted or not one for each
        latent, where there is no layer of an override's name, or its maps have another shape.
        """
        _check_labels(self.config, labels, len(z))
        for name in overrides or ():
            if name not in self.attention:
                raise ValueError(f"there is no attention layer {name!r}, only {list(self.attention)}")
        h = z[:, :, None, None]  # (B, z_dim, 1, 1)
        collected = {}
        for block in self.blocks:
            h = block(h, labels)  # (B, channels, side, side)
            h = _refine(self.residual, h, labels)
            h = _attend(self.attention, h, extras, collected, overrides)
        images = torch.tanh(self.to_image(h))
        if extras == "activations":
            collected["image"] = images
        return images if extras is None else (images, collected)


class GeneratorBlock(nn.Module):
    """Transposed convolution, (conditional) batch norm, ReLU."""

    def __init__(self, conv: nn.ConvTranspose2d, num_classes: int, spectral: bool) -> None:
        super().__init__()
        self.conv = spectral_norm(conv, spectral)
        self.norm = _batch_norm(conv.out_channels, num_classes)

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        return F.relu(_normed(self.norm, self.conv(x), labels), inplace=True)


class Residual(nn.Module):
    """`x + alpha * f(x)`, f two 3x3 convolutions. alpha is one scalar that starts at 0, as attention's gamma.

    So a block can be added to a network that is already trained, and changes nothing at first (Bachlechner et
    al. 2020, arXiv:2003.04887).
    """

    has_bias: bool  # of the convolutions

    def __init__(self, channels: int, spectral: bool) -> None:
        super().__init__()
        self.first, self.second = (
            spectral_norm(nn.Conv2d(channels, channels, 3, padding=1, bias=self.has_bias), spectral)
            for _ in range(2)
        )
        self.alpha = nn.Parameter(torch.zeros(()))


class GeneratorResidual(Residual):
    """In the generator each of the two has (conditional) batch norm, and the first also ReLU."""

    has_bias = False  # batch norm has

    def __init__(self, channels: int, num_classes: int, spectral: bool) -> None:
        super().__init__(channels, spectral)
        self.first_norm, self.second_norm = (_batch_norm(channels, num_classes) for _ in range(2))

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """x (B, C, H, W), labels (B,) where there are classes -> (B, C, H, W)."""
        h = F.relu(_normed(self.first_norm, self.first(x), labels), inplace=True)
        return x + self.alpha * _normed(self.second_norm, self.second(h), labels)


class DiscriminatorResidual(Residual):
    """In the discriminator there is a leaky ReLU between the two."""

    has_bias = True

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """x (B, C, H, W) -> (B, C, H, W)."""
        return x + self.alpha * self.second(F.leaky_relu(self.first(x), 0.1, inplace=True))


class Discriminator(nn.Module):
    """Images -> one score each: the generator mirrored, with a projection term where there are classes.

    The projection term is the inner product of the summed features with an embedding of the class (Miyato and
    Koyama 2018, arXiv:1802.05637). `spectral=False` builds it without the parametrization, for weights that
    are already normalised.
    """

    def __init__(self, config: SaganConfig, spectral: bool = True) -> None:
        super().__init__()
        self.config = config
        spectral = spectral and config.d_spectral_norm
        channels = [3, *(config.channels(config.d_width, side) for side in reversed(config.sides))]
        self.blocks = nn.ModuleList(
            spectral_norm(nn.Conv2d(a, b, 4, stride=2, padding=1), spectral) for a, b in pairwise(channels)
        )
        self.residual = _residual(config, "d", lambda channels: DiscriminatorResidual(channels, spectral))
        self.attention = _attention(config, config.d_width, config.d_attention, spectral)
        self.to_score = spectral_norm(nn.Conv2d(channels[-1], 1, 4), spectral)  # 4x4 -> 1x1
        if config.num_classes:
            self.embedding = spectral_norm(nn.Embedding(config.num_classes, channels[-1]), spectral)

    def forward(
        self, images: Tensor, labels: Tensor | None = None, extras: NetworkExtras | None = None
    ) -> Tensor | tuple[Tensor, dict[str, Any]]:
        """Map images (B, 3, S, S) in [-1, 1], and labels (B,) where there are classes, to scores (B,).

        extras and errors are those of `Generator.forward`; the last block is "score" (B, 1, 1, 1). Raises
        ValueError too where images have another shape.
        """
        size = self.config.image_size
        if images.shape[1:] != (3, size, size):
            wanted = f"(B, 3, {size}, {size})"
            raise ValueError(f"images must have the shape {wanted}, but have {tuple(images.shape)}")
        _check_labels(self.config, labels, len(images))
        h = images
        collected = {}
        for conv in self.blocks:
            h = F.leaky_relu(conv(h), 0.1, inplace=True)  # (B, channels, side, side)
            h = _refine(self.residual, h)
            h = _attend(self.attention, h, extras, collected)
        scores = self.to_score(h).flatten()  # (B, 1, 1, 1) -> (B,)
        if labels is not None:
            scores = scores + (self.embedding(labels) * h.sum((2, 3))).sum(1)
        if extras == "activations":
            collected["score"] = scores[:, None, None, None]
        return scores if extras is None else (scores, collected)


Network = TypeVar("Network", bound=Generator | Discriminator)


def learned_gammas(network: Generator | Discriminator) -> dict[str, Tensor]:
    """The learned gamma of every attention layer of a network, by layer name, detached."""
    return {name: layer.gamma.detach() for name, layer in network.attention.items()}


def layer_name(side: int) -> str:
    """The name of the attention layer on a feature map of this side: 16 -> "16x16"."""
    return f"{side}x{side}"


def side_of(layer: str) -> int:
    """The side of the feature map that a layer of this name is on: "16x16" -> 16."""
    return int(layer.partition("x")[0])


def discriminator_key(layer: str) -> str:
    """What a layer of the discriminator is called beside those of the generator: "discriminator 8x8"."""
    return f"discriminator {layer}"


def includes(sides: Iterable[int], others: Iterable[int]) -> bool:
    """Whether all of these others are among the sides, those that are named twice twice."""
    return not Counter(others) - Counter(sides)


def _batch_norm(channels: int, num_classes: int) -> nn.Module:
    return ConditionalBatchNorm2d(channels, num_classes) if num_classes else nn.BatchNorm2d(channels)


def _normed(norm: nn.Module, x: Tensor, labels: Tensor | None) -> Tensor:
    return norm(x) if labels is None else norm(x, labels)


def _residual(config: SaganConfig, network: str, block: Callable[[int], Residual]) -> nn.ModuleDict:
    width, sides = (getattr(config, f"{network}_{name}") for name in ("width", "residual"))
    return nn.ModuleDict(
        {
            layer_name(side): nn.ModuleList(block(config.channels(width, side)) for _ in range(count))
            for side, count in Counter(sides).items()
        }
    )


def _refine(residual: nn.ModuleDict, h: Tensor, labels: Tensor | None = None) -> Tensor:
    """Run the residual blocks that belong to this feature map, if any."""
    name = layer_name(h.shape[-1])
    if name in residual:
        for block in residual[name]:
            h = block(h, labels)
    return h


def _attention(config: SaganConfig, width: int, sides: tuple[int, ...], spectral: bool) -> nn.ModuleDict:
    return nn.ModuleDict({layer_name(s): SelfAttention(config.channels(width, s), spectral) for s in sides})


def _attend(
    attention: nn.ModuleDict,
    h: Tensor,
    extras: NetworkExtras | None,
    collected: dict[str, Any],
    overrides: Mapping[str, Override] | None = None,
) -> Tensor:
    """Run the attention layer that belongs to this feature map, if any; file the extras in `collected`."""
    name = layer_name(h.shape[-1])
    if extras == "activations":
        collected[name] = h
    if name not in attention:
        return h
    layer, override = attention[name], (overrides or {}).get(name)
    if extras is None:
        return layer(h, override)
    if extras == "activations":
        collected[f"attention {name}"] = h = layer(h, override)
        return h
    h, collected[name] = layer(h, override, extras)
    return h


def _check_labels(config: SaganConfig, labels: Tensor | None, count: int) -> None:
    if (labels is None) == bool(config.num_classes):
        wanted = f"labels from 0 to {config.num_classes - 1}" if config.num_classes else "no labels"
        raise ValueError(
            f"this model takes {wanted}, but they were {'missing' if labels is None else 'given'}"
        )
    if labels is not None and labels.shape != (count,):
        raise ValueError(f"labels must have the shape ({count},), but have {tuple(labels.shape)}")


def _check(condition: bool, name: str, value: object, allowed: str) -> None:
    if not condition:
        raise ValueError(f"{name} is {value!r}, but must be {allowed}")
