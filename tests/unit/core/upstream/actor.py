"""An upstream's actor over fake wires: what the tests of `upstream.upstream` share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.core.upstream.client import PROXY, Client, House
from mcp_proxy.core.upstream.crossing import Sending
from mcp_proxy.core.upstream.deadline import Deadline
from mcp_proxy.core.upstream.dial import Dialer
from mcp_proxy.core.upstream.failures import Attempt, WireError
from mcp_proxy.core.upstream.messages import Incoming
from mcp_proxy.core.upstream.terms import Era
from mcp_proxy.core.upstream.upstream import Upstream
from mcp_proxy.core.upstream.wire import Outgoing
from tests.unit.core.fakes import FakeClock, RecordingLog, server, tool
from tests.unit.core.upstream.wires import FakeDialer, FakeWire, terms, turns


class Server(FakeWire):
    """Lists its tools, answers checks, and answers calls as told; further ``capabilities`` may be given."""

    def __init__(self, *tools: str, era: Era = Era.MODERN, **capabilities: object) -> None:
        super().__init__(agreed=terms(era, **({"tools": {}} | capabilities)))
        self.tools = list(tools)
        self.on_call: Exception | None = None
        self.on_check: Exception | None = None
        self.definitions: list[dict[str, Any]] | None = None
        self.hold: asyncio.Event | None = None
        self.answers |= {
            "tools/list": lambda _: {"tools": self.definitions or [{"name": name} for name in self.tools]},
            "server/discover": lambda _: self.on_check or {},
            "ping": lambda _: self.on_check or {},
            "tools/call": self._call,
        }

    @property
    def executed(self) -> int:
        return self.methods.count("tools/call")

    async def _call(self, _: Outgoing) -> object:
        if self.hold is not None:
            await self.hold.wait()
        return self.on_call or {}


class Bench:
    """An `Upstream` with its actor, and what it reports."""

    def __init__(self, *, house: House | None = None, **spec: Any) -> None:
        self.clock, self.log = FakeClock(), RecordingLog()
        self.tasks = TaskSet(lambda *_: None)
        self.dialer = FakeDialer(self.tasks)
        self.changes = 0
        self.announcements: list[set[str]] = []
        self.updates: list[Incoming] = []
        self.tellings: list[tuple[str, Incoming]] = []
        self.upstream = Upstream(
            spec.pop("spec", None) or server("up", **spec),
            dialer=cast(Dialer, self.dialer), clock=self.clock, random=lambda: 0.5, log=self.log,
            watcher=self, queue_limit=10, health_interval=1000, house=house,
        )  # fmt: skip

    # What the upstream reports

    def changed(self, upstream: Upstream) -> None:
        self.changes += 1

    def announced(self, upstream: Upstream, kinds: frozenset[str]) -> None:
        self.announcements.append(set(kinds))

    def updated(self, upstream: Upstream, message: Incoming) -> None:
        self.updates.append(message)

    def told(self, upstream: Upstream, key: str, message: Incoming) -> None:
        self.tellings.append((key, message))

    async def runs(self, *outcomes: Server | Exception) -> None:
        self.dialer.outcomes += outcomes
        self.tasks.spawn(self.upstream.run(), "actor")
        async with asyncio.timeout(5):
            await self.upstream.wait_settled()
        await turns()

    async def call(self, seconds: float = 5, client: Client = PROXY) -> Attempt:
        attempt = Attempt()
        sending = Sending("tools/call", {"name": "t"}, client, tool("t"))
        try:
            await self.upstream.request(sending, deadline=Deadline(seconds, 60), attempt=attempt)
        finally:
            self.last = attempt
        return attempt

    async def failed(self, seconds: float = 5, client: Client = PROXY) -> WireError:
        with pytest.raises(WireError) as raised:
            await self.call(seconds, client)
        return raised.value

    def says(self, method: str) -> None:
        """The server says something on the shared link that belongs to no request."""
        assert self.dialer.incoming is not None
        self.dialer.incoming(Incoming(method, None))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 - bounded, and what is waited for has no event
                await asyncio.sleep(0.01)
