"""A legacy client's session: who it is, what it is asked, what it has in flight. And the table of all sessions.

Transports find sessions here and connect streams to them; what requests mean is `door`.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from mcp_proxy.base.clock import Clock
from mcp_proxy.base.errors import CANCELLED, OVERLOADED, ProxyError
from mcp_proxy.base.ids import IdSource
from mcp_proxy.base.json import Raw, encode
from mcp_proxy.base.protocol import INVALID_REQUEST
from mcp_proxy.core.auth.principal import LOCAL, Principal
from mcp_proxy.core.upstream.client import PROXY_INFO, Client
from mcp_proxy.core.upstream.failures import RpcError
from mcp_proxy.core.upstream.terms import Era
from mcp_proxy.gateway.envelope import RequestId, Response
from mcp_proxy.gateway.outlet import AskingChannel, Channel, NoChannel, Outlet

T = TypeVar("T")


class Unreached(RpcError):
    """The client was not asked: there is no way to it just now."""

    def __init__(self) -> None:
        super().__init__(INVALID_REQUEST, "the client cannot be asked: it holds no stream open")


class Left(RpcError):
    """The client was asked, and has left without an answer."""

    def __init__(self) -> None:
        super().__init__(INVALID_REQUEST, "the client has left")


@dataclass(frozen=True, slots=True)
class Introduction:
    """What a client said of itself when it opened its session. ``namespace``: the server or group it asked for, if one."""

    version: str
    capabilities: Mapping[str, Any] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)
    namespace: str | None = None


class Session:
    """One legacy client. Belongs to the principal that opened it."""

    def __init__(self, key: str, principal: Principal, introduction: Introduction, clock: Clock) -> None:
        self.key = key
        self.principal = principal
        self.introduction = introduction
        self.client = Client(Era.LEGACY, introduction.info or PROXY_INFO, introduction.capabilities, key=key)
        """As servers get to know it; without a way to it, which is its requests'."""
        self.outlet: Outlet | None = None
        """The stream for what belongs to no request: GET, SSE or stdout. None while the client holds none open."""
        self.prefers: str | None = None
        """The server or group that bare names mean before all others."""
        self.closed = False
        self._clock = clock
        self._last_used = clock.monotonic()
        self._ids = itertools.count(1)
        self._asked: dict[RequestId, _Question] = {}
        self._serving: dict[RequestId, list[_Served]] = {}

    def __repr__(self) -> str:
        stream = " with a stream" if self.outlet is not None else ""
        return f"<Session {self.introduction.version} {len(self._serving)} in flight, {len(self._asked)} asked{stream}>"

    # Streams

    def attach(self, outlet: Outlet) -> None:
        """Make ``outlet`` the session's stream; the one before, which a client that came back has given up, ends."""
        if self.outlet is not None:
            self.outlet.close()
        self.outlet = outlet

    def detach(self, outlet: Outlet) -> None:
        """The stream has ended."""
        outlet.close()
        if self.outlet is outlet:
            self.outlet = None
        self.used()

    def notify(self, message: bytes, channel: Channel | None = None) -> bool:
        """Send a message by ``channel``, else by the session's stream; False when there is no way."""
        if channel is not None and channel.send(message):
            return True
        return self.outlet is not None and self.outlet.send(message)

    def tell(self, message: bytes) -> bool:
        """Send a message that comes from a server's link of this client's own, and shows no request it belongs to: by the
        latest request in flight, which most likely caused it, else by the session's stream."""
        channels = [one.channel for same in self._serving.values() for one in same if one.channel is not None]
        return self.notify(message, channels[-1] if channels else None)

    # Requests of the client

    def used(self) -> None:
        """The client has given a sign of life."""
        self._last_used = self._clock.monotonic()

    def set_log_level(self, level: str) -> None:
        """The client wants log messages from this severity on (``logging/setLevel``)."""
        self.client = replace(self.client, log_level=level)

    def idle_since(self) -> float | None:
        """Monotonic time of the last sign of life; None while something is in flight or a stream is open."""
        return None if self.outlet is not None or self._serving or self._asked else self._last_used

    async def serve(self, request_id: RequestId, work: Awaitable[T], channel: Channel | None = None) -> T:
        """The result of ``work``, during which the client can cancel it by ``request_id``: `ProxyError` (``cancelled``).

        ``channel`` is the request's own way to the client, where it has one besides the session's stream.
        """
        task = asyncio.current_task()
        assert task is not None
        served = _Served(task, channel)
        self._serving.setdefault(request_id, []).append(served)
        try:
            return await work
        except asyncio.CancelledError:
            if served.cancelled and task.uncancel() == 0:
                raise ProxyError(CANCELLED, "the client cancelled the request") from None
            raise
        finally:
            self._finished(request_id, served)

    def _finished(self, request_id: RequestId, served: _Served) -> None:
        if self._asked and served.channel is not None:  # which is about to end with the answer
            for question in self._asked.values():
                if question.channel is served.channel and question.open:
                    self._withdraw(question)
        same = self._serving[request_id]
        same.remove(served)
        if not same:
            del self._serving[request_id]
        self.used()

    def cancel(self, request_id: object) -> bool:
        """The client no longer wants these answers; False when nothing of that id is in flight."""
        # What a client sends may be anything.
        if not isinstance(request_id, (int, str)) or isinstance(request_id, bool):
            return False
        found = [one for one in self._serving.get(request_id, ()) if not one.cancelled]
        for served in found:
            served.cancelled = True
            served.task.cancel()
        return bool(found)

    # Requests to the client

    async def ask(self, method: str, params: Raw | None, channel: AskingChannel) -> dict[str, Any]:
        """Send the client a request, once there is room for it, and wait for its result. Raises `RpcError`: its refusal, `Unreached` or `Left`.

        Who cancels this tells the client so.
        """
        request_id = next(self._ids)
        message: dict[str, Any] = {"jsonrpc": "2.0", "id": request_id, "method": method}
        if params is not None:
            message["params"] = params
        body = encode(message)
        await self._room_for(body, channel)
        question = self._asked[request_id] = _Question(request_id, asyncio.get_running_loop().create_future(), channel)
        try:
            if self.closed or not self.notify(body, channel):
                raise Unreached
            return await question.answer
        except asyncio.CancelledError:
            self._withdraw(question)
            raise
        finally:
            del self._asked[request_id]

    async def _room_for(self, message: bytes, channel: AskingChannel) -> None:
        """Wait until the way that `notify` takes has room."""
        await channel.room_for(message)
        if isinstance(channel, NoChannel) and self.outlet is not None:
            await self.outlet.room_for(message)

    def _withdraw(self, question: _Question) -> None:
        """Tell the client, once, that its answer is no longer wanted."""
        if not question.withdrawn:
            question.withdrawn = True
            params = {"requestId": question.id, "reason": "the server no longer waits"}
            notice = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}
            self.notify(encode(notice), question.channel)

    def abandoned(self, channel: Channel) -> None:
        """The client has left the request that ``channel`` belongs to: nothing that it was asked there is answered."""
        for question in self._asked.values():
            if question.channel is channel:
                question.fail()

    def resolve(self, response: Response) -> bool:
        """Take the client's answer to a request of ours; False when nobody waits for it (any more)."""
        question = self._asked.get(response.id)
        if question is None or question.answer.done():
            return False
        if response.error is not None:
            question.answer.set_exception(_refusal(response.error))
        else:
            question.answer.set_result(response.result or {})
        self.used()
        return True

    def close(self) -> None:
        """End what is in flight, and the stream."""
        self.closed = True
        for request_id in list(self._serving):
            self.cancel(request_id)
        for question in self._asked.values():
            question.fail()
        if self.outlet is not None:
            self.outlet.close()


