"""What the signals that end a run do in the block, and what is left of that after it."""

import signal
from collections.abc import Iterator

import pytest

from sagan.signals import Signals


@pytest.fixture(autouse=True)
def usual() -> Iterator[list]:
    """The handlers of before; after the test they are set again."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = [signal.getsignal(number) for number in numbers]
    yield handlers
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_remembered_and_a_second_leaves_at_once(usual, first, second):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with Signals() as signals:
        assert signals.first == 0
        signal.raise_signal(first)
        assert signals.first == first
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(second)
        assert signals.first == first
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == usual[:2]
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL


def test_a_terminal_that_closes_may_tell_as_often_as_it_wants():
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with Signals() as signals:
        for number in (signal.SIGHUP, signal.SIGHUP):
            signal.raise_signal(number)
    assert signals.first == signal.SIGHUP


def test_under_nohup_a_terminal_that_closes_is_nothing():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Signals() as signals:
        signal.raise_signal(signal.SIGHUP)
    assert signals.first == 0


@pytest.mark.parametrize("tells_first", [False, True])
def test_only_a_block_that_fails_leaves_sigterm_ignored_and_only_where_that_is_wanted(usual, tells_first):
    with Signals(tells_first):
        pass
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == usual[:2]
    with pytest.raises(ValueError, match="failed"), Signals(tells_first):
        raise ValueError("failed")
    after = signal.SIG_IGN if tells_first else usual[1]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == [usual[0], after]


def test_a_handler_that_was_not_set_from_python_stays(usual, monkeypatch):
    known = signal.getsignal
    monkeypatch.setattr(signal, "getsignal", lambda n: None if n == signal.SIGTERM else known(n))
    with Signals() as signals:
        assert known(signal.SIGTERM) == usual[1]
        signal.raise_signal(signal.SIGINT)
    assert signals.first == signal.SIGINT
    assert [known(number) for number in (signal.SIGINT, signal.SIGTERM)] == usual[:2]
