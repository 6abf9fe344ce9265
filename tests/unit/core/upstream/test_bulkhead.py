from __future__ import annotations

import asyncio

import pytest

from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.core.upstream.bulkhead import Bulkhead
from mcp_proxy.core.upstream.failures import Failure, Phase, WireError

pytestmark = pytest.mark.anyio


def unexpected(name: str, error: BaseException) -> None:
    raise AssertionError(f"{name}: {error!r}")


async def turns(count: int = 5) -> None:
    """Let every task that can go on go on."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_beyond_the_limit_calls_are_refused_at_once_and_say_that_nothing_was_sent() -> None:
    bulkhead = Bulkhead(limit=1, concurrency=None)
    async with bulkhead:
        assert bulkhead.is_full
        with pytest.raises(WireError) as raised:
            async with bulkhead:
                pytest.fail("a second call got in")
    assert (raised.value.failure, raised.value.phase) == (Failure.FULL, Phase.NOT_SENT)
    assert raised.value.retry_after == 1
    assert bulkhead.inside == 0


async def test_calls_that_wait_are_served_in_the_order_they_came() -> None:
    bulkhead = Bulkhead(limit=10, concurrency=1)
    tasks = TaskSet(unexpected)
    order: list[int] = []

    async def call(number: int) -> None:
        async with bulkhead:
            order.append(number)
            await turns()

    work = [tasks.spawn(call(number), f"call {number}") for number in range(6)]
    await asyncio.wait(work)
    assert order == list(range(6))


async def test_no_more_run_at_once_than_the_concurrency_allows() -> None:
    bulkhead = Bulkhead(limit=10, concurrency=2)
    tasks = TaskSet(unexpected)
    running, most = 0, 0

    async def call() -> None:
        nonlocal running, most
        async with bulkhead:
            running += 1
            most = max(most, running)
            await turns()
            running -= 1

    await asyncio.wait([tasks.spawn(call(), "call") for _ in range(8)])
    assert most == 2
    assert repr(bulkhead) == "<Bulkhead 0/10>"


async def test_waiting_calls_count_towards_the_limit() -> None:
    bulkhead = Bulkhead(limit=2, concurrency=1)
    tasks = TaskSet(unexpected)
    release = asyncio.Event()

    async def call() -> None:
        async with bulkhead:
            await release.wait()

    for _ in range(2):
        tasks.spawn(call(), "call")
    await turns()
    assert bulkhead.inside == 2
    with pytest.raises(WireError):
        await call()
    release.set()
    await turns()
    assert bulkhead.inside == 0


async def test_a_call_that_is_cancelled_while_it_waits_gives_its_place_back() -> None:
    bulkhead = Bulkhead(limit=3, concurrency=1)
    tasks = TaskSet(unexpected)
    release = asyncio.Event()
    served: list[str] = []

    async def call(name: str) -> None:
        async with bulkhead:
            served.append(name)
            await release.wait()

    tasks.spawn(call("first"), "first")
    leaver = tasks.spawn(call("leaver"), "leaver")
    tasks.spawn(call("last"), "last")
    await turns()
    leaver.cancel()
    await turns()
    assert (bulkhead.inside, bulkhead.is_full) == (2, False)
    release.set()
    await turns(10)
    assert served == ["first", "last"]
    assert bulkhead.inside == 0


async def test_a_call_that_is_cancelled_while_it_runs_lets_the_next_one_in() -> None:
    bulkhead = Bulkhead(limit=3, concurrency=1)
    tasks = TaskSet(unexpected)
    served: list[str] = []

    async def call(name: str) -> None:
        async with bulkhead:
            served.append(name)
            await asyncio.Event().wait()

    first = tasks.spawn(call("first"), "first")
    tasks.spawn(call("second"), "second")
    await turns()
    first.cancel()
    await turns()
    assert served == ["first", "second"]
    await tasks.close()
    assert bulkhead.inside == 0


async def test_a_call_that_fails_gives_its_place_back() -> None:
    bulkhead = Bulkhead(limit=1, concurrency=None)
    with pytest.raises(ValueError, match="no"):
        async with bulkhead:
            raise ValueError("no")
    assert not bulkhead.is_full
