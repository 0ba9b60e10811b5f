"""Where Gradio does what this page cannot bear and has no setting for it: its own parts, replaced.

Each function says what Gradio does without it. They reach into what Gradio does not document, one of the
reasons why requirements.txt keeps to one major version.
"""

import asyncio
import math
from collections.abc import Callable, Iterator, Set
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import LRUCache

from sagan.ui import texts
from sagan.ui.downloads import remove_emptied

# Of Gradio's queue: events that may wait in one turn, sessions with something unread (four times the events
# that may wait in all), messages that one has left unread when it asks again (three or more of an event, the
# last with its answer of up to 1 MB), and characters of its name (browsers send 11, gradio_client 36).
MOST_IN_TURN = 32
MOST_SESSIONS = 256
MOST_UNREAD = 30
LONGEST_SESSION = 64
LOOK_EVERY = 0.01  # s between looks for work; with Gradio's 0.001 an idle server takes 6 % of a core


def apply(app: gr.Blocks) -> None:
    """Patch a page whose events and queue are set up."""
    keep_cleaning(app)
    take_no_files(app)
    share_queue(app)


def take_no_files(app: gr.Blocks) -> None:
    """Refuse files in the place of values that events take: Gradio would download them from any address."""

    async def refuse(_: str | Path | None) -> None:
        raise gr.Error(texts.NO_FILES, print_exception=False)

    for block in {block for function in app.fns.values() for block in function.inputs}:
        block.async_move_resource_to_block_cache = refuse


class _OfSessions(LRUCache):
    """What is kept of each session. What comes for one that is forgotten meanwhile goes nowhere."""

    def __init__(self, most: int, make: Callable[[], Any]) -> None:
        super().__init__(most)
        self._make = make

    def __missing__(self, session: str) -> Any:
        """Gradio's queue would stop for everybody at a KeyError."""
        return self._make()


def share_queue(app: gr.Blocks) -> None:
    """Leave room in the queue for other turns when one is full, and keep few answers that nobody reads.

    Gradio bounds only how many events wait in all, and the sessions of which it keeps all that is unread: of
    these it forgets the one that came first, also while it waits for an answer. It keeps the names of all
    sessions that there ever were, and after each event computes statistics of the last 10,000, which this
    page shows nobody.
    """
    queue, push = app._queue, app._queue.push
    queue.sleep_when_free = LOOK_EVERY
    queue.ANAYLTICS_CACHE_FREQUENCY = math.inf  # so Gradio spells it
    sessions = queue.pending_messages_per_session = _OfSessions(MOST_SESSIONS, asyncio.Queue)
    events = queue.pending_event_ids_session = _OfSessions(10 * MOST_SESSIONS, set)

    async def push_if_room(body: Any, **rest: Any) -> tuple:
        session, function = body.session_hash or "", app.fns.get(body.fn_index)
        if len(session) > LONGEST_SESSION:
            return False, texts.LONG_SESSION.format(most=LONGEST_SESSION), "error"
        turn = function and queue.event_queue_per_concurrency_id.get(function.concurrency_id)
        if turn and len(turn.queue) >= MOST_IN_TURN:
            return False, texts.TOO_BUSY, "queue_full"
        for of_session in (sessions, events):
            if session in of_session:
                of_session.move_to_end(session)
        if (unread := sessions.get(session)) is not None:
            while unread.qsize() > MOST_UNREAD:
                unread.get_nowait()
        return await push(body=body, **rest)

    queue.push = push_if_room


class _Files(set):
    """Files of the cache; others may be added while one goes through them."""

    def __iter__(self) -> Iterator:
        return iter(frozenset(self))  # as many as they are now

    def __isub__(self, gone: Set[str]) -> "_Files":
        """Forget files that were deleted."""
        remove_emptied(gone)
        return super().__isub__(gone)


def keep_cleaning(app: gr.Blocks) -> None:
    """Let the cache be cleaned (`delete_cache`) for as long as the page is served.

    Gradio goes through its files on another thread, and stops for good where one is added meanwhile.
    """
    for block in app.blocks.values():
        block.temp_files = _Files(block.temp_files)
    app.upload_file_set = _Files(app.upload_file_set)
    app.temp_file_sets = [app.upload_file_set, *(block.temp_files for block in app.blocks.values())]