class _Served(msgspec.Struct, eq=False):
    task: asyncio.Task[Any]
    channel: Channel | None = None
    cancelled: bool = False


@dataclass(slots=True)
class _Question:
    """A request of ours to the client, asked during the request that ``channel`` belongs to."""

    id: RequestId
    answer: asyncio.Future[dict[str, Any]]
    channel: Channel
    withdrawn: bool = False

    @property
    def open(self) -> bool:
        """Whether the client has not answered."""
        return self.answer.cancelled() or not self.answer.done()

    def fail(self) -> None:
        """The client cannot answer any more."""
        if not self.answer.done():
            self.answer.set_exception(Left())


def _refusal(error: Mapping[str, Any]) -> RpcError:
    code, message = error.get("code"), error.get("message")
    return RpcError(
        code if type(code) is int else INVALID_REQUEST, message if isinstance(message, str) else "", error.get("data")
    )


class Sessions:
    """All legacy sessions of this process, bounded, and reaped when nobody uses them."""

    def __init__(
        self,
        *,
        limit: int,
        idle: float,
        clock: Clock,
        ids: IdSource,
        on_end: Callable[[Session], None],
        on_renewed: Callable[[Session], None] = lambda _: None,
    ) -> None:
        """``idle`` is in seconds. ``ids`` must not be predictable: an id is all that a later request shows of its session."""
        self._limit = limit
        self._idle = idle
        self._clock = clock
        self._ids = ids
        self._on_end = on_end
        self._on_renewed = on_renewed
        self._sessions: dict[str, Session] = {}
        self._owned: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Any:
        return iter(list(self._sessions.values()))

    def open(self, principal: Principal, introduction: Introduction) -> Session:
        """A new session. Raises `ProxyError` (``overloaded``) when there are too many."""
        if len(self._sessions) >= self._limit:
            self.reap()
        if len(self._sessions) >= self._limit:
            raise ProxyError(OVERLOADED, "too many sessions are open; try again in a moment", retry_after=5)
        share = self._limit if principal.who == LOCAL.who else max(10, self._limit // 10)
        if self._owned[principal.who] >= share:
            raise ProxyError(OVERLOADED, "this caller has too many sessions open", retry_after=5)
        self._owned[principal.who] += 1
        session = Session(self._ids(), principal, introduction, self._clock)
        self._sessions[session.key] = session
        return session

    def find(self, key: str, principal: Principal) -> Session | None:
        """The caller's own session of that id; somebody else's is as unknown as one that never was."""
        session = self._sessions.get(key)
        # A token that has been read before makes the same object of it.
        if session is None or (session.principal is not principal and session.principal.who != principal.who):
            return None
        self.renew(session, principal)
        return session

    def renew(self, session: Session, principal: Principal) -> None:
        """The client has come again: a fresh token may say more of it, or less, than the one before."""
        session.used()
        if session.principal is not principal and session.principal != principal:
            session.principal = principal
            self._on_renewed(session)

    def get(self, key: str) -> Session | None:
        """The session of that id, whoever's it is."""
        return self._sessions.get(key)

    def end(self, session: Session) -> None:
        """Close a session and forget it."""
        if self._sessions.pop(session.key, None) is not None:
            self._owned[session.principal.who] -= 1
            if not self._owned[session.principal.who]:
                del self._owned[session.principal.who]
            session.close()
            self._on_end(session)

    def reap(self) -> None:
        """End the sessions that nobody has used for long."""
        now = self._clock.monotonic()
        for session in list(self._sessions.values()):
            since = session.idle_since()
            if since is not None and now - since >= self._idle:
                self.end(session)

    async def watch(self) -> None:
        """Reap for ever."""
        while True:
            await asyncio.sleep(min(self._idle / 4, 30))
            self.reap()

    def close(self) -> None:
        """End all sessions."""
        for session in list(self._sessions.values()):
            self.end(session)
