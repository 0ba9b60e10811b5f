"""How the page's events run: small answers at once, heavy ones in turn; and how it hands out files."""

import asyncio
import hashlib
import json
import os
import reprlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import BoundedSemaphore, Lock
from typing import Any

import gradio as gr
from gradio.utils import LRUCache, get_upload_folder

from sagan.checkpoint import replace_file
from sagan.ui import texts

# One for the heavy answers of the page, one for those of programs, and one more for what follows a slider.
_WORKERS = ThreadPoolExecutor(max_workers=3, thread_name_prefix="sagan")

# For what waits for them or runs: unlike the queue's, answers at once have no other bound.
MOST_WAITING = 256
_PLACES = BoundedSemaphore(MOST_WAITING)

# Of Gradio's queue: events that may wait in one turn, messages that a session may leave unread (three or more
# of an event, the last with its answer), and characters of its name (browsers send 11, gradio_client 36).
MOST_IN_TURN = 32
MOST_UNREAD = 100
LONGEST_SESSION = 64
LOOK_EVERY = 0.01  # s between looks for work; with Gradio's 0.001 an idle server takes 6 % of a core

# The files that were handed out, the newest last, with their sizes in bytes.
_SERVED: OrderedDict[Path, int] = OrderedDict()
_SERVING = Lock()
MOST_SERVED = 1 << 30  # bytes that these may take

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
# Sheets and ways: one at a time for all visitors, so that sliders stay quick. The views show the waiting.
HEAVY: dict[str, Any] = {**CHOICE, "queue": True, "concurrency_limit": 1, "concurrency_id": "heavy"}
# The public endpoints have a turn of their own: who asks them for much holds up other programs, not the page,
# while the queue has places left, which all share.
PROGRAMS: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "programs"}


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


def answered(number: float, make: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    """What `make(*args)` gives and the number of its request; or `error`, the sentence of a ValueError."""
    try:
        return {"number": number} | make(*args)
    except ValueError as error:
        return {"number": number, "error": str(error)}


def number_of(event: gr.EventData, name: str, most: float = 2**53 - 1, whole: bool = True) -> float:
    """The number `name`, from 0 to `most`, that a view's script sent with its event.

    Private endpoints answer direct requests too: whatever else was sent is refused in one sentence.
    """
    return _number(name, _sent(event, name), most, whole)


def numbers_of(event: gr.EventData, name: str, most: float, counts: range, whole: bool = True) -> list[float]:
    """The list `name` of such numbers, as many as `counts` allows."""
    values = _sent(event, name)
    if not isinstance(values, list) or len(values) not in counts:
        few, many = counts[0], counts[-1]
        how_many = f"{few} to {many}" if few != many and counts.step == 1 else ", ".join(map(str, counts))
        sentence = f"{name} must be a list of {how_many} numbers, but was {reprlib.repr(values)}."
        raise gr.Error(sentence, print_exception=False)
    return [_number(name, value, most, whole) for value in values]


def _sent(event: gr.EventData, name: str) -> Any:
    try:
        return getattr(event, name, None)
    except TypeError:  # the event brought no mapping
        return None


def _number(name: str, value: Any, most: float, whole: bool) -> float:
    kind = int if whole else int | float
    if isinstance(value, bool) or not isinstance(value, kind) or not 0 <= value <= most:
        what = "an integer" if whole else "a number"
        sentence = f"{name} must be {what} from 0 to {most}, but was {reprlib.repr(value)}."
        raise gr.Error(sentence, print_exception=False)
    return value


def failed(view: gr.HTML) -> str:
    """`js` for a request of `view` that failed: it says so, and may ask again."""
    return f"() => sagan.emit('failed', '{view.elem_id}')"


def served(view: gr.HTML, data: bytes, name: str) -> dict[str, Any]:
    """A file by the name `name` that Gradio serves from its cache, where `view`'s script may read or save it.

    The same file is written once, since another visitor may be reading it, and counts as new from then on.
    The cache forgets what is ten minutes old (`delete_cache`), and the oldest where all take too much.
    """
    path = Path(view.GRADIO_CACHE) / hashlib.sha256(data).hexdigest() / name
    with _SERVING:
        try:
            os.utime(path)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, lambda new: new.write_bytes(data))
        _SERVED[path] = len(data)
        _SERVED.move_to_end(path)
        while sum(_SERVED.values()) > MOST_SERVED and len(_SERVED) > 1:
            oldest, _ = _SERVED.popitem(last=False)
            oldest.unlink(missing_ok=True)
            with suppress(OSError):  # something else lies there
                oldest.parent.rmdir()
    return gr.FileData(path=str(path), orig_name=name, size=len(data)).model_dump()


