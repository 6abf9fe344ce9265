from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from mcp_proxy.base.json import Fields
from mcp_proxy.config.model import ServerSpec, Transport
from mcp_proxy.core.upstream.failures import Attempt, Failure, Phase, RpcError, WireError
from mcp_proxy.core.upstream.messages import Incoming
from mcp_proxy.core.upstream.terms import Era
from mcp_proxy.core.upstream.upstream import State
from mcp_proxy.core.upstream.wire import Outgoing
from tests.harness import eventually
from tests.unit.core.upstream.actor import Bench, Server
from tests.unit.core.upstream.wires import turns

pytestmark = pytest.mark.anyio

REFUSED = WireError(Failure.UNREACHABLE, Phase.NOT_SENT, "connection refused")


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.tasks.close()


async def test_before_the_first_attempt_has_ended_it_is_connecting(bench: Bench) -> None:
    assert bench.upstream.state is State.CONNECTING
    assert not bench.upstream.is_settled


async def test_a_call_waits_for_the_first_connection(bench: Bench) -> None:
    wire = Server("t")
    async with anyio.create_task_group() as calls:
        calls.start_soon(bench.call)
        await turns()
        await bench.runs(wire)
    assert wire.executed == 1


async def test_a_connection_brings_the_tools_and_takes_calls(bench: Bench) -> None:
    wire = Server("a", "b")
    await bench.runs(wire)
    assert bench.upstream.state is State.CONNECTED
    assert [one.name for one in bench.upstream.offer.tools] == ["a", "b"]
    assert (bench.upstream.era, bench.upstream.protocol_version) == (Era.MODERN, "2026-07-28")
    assert bench.upstream.is_available
    assert bench.changes == 1
    await bench.call()
    assert (wire.executed, bench.upstream.inflight) == (1, 0)
    assert bench.upstream.latency is not None


async def test_a_server_that_cannot_be_reached_is_down_and_says_why(bench: Bench) -> None:
    await bench.runs(REFUSED)
    assert bench.upstream.state is State.DOWN
    assert bench.upstream.last_error == "connection refused"
    assert bench.log.events() == ["upstream_lost"]
    error = await bench.failed()
    assert (error.failure, error.phase, error.message) == (Failure.UNREACHABLE, Phase.NOT_SENT, "connection refused")


async def test_it_comes_back_by_itself(bench: Bench) -> None:
    await bench.runs(REFUSED, Server("a"))
    await bench.until(lambda: bench.upstream.state is State.CONNECTED)
    assert bench.upstream.last_error is None
    assert bench.dialer.attempts == 2


async def test_when_the_connection_is_lost_the_tools_stay_known(bench: Bench) -> None:
    wire = Server("a")
    await bench.runs(wire, REFUSED)
    wire.ended.set_result("the process is gone")
    await bench.until(lambda: bench.upstream.state is State.DOWN)
    assert [one.name for one in bench.upstream.offer.tools] == ["a"]
    assert bench.upstream.last_error == "the process is gone"
    await turns()
    assert wire.closed


async def test_an_error_of_our_own_does_not_end_the_actor(bench: Bench) -> None:
    await bench.runs(ValueError("a bug"), Server("a"))
    assert bench.upstream.state is State.DOWN
    assert "upstream_actor_failed" in bench.log.events()
    assert bench.upstream.last_error == "an error of our own (ValueError)"
    await bench.until(lambda: bench.upstream.state is State.CONNECTED)


async def test_a_wire_whose_list_fails_is_closed(bench: Bench) -> None:
    wire = Server()
    wire.answers["tools/list"] = {"tools": "none"}
    await bench.runs(wire)
    await turns()
    assert wire.closed
    assert bench.upstream.state is State.DOWN


async def test_stopping_closes_the_wire(bench: Bench) -> None:
    wire = Server("a")
    await bench.runs(wire)
    await bench.tasks.close()
    assert wire.closed


async def test_an_announced_change_brings_the_new_list(bench: Bench) -> None:
    wire = Server("a")
    await bench.runs(wire)
    kept = bench.upstream.offer.tools[0]
    wire.tools.append("b")
    assert bench.dialer.incoming is not None
    bench.dialer.incoming(Incoming("notifications/tools/list_changed", None))
    await bench.until(lambda: len(bench.upstream.offer.tools) == 2)
    assert bench.upstream.offer.tools[0] is kept
    await bench.until(lambda: bench.changes == 2)


