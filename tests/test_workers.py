"""The threads that run the networks: how they start."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from sagan import workers


def test_ctrl_c_while_the_workers_start_does_not_hang_the_exit():
    code = """
import threading
from sagan import workers
start = threading.Thread.start

def interrupted(thread):
    start(thread)
    if threading.current_thread() is threading.main_thread():
        raise KeyboardInterrupt

threading.Thread.start = interrupted
workers.workers()
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert "KeyboardInterrupt" in ended.stderr


def test_threads_that_ask_at_the_same_time_for_the_first_time_share_the_workers(monkeypatch):
    start = workers._start
    monkeypatch.setattr(workers, "_pools", {})
    monkeypatch.setattr(workers, "_start", lambda pool: (time.sleep(0.1), start(pool)))
    together = threading.Barrier(4)

    def ask(_: int) -> ThreadPoolExecutor:
        together.wait()
        return workers.workers()

    with ThreadPoolExecutor(4) as threads:
        pools = set(threads.map(ask, range(4)))
    for pool in pools:
        pool.shutdown()
    assert len(pools) == 1


def test_a_worker_that_waits_for_others_is_let_go_where_no_more_can_start(monkeypatch):
    ended = threading.Event()

    class Ending:
        """A pool of which one worker starts before the program ends."""

        def map(self, work, numbers) -> None:
            def first() -> None:
                with suppress(threading.BrokenBarrierError):
                    work(0)
                ended.set()

            threading.Thread(target=first, daemon=True).start()
            raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(workers, "WORKERS", 2)
    workers._start(Ending())
    assert ended.wait(timeout=60)
