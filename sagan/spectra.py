"""Spectral norm, shown: all singular values of the normalised layers, and the power iteration that finds one.

A weight is taken as a matrix with one row per output, as in `layers.SpectralNorm`. Shipped weights are
already divided by their largest singular value, so what they were before is kept beside them:
spectra.safetensors, a companion file that a run writes with each checkpoint, holds float32 (k,), descending,
of each layer: "generator/blocks.0.conv" of the averaged generator, "discriminator/to_score" and so on.
"""

from collections.abc import Callable, Mapping
from numbers import Integral
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from sagan import checkpoint
from sagan.checkpoint import SPECTRA, CheckpointError
from sagan.latents import check_seed
from sagan.layers import as_matrix, singular_values
from sagan.networks import Discriminator, Generator, SaganConfig

MOST_STEPS = 100
SAME = 1e-9  # singular values whose difference is a smaller share of them count as one
HEADER_BYTES = 1 << 16  # enough for names and shapes

Layer = nn.Conv2d | nn.ConvTranspose2d | nn.Embedding


class Spectrum(TypedDict):
    """What there is to show of a layer of a plain network.

    shape   of the weight: (in, out, H, W) of a transposed convolution, (out, in, H, W) of a convolution,
            (classes, C) of the table of classes
    matrix  (rows, columns) of that weight as a matrix
    after   its singular values, float32 (k,), descending: the first is 1
    before  those before normalisation, or None where they are not known
    """

    shape: tuple[int, ...]
    matrix: tuple[int, ...]
    after: np.ndarray
    before: np.ndarray | None


def layers(generator: Generator, discriminator: Discriminator) -> dict[str, Layer]:
    """All layers whose weights are normalised, by name, of networks in training or plain ones."""
    networks: dict[str, nn.Module] = {"generator": generator}
    if discriminator.config.d_spectral_norm:
        networks["discriminator"] = discriminator
    return {
        f"{network}/{name}": module
        for network in networks
        for name, module in networks[network].named_modules()
        # The tables of conditional batch norm are no maps from inputs to outputs.
        if isinstance(module, Layer) and not name.endswith((".gain", ".bias"))
    }


def matrix(module: Layer) -> Tensor:
    """The weight of a layer `as_matrix`, in float64; of one in training, not normalised."""
    trained = parametrize.is_parametrized(module, "weight")
    weight = (module.parametrizations.weight.original if trained else module.weight).detach()
    return as_matrix(weight, isinstance(module, nn.ConvTranspose2d)).double()


def power_iteration(
    matrix: np.ndarray, steps: int, seed: int, first_vectors: Callable[[], np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """How a power iteration comes to know the largest singular value, from a random vector on.

    u (rows,) starts as a random direction, the seed's. A step is v = W^T u, u = W v, each scaled to length 1;
    after it the estimate is sigma = u^T W v, and before the first one, without a v, |W^T u|. Returns the
    estimates and the angles in degrees between u and the true first left singular vector, or all of those
    that share the first singular value; both are float64 (steps + 1,), before the first step and after each.
    first_vectors returns the `first_left_vectors`, for a caller that keeps them: they take longer than all
    else. Raises ValueError where steps are not 0 to 100, or the matrix is none, not finite or zero.
    """
    if isinstance(steps, bool) or not isinstance(steps, Integral) or not 0 <= steps <= MOST_STEPS:
        raise ValueError(f"The steps must be an integer from 0 to {MOST_STEPS}, but were {steps!r}.")
    matrix = _checked_matrix(matrix)
    if not matrix.any():
        raise ValueError("The matrix is zero, and so has no first singular vector.")
    first = first_vectors() if first_vectors else first_left_vectors(matrix)
    gram = matrix @ matrix.T if len(matrix) <= matrix.shape[1] else None
    u = np.random.default_rng(check_seed(seed)).normal(size=len(matrix))
    u /= np.linalg.norm(u)
    sigmas, angles = [], []
    for _ in range(steps + 1):
        onward = matrix @ (matrix.T @ u) if gram is None else gram @ u  # W W^T u
        back, length = np.sqrt(u @ onward), np.linalg.norm(onward)  # |W^T u|, |W W^T u|
        along = first @ (first.T @ u)
        if not sigmas:
            sigmas.append(back)
        sigmas.append(length / back)  # u^T W v of the next u and v
        angles.append(np.degrees(np.arctan2(np.linalg.norm(u - along), np.linalg.norm(along))))
        u = onward / length
    return np.array(sigmas[: steps + 1]), np.array(angles)


def first_left_vectors(matrix: np.ndarray) -> np.ndarray:
    """(rows, m): the m left singular vectors of a matrix that share the largest singular value."""
    wide = len(matrix) <= matrix.shape[1]
    squares, vectors = np.linalg.eigh(matrix @ matrix.T if wide else matrix.T @ matrix)
    vectors = vectors[:, squares >= squares[-1] * (1 - SAME) ** 2]
    return vectors if wide else matrix @ vectors / np.sqrt(squares[-1])


def _checked_matrix(matrix: np.ndarray) -> np.ndarray:
    matrix = np.asarray(matrix, np.float64)
    if matrix.ndim != 2 or 0 in matrix.shape or not np.isfinite(matrix).all():
        raise ValueError(f"A matrix must be two-dimensional and finite, but has the shape {matrix.shape}.")
    return matrix


# Beside a checkpoint


def measure(generator: Generator, discriminator: Discriminator) -> dict[str, Tensor]:
    """The tensors of spectra.safetensors, from networks in training."""
    return {
        name: singular_values(matrix(module)).float().cpu()
        for name, module in layers(generator, discriminator).items()
    }


def before_normalisation(folder: Path, config: SaganConfig) -> dict[str, np.ndarray]:
    """The singular values before normalisation, by layer, as a checkpoint of these networks keeps them.

    Empty where it keeps none or, with a warning, others.
    """
    what = "The singular values before normalisation are"
    return checkpoint.read_companion(folder, SPECTRA, what, lambda path: _read(path, config)) or {}


def _read(path: Path, config: SaganConfig) -> dict[str, np.ndarray]:
    with torch.device("meta"):  # only their shapes matter
        modules = layers(Generator(config, spectral=False), Discriminator(config, spectral=False))
    expected = {name: (min(matrix(module).shape),) for name, module in modules.items()}
    values = checkpoint.load_tensors(path, expected, 4 * sum(map(sum, expected.values())) + HEADER_BYTES)
    for name, value in values.items():
        if value.dtype != torch.float32 or not bool(value.isfinite().all()):
            raise CheckpointError(f"'{path}' must hold finite numbers in float32, unlike its '{name}'.")
    return {name: value.numpy() for name, value in values.items()}


def largest(folder: Path, config: SaganConfig) -> dict[str, float]:
    """What the weights of a checkpoint of these networks were divided by, {name of the layer: sigma}.

    Those of the generator are the averaged one's; what the raw one's weights were divided by is not kept.
    Empty where the checkpoint does not have it.
    """
    before = before_normalisation(folder, config)
    return {name: float(values[0]) for name, values in before.items() if values[0] > 0}


def describe(
    generator: Generator, discriminator: Discriminator, before: Mapping[str, np.ndarray]
) -> dict[str, Spectrum]:
    """What there is to show of each layer of two plain networks; `before`: of `before_normalisation`."""
    described: dict[str, Spectrum] = {}
    for name, module in layers(generator, discriminator).items():
        weight = matrix(module)
        described[name] = {
            "shape": tuple(module.weight.shape),
            "matrix": tuple(weight.shape),
            "after": singular_values(weight).float().numpy(),
            "before": before.get(name),
        }
    return described