# Calls that fail


async def test_five_failures_in_a_row_open_the_breaker_and_the_server_is_degraded(bench: Bench) -> None:
    wire = Server("t")
    await bench.runs(wire)
    wire.on_call = WireError(Failure.LOST, Phase.SENT, "lost")
    for _ in range(5):
        await bench.failed()
    error = await bench.failed()
    assert (error.failure, error.phase) == (Failure.RESTING, Phase.NOT_SENT)
    assert wire.executed == 5
    assert bench.upstream.state is State.DEGRADED
    assert not bench.upstream.is_available


@pytest.mark.parametrize(
    "error",
    [
        RpcError(-32603, "no"),
        WireError(Failure.TOO_LARGE, Phase.STREAMING, "too large"),
        WireError(Failure.HTTP, Phase.STREAMING, "HTTP 413", status=413),
        WireError(Failure.BUSY, Phase.STREAMING, "HTTP 429", status=429),
    ],
)
async def test_what_is_no_fault_of_the_servers_never_opens_the_breaker(bench: Bench, error: Exception) -> None:
    wire = Server("t")
    await bench.runs(wire)
    wire.on_call = error
    for _ in range(30):
        with pytest.raises(type(error)):
            await bench.call()
    assert bench.upstream.state is State.CONNECTED
    assert wire.executed == 30


@pytest.mark.parametrize("status", [500, 502, 503])
async def test_server_errors_open_it(bench: Bench, status: int) -> None:
    wire = Server("t")
    await bench.runs(wire)
    wire.on_call = WireError(Failure.HTTP, Phase.STREAMING, f"HTTP {status}", status=status)
    for _ in range(5):
        await bench.failed()
    assert not bench.upstream.is_available


async def test_a_caller_that_leaves_says_nothing_about_the_server(bench: Bench) -> None:
    wire = Server("t")
    wire.hold = asyncio.Event()
    await bench.runs(wire)
    for _ in range(10):
        call = asyncio.get_running_loop().create_task(bench.call())
        await turns()
        call.cancel()
        await asyncio.wait([call], timeout=5)
    assert bench.upstream.is_available
    assert bench.upstream.inflight == 0


async def test_a_bug_during_the_one_request_that_tries_does_not_shut_the_server_out_for_ever(bench: Bench) -> None:
    wire = Server("t")
    await bench.runs(wire)
    wire.on_call = WireError(Failure.LOST, Phase.SENT, "lost")
    for _ in range(5):
        await bench.failed()
    bench.clock.advance(6)
    wire.on_call = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await bench.call()
    wire.on_call = None
    await bench.call()
    assert bench.upstream.state is State.CONNECTED


async def test_a_call_past_its_deadline_says_how_far_it_got(bench: Bench) -> None:
    wire = Server("t")
    wire.hold = asyncio.Event()
    await bench.runs(wire)
    error = await bench.failed(0.01)
    assert (error.failure, error.phase) == (Failure.TIMEOUT, Phase.SENT)


async def test_a_call_that_waited_in_vain_for_a_place_was_not_sent() -> None:
    bench = Bench(max_concurrency=1)
    wire = Server("t")
    wire.hold = asyncio.Event()
    await bench.runs(wire)
    bench.tasks.spawn(bench.call(), "slow")
    await turns()
    error = await bench.failed(0.01)
    assert (error.failure, error.phase) == (Failure.TIMEOUT, Phase.NOT_SENT)
    assert wire.executed == 1
    assert bench.upstream.breaker.allows
    await bench.tasks.close()


async def test_a_lost_session_is_opened_again_at_once_and_held_against_nobody(bench: Bench) -> None:
    wire, fresh = Server("t"), Server("t")
    await bench.runs(wire, fresh)
    wire.on_call = WireError(Failure.SESSION_LOST, Phase.NOT_SENT, "the upstream does not know the session")
    await bench.failed()
    await bench.until(lambda: bench.dialer.attempts == 2)
    assert await bench.upstream.wait_ready(5)
    await bench.call()
    assert fresh.executed == 1


# Without a connection


