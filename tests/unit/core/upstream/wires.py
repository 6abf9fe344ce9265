"""Fake wires, and a fake dialer that hands them out: what is above the wires is tested with these."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar, cast

from mcp_proxy.base.json import Fields, Raw, decode_fields, encode
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.config.model import ServerSpec, Transport
from mcp_proxy.core.upstream.client import PROXY, Client, OnIncoming, OnRequest
from mcp_proxy.core.upstream.failures import Attempt, Phase, RpcError
from mcp_proxy.core.upstream.link import Link
from mcp_proxy.core.upstream.messages import Incoming
from mcp_proxy.core.upstream.terms import Era, Terms
from mcp_proxy.core.upstream.wire import ACKNOWLEDGED, Outgoing, Wire

T = TypeVar("T")

MODERN = "2026-07-28"
LEGACY = "2025-11-25"


def acknowledge(out: Outgoing, notifications: object = None) -> None:
    """What a modern server says first on the stream of a ``subscriptions/listen``, which it then leaves open: that it
    agrees to what was asked for, or to these ``notifications``."""
    agreed = out.params["notifications"] if notifications is None else notifications
    if out.on_message is not None:
        out.on_message(Incoming(ACKNOWLEDGED, Raw(encode({"notifications": agreed}))))


def terms(era: Era, **capabilities: object) -> Terms:
    """Terms of that era; without capabilities: tools."""
    return Terms(era, MODERN if era is Era.MODERN else LEGACY, capabilities or {"tools": {}})


class FakeWire:
    """Answers by method: with a value, by raising, or with what a function makes of the `Outgoing`, at once or
    awaited; None never answers. What it was asked and told is kept."""

    last_words = ""

    def __init__(self, answers: Mapping[str, object] | None = None, agreed: Terms | None = None) -> None:
        self.answers: dict[str, object] = dict(answers or {})
        self.sent: list[Outgoing] = []
        self.notified: list[str] = []
        self.cancelled: list[str] = []
        """The methods of requests that were given up while they had no answer."""
        self.closed = False
        self.terms = agreed
        self.on_request: OnRequest | None = None
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def request(self, out: Outgoing, attempt: Attempt) -> Fields:
        self.sent.append(out)
        attempt.phase = Phase.SENT
        try:
            answer = await self._answer(out)
        except asyncio.CancelledError:
            self.cancelled.append(out.method)
            raise
        if isinstance(answer, Exception):
            raise answer
        return decode_fields(encode(answer))

    async def _answer(self, out: Outgoing) -> object:
        answer = self.answers.get(out.method, RpcError(-32601, "no such method"))
        if callable(answer):
            answer = answer(out)
        if inspect.isawaitable(answer):
            answer = await answer
        if answer is None:
            await asyncio.Event().wait()
        return answer

    async def notify(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        self.notified.append(method)

    async def close(self) -> None:
        self.closed = True
        if not self.ended.done():
            self.ended.set_result("closed")

    async def retire(self) -> None:
        await self.close()

    @property
    def methods(self) -> list[str]:
        return [out.method for out in self.sent]

    def link(self, base: Client = PROXY) -> Link:
        """A link over it, on the terms it was made with."""
        assert self.terms is not None
        return Link(cast(Wire, self), self.terms, base)


class FakeDialer:
    """Each attempt takes the next outcome: a wire or an error. With none left it hangs.

    ``outcomes`` are for the shared link, ``own`` for the links of single clients; ``gate`` holds the latter back.
    """

    def __init__(self, tasks: TaskSet) -> None:
        self.tasks = tasks
        self.outcomes: list[FakeWire | Exception] = []
        self.own: list[FakeWire | Exception] = []
        self.gate: asyncio.Event | None = None
        self.transport = Transport.STREAMABLE_HTTP
        self.attempts = 0
        self.dialled_for: list[Client] = []
        self.given_up = 0
        """Attempts for single clients that were cancelled."""
        self.incoming: OnIncoming | None = None
        self.own_incoming: list[OnIncoming] = []

    async def dial(
        self,
        spec: ServerSpec,
        on_incoming: Callable[[Incoming], None],
        on_stderr: Callable[[str], None],
        base: Client = PROXY,
    ) -> tuple[Link, Transport]:
        self.attempts += 1
        self.incoming = on_incoming
        return (await _next(self.outcomes)).link(base), self.transport

    async def dial_for(
        self, client: Client, spec: ServerSpec, transport: Transport, on_incoming: OnIncoming, *_: object
    ) -> Link:
        self.dialled_for.append(client)
        self.own_incoming.append(on_incoming)
        try:
            if self.gate is not None:
                await self.gate.wait()
            return (await _next(self.own)).link()
        except asyncio.CancelledError:
            self.given_up += 1
            raise


async def _next(outcomes: list[FakeWire | Exception]) -> FakeWire:
    if not outcomes:
        await asyncio.Event().wait()
    outcome = outcomes.pop(0)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


async def turns(count: int = 20) -> None:
    """Let everything that can go on go on."""
    for _ in range(count):
        await asyncio.sleep(0)


def begun(work: Awaitable[T]) -> asyncio.Task[T]:
    """A task that the test itself awaits or cancels."""

    async def run() -> T:
        return await work

    return asyncio.get_running_loop().create_task(run())
