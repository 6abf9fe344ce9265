from __future__ import annotations

import asyncio

import pytest

from mcp_proxy.base.clock import SystemClock
from mcp_proxy.base.errors import DRAINING, OVERLOADED, RATE_LIMITED, Kind, ProxyError
from mcp_proxy.core.auth.principal import Principal
from mcp_proxy.core.limits import Gate, MemoryRateLimiter

pytestmark = pytest.mark.anyio


def refusal(gate: Gate) -> tuple[Kind, float | None]:
    with pytest.raises(ProxyError) as raised:
        gate.enter()
    return raised.value.kind, raised.value.retry_after


async def test_calls_enter_up_to_the_limit_and_then_no_more() -> None:
    gate = Gate(2)
    gate.enter()
    gate.enter()
    assert refusal(gate) == (OVERLOADED, 1)
    gate.leave()
    gate.enter()
    assert gate.inflight == 2


async def test_a_gate_that_drains_lets_nothing_in_and_waits_for_what_is_inside() -> None:
    gate = Gate(5)
    gate.enter()
    draining = asyncio.get_running_loop().create_task(gate.drain(5))
    await asyncio.sleep(0)
    assert gate.not_ready
    assert refusal(gate) == (DRAINING, 5)
    assert not draining.done()
    gate.leave()
    assert await draining is True


async def test_draining_ends_when_the_time_is_over() -> None:
    gate = Gate(5)
    gate.enter()
    assert await gate.drain(0.01) is False
    assert gate.inflight == 1


async def test_draining_an_empty_gate_ends_at_once() -> None:
    assert await Gate(1).drain(0.01) is True


async def test_a_gate_says_how_full_it_is() -> None:
    gate = Gate(3)
    gate.enter()
    assert repr(gate) == "<Gate 1/3>"


async def test_a_rate_lets_so_many_calls_through_and_says_when_to_come_back() -> None:
    limiter = MemoryRateLimiter(SystemClock())
    caller = Principal("slow", rate=2)
    await limiter.take(caller)
    await limiter.take(caller)
    with pytest.raises(ProxyError) as raised:
        await limiter.take(caller)
    assert raised.value.kind is RATE_LIMITED
    assert raised.value.retry_after is not None
    assert 1 <= raised.value.retry_after <= 61
    assert "2 calls a minute" in raised.value.message


async def test_a_caller_without_a_rate_is_not_limited() -> None:
    limiter = MemoryRateLimiter(SystemClock())
    for _ in range(1000):
        await limiter.take(Principal("free"))
    await limiter.take(Principal("free", rate=1))


async def test_one_callers_rate_is_not_anothers() -> None:
    limiter = MemoryRateLimiter(SystemClock())
    await limiter.take(Principal("one", rate=1))
    await limiter.take(Principal("other", rate=1))
    with pytest.raises(ProxyError):
        await limiter.take(Principal("one", rate=1))