async def test_a_disabled_server_is_settled_and_takes_no_calls() -> None:
    bench = Bench(disabled=True)
    assert bench.upstream.state is State.DISABLED
    assert bench.upstream.is_settled
    assert not bench.upstream.is_available


async def test_a_command_that_keeps_dying_is_failed() -> None:
    bench = Bench(spec=ServerSpec("cmd", Transport.STDIO, "test", command="x"))
    await bench.runs(REFUSED)
    assert bench.upstream.state is State.DOWN
    for _ in range(9):
        bench.upstream._backoff.next()
    assert bench.upstream.state is State.FAILED
    await bench.tasks.close()


async def test_waiting_for_a_server_that_stays_away_ends(bench: Bench) -> None:
    await bench.runs(REFUSED)
    assert not await bench.upstream.wait_ready(0.01)


async def test_a_call_to_a_server_that_is_down_brings_the_next_attempt_forward(bench: Bench) -> None:
    await bench.runs(REFUSED, Server("t"))
    bench.upstream._retry_at = bench.clock.monotonic() + 1000
    bench.clock.advance(2)
    await bench.failed()
    await bench.until(lambda: bench.dialer.attempts == 2)


class Busy(Server):
    """Answers its first listing and checks; further listings end as told."""

    def __init__(self, *tools: str, relist: Exception) -> None:
        super().__init__(*tools)
        self.listed = 0
        self.relist = relist

    async def request(self, out: Outgoing, attempt: Attempt) -> Fields:
        if out.method == "tools/list":
            self.listed += 1
            if self.listed > 1:
                raise self.relist
        return await super().request(out, attempt)


async def announced(bench: Bench, wire: Busy) -> None:
    assert bench.dialer.incoming is not None
    bench.dialer.incoming(Incoming("notifications/tools/list_changed", None))
    await eventually(lambda: wire.listed >= 2, 5)
    await turns()


@pytest.mark.parametrize(
    "error",
    [
        RpcError(-32603, "busy"),
        WireError(Failure.TIMEOUT, Phase.SENT, "late"),
        WireError(Failure.BAD_REPLY, Phase.STREAMING, "odd"),
    ],
    ids=repr,
)
async def test_a_listing_that_fails_after_an_announcement_keeps_the_link_and_the_tools(error: Exception) -> None:
    bench, wire = Bench(), Busy("a", relist=error)
    await bench.runs(wire)
    await announced(bench, wire)
    assert bench.upstream.state in (State.CONNECTED, State.DEGRADED)
    assert [tool.name for tool in bench.upstream.offer.tools] == ["a"]
    assert not wire.closed
    await bench.tasks.close()


async def test_a_tool_defined_too_deep_is_left_out_and_the_others_stay() -> None:
    bench, wire = Bench(), Server("good")
    deep: dict[str, Any] = {}
    for _ in range(300):
        deep = {"items": deep}
    wire.definitions = [{"name": "good"}, {"name": "deep", "inputSchema": deep}]
    await bench.runs(wire)
    assert [tool.name for tool in bench.upstream.offer.tools] == ["good"]
    await bench.tasks.close()


async def test_a_server_that_no_longer_speaks_the_era_is_asked_again() -> None:
    bench, old, new = Bench(), Server("a"), Server("b")
    await bench.runs(old)
    old.on_call = RpcError(-32022, "unsupported protocol version")
    old.on_check = RpcError(-32601, "method not found")
    bench.dialer.outcomes.append(new)
    with pytest.raises(RpcError):
        await bench.call()
    await eventually(lambda: [tool.name for tool in bench.upstream.offer.tools] == ["b"], 5)
    await bench.tasks.close()


async def test_a_tool_whose_mirrored_headers_are_not_valid_is_left_out_and_said() -> None:
    bench, wire = Bench(), Server("good")
    bad = {"type": "object", "properties": {"a": {"type": "number", "x-mcp-header": "A"}}}
    wire.definitions = [{"name": "good"}, {"name": "bad", "inputSchema": bad}]
    await bench.runs(wire)
    assert [tool.name for tool in bench.upstream.offer.tools] == ["good"]
    assert any(fields.get("name") == "bad" for _, event, fields in bench.log.lines if event == "withheld")
    await bench.tasks.close()
