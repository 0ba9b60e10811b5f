"""A stopwatch: what it counts, what a pause leaves out, and how it begins again."""

from types import SimpleNamespace

import pytest

from sagan import stopwatch
from sagan.stopwatch import Stopwatch


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    """The time of day, in seconds: it stands still unless `clock.now` is changed."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(stopwatch, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_a_pause_is_not_counted_also_while_it_lasts(clock):
    watch = Stopwatch()
    clock.now += 3
    for _ in range(2):
        with watch.paused():
            clock.now += 100
            assert watch.seconds == 3
    assert watch.seconds == 3
    clock.now += 4
    assert watch.seconds == 7


def test_a_pause_inside_another_ends_with_the_outer_one(clock):
    watch = Stopwatch()
    with watch.paused():
        with watch.paused():
            clock.now += 100
        clock.now += 10
        assert watch.seconds == 0
    clock.now += 1
    assert watch.seconds == 1


def test_a_pause_that_an_error_ends_is_over(clock):
    watch = Stopwatch()
    with pytest.raises(ValueError, match="enough"), watch.paused():
        clock.now += 100
        raise ValueError("enough")
    clock.now += 2
    assert watch.seconds == 2


def test_it_begins_again_from_zero_and_a_pause_that_it_is_in_goes_on(clock):
    watch = Stopwatch()
    clock.now += 5
    watch.restart()
    assert watch.seconds == 0
    clock.now += 6
    with watch.paused():
        watch.restart()
        clock.now += 100
        assert watch.seconds == 0
    clock.now += 8
    assert watch.seconds == 8
