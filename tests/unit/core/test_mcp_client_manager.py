from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from mcp_proxy.base.errors import AMBIGUOUS_TOOL, SERVER_NOT_FOUND, TOOL_NOT_FOUND, UPSTREAM_UNAVAILABLE, ProxyError
from mcp_proxy.config.model import RefusedServer, Servers, ServerSpec
from mcp_proxy.core import mcp_client_manager
from mcp_proxy.core.auth.principal import Principal
from mcp_proxy.core.catalog.offer import Offer, adopt_offer
from mcp_proxy.core.mcp_client_manager import McpClientManager
from mcp_proxy.core.upstream.client import PROXY, Client
from mcp_proxy.core.upstream.messages import Incoming
from mcp_proxy.core.upstream.terms import Era
from mcp_proxy.core.upstream.upstream import State, Upstream, Withheld
from mcp_proxy.settings import Settings
from tests.unit.core.fakes import FakeClock, RecordingLog, server, tool
from tests.unit.core.upstream.wires import FakeWire, terms

pytestmark = pytest.mark.anyio

ANYBODY = Principal("anybody")


def manager(*specs: ServerSpec, refused: Sequence[RefusedServer] = (), **settings: Any) -> McpClientManager:
    """A manager that has not been started: its upstreams are put into the state a test wants."""
    return McpClientManager(
        Servers(specs, tuple(refused)), Settings(**settings), clock=FakeClock(), random=lambda: 0.5, log=RecordingLog()
    )


def settle(one: McpClientManager, name: str, *tools: str, error: str | None = None) -> None:
    """As if the first attempt of this server had ended."""
    upstream = one.upstream(name)
    upstream.offer = Offer(tuple(tool(item) for item in tools))
    upstream.last_error = error
    upstream._settled.set()
    one.changed(upstream)


async def refusal(one: McpClientManager, method: str, at: str | None = None, who: Principal = ANYBODY) -> ProxyError:
    with pytest.raises(ProxyError) as raised:
        await one.resolve_tool(who, method, at)
    return raised.value


@pytest.fixture(autouse=True)
async def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    monkeypatch.setattr(mcp_client_manager, "FIRST_WAIT", 0.02)
    return


# The catalogue


async def test_the_catalogue_is_replaced_only_when_what_is_offered_changes() -> None:
    one = manager(server("a"), server("b"))
    settle(one, "a", "x")
    first = one.catalog
    one.changed(one.upstream("a"))
    assert one.catalog is first
    settle(one, "b", "y")
    assert one.catalog.revision == first.revision + 1
    assert [shown.name for shown in one.catalog.tools.shown] == ["a.x", "b.y"]


async def test_names_are_bare_with_exactly_one_server_at_the_start() -> None:
    one = manager(server("a"), server("off", disabled=True))
    settle(one, "a", "x")
    assert [shown.name for shown in one.catalog.tools.shown] == ["x"]


async def test_a_group_counts_as_one() -> None:
    one = manager(server("m1", group="g"), server("m2", group="g"))
    settle(one, "m1", "x")
    settle(one, "m2", "x")
    assert [shown.name for shown in one.catalog.tools.shown] == ["x"]


async def test_a_disabled_server_offers_nothing() -> None:
    one = manager(server("a"), server("off", disabled=True))
    settle(one, "off", "x")
    assert one.catalog.tools.entries == ()


# Resolving


async def test_what_is_known_needs_no_waiting() -> None:
    one = manager(server("a"), server("slow"))
    settle(one, "a", "x")
    assert (await one.resolve_tool(ANYBODY, "x", None)).tool == "x"


async def test_a_name_that_several_servers_have_is_ambiguous() -> None:
    one = manager(server("a"), server("b"))
    settle(one, "a", "x")
    settle(one, "b", "x")
    assert (await refusal(one, "x")).kind is AMBIGUOUS_TOOL


async def test_a_tool_of_no_server_is_unknown_once_all_have_been_reached() -> None:
    one = manager(server("a"))
    settle(one, "a", "x")
    assert (await refusal(one, "y")).kind is TOOL_NOT_FOUND
    assert (await refusal(one, "x", "nobody")).kind is SERVER_NOT_FOUND


