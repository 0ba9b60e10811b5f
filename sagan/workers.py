"""The threads that run the networks, with one torch thread each, so that bytes are the same everywhere."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

WORKERS = min(4, os.cpu_count() or 1)

Answer = TypeVar("Answer")


def each(
    forward: Callable[[np.ndarray, Tensor | None], Answer], inputs: np.ndarray, labels: list[int | None]
) -> Iterator[Answer]:
    """Yield forward(input, label) of each pair, in order; each runs alone in a worker with one torch thread.

    No more than WORKERS are queued at a time, so that a single face never waits for somebody's whole sheet.
    """

    def one(value: np.ndarray, label: int | None) -> Answer:
        with torch.inference_mode():
            return forward(value, None if label is None else torch.tensor([label]))

    pool = workers()
    for start in range(0, len(inputs), WORKERS):
        yield from pool.map(one, inputs[start : start + WORKERS], labels[start : start + WORKERS])


_pools: dict[int, ThreadPoolExecutor] = {}
_creating = threading.Lock()


def workers() -> ThreadPoolExecutor:
    """Threads of one torch thread each that run the networks; a forked process gets its own."""
    with _creating:
        if os.getpid() not in _pools:
            pool = ThreadPoolExecutor(WORKERS, "sampler", _use_one_torch_thread)
            # Not started by this thread: it may be the main one, and Ctrl-C in the middle would hang at exit.
            starter = threading.Thread(target=_start, args=(pool,))
            starter.start()
            starter.join()
            _pools[os.getpid()] = pool
        return _pools[os.getpid()]


def _start(pool: ThreadPoolExecutor) -> None:
    """Start all workers; `set_num_threads` also holds for threads that start later, which is undone here."""
    later = torch.get_num_threads()
    all_running = threading.Barrier(WORKERS)
    try:
        list(pool.map(lambda _: all_running.wait(), range(WORKERS)))
    except RuntimeError:  # the program is ending and starts no more threads: let go of those that wait
        all_running.abort()
    torch.set_num_threads(later)


def _use_one_torch_thread() -> None:
    torch.get_num_threads()  # the first call in a thread takes over the number of the process: now, not later
    torch.set_num_threads(1)
