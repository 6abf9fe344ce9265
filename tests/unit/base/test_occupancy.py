from __future__ import annotations

import asyncio

import pytest

from mcp_proxy.base.occupancy import Occupancy
from mcp_proxy.base.tasks import TaskSet

pytestmark = pytest.mark.anyio


def entered(count: int) -> Occupancy:
    occupancy = Occupancy()
    occupancy.inside = count
    return occupancy


async def test_nobody_waits_for_a_place_that_is_empty() -> None:
    await asyncio.wait_for(entered(0).emptied(), 5)


async def test_all_who_wait_go_on_when_the_last_one_leaves() -> None:
    occupancy, tasks = entered(2), TaskSet(lambda *_: None)
    waiting = [tasks.spawn(occupancy.emptied(), "waiting") for _ in range(3)]
    await asyncio.sleep(0)
    occupancy.leave()
    await asyncio.sleep(0)
    assert not any(one.done() for one in waiting)
    occupancy.leave()
    done, _ = await asyncio.wait(waiting, timeout=5)
    assert len(done) == 3


async def test_who_waits_goes_on_waiting_when_somebody_enters_at_the_last_moment() -> None:
    occupancy, tasks = entered(1), TaskSet(lambda *_: None)
    waiting = tasks.spawn(occupancy.emptied(), "waiting")
    await asyncio.sleep(0)
    occupancy.leave()
    occupancy.inside += 1
    for _ in range(3):
        await asyncio.sleep(0)
    assert not waiting.done()
    occupancy.leave()
    await asyncio.wait_for(waiting, 5)
