"""What the commands share: the checkpoint that they open by default, and what to say of a refusal."""

import argparse

CHECKPOINT = "checkpoints/celeba64"  # in this repository


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """The option --checkpoint, as a folder or a Hub id."""
    described = "folder or Hub id (default: %(default)s)"
    parser.add_argument("--checkpoint", default=CHECKPOINT, help=described)


def refusal(error: OSError) -> str:
    """What to say where the system refuses: of a path, or of something else that went wrong."""
    return f"'{error.filename}' cannot be used: {error.strerror}." if error.filename else str(error)
