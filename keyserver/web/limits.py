"""Refuses bodies larger than a path takes, before anything collects them."""

from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from keyserver.errors import TooLarge
from keyserver.web.answers import failure


class LimitBodies:
    """ASGI middleware. `larger` names the paths whose limit is not `limit`; both in bytes."""

    def __init__(self, app: ASGIApp, limit: int, larger: Mapping[str, int]) -> None:
        self._app = app
        self._limit = limit
        self._larger = larger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._larger.get(scope["path"], self._limit)
        error = TooLarge(f"the body may have {limit} bytes")
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > limit:
            await failure(error)(scope, receive, send)
            return
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > limit:
                raise error
            return message

        try:
            await self._app(scope, counted, send)
        except TooLarge as refused:
            await failure(refused)(scope, receive, send)
