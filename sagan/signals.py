"""The signals that end a run: the first when its step is done, a second at once."""

import signal
from collections.abc import Callable
from types import FrameType, TracebackType

Handler = Callable[[int, FrameType | None], object] | int | None  # as `signal.signal` takes and returns it


class Signals:
    """In the block, the first SIGINT, SIGTERM or SIGHUP is remembered, and a second raises KeyboardInterrupt.

    A second SIGHUP does nothing, since a closing terminal may send two; under nohup it stays ignored. The
    handlers of before are set again at the end.

    first    the number of the first signal; 0: there was none
    """

    def __init__(self, tells_first: bool = False) -> None:
        """tells_first: whether a block that fails leaves SIGTERM ignored. torchrun ends the rest of a run
        with it; a process that ignores it can first say why it stopped.
        """
        self.first = 0
        self._tells_first = tells_first
        self._usual: dict[signal.Signals, Handler] = {}

    def __enter__(self) -> "Signals":
        # A handler that was not set from Python is None, and could not be set again.
        numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not None]
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # not under nohup
            numbers.append(signal.SIGHUP)
        self._usual = {number: signal.signal(number, self._remember) for number in numbers}
        return self

    def __exit__(self, kind: type[BaseException] | None, _: object, __: TracebackType | None) -> None:
        if self._tells_first and kind is not None:
            self._usual[signal.SIGTERM] = signal.SIG_IGN
        for number, handler in self._usual.items():
            signal.signal(number, handler)

    def _remember(self, number: int, _: FrameType | None) -> None:
        if not self.first:
            self.first = number
        elif number != signal.SIGHUP:
            raise KeyboardInterrupt
