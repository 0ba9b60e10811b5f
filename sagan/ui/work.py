"""How the page's events run, small answers at once and heavy ones in turn, and what scripts may send."""

import asyncio
import json
import reprlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import Any, TypeVar

import gradio as gr

from sagan.ui import texts

# One for the heavy answers of the page, one for those of programs, and one more for what follows a slider.
_WORKERS = ThreadPoolExecutor(max_workers=3, thread_name_prefix="sagan")

# For what waits for them or runs: unlike the queue's, answers at once have no other bound.
MOST_WAITING = 256
_PLACES = BoundedSemaphore(MOST_WAITING)

# What follows a slider: no queue, and a drag always ends on its last value (the default would drop it).
INTERACTIVE: dict[str, Any] = {
    "queue": False,
    "show_progress": "hidden",
    "trigger_mode": "always_last",
    "api_visibility": "private",
}
# A choice: "always_last" would make a second one after newer ones of another kind; and of those that an
# event's data tells, it would repeat the first and drop the newest.
CHOICE: dict[str, Any] = {**INTERACTIVE, "trigger_mode": "multiple"}
# Sheets and walks: one at a time for all visitors, so that sliders stay quick. The views show the waiting.
HEAVY: dict[str, Any] = {**CHOICE, "queue": True, "concurrency_limit": 1, "concurrency_id": "heavy"}
# The public endpoints have a turn of their own: who asks them for much holds up other programs, not the page,
# while the queue has places left, which all share.
PROGRAMS: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "programs"}

Number = TypeVar("Number", int, float)


async def in_worker(function: Callable, *args: Any) -> Any:
    """Run `function(*args)` on a worker thread; a ValueError reaches the visitor as its one sentence.

    Where too many wait already, one more is refused at once.
    """
    if not _PLACES.acquire(blocking=False):
        raise gr.Error(texts.TOO_BUSY, print_exception=False)
    try:
        return await asyncio.get_running_loop().run_in_executor(_WORKERS, function, *args)
    except ValueError as error:
        raise gr.Error(str(error), print_exception=False) from error
    finally:
        _PLACES.release()


def answered(number: int, make: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    """What `make(*args)` gives and the number of its request; or `error`, the sentence of a ValueError."""
    try:
        return {"number": number} | make(*args)
    except ValueError as error:
        return {"number": number, "error": str(error)}


def number_of(event: gr.EventData, name: str, most: float = 2**53 - 1, kind: type[Number] = int) -> Number:
    """The number `name`, from 0 to `most`, that a view's script sent with its event: whole if kind is int.

    Private endpoints answer direct requests too: whatever else was sent is refused in one sentence.
    """
    return _number(name, _sent(event, name), most, kind)


def numbers_of(
    event: gr.EventData, name: str, most: float, counts: range, kind: type[Number] = int
) -> list[Number]:
    """The list `name` of such numbers, as many as `counts` allows."""
    values = _sent(event, name)
    if not isinstance(values, list) or len(values) not in counts:
        few, many = counts[0], counts[-1]
        how_many = f"{few} to {many}" if few != many and counts.step == 1 else ", ".join(map(str, counts))
        sentence = f"{name} must be a list of {how_many} numbers, but was {reprlib.repr(values)}."
        raise gr.Error(sentence, print_exception=False)
    return [_number(name, value, most, kind) for value in values]


def _sent(event: gr.EventData, name: str) -> Any:
    try:
        return getattr(event, name, None)
    except TypeError:  # the event brought no mapping
        return None


def _number(name: str, value: Any, most: float, kind: type[Number]) -> Number:
    if type(value) not in (int, kind) or not 0 <= value <= most:
        what = "an integer" if kind is int else "a number"
        sentence = f"{name} must be {what} from 0 to {most}, but was {reprlib.repr(value)}."
        raise gr.Error(sentence, print_exception=False)
    return value


def failed(view: gr.HTML) -> str:
    """`js` for a request of `view` that failed: it says so, and may ask again."""
    return f"() => sagan.emit('failed', '{view.elem_id}')"


def within(inputs: Sequence[gr.components.Component]) -> str:
    """`js` of an event: its sliders' values, brought into their ranges before they are sent.

    A number that is being retyped is empty or too large in between. Gradio itself brings it into the range,
    but only when the box is left; until then every key would end in an error.
    """
    ranges = [
        [box.minimum, box.maximum, box.step == 1] if isinstance(box, gr.Slider) else None for box in inputs
    ]
    return f"(...values) => sagan.within({json.dumps(ranges)}, values)"
