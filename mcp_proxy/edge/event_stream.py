"""Server-sent events towards a client: how one is written, and the stream that they make. What is in them is the doors'.

Source: WHATWG HTML, section server-sent events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from mcp_proxy.edge.body import ClientGone
from mcp_proxy.edge.types import Header, Send

STALLED = 60.0
"""Seconds that a client may take for reading one event."""

HEADERS: tuple[Header, ...] = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)
PING = b": ping\n\n"


def event(data: bytes, name: bytes = b"message") -> bytes:
    """One event. Line ends inside ``data``, which JSON may have between its tokens, become several data fields."""
    if b"\n" in data or b"\r" in data:
        data = b"\ndata: ".join(data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"))
    return b"event: " + name + b"\ndata: " + data + b"\n\n"


class EventWriter:
    """One event stream on its way through ASGI. All methods raise `ClientGone` when the client no longer reads."""

    def __init__(self, send: Send) -> None:
        self._send = send

    async def begin(self, status: int = 200, headers: Iterable[Header] = ()) -> None:
        """Send the headers."""
        await self._within({"type": "http.response.start", "status": status, "headers": [*HEADERS, *headers]})

    async def write(self, chunk: bytes) -> None:
        """Send a whole event or comment."""
        await self._within({"type": "http.response.body", "body": chunk, "more_body": True})

    async def end(self, chunk: bytes = b"") -> None:
        """Send a last event, if any, and end the stream."""
        await self._within({"type": "http.response.body", "body": chunk, "more_body": False})

    async def _within(self, message: dict[str, object]) -> None:
        try:
            async with asyncio.timeout(STALLED):
                await self._send(message)
        except TimeoutError:
            raise ClientGone("the client does not read its stream") from None