@pytest.mark.parametrize(("method", "at"), [("down.x", None), ("down__x", None), ("x", "down")])
async def test_a_named_server_that_was_never_reached_is_down_and_not_unknown(method: str, at: str | None) -> None:
    one = manager(server("a"), server("down"))
    settle(one, "a", "y")
    settle(one, "down", error="connection refused")
    error = await refusal(one, method, at)
    assert (error.kind, error.status) == (UPSTREAM_UNAVAILABLE, 503)
    assert error.message == "down is not connected: connection refused"
    assert error.retry_after is not None
    assert error.retry_after >= 1


async def test_a_bare_name_is_open_only_while_a_server_is_connecting_for_the_first_time() -> None:
    one = manager(server("a"), server("slow"))
    settle(one, "a", "y")
    assert (await refusal(one, "x")).kind is UPSTREAM_UNAVAILABLE
    settle(one, "slow", error="connection refused")
    assert (await refusal(one, "x")).kind is TOOL_NOT_FOUND


async def test_a_server_that_is_down_keeps_its_tools_in_the_catalogue() -> None:
    one = manager(server("a"))
    settle(one, "a", "x", error="gone")
    assert (await one.resolve_tool(ANYBODY, "x", None)).entries[0].server == "a"
    assert one.upstream("a").state is State.DOWN


async def test_a_disabled_server_says_so() -> None:
    one = manager(server("off", disabled=True))
    assert (await refusal(one, "x", "off")).message.startswith("off is disabled; POST ")


async def test_a_server_refused_by_its_configuration_says_why() -> None:
    one = manager(refused=[RefusedServer("bad", "the variable KEY is not set", "mcp.json")])
    error = await refusal(one, "x", "bad")
    assert error.kind is UPSTREAM_UNAVAILABLE
    assert "the variable KEY is not set" in error.message


async def test_a_token_learns_nothing_of_servers_it_does_not_reach() -> None:
    one = manager(server("down"), refused=[RefusedServer("bad", "reason", "mcp.json")])
    settle(one, "down", error="connection refused")
    stranger = Principal("stranger", servers=("other",))
    for name in ("down", "bad"):
        assert (await refusal(one, "x", name, stranger)).kind is SERVER_NOT_FOUND
    assert (await refusal(one, "down.x", None, stranger)).kind is TOOL_NOT_FOUND
    assert one.describe(stranger) == []


# Health


@pytest.mark.parametrize(
    ("states", "status"),
    [
        ([], "ok"),
        (["connected"], "ok"),
        (["connected", "down"], "degraded"),
        (["connected", "degraded"], "degraded"),
        (["connected", "connecting"], "degraded"),
        (["degraded"], "degraded"),
        (["down"], "down"),
        (["connecting"], "down"),
        (["failed", "down"], "down"),
        (["disabled"], "ok"),
        (["disabled", "down"], "down"),
        (["disabled", "connected"], "ok"),
    ],
)
async def test_health_in_a_word(monkeypatch: pytest.MonkeyPatch, states: list[str], status: str) -> None:
    names = [f"s{n}" for n in range(len(states))]
    one = manager(*map(server, names))
    by_name = dict(zip(names, map(State, states), strict=True))
    monkeypatch.setattr(Upstream, "state", property(lambda upstream: by_name[upstream.spec.name]))
    health = one.health(draining=False)
    assert health.status == status
    assert health.servers == dict(zip(names, states, strict=True))
    assert one.health(draining=True).status == "draining"


async def test_a_refused_server_is_failed_and_a_refused_disabled_one_is_disabled() -> None:
    one = manager(refused=[RefusedServer("bad", "r", "f"), RefusedServer("off", "r", "f", disabled=True)])
    health = one.health(draining=False)
    assert (health.status, health.servers) == ("down", {"bad": "failed", "off": "disabled"})


# Rows


async def test_a_server_is_described_by_what_it_is_and_never_by_its_secrets() -> None:
    one = manager(server("a", headers={"Authorization": "Bearer secret"}, description="d"))
    settle(one, "a", "x", "y")
    [row] = one.describe(ANYBODY)
    assert row["name"] == "a"
    assert row["url"] == "http://a.test/mcp"
    assert (row["state"], row["tools"], row["group"], row["disabled"]) == ("down", 2, None, False)
    assert set(row) == {
        "name", "url", "transport", "era", "protocol_version", "state", "group", "disabled", "tools", "last_error",
        "latency_ms", "source", "withheld",
    }  # fmt: skip
    assert "secret" not in repr(row)


