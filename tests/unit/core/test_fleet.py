"""The upstreams of all servers, as far as the manager's tests do not say: how one ends that was removed."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any, cast

import pytest

from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.config.model import ServerSpec
from mcp_proxy.core.fleet import Fleet
from mcp_proxy.core.upstream.bulkhead import Bulkhead
from mcp_proxy.core.upstream.upstream import Upstream
from tests.unit.core.fakes import server

pytestmark = pytest.mark.anyio


class Slow:
    """An upstream whose orderly end takes a few turns of the loop."""

    def __init__(self, spec: ServerSpec) -> None:
        self.spec = spec
        self.bulkhead = Bulkhead(limit=10, concurrency=None)
        self.begun = asyncio.Event()
        self.ended = False

    async def run(self) -> None:
        self.begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            for _ in range(10):
                await asyncio.sleep(0)
            self.ended = True


async def test_a_stop_of_everything_does_not_cut_short_the_end_of_removed_servers() -> None:
    failures: list[Any] = []
    tasks = TaskSet(lambda name, error: failures.append((name, error)))
    # In which order tasks are cancelled is a matter of chance; with so many, every order comes about.
    every = {name: Slow(server(name)) for name in (f"server-{number}" for number in range(20))}
    fleet = Fleet(
        [one.spec for one in every.values()], make=lambda spec: cast(Upstream, every[spec.name]), tasks=tasks, drain=10
    )
    fleet.start()
    async with AsyncExitStack() as calls:
        for one in every.values():
            await one.begun.wait()
            await calls.enter_async_context(one.bulkhead)
        assert fleet.apply([]).removed == tuple(every)
        await asyncio.sleep(0)  # now their ends wait for the calls
        await tasks.close()
    assert [name for name, one in every.items() if not one.ended] == []
    assert not failures


async def test_a_server_gets_a_new_connection_when_what_that_is_tied_to_changes() -> None:
    tasks = TaskSet(lambda *_: None)
    fleet = Fleet(
        [server("a"), server("b"), server("c", group="special")],
        make=lambda spec: cast(Upstream, Taking(spec)),
        tasks=tasks,
        drain=10,
        tied=lambda spec: spec.group == "special",
    )
    changes = fleet.apply([server("a", group="special"), server("b", group="usual"), server("c")])
    assert (changes.replaced, changes.changed) == (("a", "c"), ("b",))
    await tasks.close()


class Taking(Slow):
    """One that can stand in for another."""

    def take_over(self, old: Upstream) -> None:
        return
