"""Files that the page hands out."""

import errno
import os
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest
from gradio.route_utils import delete_files_created_by_app
from randomness import fresh_rng

from sagan.ui import downloads
from sagan.ui.downloads import served
from sagan.ui.patches import keep_cleaning


def test_a_file_that_another_visitor_is_reading_is_not_touched(tmp_path):
    view, data = SimpleNamespace(GRADIO_CACHE=str(tmp_path)), fresh_rng().bytes(100_000)
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


def test_the_oldest_files_make_room_for_new_ones(tmp_path, monkeypatch):
    view = SimpleNamespace(GRADIO_CACHE=str(tmp_path))
    monkeypatch.setattr(downloads, "_SERVED", OrderedDict())
    monkeypatch.setattr(downloads, "MOST_SERVED", 1000)
    first, second, third = (Path(served(view, bytes([i]) * 300, "maps.npz")["path"]) for i in range(3))
    served(view, bytes([0]) * 300, "maps.npz")  # asked for again
    fourth = Path(served(view, bytes([3]) * 300, "maps.npz")["path"])
    assert [path.exists() for path in (first, second, third, fourth)] == [True, False, True, True]
    large = Path(served(view, bytes(5000), "maps.npz")["path"])
    assert set(tmp_path.rglob("*")) == {large, large.parent}
    assert served(view, bytes([1]) * 300, "maps.npz")["path"] == str(second) and second.exists()


def test_what_did_not_fit_on_the_disk_is_not_left_there(tmp_path, monkeypatch):
    def write_a_part(path: Path, data: bytes) -> None:
        with path.open("wb") as file:
            file.write(data[:2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_a_part)
    with pytest.raises(OSError, match="No space"):
        served(SimpleNamespace(GRADIO_CACHE=str(tmp_path)), b"four", "maps.npz")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("uploads", [False, True])
def test_the_cache_is_cleaned_while_answers_add_to_it(tmp_path, monkeypatch, uploads):
    with gr.Blocks() as app:
        view = gr.HTML()
    keep_cleaning(app)
    files = app.upload_file_set if uploads else view.temp_files
    old, new = tmp_path / "old", tmp_path / "new"
    old.touch()
    files.add(str(old))
    lstat = Path.lstat

    def answer_meanwhile(path: Path) -> os.stat_result:
        new.touch()
        files.add(str(new))
        return lstat(path)

    monkeypatch.setattr(Path, "lstat", answer_meanwhile)
    delete_files_created_by_app(app, age=None)
    assert not old.exists() and new.exists()
    assert files == {str(new)}


def test_a_file_that_is_cleaned_away_leaves_no_folder_of_its_own(tmp_path, monkeypatch):
    cache, outside = tmp_path / "cache", tmp_path / "outside" / "face.png"
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(cache))
    with gr.Blocks() as app:
        view = gr.HTML()
    keep_cleaning(app)
    alone, loose = cache / "a" / "face.png", cache / "face.png"
    shared = [cache / "b" / "face.png", cache / "b" / "maps.npz"]
    for path in (alone, *shared, loose, outside):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    view.temp_files |= {str(alone), str(shared[0]), str(loose), str(outside)}
    delete_files_created_by_app(app, age=None)
    assert set(tmp_path.rglob("*")) == {cache, shared[1].parent, shared[1], outside.parent}
    view.temp_files.add(str(shared[1]))
    delete_files_created_by_app(app, age=None)
    assert set(tmp_path.rglob("*")) == {cache, outside.parent}
