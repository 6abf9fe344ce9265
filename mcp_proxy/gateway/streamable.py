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
from mcp_proxy.core.upstream.terms import Era
from mcp_proxy.edge.body import read_body_in_time
from mcp_proxy.edge.presence import noticing_departure, while_connected
from mcp_proxy.edge.respond import refuse, send_json
from mcp_proxy.edge.streams import Streams, calling_after
from mcp_proxy.edge.types import Receive, Scope, Send
from mcp_proxy.gateway.accept import Accepts, read_accept
from mcp_proxy.gateway.asked import Answer, Asked, Door
from mcp_proxy.gateway.envelope import (
    Headers,
    Message,
    Notification,
    Refusal,
    Request,
    RequestId,
    check_notification,
    is_modern,
    read_envelope,
    read_message,
)
from mcp_proxy.gateway.outlet import NoChannel, Outlet
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
_LAST_WORDS = 1.0
"""Seconds that a subscription gets to end by itself when the service stops."""
UNSAID_VERSION = "2025-03-26"
"""Revision of a legacy client without a session that does not say its own (transports, protocol version header)."""

_LAST_WORD = 0.2
"""Seconds in which a subscription that is to end may do so with its result."""


class _Visit(msgspec.Struct, frozen=True):
    """One HTTP request to this transport."""

    scope: Scope
    receive: Receive
    send: Send
    principal: Principal
    record: RequestRecord
    headers: Headers
    accepts: Accepts
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
        self._methods = {"POST": self._post, "GET": self._get, "DELETE": self._delete}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        principal, record = known_caller(scope, "mcp")
        handshake_only = scope["path"].removesuffix("/") == HANDSHAKE_ONLY
        namespace = None if handshake_only else _namespace(scope["path"])
        if namespace is not None:
            self._door.check_namespace(namespace, principal)
        headers = Headers.from_asgi(scope["headers"])
        accepts = read_accept(scope["headers"])
        visit = _Visit(scope, receive, send, principal, record, headers, accepts, namespace, handshake_only)
        method = scope["method"]
        # The modern half has neither sessions nor a stream apart from a request's own.
        if method != "POST" and is_modern(headers, None):
            return await _not_allowed(visit, b"POST")
        handler = self._methods.get(method)
        if handler is None:
            return await _not_allowed(visit, b"GET, POST, DELETE")
        try:
            return await handler(visit)
        except Refusal as refusal:
            record.error = (NOT_FOUND if refusal.status == 404 else BAD_REQUEST).type
            return await _send_answer(visit, self._door.refuse(refusal))

    def end_where(self, revoked: Callable[[Principal], bool]) -> None:
        """End the streams of callers whose token is no longer good."""
        self._streams.end_where(revoked)

    async def close(self) -> None:
        """End the streams that stay open, within bounded time."""
        await self._streams.close()

    # POST

    async def _post(self, visit: _Visit) -> None:
        check_json(visit.scope)
        message = read_message(await read_body_in_time(visit.receive, self._max_body))
        if is_modern(visit.headers, message):
            if visit.handshake_only:
                raise _only_handshake(visit, message)
            await self._modern(visit, message)
        elif isinstance(message, Request) and message.method == "initialize":
            await self._initialize(visit, message)
        else:
            await self._legacy(visit, message)

    async def _modern(self, visit: _Visit, message: Message) -> None:
        if isinstance(message, Notification):
            check_notification(visit.headers)
            # None of them means anything here: a request is cancelled by leaving.
            return await send_accepted(visit.send)
        if not isinstance(message, Request):
            raise Refusal(INVALID_REQUEST, "a response was sent, but this revision has no requests to clients")
        envelope = read_envelope(message, visit.headers)
        asked = Asked(
            message, Era.MODERN, envelope.version, visit.principal, NoChannel(), visit.record,
            envelope.capabilities, envelope.info, envelope.log_level, None, visit.namespace, visit.headers,
        )  # fmt: skip
        return await (self._listen if message.method == LISTEN else self._answer)(visit, asked)

    async def _legacy(self, visit: _Visit, message: Message) -> None:
        session = None
        if SESSION_HEADER in visit.headers:
            session = self._session(visit, message.id if isinstance(message, Request) else None)
        if isinstance(message, Request):
            if session is None:
                version = visit.headers.get(_VERSION_HEADER, UNSAID_VERSION)
                return await self._answer(visit, _asked(visit, message, version))
            return await self._serve(visit, message, session)
        if isinstance(message, Notification):
            if session is not None:
                self._door.notified(session, message)
        elif session is None:
            raise Refusal(INVALID_REQUEST, "a response needs the Mcp-Session-Id of the request it answers")
        else:
            session.resolve(message)
        return await send_accepted(visit.send)

    async def _initialize(self, visit: _Visit, request: Request) -> None:
        async with self._reply(visit) as reply:
            version = visit.headers.get(_VERSION_HEADER, UNSAID_VERSION)
            session, answer = self._door.introduce(_asked(visit, request, version))
            if session is not None:
                answer = replace(answer, headers=(*answer.headers, (SESSION_HEADER.encode(), session.key.encode())))
            await reply.finish(answer)

    async def _answer(self, visit: _Visit, asked: Asked) -> None:
        """Serve a request without a session: who leaves has cancelled it."""
        async with self._reply(visit) as reply:
            asked = replace(asked, channel=reply)
            await reply.finish(await while_connected(visit.receive, self._door.answer(asked)))

    async def _serve(self, visit: _Visit, request: Request, session: Session) -> None:
        """Serve a request of a session: leaving is not cancelling (2025-11-25), the work goes on without its client."""
        async with self._reply(visit) as reply:
            told = session.introduction
            asked = replace(
                _asked(visit, request, told.version), channel=reply, capabilities=told.capabilities, info=told.info,
                log_level=session.log_level, session=session,
            )  # fmt: skip
            answer: Answer | None

            def left() -> None:
                reply.abandon()
                session.abandoned(reply)

            try:
                work = session.serve(request.id, self._door.answer(asked), reply)
                answer = await noticing_departure(visit.receive, work, left)
            except ProxyError as error:
                visit.record.error = error.kind.type
                refusal = Refusal(error.kind.rpc_code, error.message, status=200, id=request.id)
                answer = None if reply.begun else self._door.refuse(refusal)
            await reply.finish(answer)

    async def _listen(self, visit: _Visit, asked: Asked) -> None:
        """A stream for as long as the client wants, its token is good and the service runs."""
        if not visit.accepts.events:
            raise _not_acceptable("text/event-stream")
        async with self._reply(visit) as reply:
            work: asyncio.Task[Answer] | None = None

            def end() -> None:
                # When the service stops, the door brings it to its end with a result, if it is given the time.
                if work is not None:
                    asyncio.get_running_loop().call_later(_LAST_WORD, work.cancel)

            with self._streams.open(end, visit.principal), calling_after(self._seconds_left(visit), end):
                work = self._tasks.spawn(self._door.answer(replace(asked, channel=reply)), "mcp subscription")
                try:
                    await reply.finish(await while_connected(visit.receive, _settled(work)))
                finally:
                    work.cancel()

    def _reply(self, visit: _Visit) -> Reply:
        if not (visit.accepts.json or visit.accepts.events):
            raise _not_acceptable("application/json or text/event-stream")
        return Reply(visit.send, visit.accepts, self._tasks, self._keep_alive)

    # GET and DELETE

    async def _get(self, visit: _Visit) -> None:
        if not visit.accepts.events:
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
        key = visit.headers.get(SESSION_HEADER)
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


