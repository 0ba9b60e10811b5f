"""A clock that can be told what not to count."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """The seconds since it was made, or restarted, without those inside `paused()`."""

    def __init__(self) -> None:
        self._counted = 0.0  # up to the last pause
        self._since: float | None = time.monotonic()  # None while paused

    @property
    def seconds(self) -> float:
        return self._counted if self._since is None else self._counted + time.monotonic() - self._since

    def restart(self) -> None:
        """Begin again from 0; a pause that it is in goes on."""
        self._counted = 0.0
        if self._since is not None:
            self._since = time.monotonic()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Count nothing of the block; a pause inside another changes nothing."""
        if self._since is None:
            yield
            return
        self._counted, self._since = self.seconds, None
        try:
            yield
        finally:
            self._since = time.monotonic()
