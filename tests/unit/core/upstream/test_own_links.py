from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest

from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.config.model import Transport
from mcp_proxy.core.upstream import own_links
from mcp_proxy.core.upstream.client import Client
from mcp_proxy.core.upstream.dial import Dialer
from mcp_proxy.core.upstream.failures import Failure, Phase, RpcError, WireError
from mcp_proxy.core.upstream.link import Link
from mcp_proxy.core.upstream.messages import Incoming
from mcp_proxy.core.upstream.own_links import OwnLinks
from mcp_proxy.core.upstream.terms import Era
from tests.unit.core.fakes import server
from tests.unit.core.upstream.wires import FakeDialer, FakeWire, begun, terms, turns

pytestmark = pytest.mark.anyio

REFUSED = WireError(Failure.UNREACHABLE, Phase.NOT_SENT, "connection refused")
LOST = WireError(Failure.LOST, Phase.SENT, "lost")


def client(key: str = "k", level: str | None = None) -> Client:
    return Client(Era.LEGACY, capabilities={"roots": {}}, key=key, log_level=level)


def wire(**capabilities: object) -> FakeWire:
    return FakeWire({"logging/setLevel": {}}, terms(Era.LEGACY, **capabilities))


class Bench:
    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        self.tasks = TaskSet(lambda _, error: self.errors.append(error))
        self.dialer = FakeDialer(self.tasks)
        self.heard: list[tuple[str, str]] = []
        self.links = OwnLinks(
            server("up"), dialer=cast(Dialer, self.dialer), tasks=self.tasks,
            on_incoming=lambda key, message: self.heard.append((key, message.method)), on_stderr=lambda _: None,
            limit=8,
        )  # fmt: skip

    def get(self, who: Client | None = None) -> asyncio.Task[Link]:
        return begun(self.links.get(who or client(), Transport.STDIO))

    async def link(self, who: Client | None = None) -> Link:
        async with asyncio.timeout(5):
            return await self.get(who)

    def opening(self, *outcomes: FakeWire | Exception) -> asyncio.Event:
        """Attempts wait for the event, then have these outcomes."""
        self.dialer.gate = asyncio.Event()
        self.dialer.own += outcomes
        return self.dialer.gate


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    async with asyncio.timeout(5):
        await bench.links.close()
    assert len(bench.links) == 0
    await bench.tasks.close()
    assert bench.errors == []


# Opening


async def test_calls_at_the_same_time_open_one_link_and_share_it(bench: Bench) -> None:
    gate = bench.opening(wire())
    calls = [bench.get() for _ in range(5)]
    await turns()
    gate.set()
    links = [await call for call in calls]
    assert all(link is links[0] for link in links)
    assert await bench.link() is links[0]
    assert len(bench.dialer.dialled_for) == 1


async def test_each_client_has_its_own_and_is_the_one_introduced(bench: Bench) -> None:
    bench.dialer.own += [wire(), wire()]
    one, other = client("1"), client("2")
    assert await bench.link(one) is not await bench.link(other)
    assert bench.dialer.dialled_for == [one, other]
    assert len(bench.links) == 2


async def test_a_caller_that_leaves_while_it_is_being_opened_disturbs_nobody(bench: Bench) -> None:
    gate = bench.opening(wire())
    first, second = bench.get(), bench.get()
    await turns()
    first.cancel()
    await turns()
    assert first.cancelled()
    gate.set()
    assert (await second).terms.era is Era.LEGACY
    assert await bench.link() is await second
    assert len(bench.dialer.dialled_for) == 1


@pytest.mark.parametrize("error", [REFUSED, RpcError(-32601, "no")], ids=["wire", "rpc"])
async def test_a_link_that_cannot_be_had_is_said_to_all_who_wait_and_tried_again_with_the_next_call(
    bench: Bench, error: Exception
) -> None:
    gate = bench.opening(error, wire())
    calls = [bench.get() for _ in range(3)]
    await turns()
    gate.set()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert outcomes == [error] * 3
    assert len(bench.links) == 0
    assert await bench.link()
    assert len(bench.dialer.dialled_for) == 2


async def test_an_error_of_our_own_does_not_shut_the_client_out_for_ever(bench: Bench) -> None:
    bench.dialer.own += [ZeroDivisionError(), wire()]
    with pytest.raises(ZeroDivisionError):
        await bench.link()
    assert await bench.link()
    assert [type(error) for error in bench.errors] == [ZeroDivisionError]
    bench.errors.clear()


# Losing


async def test_a_link_that_has_ended_is_closed_and_opened_again(bench: Bench) -> None:
    old, new = wire(), wire()
    bench.dialer.own += [old, new]
    first = await bench.link()
    old.ended.set_result("the process is gone")
    assert await bench.link() is not first
    await turns()
    assert (old.closed, new.closed) == (True, False)


