"""What the commands share."""

import argparse
import errno
from pathlib import Path

import pytest

from sagan import checkpoint
from sagan.commands import CHECKPOINT, add_checkpoint, refusal


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
