"""What every wire offers: one JSON-RPC request out, its answer back, whatever the transport.

A wire knows framing, correlation and failure, not the meaning of methods. `link` gives it meaning; `streamable`,
`sse_wire` and `stdio` implement it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from mcp_proxy.base.json import Fields, JsonError, Raw, decode, decode_fields
from mcp_proxy.base.protocol import METHOD_NOT_FOUND
from mcp_proxy.core.upstream import messages
from mcp_proxy.core.upstream.failures import Attempt, Failure, Phase, WireError
from mcp_proxy.core.upstream.messages import Incoming, Reply

OnIncoming = Callable[[Incoming], None]
"""Takes notifications of the upstream. Must not block."""


class Era(StrEnum):
    """Which half of the protocol's history an upstream speaks."""

    LEGACY = "legacy"
    MODERN = "modern"


@dataclass(frozen=True, slots=True)
class Terms:
    """What was agreed with the upstream when the connection was opened."""

    era: Era
    version: str
    capabilities: Mapping[str, Any] = field(default_factory=dict)
    server_info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def list_changed(self) -> bool:
        """Whether the upstream announces changes of its tools."""
        tools = self.capabilities.get("tools")
        return isinstance(tools, Mapping) and tools.get("listChanged") is True


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One request. ``headers`` go along where the transport has any; ``on_message`` gets what arrives before the answer."""

    method: str
    params: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    on_message: OnIncoming | None = None
    cancellable: bool = True


class Wire(Protocol):
    """An open transport to one upstream."""

    terms: Terms | None
    """Set once negotiated; requests before that are part of the negotiation."""

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


def reply_to(incoming: Incoming) -> bytes:
    """Our answer to a request of the upstream's: only ``ping`` is served, nothing else was offered to it."""
    assert incoming.id is not None
    if incoming.method == "ping":
        return messages.answer(incoming.id, {})
    return messages.refusal(incoming.id, METHOD_NOT_FOUND, f"{incoming.method} is not offered by this client")


@dataclass(slots=True)
class _Pending:
    future: asyncio.Future[Fields]
    attempt: Attempt
    on_message: OnIncoming | None


class Correlator:
    """Matches answers to requests on a transport that all requests share (stdio, SSE).

    An answer with an id nobody waits for is dropped: it can be late, or wrong, but it reaches no other caller.
    """

    def __init__(self, on_incoming: OnIncoming, send_back: Callable[[bytes], None]) -> None:
        self._ids = itertools.count(1)
        self._pending: dict[int, _Pending] = {}
        self._on_incoming = on_incoming
        self._send_back = send_back
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._pending)

    def open(self, out: Outgoing, attempt: Attempt) -> tuple[int, asyncio.Future[Fields]]:
        """Reserve an id and the future its answer resolves."""
        request_id = next(self._ids)
        future: asyncio.Future[Fields] = asyncio.get_running_loop().create_future()
        self._pending[request_id] = _Pending(future, attempt, out.on_message)
        return request_id, future

    def forget(self, request_id: int) -> None:
        """The caller no longer waits."""
        self._pending.pop(request_id, None)

    def deliver(self, data: bytes) -> None:
        """Take one message. Raises `JsonError` when it is none: what that means depends on the transport."""
        message = messages.read(data)
        if isinstance(message, Reply):
            self._resolve(message)
        elif message.id is not None:
            self._send_back(reply_to(message))
        else:
            self._notice(message)

    def _resolve(self, reply: Reply) -> None:
        # Only the very id we sent counts: a string that looks like it does not.
        pending = self._pending.pop(reply.id, None) if isinstance(reply.id, int) else None
        if pending is None or pending.future.done():
            self.dropped += 1
        elif reply.error is not None:
            pending.future.set_exception(reply.error)
        else:
            assert reply.result is not None
            pending.future.set_result(reply.result)

    def _notice(self, message: Incoming) -> None:
        if message.method == "notifications/progress" and (pending := self._by_progress(message)) is not None:
            pending.attempt.phase = Phase.STREAMING
            if pending.on_message is not None:
                pending.on_message(message)
        else:
            self._on_incoming(message)

    def _by_progress(self, message: Incoming) -> _Pending | None:
        if message.params is None:
            return None
        try:
            token = decode(decode_fields(message.params)["progressToken"])
        except (JsonError, KeyError):
            return None
        return self._pending.get(token) if type(token) is int else None

    def fail(self, request_id: int, failure: Failure, message: str) -> None:
        """One request will get no answer."""
        pending = self._pending.pop(request_id, None)
        if pending is not None and not pending.future.done():
            pending.future.set_exception(WireError(failure, pending.attempt.phase, message))

    def fail_all(self, message: str) -> None:
        """The transport is gone: nobody gets an answer any more."""
        for request_id in list(self._pending):
            self.fail(request_id, Failure.LOST, message)


def tracked(out: Outgoing, request_id: int) -> Mapping[str, Any]:
    """The params, with a progress token when somebody wants to hear of progress."""
    if out.on_message is None:
        return out.params
    meta = out.params.get("_meta", {})
    merged = {**(decode(meta) if isinstance(meta, Raw) else meta), "progressToken": request_id}
    return {**out.params, "_meta": merged}


def cancel_notice(request_id: int) -> bytes:
    """Tells the upstream that nobody waits for this request any more (basic/patterns/cancellation)."""
    return messages.notification(
        "notifications/cancelled", {"requestId": request_id, "reason": "the caller no longer waits"}
    )
