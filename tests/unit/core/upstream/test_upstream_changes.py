"""What a server announces, what of it can be followed, and what of its offer is withheld."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mcp_proxy.config.model import ServerSpec, Transport
from mcp_proxy.core.upstream import followed as followed_module
from mcp_proxy.core.upstream.failures import Failure, Phase, RpcError, WireError
from mcp_proxy.core.upstream.terms import Era
from mcp_proxy.core.upstream.upstream import State
from tests.unit.core.upstream.actor import Bench, Server
from tests.unit.core.upstream.wires import acknowledge, begun, turns

pytestmark = pytest.mark.anyio

URI = "file:///a"
REFUSED = WireError(Failure.UNREACHABLE, Phase.NOT_SENT, "connection refused")
LOST = WireError(Failure.LOST, Phase.SENT, "lost")


def full(era: Era = Era.LEGACY) -> Server:
    """A server with something of everything, whose resources can be followed."""
    server = Server("t", era=era, prompts={}, resources={"subscribe": True})
    server.answers |= {
        "prompts/list": {"prompts": [{"name": "p"}]},
        "resources/list": {"resources": [{"uri": URI}]},
        "resources/templates/list": {"resourceTemplates": [{"uriTemplate": "file:///{x}"}]},
        "resources/subscribe": {},
        "resources/unsubscribe": {},
        "subscriptions/listen": acknowledge,
    }
    return server


def followed(server: Server) -> list[Any]:
    return [out.params["uri"] for out in server.sent if out.method == "resources/subscribe"]


def streams(server: Server) -> int:
    return server.methods.count("subscriptions/listen")


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.tasks.close()


async def reconnected(bench: Bench, old: Server) -> None:
    old.ended.set_result("gone")
    await bench.until(lambda: bench.dialer.attempts == 2 and bench.upstream.state is State.CONNECTED)
    await turns()


# What it offers


async def test_a_connection_brings_all_that_is_offered(bench: Bench) -> None:
    await bench.runs(full())
    offer = bench.upstream.offer
    assert [item.name for kind in (offer.tools, offer.prompts) for item in kind] == ["t", "p"]
    assert [item.name for kind in (offer.resources, offer.templates) for item in kind] == [URI, "file:///{x}"]
    assert bench.upstream.terms is not None
    assert not bench.upstream.never_listed


async def test_a_server_that_was_connected_once_is_known_even_when_it_is_away(bench: Bench) -> None:
    wire = full()
    await bench.runs(wire)
    wire.ended.set_result("gone")
    await bench.until(lambda: bench.upstream.state is not State.CONNECTED)
    assert bench.upstream.terms is None
    assert not bench.upstream.never_listed


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("notifications/tools/list_changed", "tools"),
        ("notifications/prompts/list_changed", "prompts"),
        ("notifications/resources/list_changed", "resources"),
    ],
)
async def test_an_announcement_is_passed_on_after_the_new_list_is_known(bench: Bench, method: str, kind: str) -> None:
    wire = full()
    await bench.runs(wire)
    wire.answers["prompts/list"] = {"prompts": [{"name": "p"}, {"name": "fresh"}]}
    bench.says(method)
    assert bench.announcements == []
    await bench.until(lambda: bool(bench.announcements))
    assert bench.announcements == [{kind}]
    assert [one.name for one in bench.upstream.offer.prompts] == ["p", "fresh"]


async def test_announcements_that_come_together_are_one(bench: Bench) -> None:
    await bench.runs(full())
    for kind in ("tools", "prompts", "tools"):
        bench.says(f"notifications/{kind}/list_changed")
    await bench.until(lambda: bool(bench.announcements))
    await turns()
    assert bench.announcements == [{"tools", "prompts"}]


async def test_an_announcement_whose_listing_fails_is_passed_on_when_it_succeeds(bench: Bench) -> None:
    wire = full()
    await bench.runs(wire)
    answer, wire.answers["tools/list"] = wire.answers["tools/list"], RpcError(-32603, "busy")
    asked = wire.methods.count("tools/list")
    bench.says("notifications/tools/list_changed")
    await bench.until(lambda: wire.methods.count("tools/list") > asked)
    await turns()
    assert bench.announcements == []
    wire.answers["tools/list"] = answer
    bench.says("notifications/prompts/list_changed")
    await bench.until(lambda: bool(bench.announcements))
    assert bench.announcements == [{"tools", "prompts"}]


async def test_updates_of_resources_are_passed_on_and_other_notifications_are_not(bench: Bench) -> None:
    await bench.runs(full())
    bench.says("notifications/resources/updated")
    bench.says("notifications/message")
    bench.says("notifications/progress")
    assert [message.method for message in bench.updates] == ["notifications/resources/updated"]
    assert bench.tellings == []


# What is withheld


async def test_what_cannot_be_passed_on_is_withheld_with_its_reason_and_said_once(bench: Bench) -> None:
    deep: dict[str, Any] = {}
    for _ in range(300):
        deep = {"items": deep}
    wire = full()
    wire.answers["prompts/list"] = {"prompts": [{"name": "p"}, {"name": "deep", "_meta": deep}]}
    bad = {"type": "object", "properties": {"a": {"type": "number", "x-mcp-header": "A"}}}
    wire.definitions = [{"name": "t"}, {"name": "mirrors", "inputSchema": bad}]
    await bench.runs(wire)
    # Only modern servers get arguments as headers.
    assert [(one.kind, one.name) for one in bench.upstream.withheld] == [("prompts", "deep")]
    assert "nested deeper than 64" in bench.upstream.withheld[0].reason
    assert [tool.name for tool in bench.upstream.offer.tools] == ["t", "mirrors"]
    bench.says("notifications/tools/list_changed")
    await bench.until(lambda: bool(bench.announcements))
    assert bench.log.events().count("withheld") == 1
    wire.answers["prompts/list"] = {"prompts": [{"name": "p"}]}
    bench.says("notifications/prompts/list_changed")
    await bench.until(lambda: len(bench.announcements) == 2)
    assert bench.upstream.withheld == ()


@pytest.mark.parametrize("transport", [Transport.STDIO, Transport.STREAMABLE_HTTP])
async def test_headers_that_are_not_valid_matter_where_there_are_headers(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(spec=ServerSpec("up", transport, "test", url="http://up.test", command="x"))
    wire = Server("t")
    bad = {"type": "object", "properties": {"a": {"type": "number", "x-mcp-header": "A"}}}
    wire.definitions = [{"name": "bad", "inputSchema": bad}]
    bench.dialer.transport = transport
    await bench.runs(wire)
    assert [one.name for one in bench.upstream.withheld] == (["bad"] if transport is not Transport.STDIO else [])
    await bench.tasks.close()


# Following: legacy


async def test_a_legacy_server_is_asked_once_to_tell_of_a_resource(bench: Bench) -> None:
    wire = full()
    await bench.runs(wire)
    await bench.upstream.follow(URI)
    await bench.upstream.follow(URI)
    assert followed(wire) == [URI]
    await bench.upstream.unfollow(URI)
    assert wire.methods[-1] == "resources/unsubscribe"
    await bench.upstream.follow(URI)
    assert followed(wire) == [URI, URI]


async def test_a_resource_is_followed_again_after_a_reconnect_until_it_is_let_go(bench: Bench) -> None:
    old, new = full(), full()
    await bench.runs(old, new)
    for uri in ("file:///a", "file:///b"):
        await bench.upstream.follow(uri)
    await bench.upstream.unfollow("file:///b")
    await reconnected(bench, old)
    assert followed(new) == ["file:///a"]


async def test_a_resource_that_cannot_be_followed_again_is_said_and_the_others_are(bench: Bench) -> None:
    old, new = full(), full()
    await bench.runs(old, new)
    for uri in ("file:///a", "file:///b"):
        await bench.upstream.follow(uri)
    outcomes: list[object] = [RpcError(-32002, "gone"), {}]
    new.answers["resources/subscribe"] = lambda _: outcomes.pop(0)
    await reconnected(bench, old)
    assert followed(new) == ["file:///a", "file:///b"]
    assert "follow_lost" in bench.log.events()


@pytest.mark.parametrize("error", [RpcError(-32002, "unknown"), LOST], ids=str)
async def test_a_refusal_is_passed_on_and_may_be_tried_again(bench: Bench, error: Exception) -> None:
    wire = full()
    await bench.runs(wire)
    wire.answers["resources/subscribe"] = error
    with pytest.raises(type(error)):
        await bench.upstream.follow(URI)
    wire.answers["resources/subscribe"] = {}
    await bench.upstream.follow(URI)
    assert followed(wire) == [URI, URI]


async def test_a_subscription_that_is_not_answered_ends_and_does_not_count_as_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followed_module, "_TIMEOUT", 0.01)
    wire = full()
    await bench.runs(wire)
    wire.answers["resources/subscribe"] = None
    with pytest.raises(TimeoutError):
        await bench.upstream.follow(URI)
    wire.answers["resources/subscribe"] = {}
    await bench.upstream.follow(URI)
    assert followed(wire) == [URI, URI]


async def test_a_subscription_that_is_given_up_does_not_count_as_one(bench: Bench) -> None:
    wire = full()
    await bench.runs(wire)
    wire.answers["resources/subscribe"] = None
    following = begun(bench.upstream.follow(URI))
    await turns()
    following.cancel()
    await asyncio.wait([following], timeout=5)
    wire.answers["resources/subscribe"] = {}
    await bench.upstream.follow(URI)
    assert followed(wire) == [URI, URI]


async def test_letting_go_of_what_is_not_followed_or_not_connected_is_no_error(bench: Bench) -> None:
    wire = full()
    wire.answers["resources/unsubscribe"] = LOST
    await bench.upstream.unfollow(URI)
    await bench.runs(wire)
    await bench.upstream.follow(URI)
    await bench.upstream.unfollow(URI)
    await bench.upstream.unfollow("file:///never")


async def test_nothing_can_be_followed_at_a_server_that_is_away(bench: Bench) -> None:
    with pytest.raises(WireError) as raised:
        await bench.upstream.follow(URI)
    assert raised.value.phase is Phase.NOT_SENT


# Following: modern


async def test_a_modern_server_is_listened_to_for_each_resource_until_it_is_let_go(bench: Bench) -> None:
    wire = full(Era.MODERN)
    await bench.runs(wire)
    await bench.upstream.follow(URI)
    await bench.upstream.follow(URI)
    await turns()
    assert [out.params["notifications"] for out in wire.sent if out.method == "subscriptions/listen"] == [
        {"resourceSubscriptions": [URI]}
    ]
    await bench.upstream.unfollow(URI)
    await turns()
    assert wire.cancelled == ["subscriptions/listen"]


async def test_a_modern_stream_ends_with_its_link_and_is_opened_once_on_the_next(bench: Bench) -> None:
    """One that went on beside the new one would keep the old link open, and tell of everything twice."""
    old, new = full(Era.MODERN), full(Era.MODERN)
    await bench.runs(old, new)
    await bench.upstream.follow(URI)
    await turns()
    await reconnected(bench, old)
    assert (old.cancelled, streams(new)) == (["subscriptions/listen"], 1)
    await bench.upstream.unfollow(URI)
    await turns()
    assert new.cancelled == ["subscriptions/listen"]


async def test_a_resource_that_is_followed_at_the_moment_of_a_reconnect_is_followed_once(bench: Bench) -> None:
    wire = full(Era.MODERN)
    bench.dialer.outcomes.append(wire)
    bench.tasks.spawn(bench.upstream.run(), "actor")
    async with asyncio.timeout(5):
        assert await bench.upstream.wait_ready(5)
        await bench.upstream.follow(URI)
    await turns()
    assert streams(wire) == 1


async def test_a_resource_that_is_let_go_while_the_server_is_away_is_not_followed_again(bench: Bench) -> None:
    old, new = full(Era.MODERN), full(Era.MODERN)
    await bench.runs(old, REFUSED, new)
    await bench.upstream.follow(URI)
    await turns()
    old.ended.set_result("gone")
    await bench.until(lambda: bench.dialer.attempts == 2)
    await bench.upstream.unfollow(URI)
    await bench.until(lambda: bench.upstream.state is State.CONNECTED)
    await turns()
    assert (bench.dialer.attempts, streams(new)) == (3, 0)
    assert old.cancelled == ["subscriptions/listen"]


async def test_a_modern_server_that_refuses_a_resource_is_not_asked_for_it_again(bench: Bench) -> None:
    wire = full(Era.MODERN)
    wire.answers["subscriptions/listen"] = RpcError(-32602, "no")
    await bench.runs(wire)
    with pytest.raises(RpcError):
        await bench.upstream.follow(URI)
    await turns()
    assert streams(wire) == 1
    wire.answers["subscriptions/listen"] = acknowledge
    await bench.upstream.follow(URI)
    assert streams(wire) == 2


async def test_stopping_ends_the_streams_of_followed_resources(bench: Bench) -> None:
    wire = full(Era.MODERN)
    await bench.runs(wire)
    await bench.upstream.follow(URI)
    await turns()
    await bench.tasks.close()
    assert (wire.cancelled, wire.closed) == (["subscriptions/listen"], True)