async def test_a_refused_server_is_described_with_its_reason() -> None:
    [row] = manager(refused=[RefusedServer("bad", "why", "mcp.json")]).describe(ANYBODY)
    assert (row["name"], row["state"], row["last_error"], row["source"]) == ("bad", "failed", "why", "mcp.json")


# Life


async def test_closing_what_was_never_started_is_no_error() -> None:
    await manager(server("a")).close()


async def test_a_server_that_cannot_be_reached_settles_and_delays_nobody() -> None:
    one = manager(
        ServerSpec("a", server("a").transport, "test", url="http://127.0.0.1:1/mcp"), server("off", disabled=True)
    )
    one.start()
    try:
        async with asyncio.timeout(5):
            await one.upstream("a").wait_settled()
        assert one.health(draining=False).status == "down"
        assert one.upstream("a").last_error == "connection refused"
    finally:
        await one.close()


# What clients are shown


ASKABLE = Client(capabilities={"elicitation": {}})


def shown(one: McpClientManager, client: Client) -> list[str]:
    return [item.name for item in one.catalog_for(client).tools.shown]


def connect(one: McpClientManager, name: str, *also: str, **capabilities: object) -> FakeWire:
    """As if the server were connected, and listed these tools as well to everybody who asks now."""
    upstream = one.upstream(name)
    tools = [*(item.definition for item in upstream.offer.tools), *({"name": item} for item in also)]
    wire = FakeWire({"tools/list": {"tools": tools}}, terms(Era.MODERN, **capabilities))
    upstream._link = wire.link()
    return wire


async def teach(one: McpClientManager, name: str, client: Client, *also: str) -> None:
    """Learn that this server shows such clients these tools as well."""
    connect(one, name, *also)
    await one.upstream(name).learn(client)


async def test_all_clients_are_shown_one_catalogue_as_long_as_nothing_else_is_known() -> None:
    one = manager(server("a"))
    settle(one, "a", "x")
    assert one.catalog_for(PROXY) is one.catalog_for(ASKABLE) is one.catalog
    await teach(one, "a", ASKABLE)
    assert one.catalog_for(ASKABLE) is one.catalog


async def test_a_client_that_is_shown_more_has_a_catalogue_that_others_do_not_see() -> None:
    one = manager(server("a"), server("b"))
    settle(one, "a", "x")
    settle(one, "b", "y")
    await teach(one, "a", ASKABLE, "ask")
    assert shown(one, ASKABLE) == ["a.x", "a.ask", "b.y"]
    assert shown(one, PROXY) == ["a.x", "b.y"]
    assert shown(one, Client(capabilities={"roots": {}})) == ["a.x", "b.y"]
    variant = one.catalog_for(ASKABLE)
    assert one.catalog_for(Client(capabilities={"elicitation": {}}, key="another")) is variant
    settle(one, "b", "y", "z")
    assert shown(one, ASKABLE) == ["a.x", "a.ask", "b.y", "b.z"]


ASKABLE_WAYS: tuple[dict[str, Any], ...] = (
    {"sampling": {}}, {"sampling": {"tools": {}}}, {"sampling": {"context": {}}}, {"elicitation": {}}, {"roots": {}},
)  # fmt: skip


async def test_the_catalogues_that_are_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_client_manager, "_MOST_CATALOGS", 2)
    one = manager(server("a"))
    clients = [Client(capabilities=capabilities) for capabilities in ASKABLE_WAYS]
    for number, client in enumerate(clients):
        await teach(one, "a", client, f"t{number}")
    for number, client in enumerate(clients):
        assert shown(one, client) == [f"t{number}"]
        assert len(one._variants) <= 2


async def test_a_tool_that_only_some_clients_are_shown_is_called_by_them_alone() -> None:
    one = manager(server("a"))
    settle(one, "a", "x")
    await teach(one, "a", ASKABLE, "ask")
    assert (await one.resolve_tool(ANYBODY, "ask", None, client=ASKABLE)).name == "ask"
    assert (await refusal(one, "ask")).kind is TOOL_NOT_FOUND


