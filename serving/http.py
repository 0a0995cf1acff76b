"""ASGI by hand: a body with a limit, an answer in JSON. A framework's routing would cost more than the model does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import orjson

from serving.errors import Refused

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

JSON = "application/json"
_DRAIN_SECONDS = 5.0
_DRAIN_BYTES = 256 << 20


class Gone(Exception):
    """The client went away before its request was whole."""


async def read_body(scope: Scope, receive: Receive, limit: int, seconds: float) -> bytes:
    """The whole body, never keeping more than ``limit`` bytes of it.

    Raises:
        Refused: 413 too large (told before it is read, where its length is announced), 408 too slow, 415 compressed.
        Gone: the client went away.
    """
    headers = dict(scope["headers"])
    if headers.get(b"content-encoding", b"identity") != b"identity":
        raise Refused(415, "The body is compressed; send it as it is.")
    announced = headers.get(b"content-length", b"0")
    if announced.isdigit() and int(announced) > limit:
        raise _too_large(limit)
    parts, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Gone
                size += len(message.get("body", b""))
                if size > limit:
                    raise _too_large(limit)
                parts.append(message.get("body", b""))
                if not message.get("more_body"):
                    return b"".join(parts)
    except TimeoutError:
        raise Refused(408, f"The body did not come within {seconds:g} seconds.", {"connection": "close"}) from None


async def respond(
    send: Send,
    status: int,
    body: bytes,
    *,
    kind: str = JSON,
    headers: Mapping[str, str] | None = None,
    more: bool = False,
) -> None:
    """Send one answer; with ``more`` it stays open, until ``finish``."""
    lines = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
    lines += [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in (headers or {}).items()]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def refuse(receive: Receive, send: Send, error: Refused) -> None:
    """Tell a client what was wrong.

    A client that is still sending a body too large would lose the answer when the connection is closed under it:
    the rest is read and thrown away, within bounds.
    """
    body = orjson.dumps(error.body, default=str)
    unread = error.status == 413 and error.headers.get("connection") == "close"
    await respond(send, error.status, body, headers=error.headers, more=unread)
    if unread:
        await _drain(receive)
        await send({"type": "http.response.body", "body": b""})


async def _drain(receive: Receive) -> None:
    thrown = 0
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            while thrown < _DRAIN_BYTES:
                message = await receive()
                thrown += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body"):
                    return
    except TimeoutError:
        return


def _too_large(limit: int) -> Refused:
    return Refused(
        413, f"The body is larger than {limit} bytes. Send the rows in several requests.", {"connection": "close"}
    )
