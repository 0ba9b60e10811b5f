"""Start the web app: `python app.py`, then open the address that it prints."""

import argparse
import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before Gradio is imported

from sagan.sampler import Sampler
from sagan.ui import build_app, launch_options

try:
    import spaces
except ImportError:
    spaces = None

DEFAULT_CHECKPOINT = "checkpoints/celeba64"


def parse_arguments() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--checkpoint", default=DEFAULT_CHECKPOINT, help='checkpoint or run folder, or a Hub id "owner/name"'
    )
    parser.add_argument(
        "--host", default=None, help="address to listen on; 0.0.0.0 lets other machines in (this one only)"
    )
    parser.add_argument(
        "--port", type=int, default=None, help="port to listen on (the first free one from 7860)"
    )
    parser.add_argument("--share", action="store_true", help="make a public link through gradio.live")
    return parser.parse_args()


def main() -> None:
    """Load the checkpoint and serve the page; without a usable one, the page says what to do."""
    options = parse_arguments()
    try:
        sampler, message = Sampler.load(options.checkpoint), ""
    except ValueError as error:
        sampler, message = None, str(error)
        print(message)
    app = build_app(sampler, message)
    app.launch(
        server_name=options.host, server_port=options.port, share=options.share or None, **launch_options()
    )


if spaces is not None:

    @spaces.GPU
    def on_zero_gpu() -> None:
        """A ZeroGPU Space wants one such function; this page needs no GPU."""


if __name__ == "__main__":
    main()
