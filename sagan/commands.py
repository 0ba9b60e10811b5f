"""What the commands share: the checkpoint they open by default, what is said of a refusal, and to whom."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TextIO

REPOSITORY = Path(__file__).parents[1]
CHECKPOINT = str(REPOSITORY / "checkpoints/celeba64")  # or a Hub id, "owner/name"
SHORT = CHECKPOINT.removeprefix(f"{REPOSITORY}{os.sep}")  # as --help has it


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """The option --checkpoint, as a folder or a Hub id."""
    described = f"folder or Hub id (default: {SHORT})"
    parser.add_argument("--checkpoint", type=_there, default=CHECKPOINT, help=described)


def _there(checkpoint: str) -> str:
    """Refuses the default where the package was installed without what else is in the repository."""
    if checkpoint == CHECKPOINT != SHORT and not Path(checkpoint).parent.is_dir():
        raise argparse.ArgumentTypeError(
            f"'{SHORT}' of the repository is not beside this package: name a folder or a Hub id"
        )
    return checkpoint


def short_name(checkpoint: str) -> str:
    """A checkpoint as it is told to others: the default by its place in the repository."""
    return SHORT if checkpoint == CHECKPOINT else checkpoint


def count(text: str) -> int:
    """What an option takes that counts something. Raises ArgumentTypeError."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


def refusal(error: OSError) -> str:
    """What to say where the system refuses: of a path, or of something else that went wrong."""
    return f"'{error.filename}' cannot be used: {error.strerror}." if error.filename else str(error)


class Unheard:
    """A stream whose writing never fails: work goes on where nobody reads any more, or its disk is full.

    None, as Python has it for a stream that was closed before the start, is read by nobody. Letters that the
    stream's encoding lacks are spelled with backslashes.

    heard    whether all that was written so far found its way
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream or Path(os.devnull).open("w")  # noqa: SIM115 - as long as the program runs
        self.heard = stream is not None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._noting():
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                encoding = self._stream.encoding
                self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        with self._noting():
            self._stream.flush()

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            self.heard = False


def run_program(main: Callable[[], int | None], prints_result: bool = False) -> NoReturn:
    """Leave with the exit code of `main`, whose work goes on where nobody reads what it says.

    prints_result: what it prints is all that comes of it, so the code is 1 where that was not heard.
    """
    sys.stdout, sys.stderr = Unheard(sys.stdout), Unheard(sys.stderr)
    code = main()
    sys.stdout.flush()
    if prints_result and not sys.stdout.heard:
        print("The result could not be printed.", file=sys.stderr)
        code = code or 1
    sys.exit(code)