def _asked(visit: _Visit, request: Request, version: str) -> Asked:
    return Asked(
        request, Era.LEGACY, version, visit.principal, NoChannel(), visit.record,
        namespace=visit.namespace, headers=visit.headers,
    )  # fmt: skip


def _only_handshake(visit: _Visit, message: Message) -> Refusal:
    """What a modern message is told where none is served: with these revisions, clients that know them go on (lifecycle,
    version negotiation)."""
    id, requested = None, visit.headers.get(_VERSION_HEADER)
    if isinstance(message, Request):
        id = message.id
        requested = requested or message.params["_meta"][META_VERSION]
    data = {"supported": list(LEGACY_VERSIONS), "requested": requested}
    return Refusal(UNSUPPORTED_VERSION, "here a client begins with initialize", data=data, id=id)


async def _settled(work: asyncio.Task[T]) -> T | None:
    """The result of a task that goes on when its waiter is cancelled; None when it was cancelled itself."""
    await asyncio.wait([work])
    return None if work.cancelled() else work.result()


def _namespace(path: str) -> str | None:
    """The one part of the path, which the server has decoded, after ``/mcp``. Raises `ProxyError` (not_found)."""
    name = path.removeprefix("/mcp").removeprefix("/").removesuffix("/")
    if "/" in name or not path.startswith("/mcp"):
        raise ProxyError(NOT_FOUND, "there is nothing at this path; MCP is served on /mcp and /mcp/{server or group}")
    return name or None


def _not_acceptable(kinds: str) -> ProxyError:
    return ProxyError(NOT_ACCEPTABLE, f"the answer is {kinds}; say so in the Accept header")


async def _not_allowed(visit: _Visit, allowed: bytes) -> None:
    error = ProxyError(METHOD_NOT_ALLOWED, f"this method is not served here; allowed: {allowed.decode()}")
    await refuse(visit.scope, visit.send, error, [(b"allow", allowed)])


async def _send_answer(visit: _Visit, answer: Answer) -> None:
    await send_json(visit.send, answer.status, answer.body, answer.headers)
