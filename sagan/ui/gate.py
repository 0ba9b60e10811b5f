"""What the page's server refuses before Gradio reads it."""

import re
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 8 * 1024  # of a request's body; the page's own have less than 2,000
# What browsers and gradio_client ask for. Other routes of Gradio write files for whoever asks, fetch what
# others serve, or keep the server busy.
OPEN = re.compile(
    r"""(?: | / | /config/? | /theme\.css | /favicon\.ico | /manifest\.json
        | /pwa_icon(?: /\d+ )? | /robots\.txt
        | /(?: assets | static | svelte )/.*
        | /gradio_api/ (?: info/? | openapi\.json | theme\.css | app_id/? | startup-events | cancel | reset/?
            | queue/(?: join | data ) | (?: run | call | heartbeat )/.* | file=(?! (?i: https?: )).* ))""",
    re.VERBOSE,
)


class Gate:
    """ASGI middleware that answers 413 to large bodies, and 404 on routes that this page does not use.

    Gradio takes a body of any size, spends seconds of everybody's time on a large one, and keeps what it held
    for as long as it keeps the session.

    What is asked for with a body is answered with a header that names the model (static/model.js).
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its body, if it has one, counted as it comes."""
        if scope["type"] == "http":
            path = scope["path"].removeprefix(scope.get("root_path", ""))  # that of a server it is mounted on
            # Routes match with a line break at the end, too.
            if not path.isprintable() or not OPEN.fullmatch(path):
                refusal = PlainTextResponse("There is nothing at this address.", 404)
                await refusal(scope, receive, send)
                return
            if scope["method"] not in ("GET", "HEAD"):  # no route of Gradio reads the body of one
                receive = _counted(receive)
                send = _signed(send, scope["app"])
        await self.app(scope, receive, send)


def _counted(receive: Receive) -> Receive:
    taken = 0

    async def counted() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > MOST_BYTES:
            raise HTTPException(413, f"A request may have {MOST_BYTES:,} bytes at most.")
        return message

    return counted


def _signed(send: Send, app: Any) -> Send:
    async def signed(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(_model_of(app))
        await send(message)

    return signed


def _model_of(app: Any) -> dict[str, str]:
    model = getattr(getattr(app, "blocks", None), "model", "")  # set by `build_app`
    return {"sagan-model": model} if model else {}


async def broken(request: Request, _: Exception) -> PlainTextResponse:
    """What is answered to an error, as where an event is asked for that only another model's page has."""
    return PlainTextResponse("Internal Server Error", 500, _model_of(request.app))
