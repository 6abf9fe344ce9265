"""What every wire offers: one JSON-RPC request out, its answer back, whatever the transport.

A wire knows framing, correlation and failure, not the meaning of methods. `link` gives it meaning; `streamable`,
`sse_wire` and `stdio` implement it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from mcp_proxy.base.json import Fields, JsonError, Raw, decode, decode_fields
from mcp_proxy.base.protocol import META_SUBSCRIPTION_ID
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.core.upstream import messages
from mcp_proxy.core.upstream.answering import Answering
from mcp_proxy.core.upstream.client import OnIncoming, OnRequest
from mcp_proxy.core.upstream.failures import Attempt, Failure, Phase, WireError
from mcp_proxy.core.upstream.messages import Incoming, Reply
from mcp_proxy.core.upstream.terms import Terms

ACKNOWLEDGED = "notifications/subscriptions/acknowledged"
_NOTHING = Raw(b"{}")
_MAY_STILL_LOG = 30.0
"""Seconds for which a request that nobody waits for is taken to be at work."""


class Outgoing(msgspec.Struct, frozen=True):
    """One request. ``headers`` go along where the transport has any.

    ``on_message`` gets what arrives before the answer: progress, if that is wanted, and log messages, where the
    transport shows whose they are (``logs``: this request asked for some). ``on_request`` answers the upstream's
    requests that belong to this one.
    """

    method: str
    params: Mapping[str, Any]
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    on_message: OnIncoming | None = None
    on_request: OnRequest | None = None
    progress: bool = True
    logs: bool = False
    cancellable: bool = True


class Wire(Protocol):
    """An open transport to one upstream."""

    terms: Terms | None
    """Set once negotiated; requests before that are part of the negotiation."""
    on_request: OnRequest | None
    """Answers the upstream's requests that show no request of ours they belong to."""

    @property
    def ended(self) -> asyncio.Future[str]:
        """Resolves with the reason when the wire is gone for good."""
        ...

    async def request(self, out: Outgoing, attempt: Attempt) -> Fields:
        """Send and wait for the result. Raises `RpcError`, `WireError`. Cancelling tells the upstream."""
        ...

    async def notify(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        """Send a notification. Raises `WireError`."""
        ...

    async def close(self) -> None:
        """End the wire at once; nothing is left behind."""
        ...

    @property
    def last_words(self) -> str:
        """What the upstream said outside the protocol before it ended, for the log; "" where there is no such thing."""
        ...

    async def retire(self) -> None:
        """End the wire when the requests that can still be answered have been."""
        ...


@dataclass(slots=True)
class _Pending:
    future: asyncio.Future[Fields]
    attempt: Attempt
    out: Outgoing


class Correlator:
    """Matches answers to requests on a transport that all requests share (stdio, SSE).

    An answer with an id nobody waits for is dropped: it can be late, or wrong, but it reaches no other caller.
    """

    def __init__(self, on_incoming: OnIncoming, send_back: Callable[[bytes], None], tasks: TaskSet) -> None:
        self._ids = itertools.count(1)
        self._pending: dict[int, _Pending] = {}
        self._on_incoming = on_incoming
        self._answering = Answering(tasks, send_back)
        self.on_request: OnRequest | None = None
        self._given_up: dict[int, float] = {}
        """Requests that asked for log messages and are not waited for, though the upstream may be at work on them for a
        while; and until when that must be expected, in event loop time."""
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._pending)

    def open(self, out: Outgoing, attempt: Attempt) -> tuple[int, asyncio.Future[Fields]]:
        """Reserve an id and the future its answer resolves."""
        request_id = next(self._ids)
        future: asyncio.Future[Fields] = asyncio.get_running_loop().create_future()
        self._pending[request_id] = _Pending(future, attempt, out)
        return request_id, future

    def forget(self, request_id: int) -> None:
        """The caller no longer waits."""
        pending = self._pending.pop(request_id, None)
        if pending is not None and pending.out.logs and not pending.future.done():
            self._given_up[request_id] = asyncio.get_running_loop().time() + _MAY_STILL_LOG

    def deliver(self, data: bytes) -> None:
        """Take one message. Raises `JsonError` when it is none: what that means depends on the transport."""
        message = messages.read(data)
        if isinstance(message, Reply):
            self._resolve(message)
        elif message.id is not None:
            self._answering.take(message, self.on_request)
        else:
            self._notice(message)

    def _resolve(self, reply: Reply) -> None:
        # Only the very id we sent counts: a string that looks like it does not.
        pending = self._pending.pop(reply.id, None) if isinstance(reply.id, int) else None
        if isinstance(reply.id, int):
            self._given_up.pop(reply.id, None)
        if pending is None or pending.future.done():
            self.dropped += 1
        elif reply.error is not None:
            pending.future.set_exception(reply.error)
        else:
            assert reply.result is not None
            pending.future.set_result(reply.result)

    def _notice(self, message: Incoming) -> None:
        if message.method == "notifications/cancelled":
            self._answering.withdraw(message)
            return
        pending = None
        if message.method == "notifications/progress":
            pending = self._by_progress(message)
        elif message.method == "notifications/message":
            pending = self._sole_listener()
        elif message.method == ACKNOWLEDGED:
            pending = self._by_subscription(message)
        if pending is None:
            self._on_incoming(message)
        else:
            pending.attempt.phase = Phase.STREAMING
            if pending.out.on_message is not None:
                pending.out.on_message(message)

    def _sole_listener(self) -> _Pending | None:
        """The request that log messages belong to, where that is certain: on this transport they do not say."""
        found = [pending for pending in self._pending.values() if pending.out.logs]
        now = asyncio.get_running_loop().time() if self._given_up else 0.0
        self._given_up = {request: until for request, until in self._given_up.items() if until > now}
        return found[0] if len(found) == 1 and not self._given_up else None

    def _by_progress(self, message: Incoming) -> _Pending | None:
        token = progress_token(message)
        return None if token is None else self._pending.get(token)

    def _by_subscription(self, message: Incoming) -> _Pending | None:
        """The request that an acknowledgement answers: its id is that of the subscription."""
        try:
            meta = decode_fields(message.params or _NOTHING).get("_meta")
        except JsonError:
            return None
        subscription = _own_id(meta, META_SUBSCRIPTION_ID)
        return None if subscription is None else self._pending.get(subscription)

    def fail(self, request_id: int, failure: Failure, message: str) -> None:
        """One request will get no answer."""
        pending = self._pending.pop(request_id, None)
        if pending is not None and not pending.future.done():
            pending.future.set_exception(WireError(failure, pending.attempt.phase, message))

    def fail_all(self, message: str) -> None:
        """The transport is gone: nobody gets an answer any more, and nobody waits for ours."""
        self._answering.close()
        for request_id in list(self._pending):
            self.fail(request_id, Failure.LOST, message)


