"""Streamable HTTP on ``/mcp`` and ``/mcp/{namespace}``, for both halves of the protocol, as plain ASGI behind the edge.

``/hook/mcp`` is ``/mcp`` without the modern half: clients of both fall back to a session, in which they can be asked much
at once. Knows methods, headers, statuses and streams; what a message means is the door's business.
Source: basic/transports, streamable HTTP, of 2025-11-25 and 2026-07-28.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from mcp_proxy.base.clock import Clock, SystemClock
from mcp_proxy.base.errors import (
    BAD_REQUEST,
    METHOD_NOT_ALLOWED,
    NOT_ACCEPTABLE,
    NOT_FOUND,
    ProxyError,
)
from mcp_proxy.base.protocol import INVALID_REQUEST, LEGACY_VERSIONS, META_VERSION, UNSUPPORTED_VERSION
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.core.auth.principal import Principal
from mcp_proxy.core.upstream.client import Client
from mcp_proxy.edge.body import read_body_in_time
from mcp_proxy.edge.presence import noticing_departure, while_connected
from mcp_proxy.edge.respond import refuse, send_json
from mcp_proxy.edge.streams import Streams, calling_after
from mcp_proxy.edge.types import Receive, Scope, Send
from mcp_proxy.gateway.asked import Answer, Asked, Door
from mcp_proxy.gateway.clients import STATELESS
from mcp_proxy.gateway.envelope import (
    Message,
    Notification,
    Refusal,
    Request,
    RequestId,
    Response,
    check_notification,
    is_modern,
    read_envelope,
    read_message,
)
from mcp_proxy.gateway.head import Head, read_head
from mcp_proxy.gateway.outlet import Outlet
from mcp_proxy.gateway.reply import Reply
from mcp_proxy.gateway.session import Session
from mcp_proxy.gateway.stream import (
    KEEP_ALIVE,
    MAX_STREAMS,
    check_json,
    known_caller,
    send_accepted,
    stream_outlet,
)
from mcp_proxy.telemetry.record import RequestRecord

T = TypeVar("T")
SESSION_HEADER = "mcp-session-id"
_VERSION_HEADER = "mcp-protocol-version"
HANDSHAKE_ONLY = "/hook/mcp"
"""Where only revisions with ``initialize`` are served."""
LISTEN = "subscriptions/listen"
_LAST_WORD = 0.2
"""Seconds in which a subscription that is to end may do so with its result."""


class _Visit(msgspec.Struct, frozen=True):
    """One HTTP request to this transport."""

    scope: Scope
    receive: Receive
    send: Send
    principal: Principal
    record: RequestRecord
    head: Head
    namespace: str | None
    handshake_only: bool


class StreamableHttp:
    """The transport as an ASGI handler. What it cannot serve it raises as `ProxyError`, for the edge to render."""

    def __init__(
        self,
        door: Door,
        *,
        tasks: TaskSet,
        max_body: int,
        keep_alive: float = KEEP_ALIVE,
        max_streams: int = MAX_STREAMS,
        clock: Clock | None = None,
    ) -> None:
        """``max_body`` is in bytes, ``keep_alive`` in seconds; ``max_streams`` bounds the streams that stay open."""
        self._door = door
        self._tasks = tasks
        self._max_body = max_body
        self._keep_alive = keep_alive
        self._clock = clock or SystemClock()
        self._streams = Streams(max_streams)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        principal, record = known_caller(scope, "mcp")
        path = scope["path"]
        namespace, handshake_only = (None, False) if path == "/mcp" else _address(path)
        if namespace is not None:
            self._door.check_namespace(namespace, principal)
        head = read_head(scope["headers"])
        visit = _Visit(scope, receive, send, principal, record, head, namespace, handshake_only)
        try:
            if scope["method"] == "POST":
                await self._post(visit)
            else:
                await self._other(visit)
        except Refusal as refusal:
            record.error = (NOT_FOUND if refusal.status == 404 else BAD_REQUEST).type
            answer = self._door.refuse(refusal)
            await send_json(send, answer.status, answer.body, answer.headers)

    async def _other(self, visit: _Visit) -> None:
        """Any method but POST. The modern half has neither sessions nor a stream apart from a request's own."""
        method = visit.scope["method"]
        if is_modern(visit.head.mcp, None):
            await _not_allowed(visit, b"POST")
        elif method == "GET":
            await self._get(visit)
        elif method == "DELETE":
            await self._delete(visit)
        else:
            await _not_allowed(visit, b"GET, POST, DELETE")

    def end_where(self, revoked: Callable[[Principal], bool]) -> None:
        """End the streams of callers whose token is no longer good."""
        self._streams.end_where(revoked)

    async def close(self) -> None:
        """End the streams that stay open, within bounded time."""
        await self._streams.close()

    # POST

    async def _post(self, visit: _Visit) -> None:
        check_json(visit.head.content_type)
        message = read_message(await read_body_in_time(visit.receive, self._max_body))
        modern = is_modern(visit.head.mcp, message)
        if modern and visit.handshake_only:
            raise _only_handshake(visit, message)
        if isinstance(message, Request):
            return await self._request(visit, message, modern)
        if modern:
            _drop(visit, message)
        else:
            self._take(visit, message)
        return await send_accepted(visit.send)

    def _take(self, visit: _Visit, message: Notification | Response) -> None:
        """What a legacy client sends that is owed no answer."""
        session = self._session(visit) if SESSION_HEADER in visit.head.mcp else None
        if isinstance(message, Notification):
            if session is not None:
                self._door.notified(session, message)
        elif session is None:
            raise Refusal(INVALID_REQUEST, "a response needs the Mcp-Session-Id of the request it answers")
        else:
            session.resolve(message)

    async def _request(self, visit: _Visit, request: Request, modern: bool) -> None:
        client, session = self._client(visit, request, modern)
        listens = modern and request.method == LISTEN
        reply = self._reply(visit, only_stream=listens)
        try:
            asked = Asked(
                request, client, visit.principal, reply, visit.record, session, visit.namespace, visit.head.mcp
            )
            if listens:
                return await self._listen(visit, asked, reply)
            if session is not None:
                answer = await self._serve(visit, asked, session, reply)
            elif request.method == "initialize" and not modern:
                answer = self._initialize(asked)
            else:  # who leaves has cancelled it
                answer = await while_connected(visit.receive, self._door.answer(asked))
            return await reply.finish(answer)
        finally:
            if not reply.over:
                await reply.give_up()

    def _client(self, visit: _Visit, request: Request, modern: bool) -> tuple[Client, Session | None]:
        """Who asks, and the session that it asks in, if it does. Raises `Refusal`."""
        headers = visit.head.mcp
        if modern:
            return read_envelope(request, headers), None
        if SESSION_HEADER not in headers or request.method == "initialize":
            return STATELESS, None
        session = self._session(visit, request.id)
        return session.client, session

    def _initialize(self, asked: Asked) -> Answer:
        session, answer = self._door.introduce(asked)
        if session is None:
            return answer
        return replace(answer, headers=(*answer.headers, (SESSION_HEADER.encode(), session.key.encode())))

    async def _serve(self, visit: _Visit, asked: Asked, session: Session, reply: Reply) -> Answer | None:
        """Serve a request of a session: leaving is not cancelling (2025-11-25), the work goes on without its client."""

        def left() -> None:
            reply.abandon()
            session.abandoned(reply)

        try:
            work = session.serve(asked.request.id, self._door.answer(asked), reply)
            return await noticing_departure(visit.receive, work, left)
        except ProxyError as error:
            visit.record.error = error.kind.type
            refusal = Refusal(error.kind.rpc_code, error.message, status=200, id=asked.request.id)
            return None if reply.begun else self._door.refuse(refusal)

    async def _listen(self, visit: _Visit, asked: Asked, reply: Reply) -> None:
        """A stream for as long as the client wants, its token is good and the service runs."""
        work: asyncio.Task[Answer] | None = None

        def end() -> None:
            # When the service stops, the door brings it to its end with a result, if it is given the time.
            if work is not None:
                asyncio.get_running_loop().call_later(_LAST_WORD, work.cancel)

        with self._streams.open(end, visit.principal), calling_after(self._seconds_left(visit), end):
            work = self._tasks.spawn(self._door.answer(asked), "mcp subscription")
            try:
                await reply.finish(await while_connected(visit.receive, _settled(work)))
            finally:
                work.cancel()

    def _reply(self, visit: _Visit, *, only_stream: bool) -> Reply:
        accepts = visit.head.accepts
        if only_stream and not accepts.events:
            raise _not_acceptable("text/event-stream")
        if not (accepts.json or accepts.events):
            raise _not_acceptable("application/json or text/event-stream")
        return Reply(visit.send, accepts, self._tasks, self._keep_alive)

    # GET and DELETE

    async def _get(self, visit: _Visit) -> None:
        if not visit.head.accepts.events:
            raise _not_acceptable("text/event-stream")
        session = self._session(visit)
        outlet = Outlet()
        with self._streams.open(outlet.close, visit.principal):
            session.attach(outlet)
            try:
                await stream_outlet(
                    outlet, visit.receive, visit.send, keep_alive=self._keep_alive, seconds=self._seconds_left(visit)
                )
            finally:
                session.detach(outlet)

    async def _delete(self, visit: _Visit) -> None:
        self._door.sessions.end(self._session(visit))
        await visit.send({"type": "http.response.start", "status": 204, "headers": []})
        await visit.send({"type": "http.response.body", "body": b""})

    def _session(self, visit: _Visit, id: RequestId | None = None) -> Session:
        """The caller's session. Raises `Refusal`: 400 without a header, 404 for one that is not there, or not here."""
        key = visit.head.mcp.get(SESSION_HEADER)
        if key is None:
            raise Refusal(INVALID_REQUEST, "the Mcp-Session-Id header is missing", id=id)
        session = self._door.sessions.find(key, visit.principal)
        if session is None or session.introduction.namespace != visit.namespace:
            raise Refusal(INVALID_REQUEST, "Session not found", status=404, id=id)
        return session

    def _seconds_left(self, visit: _Visit) -> float | None:
        """How long the caller's token is still good; None: for ever."""
        expires = visit.principal.expires
        return None if expires is None else expires - self._clock.time()