async def test_a_link_that_turned_out_to_be_dead_is_opened_again(bench: Bench) -> None:
    old, new = wire(), wire()
    bench.dialer.own += [old, new]
    first = await bench.link()
    bench.links.lose(client(), first)
    assert await bench.link() is not first
    await turns()
    assert (old.closed, new.closed) == (True, False)


async def test_whoever_is_late_to_notice_a_loss_does_not_end_the_link_that_followed(bench: Bench) -> None:
    new = wire()
    bench.dialer.own += [wire(), new]
    first = await bench.link()
    bench.links.lose(client(), first)
    second = await bench.link()
    bench.links.lose(client(), first)
    await turns()
    assert not new.closed
    assert await bench.link() is second


async def test_whoever_is_late_to_notice_a_loss_does_not_end_the_link_that_is_being_opened(bench: Bench) -> None:
    bench.dialer.own.append(wire())
    first = await bench.link()
    bench.links.lose(client(), first)
    gate = bench.opening(wire())
    call = bench.get()
    await turns()
    bench.links.lose(client(), first)
    gate.set()
    assert await call is not first


async def test_losing_a_link_that_is_not_there_is_no_error(bench: Bench) -> None:
    bench.links.lose(client(), wire().link())
    bench.links.drop("nobody")
    bench.links.notify("nobody", "notifications/roots/list_changed")


# Leaving


async def test_a_client_that_leaves_takes_its_link_with_it(bench: Bench) -> None:
    one, other = wire(), wire()
    bench.dialer.own += [one, other]
    await bench.link(client("1"))
    await bench.link(client("2"))
    bench.links.drop("1")
    await turns()
    assert (one.closed, other.closed, len(bench.links)) == (True, False, 1)


@pytest.mark.parametrize("begun", [True, False], ids=["begun", "hardly begun"])
async def test_a_client_that_leaves_while_its_link_is_being_opened_leaves_nothing_behind(
    bench: Bench, begun: bool
) -> None:
    bench.opening()
    call = bench.get()
    await turns(20 if begun else 1)
    bench.links.drop("k")
    await asyncio.wait([call], timeout=5)
    error = call.exception()
    assert isinstance(error, WireError)
    assert error.phase is Phase.NOT_SENT
    await turns()
    assert bench.dialer.given_up == len(bench.dialer.dialled_for)
    assert (len(bench.links), len(bench.tasks)) == (0, 0)


async def test_a_link_that_opens_at_the_moment_its_client_leaves_is_closed(bench: Bench) -> None:
    late = wire()
    gate = bench.opening(late)
    call = bench.get()
    await turns()
    gate.set()
    await turns(2)
    bench.links.drop("k")
    await asyncio.wait([call], timeout=5)
    await turns()
    assert isinstance(call.exception(), WireError)
    assert late.closed or bench.dialer.given_up
    assert len(bench.tasks) == 0


async def test_a_client_that_is_back_at_once_gets_a_link_of_its_new_life(bench: Bench) -> None:
    gate = bench.opening(wire(), wire())
    lost = bench.get()
    await turns()
    bench.links.drop("k")
    call = bench.get()
    gate.set()
    assert isinstance(await call, Link)
    await asyncio.wait([lost], timeout=5)
    assert isinstance(lost.exception(), WireError)
    assert len(bench.links) == 1


async def test_closing_does_not_wait_for_links_that_are_being_opened(bench: Bench) -> None:
    bench.opening()
    call = bench.get()
    await turns()
    async with asyncio.timeout(1):
        await bench.links.close()
    assert (bench.dialer.given_up, len(bench.links)) == (1, 0)
    await asyncio.wait([call], timeout=5)
    assert isinstance(call.exception(), WireError)


class SlowToClose(FakeWire):
    """Closing takes until it is let go."""

    def __init__(self) -> None:
        super().__init__(agreed=terms(Era.LEGACY))
        self.go = asyncio.Event()
        self.closing = 0

    async def close(self) -> None:
        self.closing += 1
        await self.go.wait()
        await super().close()


async def test_closing_ends_all_at_once_and_waits_for_those_that_were_already_ending(bench: Bench) -> None:
    wires = [SlowToClose() for _ in range(3)]
    bench.dialer.own += wires
    for key in "abc":
        await bench.link(client(key))
    bench.links.drop("a")
    await turns()
    closing = begun(bench.links.close())
    await turns()
    assert [one.closing for one in wires] == [1, 1, 1]
    assert not closing.done()
    for one in wires:
        one.go.set()
    async with asyncio.timeout(5):
        await closing
    assert all(one.closed for one in wires)
    assert len(bench.tasks) == 0


# What belongs to a link


async def test_what_comes_on_a_link_comes_with_its_clients_key(bench: Bench) -> None:
    bench.dialer.own += [wire(), wire()]
    await bench.link(client("1"))
    await bench.link(client("2"))
    bench.dialer.own_incoming[1](Incoming("notifications/message", None))
    bench.dialer.own_incoming[0](Incoming("notifications/progress", None))
    assert bench.heard == [("2", "notifications/message"), ("1", "notifications/progress")]


