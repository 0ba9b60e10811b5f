"""The classes of a model, and labels that go through them: in turn, or as frequent as in training."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Classes:
    """What each class is called, and how many training images it had; both () for an unconditional model.

    counts is also () where nobody counted: then all classes are alike.
    """

    names: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()

    @property
    def learned(self) -> tuple[int, ...]:
        """The classes that had images, lowest first."""
        return tuple(label for label, count in enumerate(self._frequencies) if count)

    def in_turn(self, seeds: Sequence[int]) -> list[int] | None:
        """A learned class for each seed: seed n shows number n modulo their count; None without classes."""
        learned = self.learned
        return [learned[seed % len(learned)] for seed in seeds] if learned else None

    def in_proportion(self, count: int) -> np.ndarray | None:
        """Labels int64 (count,), classes as frequent as in training, in one shuffled order; None without."""
        if not self.names:
            return None
        ends = np.cumsum(self._frequencies)
        places = (np.arange(count) + 0.5) / count * ends[-1]
        labels = np.searchsorted(ends, places, side="right")
        return np.random.default_rng(0).permutation(labels)

    @property
    def _frequencies(self) -> Sequence[int]:
        return self.counts or (1,) * len(self.names)
