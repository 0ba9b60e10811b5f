"""How the page's events run: small answers at once on two threads, heavy ones in turn in the queue."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gradio as gr

_WORKERS = ThreadPoolExecutor(max_workers=2, thread_name_prefix="sagan")

# What follows a slider: no queue, and a drag always ends on its last value (the default would drop it).
INTERACTIVE: dict[str, Any] = {
    "queue": False,
    "show_progress": "hidden",
    "trigger_mode": "always_last",
    "api_visibility": "private",
}
# Sheets and ways: one at a time for all visitors, so that sliders stay quick. The views show the waiting.
HEAVY: dict[str, Any] = {
    "concurrency_limit": 1,
    "concurrency_id": "heavy",
    "show_progress": "hidden",
    "trigger_mode": "always_last",
    "api_visibility": "private",
}


async def in_worker(function: Callable, *args: Any) -> Any:
    """Run `function(*args)` on a worker thread; a ValueError reaches the visitor as its one sentence."""
    try:
        return await asyncio.get_running_loop().run_in_executor(_WORKERS, function, *args)
    except ValueError as error:
        raise gr.Error(str(error), print_exception=False) from error