def take_no_files(app: gr.Blocks) -> None:
    """Refuse files in the place of values that events take: Gradio would download them from any address."""

    async def refuse(_: str | Path | None) -> None:
        raise gr.Error(texts.NO_FILES, print_exception=False)

    for block in {block for function in app.fns.values() for block in function.inputs}:
        block.async_move_resource_to_block_cache = refuse


class _Unread(LRUCache):
    """What sessions have not read yet. Messages to one that is forgotten meanwhile go nowhere."""

    def __missing__(self, session: str) -> asyncio.Queue:
        """Gradio's queue would stop for everybody at a KeyError."""
        return asyncio.Queue()


def share_queue(app: gr.Blocks) -> None:
    """Leave room in the queue for other turns when one is full, and keep few answers that nobody reads.

    Gradio bounds only how many events wait in all, and the sessions of which it keeps all that is unread: of
    these it forgets the one that came first, also while it waits for an answer.
    """
    queue, push = app._queue, app._queue.push
    queue.sleep_when_free = LOOK_EVERY
    sessions = queue.pending_messages_per_session = _Unread(queue.pending_messages_per_session.max_size)

    async def push_if_room(body: Any, **rest: Any) -> tuple:
        session, function = body.session_hash or "", app.fns.get(body.fn_index)
        if len(session) > LONGEST_SESSION:
            return False, texts.LONG_SESSION.format(most=LONGEST_SESSION), "error"
        turn = function and queue.event_queue_per_concurrency_id.get(function.concurrency_id)
        if turn and len(turn.queue) >= MOST_IN_TURN:
            return False, texts.TOO_BUSY, "queue_full"
        if (unread := sessions.get(session)) is not None:
            sessions.move_to_end(session)
            while unread.qsize() > MOST_UNREAD:
                unread.get_nowait()
        return await push(body=body, **rest)

    queue.push = push_if_room


class _Files(set):
    def __iter__(self) -> Iterator:
        return iter(frozenset(self))  # as many as they are now

    def __isub__(self, gone: Set[str]) -> "_Files":
        """Forget files that were deleted, and delete the folders that each of them had for itself."""
        with _SERVING:
            for folder in {Path(path).parent for path in gone}:
                if Path(get_upload_folder()) in folder.parents:
                    with suppress(OSError):  # something else lies there
                        folder.rmdir()
        return super().__isub__(gone)


def keep_cleaning(app: gr.Blocks) -> None:
    """Let the cache be cleaned (`delete_cache`) for as long as the page is served.

    Gradio goes through its files on another thread, and stops for good where one is added meanwhile.
    """
    for block in app.blocks.values():
        block.temp_files = _Files(block.temp_files)
    app.upload_file_set = _Files(app.upload_file_set)
    app.temp_file_sets = [app.upload_file_set, *(block.temp_files for block in app.blocks.values())]


def within(inputs: Sequence[gr.components.Component]) -> str:
    """`js` of an event: its sliders' values, brought into their ranges before they are sent.

    A number that is being retyped is empty or too large in between. Gradio itself brings it into the range,
    but only when the box is left; until then every key would end in an error.
    """
    ranges = [
        [box.minimum, box.maximum, box.step == 1] if isinstance(box, gr.Slider) else None for box in inputs
    ]
    return f"(...values) => sagan.within({json.dumps(ranges)}, values)"
