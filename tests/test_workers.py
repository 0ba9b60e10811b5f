"""The threads that run the networks: how they start."""

import subprocess
import sys


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
