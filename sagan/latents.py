"""Seeds -> latent vectors, and the ways between two of them."""

from collections.abc import Sequence
from numbers import Integral, Real

import numpy as np
import torch

SEEDS = 2**32  # seeds are 0 to SEEDS - 1
NEARLY = 1e-3  # radians; closer to 0 or to pi, the formula of slerp divides by almost nothing


def check_seed(seed: object) -> int:
    """The seed as an int. 5, numpy's 5 and 5.0 (what web forms send) pass; ValueError for all else."""
    whole = isinstance(seed, Integral) or (isinstance(seed, float | np.floating) and float(seed).is_integer())
    if isinstance(seed, bool) or not whole or not 0 <= seed < SEEDS:
        raise ValueError(f"A seed must be an integer from 0 to {SEEDS - 1}, but was {seed!r}.")
    return int(seed)


def check_share(what: str, value: object) -> float:
    """A number from 0 to 1 as a float; ValueError, in a sentence on `what`, for all else."""
    if not isinstance(value, Real) or not 0 <= value <= 1:
        raise ValueError(f"{what} must be a number from 0 to 1, but was {value!r}.")
    return float(value)


def sheet_seeds(first: int, count: int) -> list[int]:
    """The `count` seeds from `first` on; 0 follows 2**32 - 1."""
    first = check_seed(first)
    return [(first + i) % SEEDS for i in range(count)]


def from_seed(seed: int, size: int) -> np.ndarray:
    """The latent vector of a seed: (size,) float32, standard normal, the same on every run."""
    generator = torch.Generator("cpu").manual_seed(check_seed(seed))
    return torch.randn(size, generator=generator, dtype=torch.float32, device="cpu").numpy()


def from_seeds(seeds: Sequence[int], size: int) -> np.ndarray:
    """The latents of one or more seeds: (N, size) float32."""
    return np.stack([from_seed(seed, size) for seed in seeds])


def truncate(z: np.ndarray, psi: float) -> np.ndarray:
    """psi * z: towards the mean latent. psi is 0 to 1, or ValueError.

    A little of it trades variety for quality. But random latents of many dimensions all have nearly the same
    length, and a generator never learned what to make of much shorter ones: not every model tolerates
    truncation (Brock et al. 2019, arXiv:1809.11096, section 3.1).
    """
    return np.float32(check_share("Truncation", psi)) * z


def slerp(a: np.ndarray, b: np.ndarray, t: float) -> np.ndarray:
    """The point at share t of the way from a to b along the arc between them (Shoemake 1985), float32.

    The angle is that of the unit vectors; its weights are applied to a and b as they are, so the length
    changes smoothly too. Where a and b are nearly parallel, or one is zero, the way is a straight line. Where
    they are nearly opposite, all arcs are equally short; the one taken turns towards the axis on which a is
    smallest. a and b are (size,), or ValueError, as where t is not 0 to 1.
    """
    t = check_share("The share of the way", t)
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"A way leads from one latent (size,) to another, not from {a.shape} to {b.shape}.")
    return _slerp(a, b, t).astype(np.float32)


def _slerp(a: np.ndarray, b: np.ndarray, t: float) -> np.ndarray:
    length_a, length_b = np.linalg.norm(a), np.linalg.norm(b)
    if length_a == 0 or length_b == 0 or a.size == 1:  # there is no angle, or no room to turn
        return (1 - t) * a + t * b
    u, v = a / length_a, b / length_b
    angle = 2 * np.arctan2(np.linalg.norm(u - v), np.linalg.norm(u + v))  # exact near 0 and pi, unlike arccos
    if angle < NEARLY:
        return (1 - t) * a + t * b
    if angle > np.pi - NEARLY:
        halfway = (length_a + length_b) / 2 * _perpendicular(u)
        return _slerp(a, halfway, 2 * t) if t < 0.5 else _slerp(halfway, b, 2 * t - 1)
    return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)


def _perpendicular(u: np.ndarray) -> np.ndarray:
    """A unit vector at a right angle to the unit vector u, on the side of the axis on which u is smallest."""
    axis = np.zeros_like(u)
    axis[np.abs(u).argmin()] = 1
    across = axis - (axis @ u) * u
    return across / np.linalg.norm(across)


def walk(a: np.ndarray, b: np.ndarray, steps: int) -> np.ndarray:
    """(steps, size) float32 along `slerp`, evenly spaced, with a first and b last. steps is 2 or more."""
    if steps < 2:
        raise ValueError(f"A walk needs at least 2 steps, but was given {steps}.")
    return np.stack([slerp(a, b, t) for t in np.linspace(0, 1, steps)])
