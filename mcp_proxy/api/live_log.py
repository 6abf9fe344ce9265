"""``WS /ws``: the log as it is written, a line a message, for callers with ``logs:read``.

The connection from its handshake to its end; what is in the lines is `telemetry.logs`, which ones is `log_filter`.
Close codes are those of RFC 6455 §7.4.1.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mcp_proxy.api.log_filter import LogFilter, may_see, read_message, read_query
from mcp_proxy.api.messages import ApiRequest
from mcp_proxy.base.clock import Clock
from mcp_proxy.base.errors import BAD_REQUEST, ProxyError
from mcp_proxy.base.json import encode
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.core.auth.principal import PRINCIPAL_KEY, Principal
from mcp_proxy.core.auth.principal import Scope as Right
from mcp_proxy.edge.body import ClientGone
from mcp_proxy.edge.streams import Streams, calling_after
from mcp_proxy.edge.types import Message, Receive, Scope, Send
from mcp_proxy.telemetry.log_feed import LogFeed, LogLine, Reader, Wanted
from mcp_proxy.telemetry.record import SCOPE_KEY

SUBPROTOCOL = "mcp-proxy-log"
MAX_CONNECTIONS = 64
KEEP_ALIVE = 20.0
"""Seconds without a message after which one is sent that says nothing.

Not a ping frame: ASGI knows none, and Hypercorn's own hold up the end of connections, and so of the service.
"""
STALLED = 60.0
"""Seconds that a client may take for reading one message."""
HURRIED = 1.0
"""The same once its connection is to end: within what a stop leaves for it."""

PING = encode({"event": "ping"})
STOPPING = (1001, "the service is stopping")
NOT_ACCEPTED = (1008, "the token is not accepted any more")


class LiveLog:
    """The route as an ASGI handler. What it refuses it raises as `ProxyError`, before it accepts the connection."""

    def __init__(
        self,
        feed: LogFeed,
        *,
        group_of: Callable[[str], str | None],
        clock: Clock,
        on_error: Callable[[str, BaseException], None],
        limit: int = MAX_CONNECTIONS,
        keep_alive: float = KEEP_ALIVE,
    ) -> None:
        """``group_of`` tells a server's group; ``keep_alive`` is in seconds."""
        self._keep_alive = keep_alive
        self._feed = feed
        self._group_of = group_of
        self._clock = clock
        self._on_error = on_error
        self._streams = Streams(limit)
        self._stopping = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            raise ProxyError(BAD_REQUEST, "this is a WebSocket: connect to it with ws:// or wss://")
        request = ApiRequest(scope[SCOPE_KEY], scope[PRINCIPAL_KEY])
        principal = request.caller(Right.LOGS_READ)
        asked, last = read_query(scope["query_string"])
        seconds = None if principal.expires is None else principal.expires - self._clock.time()
        with self._feed.reading(self._wanted(asked, principal), last) as reader:
            writer = _Writer(send)

            def end() -> None:
                reader.end(at_once=not self._stopping)
                writer.hurry()

            with self._streams.open(end, principal), calling_after(seconds, end):
                await writer.accept(scope)
                if await self._serve(receive, reader, writer, request):
                    await writer.close(*(STOPPING if self._stopping else NOT_ACCEPTED))

    def end_where(self, revoked: Callable[[Principal], bool]) -> None:
        """End the connections of callers whose token is no longer good."""
        self._streams.end_where(revoked)

    async def close(self) -> None:
        """End all connections, after what waits for them, within bounded time."""
        self._stopping = True
        await self._streams.close()

    async def _serve(self, receive: Receive, reader: Reader, writer: _Writer, request: ApiRequest) -> bool:
        """Go on until the reader has ended; whether the client is still there then."""
        gone = False

        async def listen() -> None:
            nonlocal gone
            try:
                while (message := await receive())["type"] != "websocket.disconnect":
                    if message["type"] == "websocket.receive":
                        reader.put(self._answer(message, reader, request))
                gone = True
            finally:
                reader.end(at_once=True)

        tasks = TaskSet(self._on_error)
        tasks.spawn(listen(), "live log")
        try:
            await writer.pump(reader, self._keep_alive)
        finally:
            await tasks.close()
        return not gone

    def _answer(self, message: Message, reader: Reader, request: ApiRequest) -> bytes:
        """What a client's message is answered; a filter in it is in force from then on."""
        assert request.principal is not None
        try:
            asked = read_message(message.get("text"))
        except ProxyError as error:
            return encode(error.body(request.record.request_id))
        reader.wanted = self._wanted(asked, request.principal)
        return encode({"filter": asked.as_asked()})

    def _wanted(self, asked: LogFilter, principal: Principal) -> Wanted:
        def wanted(line: LogLine) -> bool:
            return asked.passes(line) and may_see(principal, line, self._group_of)

        return wanted


class _Writer:
    """What is sent on one connection. Methods that send raise `ClientGone` when the client does not read."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._patience = STALLED
        self._sending: asyncio.Timeout | None = None

    async def accept(self, scope: Scope) -> None:
        """Accept the handshake, with the subprotocol where it is offered."""
        offered = SUBPROTOCOL in (scope.get("subprotocols") or ())
        await self._within({"type": "websocket.accept", "subprotocol": SUBPROTOCOL if offered else None, "headers": []})

    async def pump(self, reader: Reader, keep_alive: float) -> None:
        """Send what the reader gets until it has ended."""
        while True:
            try:
                message = await reader.next(keep_alive)
            except TimeoutError:
                message = PING
            if message is None:
                return
            await self._within({"type": "websocket.send", "text": message.decode()})
            await asyncio.sleep(0)  # A long backlog must not hold up everybody else.

    async def close(self, code: int, reason: str) -> None:
        """Send the end."""
        await self._within({"type": "websocket.close", "code": code, "reason": reason})

    def hurry(self) -> None:
        """It is about to end: wait no longer for a client that does not read. Asked again, it keeps what it has set."""
        if self._patience == HURRIED:
            return
        self._patience = HURRIED
        if self._sending is not None:
            self._sending.reschedule(asyncio.get_running_loop().time() + HURRIED)

    async def _within(self, message: Message) -> None:
        try:
            async with asyncio.timeout(self._patience) as self._sending:
                await self._send(message)
        except TimeoutError:
            raise ClientGone("the client does not read its messages") from None
        finally:
            self._sending = None
