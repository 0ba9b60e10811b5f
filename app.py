"""Start the web app: `python app.py`, then open the address that it prints."""

import argparse
import os
import sys

try:
    import spaces  # on a ZeroGPU Space it has to come before torch
except ImportError:
    spaces = None

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before Gradio is imported

from sagan.commands import CHECKPOINT, SHORT, run_program
from sagan.sampler import Sampler
from sagan.ui import build_app, launch_options

MOST_PORT = 65535


def parse_arguments() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--checkpoint",
        default=CHECKPOINT,
        help=f'checkpoint folder, run folder or Hub id "owner/name" (default: {SHORT})',
    )
    parser.add_argument(
        "--host",
        default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"),
        help="address to listen on; 0.0.0.0 lets other machines in (default: %(default)s)",
    )
    parser.add_argument(
        "--port", type=_port, help="port to listen on (default: the first free one from 7860)"
    )
    parser.add_argument("--share", action="store_true", help="make a public link (default: only --host)")
    return parser.parse_args()


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 1 to {MOST_PORT}")
    return int(text)


def main() -> None:
    """Load the checkpoint and serve the page; without a usable one, the page says what to do."""
    options = parse_arguments()
    try:
        sampler, message = Sampler.load(options.checkpoint), ""
    except ValueError as error:
        sampler, message = None, str(error)
        print(message)
    try:
        build_app(sampler, message).launch(
            server_name=options.host,
            server_port=options.port,
            share=options.share or None,
            **launch_options(),
        )
    except (OSError, OverflowError) as error:
        sys.exit(f"The page cannot be served at {options.host}, port {options.port or 'any'}: {error}")


if spaces is not None:

    @spaces.GPU
    def on_zero_gpu() -> None:
        """A ZeroGPU Space wants to see one such function; this page needs no GPU."""


if __name__ == "__main__":
    run_program(main)
