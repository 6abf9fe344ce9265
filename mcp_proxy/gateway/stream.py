"""Server-sent events, as both HTTP transports write them: one event a message, comments while there is none.

Knows how streams are written and kept alive; what goes into them comes out of an `Outlet`. How many there may be, and
their common end, are `edge.streams`.
Source: WHATWG HTML, section server-sent events; basic/transports of every revision.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from mcp_proxy.base.errors import UNAUTHORIZED, UNSUPPORTED_MEDIA_TYPE, ProxyError
from mcp_proxy.core.auth.principal import PRINCIPAL_KEY, Principal
from mcp_proxy.edge.body import ClientGone
from mcp_proxy.edge.presence import while_connected
from mcp_proxy.edge.streams import calling_after
from mcp_proxy.edge.types import Header, Receive, Scope, Send
from mcp_proxy.gateway.outlet import Outlet
from mcp_proxy.telemetry.record import SCOPE_KEY, RequestRecord

KEEP_ALIVE = 15.0
"""Seconds without a message after which a comment is sent, so that no intermediary takes the stream for dead."""
STALLED = 60.0
"""Seconds that a client may take for reading one event."""
MAX_STREAMS = 4096

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

    async def pump(self, outlet: Outlet, keep_alive: float) -> None:
        """Write what comes out of ``outlet`` until it is closed and empty, and comments in between."""
        while True:
            try:
                message = await outlet.next(keep_alive)
            except TimeoutError:
                await self.write(PING)
                continue
            if message is None:
                return
            await self.write(event(message))

    async def _within(self, message: dict[str, object]) -> None:
        try:
            async with asyncio.timeout(STALLED):
                await self._send(message)
        except TimeoutError:
            raise ClientGone("the client does not read its stream") from None


async def stream_outlet(
    outlet: Outlet, receive: Receive, send: Send, *, keep_alive: float, seconds: float | None, first: bytes = b""
) -> None:
    """A whole answer: ``first``, then what comes out of ``outlet``, until it is closed or ``seconds`` have passed.

    Raises `ClientGone` when the client leaves. The outlet is closed in any case.
    """
    writer = EventWriter(send)

    async def write() -> None:
        await writer.begin()
        # Some clients and intermediaries wait for a first byte of the body.
        await writer.write(first or PING)
        await writer.pump(outlet, keep_alive)
        await writer.end()

    with calling_after(seconds, outlet.close):
        try:
            await while_connected(receive, write())
        finally:
            outlet.close()


async def send_accepted(send: Send) -> None:
    """Send 202 without a body: a message was taken that is owed no answer, or not this way."""
    await send({"type": "http.response.start", "status": 202, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


def known_caller(scope: Scope, door: str) -> tuple[Principal, RequestRecord]:
    """Who calls, and the record of the request, which is noted as ``door``'s. Raises `ProxyError` (unauthorized)."""
    record: RequestRecord = scope[SCOPE_KEY]
    record.door = door
    principal: Principal | None = scope[PRINCIPAL_KEY]
    if principal is None:
        text = "a token is needed: send Authorization: Bearer TOKEN (mcp-proxy-api token makes one)"
        raise ProxyError(UNAUTHORIZED, text)
    return principal, record


def check_json(scope: Scope) -> None:
    """Raises `ProxyError` (unsupported_media_type) for a body that is not declared as JSON."""
    kind = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    if kind.partition(b";")[0].strip().lower() != b"application/json":
        raise ProxyError(UNSUPPORTED_MEDIA_TYPE, "the body must be JSON; send Content-Type: application/json")
