"""What the commands share: the checkpoint they open by default, what is said of a refusal, and to whom."""

import argparse
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

CHECKPOINT = "checkpoints/celeba64"  # in this repository


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """The option --checkpoint, as a folder or a Hub id."""
    described = "folder or Hub id (default: %(default)s)"
    parser.add_argument("--checkpoint", default=CHECKPOINT, help=described)


def refusal(error: OSError) -> str:
    """What to say where the system refuses: of a path, or of something else that went wrong."""
    return f"'{error.filename}' cannot be used: {error.strerror}." if error.filename else str(error)


class Unheard:
    """A stream whose writing never fails: work goes on where nobody reads any more, or its disk is full.

    None, as Python has it for a stream that was closed before the start, is read by nobody.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream or Path(os.devnull).open("w")  # noqa: SIM115 - as long as the program runs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()