def tracked(out: Outgoing, request_id: int) -> Mapping[str, Any]:
    """The params, with a progress token when somebody wants to hear of progress, and never with one that is not ours: on
    a shared transport it could be that of somebody else's request."""
    meta = out.params.get("_meta")
    wanted = out.on_message is not None and out.progress
    if not wanted and (meta is None or isinstance(meta, Raw)):
        return out.params
    if not wanted and not (isinstance(meta, Mapping) and "progressToken" in meta):
        return out.params
    known = decode(meta) if isinstance(meta, Raw) else meta
    kept = known if isinstance(known, Mapping) else {}
    merged = {name: value for name, value in kept.items() if name != "progressToken"}
    return {**out.params, "_meta": merged | ({"progressToken": request_id} if wanted else {})}


def progress_token(message: Incoming) -> int | None:
    """Which of our requests a progress notification is about: its token is the request's id. None for no token of ours."""
    return _own_id(message.params, "progressToken")


def _own_id(fields: Raw | None, name: str) -> int | None:
    """An id that can be one of our requests', in a field of an object."""
    try:
        found = decode(decode_fields(fields or _NOTHING)[name])
    except (JsonError, KeyError):
        return None
    return found if type(found) is int else None


def cancel_notice(request_id: int) -> bytes:
    """Tells the upstream that nobody waits for this request any more (basic/patterns/cancellation)."""
    return messages.notification(
        "notifications/cancelled", {"requestId": request_id, "reason": "the caller no longer waits"}
    )
