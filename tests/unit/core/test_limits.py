from __future__ import annotations

import asyncio
import tracemalloc

import pytest

from mcp_proxy.base.clock import SystemClock
from mcp_proxy.base.errors import DRAINING, OVERLOADED, RATE_LIMITED, Kind, ProxyError
from mcp_proxy.core.auth.principal import Principal
from mcp_proxy.core.limits import MOST_COUNTED, Gate, MemoryRateLimiter, RequestRates

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


# Requests


class HandClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 0.0


async def wait_told(
    rates: RequestRates, address: str | None = None, principal: Principal | None = None
) -> float | None:
    """The seconds that a request is told to wait; None when it is let through."""
    try:
        await rates.take(principal, address)
    except ProxyError as error:
        return error.retry_after if error.kind is RATE_LIMITED else -1
    return None


async def test_a_minute_begins_with_the_first_request_and_waiting_as_told_is_enough() -> None:
    clock = HandClock()
    rates = RequestRates(clock, per_principal=None, per_address=2)
    assert await wait_told(rates, "192.0.2.1") is None
    clock.now += 40
    assert await wait_told(rates, "192.0.2.1") is None
    told = await wait_told(rates, "192.0.2.1")
    assert told == 20
    clock.now += told
    assert await wait_told(rates, "192.0.2.1") is None


async def test_who_sends_on_over_the_limit_waits_no_longer_for_it() -> None:
    clock = HandClock()
    rates = RequestRates(clock, per_principal=1, per_address=None)
    for _ in range(50):
        await wait_told(rates, principal=Principal("ada"))
    assert await wait_told(rates, principal=Principal("ada")) == 60
    assert await wait_told(rates, principal=Principal("bob")) is None


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True), ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("192.0.2.1", "192.0.2.2", False), ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False), ("fe80::1%eth0", "fe80::2%eth0", True), (None, "", True),
        ("/run/proxy.sock", "192.0.2.1", False),
    ],
)  # fmt: skip
async def test_an_ipv6_address_is_counted_by_its_64(one: str | None, other: str | None, together: bool) -> None:
    rates = RequestRates(HandClock(), per_principal=None, per_address=1)
    assert await wait_told(rates, one) is None
    assert (await wait_told(rates, other) is not None) is together


async def test_many_addresses_take_no_more_memory_and_are_not_refused_because_of_each_other() -> None:
    rates = RequestRates(HandClock(), per_principal=1, per_address=1, most=100)
    assert await wait_told(rates, principal=Principal("ada")) is None
    for number in range(5000):
        assert await wait_told(rates, f"10.0.{number // 250}.{number % 250}") is None
        assert await wait_told(rates, "192.0.2.1") == (60 if number else None), "who sends on is not forgotten"
    assert await wait_told(rates, principal=Principal("ada")) == 60
    counted = [rates._addresses, rates._principals]
    assert [len(strategy.storage) for strategy in counted if strategy] == [100, 1]  # type: ignore[arg-type]
    for number in range(500):
        await wait_told(rates, principal=Principal(f"caller {number}"))
    assert len(rates._principals.storage) == 100  # type: ignore[union-attr, arg-type]


async def test_memory_stays_within_megabytes_however_many_addresses_come() -> None:
    rates = RequestRates(HandClock(), per_principal=None, per_address=5, most=1000)
    await wait_told(rates, "192.0.2.1")  # what is loaded with the first is not meant
    tracemalloc.start()
    try:
        for number in range(5000):
            await rates.take(None, f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::1")
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken * MOST_COUNTED / 1000 < 10_000_000
