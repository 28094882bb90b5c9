"""Bodies in and out: limits, messages, and the one shape every failure has."""

import asyncio
import logging
from collections.abc import Callable
from typing import TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from keyserver.errors import Banned, KeyServerError, Malformed, NotReady, Stalled, TooLarge
from keyserver.messages import Failure, Message, RecordBatch

M = TypeVar("M", bound=Message)

BODY_SECONDS = 30.0
"""A body that has not arrived by then never will."""

log = logging.getLogger(__name__)

_encode = msgspec.json.Encoder().encode


async def read_body(request: Request, limit: int) -> bytes:
    """Raises `TooLarge`, or `Malformed` where it does not arrive."""
    try:
        if int(request.headers.get("content-length", "0")) > limit:
            raise TooLarge(f"the body may have {limit} bytes")
        parts: list[bytes] = []
        size = 0
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > limit:
                    raise TooLarge(f"the body may have {limit} bytes")
                parts.append(part)
    except (TimeoutError, ClientDisconnect) as exc:
        raise Stalled("the body did not arrive") from exc
    except ValueError:
        raise Malformed("the content length is not a number") from None
    return b"".join(parts)


def decode(body: bytes, kind: type[M]) -> M:
    """Raises `Malformed`."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise Malformed(f"not a {kind.__name__}: {exc}") from None


def reader(kind: type[M]) -> Callable[[bytes], M]:
    """`decode` of one kind."""
    return lambda body: decode(body, kind)


def read_batch(body: bytes) -> RecordBatch:
    """Raises `Malformed`."""
    try:
        return RecordBatch.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise Malformed(f"not a RecordBatch: {exc}") from None


def message(body: Message) -> Response:
    return Response(_encode(body), media_type="application/json")


def failure(error: Exception) -> Response:
    """Any exception as an answer. What was not raised on purpose is logged and told nothing about."""
    if not isinstance(error, KeyServerError):
        log.error("bug while serving a request", exc_info=error)
        body, status = Failure("failed", "the server failed; its log says why"), 500
    else:
        if isinstance(error, NotReady):
            log.error("not ready: %s", error)
        body, status = Failure(error.word, str(error)), error.status
    # The rest of a refused body may still be on its way; and who is banned need not stay connected.
    closing = {"connection": "close"} if isinstance(error, TooLarge | Stalled | Banned) else None
    return Response(_encode(body), status, media_type="application/json", headers=closing)