async def test_a_name_that_is_not_known_yet_is_looked_for_among_what_such_clients_are_shown() -> None:
    one = manager(server("a"))
    settle(one, "a", "x")
    wire = connect(one, "a", "ask")
    assert (await refusal(one, "ask")).kind is TOOL_NOT_FOUND
    assert wire.sent == []
    assert (await one.resolve_tool(ANYBODY, "ask", None, client=ASKABLE)).name == "ask"
    assert wire.methods == ["tools/list"]


async def test_learning_asks_the_servers_that_may_know_more_and_waits_for_none_too_long() -> None:
    one = manager(server("slow"), server("known"), server("down"), server("quick"))
    for name in ("slow", "known", "quick"):
        settle(one, name, "x")
    await teach(one, "known", ASKABLE, "ask")
    wires = {name: connect(one, name) for name in ("slow", "known", "quick")}
    wires["slow"].answers["tools/list"] = None
    async with asyncio.timeout(5):
        await one.learn(ASKABLE)
        await one.learn(PROXY)
    assert {name: len(wire.sent) for name, wire in wires.items()} == {"slow": 1, "known": 0, "quick": 1}
    await one.upstream("slow")._work.close()


async def test_what_is_known_of_clients_is_passed_to_every_server(monkeypatch: pytest.MonkeyPatch) -> None:
    one = manager(server("a"), server("b"))
    heard: list[tuple[str, ...]] = []
    monkeypatch.setattr(Upstream, "forget_client", lambda up, key: heard.append((up.spec.name, key)))
    monkeypatch.setattr(Upstream, "tell", lambda up, key, method: heard.append((up.spec.name, key, method)))
    one.tell("k", "notifications/roots/list_changed")
    one.forget_client("k")
    told = "notifications/roots/list_changed"
    assert heard == [("a", "k", told), ("b", "k", told), ("a", "k"), ("b", "k")]


# Prompts and resources


def offers(one: McpClientManager, name: str, **lists: list[dict[str, Any]]) -> None:
    upstream = one.upstream(name)
    upstream.offer = adopt_offer(lists, Offer())
    upstream._settled.set()
    one.changed(upstream)


async def test_prompts_are_found_by_the_rules_of_tools() -> None:
    one = manager(server("a"), server("b"), server("down"))
    offers(one, "a", prompts=[{"name": "greet"}, {"name": "both"}])
    offers(one, "b", prompts=[{"name": "both"}])
    settle(one, "down", error="connection refused")
    assert (await one.resolve_prompt(ANYBODY, "greet", None)).entries[0].server == "a"
    assert (await one.resolve_prompt(ANYBODY, "b.both", None, shown=True)).entries[0].server == "b"
    for name, kind in (("both", AMBIGUOUS_TOOL), ("none", TOOL_NOT_FOUND), ("down.greet", UPSTREAM_UNAVAILABLE)):
        with pytest.raises(ProxyError) as raised:
            await one.resolve_prompt(ANYBODY, name, None)
        assert raised.value.kind is kind


async def test_a_resource_is_looked_for_where_it_is_listed() -> None:
    one = manager(server("a"), server("b"))
    offers(one, "a", resources=[{"uri": "file:///a"}])
    offers(one, "b", resourceTemplates=[{"uriTemplate": "file:///{x}"}])
    assert [spec.name for spec in await one.resolve_resource(ANYBODY, "file:///a", None)] == ["a"]
    assert [spec.name for spec in await one.resolve_resource(ANYBODY, "file:///other", None)] == ["b"]


async def test_a_resource_that_nobody_lists_may_be_any_visible_servers_that_has_resources() -> None:
    one = manager(server("a"), server("tools"), server("down"), server("b"))
    for name in ("a", "tools", "b"):
        settle(one, name)
    settle(one, "down", error="connection refused")
    connect(one, "a", resources={})
    connect(one, "tools", tools={})
    connect(one, "b", resources={})

    async def asked(who: Principal = ANYBODY, at: str | None = None) -> list[str]:
        return [spec.name for spec in await one.resolve_resource(who, "file:///linked", at)]

    assert await asked() == ["a", "b"]
    assert await asked(at="b") == ["b"]
    assert await asked(at="tools") == []
    assert await asked(Principal("narrow", servers=("b",))) == ["b"]
    with pytest.raises(ProxyError) as raised:
        await asked(at="nobody")
    assert raised.value.kind is SERVER_NOT_FOUND