async def test_a_log_level_is_set_once_and_again_when_it_changes(bench: Bench) -> None:
    up = wire(logging={})
    bench.dialer.own.append(up)
    await asyncio.gather(*(bench.link(client(level="info")) for _ in range(3)))
    assert [out.params for out in up.sent] == [{"level": "info"}]
    await bench.link(client(level="debug"))
    await bench.link(client(level="debug"))
    assert [out.params for out in up.sent] == [{"level": "info"}, {"level": "debug"}]


async def test_a_new_link_is_told_the_log_level_again(bench: Bench) -> None:
    old, new = wire(logging={}), wire(logging={})
    bench.dialer.own += [old, new]
    bench.links.lose(client(), await bench.link(client(level="info")))
    await bench.link(client(level="info"))
    assert (old.methods, new.methods) == (["logging/setLevel"], ["logging/setLevel"])


@pytest.mark.parametrize(("level", "capabilities"), [(None, {"logging": {}}), ("info", {"tools": {}})])
async def test_no_level_is_set_that_nobody_wants_or_offers(
    bench: Bench, level: str | None, capabilities: dict[str, object]
) -> None:
    up = wire(**capabilities)
    bench.dialer.own.append(up)
    await bench.link(client(level=level))
    assert up.sent == []


@pytest.mark.parametrize(
    ("error", "asked"), [(RpcError(-32602, "no such level"), 1), (LOST, 2)], ids=["refused", "lost"]
)
async def test_a_level_that_cannot_be_set_keeps_nobody_from_the_link(
    bench: Bench, error: Exception, asked: int
) -> None:
    up = wire(logging={})
    up.answers["logging/setLevel"] = error
    bench.dialer.own.append(up)
    assert await bench.link(client(level="info")) is await bench.link(client(level="info"))
    assert len(up.sent) == asked


async def test_a_level_whose_setting_was_given_up_is_set_with_the_next_call(bench: Bench) -> None:
    up = wire(logging={})
    up.answers["logging/setLevel"] = None
    bench.dialer.own.append(up)
    call = bench.get(client(level="info"))
    await turns()
    call.cancel()
    await asyncio.wait([call], timeout=5)
    up.answers["logging/setLevel"] = {}
    await bench.link(client(level="info"))
    assert up.methods == ["logging/setLevel"] * 2


async def test_the_upstream_is_told_of_its_client_where_there_is_a_link(bench: Bench) -> None:
    gate = bench.opening(wire())
    call = bench.get()
    await turns()
    bench.links.notify("k", "notifications/roots/list_changed")  # nothing to tell yet
    gate.set()
    link = await call
    bench.links.notify("k", "notifications/roots/list_changed")
    await turns()
    assert cast(FakeWire, link.wire).notified == ["notifications/roots/list_changed"]


# The standing stream


async def test_the_standing_stream_is_held_and_opened_again_while_the_link_lasts(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[asyncio.Future[bool]] = []

    async def hold(_: Link) -> bool:
        held.append(asyncio.get_running_loop().create_future())
        return await held[-1]

    monkeypatch.setattr(Link, "hold", hold)
    monkeypatch.setattr(own_links, "_LOST_STREAM", 0)
    bench.dialer.own.append(wire())
    await bench.link()
    await turns()
    held[0].set_result(True)
    await turns()
    held[1].set_exception(LOST)
    await turns()
    assert len(held) == 3
    bench.links.drop("k")
    await turns()
    assert held[2].cancelled()
    assert len(bench.tasks) == 0


@pytest.mark.parametrize(
    "outcome", [False, WireError(Failure.HTTP, Phase.SENT, "HTTP 405", status=405)], ids=["none", "refused"]
)
async def test_a_server_without_a_standing_stream_is_not_asked_for_it_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, outcome: bool | Exception
) -> None:
    asked: list[int] = []

    async def hold(_: Link) -> bool:
        asked.append(1)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(Link, "hold", hold)
    monkeypatch.setattr(own_links, "_LOST_STREAM", 0)
    bench.dialer.own.append(wire())
    await bench.link()
    await turns()
    assert (len(asked), len(bench.tasks)) == (1, 0)


async def test_there_are_no_more_of_them_than_allowed(bench: Bench) -> None:
    for number in range(8):
        bench.dialer.own.append(wire())
        await bench.link(client(f"k{number}"))
    with pytest.raises(WireError) as caught:
        await bench.link(client("one too many"))
    assert (caught.value.failure, caught.value.phase) == (Failure.FULL, Phase.NOT_SENT)
    bench.links.drop("k0")
    bench.dialer.own.append(wire())
    await bench.link(client("one too many"))
