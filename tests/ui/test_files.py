"""Files that the page hands out."""

import os
from pathlib import Path
from types import SimpleNamespace

from sagan.ui.work import served


def test_a_file_that_another_visitor_is_reading_is_not_touched(tmp_path):
    view, data = SimpleNamespace(GRADIO_CACHE=str(tmp_path)), os.urandom(100_000)
    path = Path(served(view, data, "maps.npz")["path"])
    with path.open("rb") as reading:
        start = reading.read(50_000)
        os.utime(path, (0, 0))
        again = served(view, data, "maps.npz")
        assert os.fstat(reading.fileno()).st_size == len(data)
        assert start + reading.read() == data
    assert again["path"] == str(path) and path.stat().st_mtime > 1e9  # the cache would delete an old one
    assert list(path.parent.iterdir()) == [path]
    assert served(view, data[::-1], "maps.npz")["path"] != str(path)


def test_a_served_file_says_its_size_and_name(tmp_path):
    file = served(SimpleNamespace(GRADIO_CACHE=str(tmp_path)), b"four", "maps.npz")
    assert file["size"] == 4 and file["orig_name"] == "maps.npz"
