"""What the commands share."""

import argparse
import errno
import io
from pathlib import Path

import pytest

from sagan import checkpoint
from sagan.commands import CHECKPOINT, Unheard, add_checkpoint, refusal


def test_the_checkpoint_of_the_commands_is_the_shipped_one_unless_another_is_named(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[1])
    parser = argparse.ArgumentParser()
    add_checkpoint(parser)
    assert parser.parse_args([]).checkpoint == CHECKPOINT
    assert checkpoint.find(CHECKPOINT) == Path("checkpoints/celeba64")
    assert parser.parse_args(["--checkpoint", "owner/name"]).checkpoint == "owner/name"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.EACCES, "Permission denied", "a/b"), "'a/b' cannot be used: Permission denied."),
        (OSError("the port is taken"), "the port is taken"),
    ],
)
def test_a_refusal_names_the_path_where_there_is_one(error, sentence):
    assert refusal(error) == sentence


class Pipe(io.StringIO):
    """A pipe whose reader may be gone."""

    gone = False

    def write(self, text: str) -> int:
        if self.gone:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")
        return super().write(text)

    def flush(self) -> None:
        if self.gone:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_what_is_written_is_heard_as_long_as_somebody_reads_and_then_hurts_nobody():
    pipe = Pipe()
    stream = Unheard(pipe)
    print("first", file=stream, flush=True)
    pipe.gone = True
    print("second", file=stream, flush=True)
    assert stream.write("third") == 5
    assert pipe.getvalue() == "first\n" and stream.isatty() is False


def test_a_stream_that_was_closed_before_the_start_takes_everything():
    stream = Unheard(None)
    print("nothing", file=stream, flush=True)
    assert stream.write("more") == 4 and stream.isatty() is False


def test_other_mistakes_of_writing_are_not_hidden():
    closed = Pipe()
    closed.close()
    with pytest.raises(ValueError):
        Unheard(closed).write("x")
