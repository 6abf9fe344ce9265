"""The HTTP+SSE transport of revision 2024-11-05: a stream on ``/sse``, messages to it on ``/messages/``.

One stream is one client: its session and what it has in flight end with it. Only the legacy half of the protocol.
Source: basic/transports, HTTP with SSE (2024-11-05).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import parse_qs, quote

from mcp_proxy.base.clock import Clock, SystemClock
from mcp_proxy.base.errors import (
    BAD_REQUEST,
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    OVERLOADED,
    ProxyError,
)
from mcp_proxy.base.ids import IdSource, random_id
from mcp_proxy.base.protocol import INVALID_REQUEST
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.core.auth.principal import Principal
from mcp_proxy.edge.body import read_body_in_time
from mcp_proxy.edge.event_stream import event
from mcp_proxy.edge.respond import refuse, send_json
from mcp_proxy.edge.streams import Streams
from mcp_proxy.edge.types import Receive, Scope, Send
from mcp_proxy.gateway.asked import Answer, Asked, Door
from mcp_proxy.gateway.clients import STATELESS
from mcp_proxy.gateway.envelope import Message, Notification, Refusal, Request, Response, read_message
from mcp_proxy.gateway.head import read_head
from mcp_proxy.gateway.outlet import Outlet
from mcp_proxy.gateway.session import Session
from mcp_proxy.gateway.stream import (
    KEEP_ALIVE,
    MAX_STREAMS,
    check_json,
    known_caller,
    send_accepted,
    stream_outlet,
)
from mcp_proxy.telemetry.record import SCOPE_KEY, RequestRecord

IN_FLIGHT = 256
"""Requests of one client at a time. Their POSTs are answered at once, so nothing else holds a client back."""


class _Connection:
    """One open stream, and what goes on for its client."""

    def __init__(self, principal: Principal) -> None:
        self.principal = principal
        self.outlet = Outlet()
        self.session: Session | None = None
        self.tasks: set[asyncio.Task[None]] = set()

    def spawn(self, tasks: TaskSet, work: Coroutine[Any, Any, None]) -> None:
        task = tasks.spawn(work, "sse request")
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


class Sse:
    """The transport as an ASGI handler for both its paths. What it cannot serve it raises as `ProxyError`."""

    def __init__(
        self,
        door: Door,
        *,
        tasks: TaskSet,
        max_body: int,
        keep_alive: float = KEEP_ALIVE,
        max_streams: int = MAX_STREAMS,
        ids: IdSource = random_id,
        clock: Clock | None = None,
    ) -> None:
        """``max_body`` is in bytes, ``keep_alive`` in seconds. ``ids`` must not be predictable: they lead to a stream."""
        self._door = door
        self._tasks = tasks
        self._max_body = max_body
        self._keep_alive = keep_alive
        self._ids = ids
        self._clock = clock or SystemClock()
        self._streams = Streams(max_streams)
        self._connections: dict[str, _Connection] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        principal, _ = known_caller(scope, "sse")
        path = scope["path"].removesuffix("/")
        if path not in ("/sse", "/messages"):
            raise ProxyError(NOT_FOUND, "there is nothing at this path; the stream is on /sse")
        allowed = "GET" if path == "/sse" else "POST"
        if scope["method"] != allowed:
            error = ProxyError(METHOD_NOT_ALLOWED, f"this method is not served here; allowed: {allowed}")
            return await refuse(scope, send, error, [(b"allow", allowed.encode())])
        if allowed == "GET":
            return await self._stream(scope, receive, send, principal)
        return await self._message(scope, receive, send, principal)

    def end_where(self, revoked: Callable[[Principal], bool]) -> None:
        """End the streams of callers whose token is no longer good."""
        self._streams.end_where(revoked)

    async def close(self) -> None:
        """End all streams, and with them all sessions of this transport, within bounded time."""
        await self._streams.close()

    # GET /sse

    async def _stream(self, scope: Scope, receive: Receive, send: Send, principal: Principal) -> None:
        key = self._ids()
        connection = _Connection(principal)
        place = f"{quote(scope.get('root_path', '').rstrip('/'))}/messages/?session_id={quote(key)}"
        seconds = None if principal.expires is None else principal.expires - self._clock.time()
        with self._streams.open(connection.outlet.close, principal):
            self._connections[key] = connection
            try:
                await stream_outlet(
                    connection.outlet, receive, send, keep_alive=self._keep_alive, seconds=seconds,
                    first=event(place.encode(), b"endpoint"),
                )  # fmt: skip
            finally:
                del self._connections[key]
                self._end(connection)

    def _end(self, connection: _Connection) -> None:
        if connection.session is not None:
            self._door.sessions.end(connection.session)
        for task in list(connection.tasks):
            task.cancel()

    # POST /messages/

    async def _message(self, scope: Scope, receive: Receive, send: Send, principal: Principal) -> None:
        connection = self._connection(scope, principal)
        check_json(read_head(scope["headers"]).content_type)
        body = await read_body_in_time(receive, self._max_body)
        record: RequestRecord = scope[SCOPE_KEY]
        try:
            self._take(connection, read_message(body), principal, record)
        except Refusal as refusal:
            record.error = BAD_REQUEST.type
            answer = self._door.refuse(refusal)
            return await send_json(send, answer.status, answer.body, answer.headers)
        return await send_accepted(send)

    def _connection(self, scope: Scope, principal: Principal) -> _Connection:
        """The caller's own stream; somebody else's is as unknown as one that never was. Raises `ProxyError`."""
        try:
            query = parse_qs(scope.get("query_string", b"").decode("latin-1"), max_num_fields=16)
        except ValueError:
            raise ProxyError(BAD_REQUEST, "the query has too many fields; session_id is the only one") from None
        keys = query.get("session_id", [])
        if not keys:
            raise ProxyError(BAD_REQUEST, "session_id is missing; use the address that the stream's first event gives")
        connection = self._connections.get(keys[0])
        if connection is None or connection.outlet.closed or connection.principal.who != principal.who:
            raise ProxyError(NOT_FOUND, "there is no such stream; open one on /sse")
        return connection

    def _take(self, connection: _Connection, message: Message, principal: Principal, record: RequestRecord) -> None:
        session = connection.session
        if session is not None:
            self._door.sessions.renew(session, principal)
        if isinstance(message, Notification):
            self._door.notified(session, message)
        elif isinstance(message, Response):
            if session is not None:
                session.resolve(message)
        else:
            self._request(connection, message, _asked(connection, message, principal, record))

    def _request(self, connection: _Connection, request: Request, asked: Asked) -> None:
        # The line of this POST is written before the call has gone anywhere: it says what was asked for.
        asked.record.rpc_method = request.method[:100]
        if isinstance(name := request.params.get("name"), str):
            asked.record.tool = name
        if len(connection.tasks) >= IN_FLIGHT:
            raise ProxyError(OVERLOADED, "too many requests are in flight on this stream", retry_after=1)
        if request.method == "initialize":
            connection.spawn(self._tasks, _send(connection, self._initialize(connection, asked)))
        else:
            connection.spawn(self._tasks, self._serve(connection, asked))

    def _initialize(self, connection: _Connection, asked: Asked) -> Answer:
        if connection.session is not None:
            refusal = Refusal(INVALID_REQUEST, "this stream has been initialized already", id=asked.request.id)
            return self._door.refuse(refusal)
        session, answer = self._door.introduce(asked)
        if session is not None:
            connection.session = session
            session.attach(connection.outlet)
        return answer

    async def _serve(self, connection: _Connection, asked: Asked) -> None:
        session = connection.session
        if session is None:
            answer = await self._door.answer(asked)
        else:
            try:
                answer = await session.serve(asked.request.id, self._door.answer(asked))
            except ProxyError:
                return  # cancelled by the client, who expects no answer any more
        await _send(connection, answer)


async def _send(connection: _Connection, answer: Answer) -> None:
    await connection.outlet.send_patiently(answer.body)


def _asked(connection: _Connection, request: Request, principal: Principal, record: RequestRecord) -> Asked:
    session = connection.session
    client = STATELESS if session is None else session.client
    return Asked(request, client, principal, connection.outlet, record, session)
