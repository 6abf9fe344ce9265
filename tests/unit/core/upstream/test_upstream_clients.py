"""Which link serves which client, and what a client is shown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from mcp_proxy.base.json import encode
from mcp_proxy.core.upstream import listing as listing_module
from mcp_proxy.core.upstream.client import PROXY, Client
from mcp_proxy.core.upstream.failures import Attempt, Failure, Phase, RpcError, WireError
from mcp_proxy.core.upstream.messages import Incoming
from mcp_proxy.core.upstream.terms import Era
from mcp_proxy.core.upstream.upstream import State
from mcp_proxy.core.upstream.wire import Outgoing
from tests.unit.core.upstream.actor import Bench, Server
from tests.unit.core.upstream.wires import begun, turns

pytestmark = pytest.mark.anyio

NO_HANDSHAKE = [
    RpcError(-32022, "unsupported protocol version"),
    WireError(Failure.HTTP, Phase.STREAMING, "HTTP 400", status=400),
    WireError(Failure.HTTP, Phase.STREAMING, "HTTP 405", status=405),
    WireError(Failure.BAD_REPLY, Phase.STREAMING, "it chose a protocol version that does not exist"),
]
REFUSED = WireError(Failure.UNREACHABLE, Phase.NOT_SENT, "connection refused")
GONE = WireError(Failure.LOST, Phase.SENT, "lost")


async def _accepts(_: Incoming) -> Mapping[str, Any]:
    return {"action": "accept"}


def askable(key: str | None = "k", era: Era = Era.LEGACY) -> Client:
    """A client that can be asked for input."""
    return Client(era, {"name": "editor"}, {"elicitation": {}}, key=key, on_request=_accepts)


def legacy(*tools: str, **capabilities: object) -> Server:
    return Server(*tools, era=Era.LEGACY, **capabilities)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.tasks.close()
    assert bench.upstream.own_links == 0


# Links


async def test_clients_that_offer_nothing_share_the_link_whatever_their_era(bench: Bench) -> None:
    wire = legacy("t")
    await bench.runs(wire)
    for client in (PROXY, Client(Era.LEGACY, key="1"), Client(Era.MODERN, key="2"), askable(key=None)):
        await bench.call(client=client)
    assert (wire.executed, bench.upstream.own_links, bench.dialer.dialled_for) == (4, 0, [])


@pytest.mark.parametrize("era", Era)
async def test_a_client_that_can_be_asked_gets_a_link_of_its_own_to_a_legacy_server(bench: Bench, era: Era) -> None:
    shared, own = legacy("t"), legacy("t")
    await bench.runs(shared)
    bench.dialer.own.append(own)
    client = askable(era=era)
    await bench.call(client=client)
    await bench.call(client=client)
    await bench.call()
    assert (shared.executed, own.executed) == (1, 2)
    assert bench.dialer.dialled_for == [client]
    assert bench.upstream.own_links == 1


async def test_a_client_that_wants_log_messages_gets_a_link_of_its_own(bench: Bench) -> None:
    own = legacy("t", logging={})
    own.answers["logging/setLevel"] = {}
    await bench.runs(legacy("t", logging={}))
    bench.dialer.own.append(own)
    await bench.call(client=Client(Era.LEGACY, log_level="warning", key="k"))
    assert own.methods == ["logging/setLevel", "tools/call"]


async def test_a_legacy_client_is_served_in_its_own_era_where_a_modern_server_speaks_both(bench: Bench) -> None:
    shared, own = Server("t"), legacy("t")
    await bench.runs(shared)
    bench.dialer.own.append(own)
    await bench.call(client=askable())
    assert (shared.executed, own.executed) == (0, 1)


async def test_a_modern_client_shares_the_link_to_a_modern_server(bench: Bench) -> None:
    shared = Server("t")
    await bench.runs(shared)
    await bench.call(client=askable(era=Era.MODERN))
    assert (shared.executed, bench.dialer.dialled_for) == (1, [])


@pytest.mark.parametrize("refusal", NO_HANDSHAKE, ids=str)
async def test_a_legacy_client_is_bridged_where_a_server_is_modern_alone_and_that_is_found_out_once(
    bench: Bench, refusal: Exception
) -> None:
    wanting = {"resultType": "input_required", "inputRequests": {"a": {"method": "elicitation/create"}}}
    shared = Server("t")
    rounds: list[object] = [wanting, {}, {}]
    shared.answers["tools/call"] = lambda _: rounds.pop(0)
    await bench.runs(shared)
    bench.dialer.own.append(refusal)
    await bench.call(client=askable("1"))
    await bench.call(client=askable("2"))
    assert shared.executed == 3
    assert "inputResponses" in shared.sent[-2].params
    assert len(bench.dialer.dialled_for) == 1
    assert bench.log.events().count("upstream_speaks_one_era") == 1
    assert bench.upstream.own_links == 0


async def test_after_a_reconnect_it_is_found_out_anew(bench: Bench) -> None:
    first, second, own = Server("t"), Server("t"), legacy("t")
    await bench.runs(first, second)
    bench.dialer.own += [NO_HANDSHAKE[0], own]
    await bench.call(client=askable())
    first.ended.set_result("gone")
    await bench.until(lambda: bench.dialer.attempts == 2 and bench.upstream.state is State.CONNECTED)
    await bench.call(client=askable())
    assert (first.executed, second.executed, own.executed) == (1, 0, 1)


async def test_a_modern_server_that_cannot_be_reached_for_a_moment_is_not_taken_for_one_of_one_era(
    bench: Bench,
) -> None:
    shared, own = Server("t"), legacy("t")
    await bench.runs(shared)
    bench.dialer.own += [REFUSED, own]
    assert (await bench.failed(client=askable())).failure is Failure.UNREACHABLE
    await bench.call(client=askable())
    assert (shared.executed, own.executed) == (0, 1)


@pytest.mark.parametrize("error", [REFUSED, WireError(Failure.HTTP, Phase.SENT, "HTTP 400", status=400)], ids=str)
async def test_a_link_that_a_legacy_server_refuses_is_the_calls_failure(bench: Bench, error: WireError) -> None:
    shared = legacy("t")
    await bench.runs(shared)
    bench.dialer.own.append(error)
    assert await bench.failed(client=askable()) is error
    assert (shared.executed, bench.upstream.own_links) == (0, 0)
    assert bench.last.phase is Phase.NOT_SENT


async def test_an_exchange_that_is_lost_leaves_the_clients_link_to_its_other_calls(bench: Bench) -> None:
    shared, own = legacy("t"), legacy("t")
    await bench.runs(shared)
    bench.dialer.own.append(own)
    own.on_call = GONE
    assert await bench.failed(client=askable()) is GONE
    own.on_call = None
    await bench.call(client=askable())
    assert (own.closed, own.executed, shared.executed) == (False, 2, 0)


async def test_a_clients_own_session_that_is_lost_is_opened_again_and_nobody_else_is_disturbed(bench: Bench) -> None:
    error = WireError(Failure.SESSION_LOST, Phase.NOT_SENT, "the upstream does not know the session")
    shared, first, second = legacy("t"), legacy("t"), legacy("t")
    await bench.runs(shared)
    bench.dialer.own += [first, second]
    first.on_call = error
    assert await bench.failed(client=askable()) is error
    await bench.call(client=askable())
    await turns()
    assert (first.closed, second.executed, shared.closed) == (True, 1, False)
    assert bench.dialer.attempts == 1


async def test_a_clients_own_lost_session_is_held_against_nobody(bench: Bench) -> None:
    await bench.runs(legacy("t"))
    for _ in range(20):
        own = legacy("t")
        own.on_call = WireError(Failure.SESSION_LOST, Phase.NOT_SENT, "the upstream does not know the session")
        bench.dialer.own.append(own)
        await bench.failed(client=askable())
    assert bench.upstream.state is State.CONNECTED


async def test_a_client_that_leaves_takes_its_link_with_it(bench: Bench) -> None:
    own = legacy("t")
    await bench.runs(legacy("t"))
    bench.dialer.own.append(own)
    await bench.call(client=askable())
    bench.upstream.tell("k", "notifications/roots/list_changed")
    await turns()
    bench.upstream.forget_client("k")
    await turns()
    assert (own.notified, own.closed, bench.upstream.own_links) == (["notifications/roots/list_changed"], True, 0)


async def test_stopping_ends_the_links_of_clients_as_well(bench: Bench) -> None:
    own = legacy("t")
    await bench.runs(legacy("t"))
    bench.dialer.own.append(own)
    await bench.call(client=askable("1"))
    opening = begun(bench.call(client=askable("2")))
    await turns()
    async with asyncio.timeout(5):
        await bench.tasks.close()
    assert (own.closed, bench.dialer.given_up, bench.upstream.own_links) == (True, 1, 0)
    await asyncio.wait([opening], timeout=5)
    assert isinstance(opening.exception(), WireError)


async def test_what_comes_on_a_clients_own_link_is_told_with_its_key(bench: Bench) -> None:
    shared = legacy("t")
    await bench.runs(shared)
    bench.dialer.own.append(legacy("t"))
    await bench.call(client=askable())
    for method in ("notifications/message", "notifications/resources/updated"):
        bench.dialer.own_incoming[0](Incoming(method, None))
    assert [(key, message.method) for key, message in bench.tellings] == [
        ("k", "notifications/message"),
        ("k", "notifications/resources/updated"),
    ]
    assert bench.updates == []


async def test_a_change_on_a_clients_own_link_is_told_and_makes_its_like_be_asked_again(bench: Bench) -> None:
    shared = legacy("a")
    await bench.runs(shared)
    own = legacy("a", "b")
    bench.dialer.own.append(own)
    await bench.upstream.learn(askable())
    own.tools.append("c")
    listed = len(shared.sent)
    bench.dialer.own_incoming[0](Incoming("notifications/tools/list_changed", None))
    assert [(key, message.method) for key, message in bench.tellings] == [("k", "notifications/tools/list_changed")]
    assert (bench.upstream.knows(askable()), names(bench, askable())) == (False, ["a", "b"])
    await bench.upstream.learn(askable())
    assert names(bench, askable()) == ["a", "b", "c"]
    assert len(shared.sent) == listed  # what it offers to all has not changed


async def test_how_long_a_client_takes_to_answer_says_nothing_of_the_server(bench: Bench) -> None:
    async def asks(out: Outgoing) -> object:
        assert out.on_request is not None
        bench.clock.advance(100)
        return await out.on_request(Incoming("elicitation/create", None, 1))

    own = legacy("t")
    own.answers["tools/call"] = asks
    await bench.runs(legacy("t"))
    bench.dialer.own.append(own)
    assert (await bench.call(client=askable())).forwarded
    assert bench.upstream.latency is None


async def test_a_call_that_waits_for_its_client_outlives_its_own_time(bench: Bench) -> None:
    answered = asyncio.Event()

    async def slow(_: Incoming) -> Mapping[str, Any]:
        await answered.wait()
        return {}

    async def asks(out: Outgoing) -> object:
        assert out.on_request is not None
        return await out.on_request(Incoming("elicitation/create", None, 1))

    own = legacy("t")
    own.answers["tools/call"] = asks
    await bench.runs(legacy("t"))
    bench.dialer.own.append(own)
    client = Client(Era.LEGACY, capabilities={"elicitation": {}}, key="k", on_request=slow)
    call = begun(bench.call(0.02, client))
    await asyncio.wait([call], timeout=0.05)
    assert not call.done()
    answered.set()
    async with asyncio.timeout(5):
        await call


# What a client is shown


def shows(server: Server, *more: str) -> Server:
    """Clients that can be asked are listed ``more`` (the modern way: by what each request says of its client)."""

    def tools(out: Outgoing) -> object:
        names = [*server.tools, *(more if b"elicitation" in encode(out.params) else ())]
        return {"tools": [{"name": name} for name in names]}

    server.answers["tools/list"] = tools
    return server


def names(bench: Bench, client: Client) -> list[str]:
    return [tool.name for tool in bench.upstream.offer_to(client).tools]


async def test_a_client_may_be_shown_more_once_that_is_learned(bench: Bench) -> None:
    await bench.runs(shows(Server("a"), "ask"))
    client = askable(era=Era.MODERN)
    assert (bench.upstream.knows(PROXY), bench.upstream.knows(client)) == (True, False)
    assert names(bench, client) == ["a"]
    changes = bench.changes
    await bench.upstream.learn(client)
    assert bench.upstream.knows(client)
    assert (names(bench, client), names(bench, PROXY)) == (["a", "ask"], ["a"])
    assert bench.changes == changes + 1
    assert bench.upstream.offer_to(client).tools[0] is bench.upstream.offer.tools[0]


async def test_what_one_client_was_shown_is_known_for_all_that_offer_the_same(bench: Bench) -> None:
    wire = shows(Server("a"), "ask")
    await bench.runs(wire)
    await bench.upstream.learn(askable("1", Era.MODERN))
    asked = len(wire.sent)
    await bench.upstream.learn(askable("2", Era.MODERN))
    assert (names(bench, askable("2", Era.MODERN)), len(wire.sent)) == (["a", "ask"], asked)


async def test_a_client_that_is_shown_the_same_is_given_the_very_same(bench: Bench) -> None:
    await bench.runs(Server("a"))
    await bench.upstream.learn(askable(era=Era.MODERN))
    assert bench.upstream.offer_to(askable(era=Era.MODERN)) is bench.upstream.offer


async def test_learning_goes_over_the_clients_own_link_where_it_has_one(bench: Bench) -> None:
    await bench.runs(legacy("a"))
    bench.dialer.own.append(legacy("a", "b"))
    await bench.upstream.learn(askable())
    assert names(bench, askable()) == ["a", "b"]


async def test_those_who_learn_the_same_at_once_ask_once_and_one_may_leave(bench: Bench) -> None:
    wire = Server("a")
    await bench.runs(wire)
    go = asyncio.Event()

    async def slow(_: Outgoing) -> object:
        await go.wait()
        return {"tools": [{"name": "late"}]}

    wire.answers["tools/list"] = slow
    before = len(wire.sent)
    first, second = (begun(bench.upstream.learn(askable(key, Era.MODERN))) for key in "12")
    await turns()
    first.cancel()
    await turns()
    go.set()
    async with asyncio.timeout(5):
        await second
    assert (len(wire.sent) - before, names(bench, askable(era=Era.MODERN))) == (1, ["late"])


@pytest.mark.parametrize("error", [RpcError(-32603, "no"), GONE], ids=str)
async def test_when_learning_fails_what_is_known_stays_until_the_server_announces_a_change(
    bench: Bench, error: Exception
) -> None:
    wire = Server("a")
    await bench.runs(wire)
    answer, wire.answers["tools/list"] = wire.answers["tools/list"], error
    client = askable(era=Era.MODERN)
    await bench.upstream.learn(client)
    assert names(bench, client) == ["a"]
    wire.answers["tools/list"] = answer
    before = len(wire.sent)
    await bench.upstream.learn(client)
    assert len(wire.sent) == before  # nobody waits for it again and again
    bench.says("notifications/tools/list_changed")
    await bench.until(lambda: bool(bench.announcements))
    await bench.upstream.learn(client)
    assert bench.upstream.knows(client)


async def test_nothing_is_learned_of_a_server_that_is_away(bench: Bench) -> None:
    await bench.runs(REFUSED)
    assert bench.upstream.never_listed
    assert bench.upstream.knows(askable())
    await bench.upstream.learn(askable())
    assert bench.dialer.dialled_for == []


async def test_after_a_change_everything_is_learned_anew_and_what_was_known_is_used_meanwhile(bench: Bench) -> None:
    wire = shows(Server("a"), "ask")
    await bench.runs(wire)
    client = askable(era=Era.MODERN)
    await bench.upstream.learn(client)
    wire.tools.append("b")
    bench.says("notifications/tools/list_changed")
    await bench.until(lambda: bench.announcements == [{"tools"}])
    assert (bench.upstream.knows(client), names(bench, client)) == (False, ["a", "ask"])
    await bench.upstream.learn(client)
    assert (bench.upstream.knows(client), names(bench, client)) == (True, ["a", "b", "ask"])


async def test_a_client_that_is_shown_what_all_are_shown_is_up_to_date_with_them(bench: Bench) -> None:
    wire = Server("a")
    await bench.runs(wire)
    client = askable(era=Era.MODERN)
    await bench.upstream.learn(client)
    wire.tools.append("b")
    bench.says("notifications/tools/list_changed")
    await bench.until(lambda: bench.announcements == [{"tools"}])
    assert names(bench, client) == ["a", "b"]


async def test_what_is_learned_while_it_changes_is_learned_again(bench: Bench) -> None:
    wire = Server("a")
    await bench.runs(wire)
    answer, go = wire.answers["tools/list"], asyncio.Event()

    async def slow(_: Outgoing) -> object:
        await go.wait()
        return {"tools": [{"name": "old"}]}

    wire.answers["tools/list"] = slow
    client = askable(era=Era.MODERN)
    learning = begun(bench.upstream.learn(client))
    await turns()
    wire.answers["tools/list"] = answer
    bench.says("notifications/tools/list_changed")
    await bench.until(lambda: bench.announcements == [{"tools"}])
    go.set()
    async with asyncio.timeout(5):
        await learning
    assert not bench.upstream.knows(client)


async def test_the_profiles_that_are_kept_are_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing_module, "_MOST_PROFILES", 3)
    await bench.runs(Server("a"))
    ways: tuple[dict[str, Any], ...] = (
        {"sampling": {}}, {"sampling": {"tools": {}}}, {"sampling": {"context": {}}}, {"elicitation": {}}, {"roots": {}},
    )  # fmt: skip
    clients = [Client(capabilities=way) for way in ways]
    for client in clients:
        await bench.upstream.learn(client)
    assert [bench.upstream.knows(client) for client in clients] == [False, False, True, True, True]
    bench.says("notifications/tools/list_changed")
    await bench.until(lambda: bool(bench.announcements))
    for client in clients[2:]:
        await bench.upstream.learn(client)
    assert [bench.upstream.knows(client) for client in clients] == [False, False, True, True, True]


async def test_a_request_tells_how_far_it_got_over_a_link_of_its_own(bench: Bench) -> None:
    own = legacy("t")
    own.on_call = RpcError(-1, "no")
    await bench.runs(legacy("t"))
    bench.dialer.own.append(own)
    with pytest.raises(RpcError):
        await bench.call(client=askable())
    assert isinstance(bench.last, Attempt)
    assert bench.last.phase is Phase.SENT
