"""What both HTTP transports have in common: streams that an `Outlet` feeds, and who calls.

One event a message, comments while there is none; how events are written is `edge.event_stream`. How many streams there
may be, and their common end, are `edge.streams`. Source: basic/transports of every revision.
"""

from __future__ import annotations

from mcp_proxy.base.errors import UNAUTHORIZED, UNSUPPORTED_MEDIA_TYPE, ProxyError
from mcp_proxy.core.auth.principal import PRINCIPAL_KEY, Principal
from mcp_proxy.edge.event_stream import PING, EventWriter, event
from mcp_proxy.edge.presence import while_connected
from mcp_proxy.edge.streams import calling_after
from mcp_proxy.edge.types import Receive, Scope, Send
from mcp_proxy.gateway.outlet import Outlet
from mcp_proxy.telemetry.record import SCOPE_KEY, RequestRecord

KEEP_ALIVE = 15.0
"""Seconds without a message after which a comment is sent, so that no intermediary takes the stream for dead."""
MAX_STREAMS = 4096


async def pump(writer: EventWriter, outlet: Outlet, keep_alive: float) -> None:
    """Write what comes out of ``outlet`` until it is closed and empty, and comments in between. Raises `ClientGone`."""
    while True:
        try:
            message = await outlet.next(keep_alive)
        except TimeoutError:
            await writer.write(PING)
            continue
        if message is None:
            return
        await writer.write(event(message))


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
        await pump(writer, outlet, keep_alive)
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


def check_json(content_type: bytes | None) -> None:
    """Raises `ProxyError` (unsupported_media_type) for a body that is not declared as JSON."""
    if content_type == b"application/json":
        return
    if (content_type or b"").partition(b";")[0].strip().lower() != b"application/json":
        raise ProxyError(UNSUPPORTED_MEDIA_TYPE, "the body must be JSON; send Content-Type: application/json")
