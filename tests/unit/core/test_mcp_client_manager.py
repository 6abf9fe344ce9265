from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from mcp_proxy.base.errors import AMBIGUOUS_TOOL, SERVER_NOT_FOUND, TOOL_NOT_FOUND, UPSTREAM_UNAVAILABLE, ProxyError
from mcp_proxy.config.model import RefusedServer, Servers, ServerSpec
from mcp_proxy.core import mcp_client_manager
from mcp_proxy.core.auth.principal import Principal
from mcp_proxy.core.mcp_client_manager import McpClientManager
from mcp_proxy.core.upstream.upstream import State
from mcp_proxy.settings import Settings
from tests.unit.core.fakes import FakeClock, RecordingLog, server, tool

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
    upstream.tools = tuple(tool(item) for item in tools)
    upstream.last_error = error
    upstream._settled.set()
    one._rebuild()


async def refusal(one: McpClientManager, method: str, at: str | None = None, who: Principal = ANYBODY) -> ProxyError:
    with pytest.raises(ProxyError) as raised:
        await one.resolve(who, method, at)
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
    one._rebuild()
    assert one.catalog is first
    settle(one, "b", "y")
    assert one.catalog.revision == first.revision + 1
    assert [shown.name for shown in one.catalog.shown] == ["a.x", "b.y"]


async def test_names_are_bare_with_exactly_one_server_at_the_start() -> None:
    one = manager(server("a"), server("off", disabled=True))
    settle(one, "a", "x")
    assert [shown.name for shown in one.catalog.shown] == ["x"]


async def test_a_group_counts_as_one() -> None:
    one = manager(server("m1", group="g"), server("m2", group="g"))
    settle(one, "m1", "x")
    settle(one, "m2", "x")
    assert [shown.name for shown in one.catalog.shown] == ["x"]


async def test_a_disabled_server_offers_nothing() -> None:
    one = manager(server("a"), server("off", disabled=True))
    settle(one, "off", "x")
    assert one.catalog.entries == ()


# Resolving


async def test_what_is_known_needs_no_waiting() -> None:
    one = manager(server("a"), server("slow"))
    settle(one, "a", "x")
    assert (await one.resolve(ANYBODY, "x", None)).tool == "x"


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
    assert (await one.resolve(ANYBODY, "x", None)).entries[0].server == "a"
    assert one.upstream("a").state is State.DOWN


async def test_a_disabled_server_says_so() -> None:
    one = manager(server("off", disabled=True))
    assert (await refusal(one, "x", "off")).message == "off is disabled"


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
    from mcp_proxy.core.upstream.upstream import Upstream

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
        "latency_ms", "source",
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
