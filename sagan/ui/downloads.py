"""Files that the page hands out: each written once, and the oldest forgotten."""

import hashlib
import os
from collections import OrderedDict
from collections.abc import Set
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from sagan.checkpoint import replace_file

# The files that were handed out, the newest last, with their sizes in bytes.
_SERVED: OrderedDict[Path, int] = OrderedDict()
_SERVING = Lock()  # no folder is deleted between its making and its file's
MOST_SERVED = 1 << 30  # bytes that these may take


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


def remove_emptied(files: Set[str]) -> None:
    """Delete the folders in Gradio's cache that each of these deleted files had for itself."""
    with _SERVING:
        for folder in {Path(path).parent for path in files}:
            if Path(get_upload_folder()) in folder.parents:
                with suppress(OSError):  # something else lies there
                    folder.rmdir()