async def test_a_resource_that_only_some_clients_are_shown_is_learned_of() -> None:
    one = manager(server("a"), server("b"))
    for name in ("a", "b"):
        settle(one, name)
        connect(one, name, resources={}).answers["resources/templates/list"] = {"resourceTemplates": []}
    listing = connect(one, "b", resources={})
    listing.answers |= {
        "resources/list": {"resources": [{"uri": "file:///a"}]},
        "resources/templates/list": {"resourceTemplates": []},
    }
    assert [spec.name for spec in await one.resolve_resource(ANYBODY, "file:///a", None)] == ["a", "b"]
    [spec] = await one.resolve_resource(ANYBODY, "file:///a", None, client=ASKABLE)
    assert spec.name == "b"


# Who is told


class Hearer:
    """A `Listener` that notes what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def catalog_changed(self) -> None:
        self.heard.append(("changed",))

    def announced(self, spec: ServerSpec, kinds: frozenset[str]) -> None:
        self.heard.append((spec.name, set(kinds)))

    def resource_updated(self, spec: ServerSpec, message: Incoming) -> None:
        self.heard.append((spec.name, message.method))

    def client_told(self, key: str, spec: ServerSpec, message: Incoming) -> None:
        self.heard.append((key, spec.name, message.method))


async def test_listeners_hear_what_happens_at_the_servers() -> None:
    one = manager(server("a"))
    listeners = [Hearer(), Hearer()]
    one.listeners += listeners
    upstream = one.upstream("a")
    settle(one, "a", "x")
    one.announced(upstream, frozenset({"tools", "prompts"}))
    one.updated(upstream, Incoming("notifications/resources/updated", None))
    one.told(upstream, "k", Incoming("notifications/message", None))
    for listener in listeners:
        assert listener.heard == [
            ("changed",),
            ("a", {"tools", "prompts"}),
            ("a", "notifications/resources/updated"),
            ("k", "a", "notifications/message"),
        ]


async def test_listeners_hear_of_what_only_some_clients_are_shown() -> None:
    one = manager(server("a"))
    settle(one, "a", "x")
    one.listeners.append(listener := Hearer())
    await teach(one, "a", ASKABLE, "ask")
    assert listener.heard == [("changed",)]


# What is not shown


async def test_what_is_withheld_and_what_is_hidden_stands_in_the_servers_row_with_the_reason() -> None:
    one = manager(server("a"), server("b"), naming="never")
    settle(one, "a", "x")
    settle(one, "b", "x", "y")
    one.upstream("b").withheld = (Withheld("prompts", "deep", "its definition is nested deeper than 64"),)
    rows = {row["name"]: row["withheld"] for row in one.describe(ANYBODY)}
    assert rows == {
        "a": [],
        "b": [
            {"kind": "prompts", "name": "deep", "reason": "its definition is nested deeper than 64"},
            {"kind": "tool", "name": "x", "reason": "a has one of that name, and comes first"},
        ],
    }


async def test_resources_that_two_servers_list_are_said_to_be_hidden_once() -> None:
    one = manager(server("a"), server("b"))
    log = RecordingLog()
    one._log = log
    for name in ("a", "b"):
        offers(one, name, resources=[{"uri": "file:///a"}])
    assert [row["withheld"] for row in one.describe(ANYBODY)] == [
        [],
        [{"kind": "resource", "name": "file:///a", "reason": "a has one of that name, and comes first"}],
    ]
    offers(one, "a", resources=[{"uri": "file:///a"}], tools=[{"name": "x"}])
    assert one.catalog.tools.entries
    conflicts = [fields for _, event, fields in log.lines if event == "name_conflict"]
    assert conflicts == [{"kind": "resource", "name": "file:///a", "kept": "a", "hidden": "b"}]