def _drop(visit: _Visit, message: Notification | Response) -> None:
    """A modern message that is no request means nothing here: a request is cancelled by leaving. Raises `Refusal`."""
    if isinstance(message, Response):
        raise Refusal(INVALID_REQUEST, "a response was sent, but this revision has no requests to clients")
    check_notification(visit.head.mcp)


def _only_handshake(visit: _Visit, message: Message) -> Refusal:
    """What a modern message is told where none is served: with these revisions, clients that know them go on (lifecycle,
    version negotiation)."""
    id, requested = None, visit.head.mcp.get(_VERSION_HEADER)
    if isinstance(message, Request):
        id = message.id
        requested = requested or message.params["_meta"][META_VERSION]
    data = {"supported": list(LEGACY_VERSIONS), "requested": requested}
    return Refusal(UNSUPPORTED_VERSION, "here a client begins with initialize", data=data, id=id)


async def _settled(work: asyncio.Task[T]) -> T | None:
    """The result of a task that goes on when its waiter is cancelled; None when it was cancelled itself."""
    await asyncio.wait([work])
    return None if work.cancelled() else work.result()


def _address(path: str) -> tuple[str | None, bool]:
    """The one part of the path, which the server has decoded, after ``/mcp``; and whether only revisions with a handshake
    are served there. Raises `ProxyError` (not_found)."""
    if path.removesuffix("/") == HANDSHAKE_ONLY:
        return None, True
    name = path.removeprefix("/mcp").removeprefix("/").removesuffix("/")
    if "/" in name or not path.startswith("/mcp"):
        raise ProxyError(NOT_FOUND, "there is nothing at this path; MCP is served on /mcp and /mcp/{server or group}")
    return name or None, False


def _not_acceptable(kinds: str) -> ProxyError:
    return ProxyError(NOT_ACCEPTABLE, f"the answer is {kinds}; say so in the Accept header")


async def _not_allowed(visit: _Visit, allowed: bytes) -> None:
    error = ProxyError(METHOD_NOT_ALLOWED, f"this method is not served here; allowed: {allowed.decode()}")
    await refuse(visit.scope, visit.send, error, [(b"allow", allowed)])
