"""What the page's server refuses before Gradio reads it."""

from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 64 * 1024  # of a request's body; the page's own have less than 2,000
# Routes of Gradio that write files for whoever asks, of which it never removes those of deep links.
CLOSED = ("/upload", "/deep_link", "/process_recording")


class Gate:
    """ASGI middleware that answers 413 to large bodies, and 404 on routes that this page does not use.

    Gradio takes a body of any size, spends seconds of everybody's time on a large one, and keeps what it held
    for as long as it keeps the session.
    """

    def __init__(self, app: ASGIApp, most_bytes: int = MOST_BYTES) -> None:
        self.app, self.most_bytes = app, most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its body counted as it comes."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["path"].rstrip("/").endswith(CLOSED):
            await PlainTextResponse("This page takes no files and keeps no links.", 404)(scope, receive, send)
            return
        if scope["method"] in ("GET", "HEAD"):  # no route of Gradio reads the body of one
            await self.app(scope, receive, send)
            return
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self.most_bytes:
                raise HTTPException(413, f"A request may have {self.most_bytes:,} bytes at most.")
            return message

        await self.app(scope, counted, send)
