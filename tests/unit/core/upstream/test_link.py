from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest

from mcp_proxy.base.json import Fields, decode_fields, encode
from mcp_proxy.core.upstream.failures import Attempt, Failure, Phase, RpcError, WireError
from mcp_proxy.core.upstream.link import Link, negotiate
from mcp_proxy.core.upstream.wire import Era, Outgoing, Terms, Wire

pytestmark = pytest.mark.anyio

DISCOVERED = {
    "supportedVersions": ["2026-07-28"],
    "capabilities": {"tools": {"listChanged": True}},
    "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "s"}},
}
INITIALIZED = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "old"}}
Says = Callable[[Mapping[str, Any]], object]


class FakeWire:
    """Answers by method: a value, an exception, or what a function makes of the params; None hangs."""

    def __init__(self, **answers: object) -> None:
        self.answers = {name.replace("_", "/"): answer for name, answer in answers.items()}
        self.sent: list[Outgoing] = []
        self.notified: list[str] = []
        self.terms: Terms | None = None
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def request(self, out: Outgoing, attempt: Attempt) -> Fields:
        self.sent.append(out)
        answer = self.answers.get(out.method, RpcError(-32601, "no such method"))
        if callable(answer):
            answer = answer(out.params)
        if answer is None:
            await asyncio.Event().wait()
        if isinstance(answer, Exception):
            raise answer
        return decode_fields(encode(answer))

    async def notify(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        self.notified.append(method)

    @property
    def methods(self) -> list[str]:
        return [out.method for out in self.sent]


async def agree(wire: FakeWire, *, modern: bool = True) -> Terms:
    async with asyncio.timeout(10):
        return await negotiate(cast(Wire, wire), probe_timeout=0.05, modern_possible=modern)


def link(wire: FakeWire, era: Era = Era.LEGACY, **capabilities: object) -> Link:
    version = "2026-07-28" if era is Era.MODERN else "2025-11-25"
    return Link(cast(Wire, wire), Terms(era, version, capabilities or {"tools": {}}))


# Eras


async def test_a_modern_server_is_spoken_to_without_a_handshake() -> None:
    wire = FakeWire(server_discover=DISCOVERED)
    terms = await agree(wire)
    assert (terms.era, terms.version, terms.list_changed) == (Era.MODERN, "2026-07-28", True)
    assert terms.server_info == {"name": "s"}
    assert wire.methods == ["server/discover"]
    assert wire.notified == []
    assert wire.terms == terms


@pytest.mark.parametrize(
    "probed",
    [
        RpcError(-32601, "no such method"),
        RpcError(-32602, "not initialized"),
        WireError(Failure.HTTP, Phase.STREAMING, "HTTP 400", status=400),
        WireError(Failure.HTTP, Phase.STREAMING, "HTTP 404", status=404),
        WireError(Failure.BAD_REPLY, Phase.STREAMING, "no JSON"),
        None,
        {},
        {"supportedVersions": ["2099-01-01"]},
        {"supportedVersions": "2026-07-28"},
    ],
)
async def test_a_server_that_does_not_answer_the_probe_is_asked_the_legacy_way(probed: object) -> None:
    wire = FakeWire(server_discover=probed, initialize=INITIALIZED)
    terms = await agree(wire)
    assert (terms.era, terms.version) == (Era.LEGACY, "2025-06-18")
    assert wire.methods == ["server/discover", "initialize"]
    assert wire.notified == ["notifications/initialized"]
    assert wire.sent[1].params["protocolVersion"] == "2025-11-25"


@pytest.mark.parametrize(
    "error",
    [
        WireError(Failure.UNREACHABLE, Phase.NOT_SENT, "refused"),
        WireError(Failure.LOST, Phase.SENT, "lost"),
        WireError(Failure.HTTP, Phase.STREAMING, "HTTP 401", status=401),
        WireError(Failure.HTTP, Phase.STREAMING, "HTTP 403", status=403),
        WireError(Failure.BUSY, Phase.STREAMING, "HTTP 429", status=429),
    ],
)
async def test_trouble_that_has_nothing_to_do_with_the_era_is_passed_on(error: WireError) -> None:
    wire = FakeWire(server_discover=error)
    with pytest.raises(WireError):
        await agree(wire)
    assert wire.methods == ["server/discover"]


async def test_where_no_modern_server_can_be_there_is_no_probe() -> None:
    wire = FakeWire(initialize=INITIALIZED)
    await agree(wire, modern=False)
    assert wire.methods == ["initialize"]


async def test_a_modern_server_that_was_slow_to_start_is_recognised_all_the_same() -> None:
    answers = iter([None, DISCOVERED])
    wire = FakeWire(server_discover=lambda _: next(answers), initialize=RpcError(-32022, "unsupported version"))
    assert (await agree(wire)).era is Era.MODERN


@pytest.mark.parametrize("version", ["1.0", None, 7, "2026-07-28", ["2025-06-18"]])
async def test_a_version_that_does_not_exist_is_refused(version: object) -> None:
    wire = FakeWire(initialize={**INITIALIZED, "protocolVersion": version})
    with pytest.raises(WireError, match="version"):
        await agree(wire)


@pytest.mark.parametrize("odd", [None, [], "x"])
async def test_odd_capabilities_count_as_none(odd: object) -> None:
    terms = await agree(FakeWire(initialize={**INITIALIZED, "capabilities": odd, "serverInfo": odd}), modern=False)
    assert (terms.capabilities, terms.server_info) == ({}, {})


# Requests


async def test_modern_requests_carry_who_we_are_and_what_we_can() -> None:
    wire = FakeWire(tools_call={})
    await link(wire, Era.MODERN).request("tools/call", {"name": "t"}, Attempt())
    meta = json.loads(bytes(wire.sent[0].params["_meta"]))
    assert meta["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"
    assert meta["io.modelcontextprotocol/clientCapabilities"] == {}
    assert meta["io.modelcontextprotocol/clientInfo"]["name"] == "mcp-proxy-api"


async def test_legacy_requests_carry_nothing_of_that() -> None:
    wire = FakeWire(tools_call={})
    await link(wire).request("tools/call", {"name": "t"}, Attempt())
    assert wire.sent[0].params == {"name": "t"}


@pytest.mark.parametrize(("era", "method"), [(Era.MODERN, "server/discover"), (Era.LEGACY, "ping")])
async def test_a_sign_of_life_is_asked_for_in_the_words_of_the_era(era: Era, method: str) -> None:
    wire = FakeWire(server_discover={}, ping={})
    await link(wire, era).check()
    assert wire.methods == [method]


# Lists


def pages(**by_cursor: object) -> Says:
    return lambda params: by_cursor[str(params.get("cursor", "first"))]


async def test_all_pages_are_read() -> None:
    wire = FakeWire(
        tools_list=pages(
            first={"tools": [{"name": "a"}], "nextCursor": "p2"},
            p2={"tools": [{"name": "b"}], "nextCursor": "p3"},
            p3={"tools": [{"name": "c"}]},
        )
    )
    assert [tool["name"] for tool in await link(wire).list_tools()] == ["a", "b", "c"]


async def test_a_cursor_that_comes_back_ends_the_list() -> None:
    wire = FakeWire(tools_list={"tools": [{"name": "a"}], "nextCursor": "again"})
    assert len(await link(wire).list_tools()) == 2


async def test_pages_without_end_end() -> None:
    numbers = iter(range(10**6))
    wire = FakeWire(tools_list=lambda _: {"tools": [], "nextCursor": f"p{next(numbers)}"})
    assert await link(wire).list_tools() == []
    assert len(wire.sent) == 1000


@pytest.mark.parametrize("cursor", ["", None, 7, {}])
async def test_an_odd_cursor_ends_the_list(cursor: object) -> None:
    wire = FakeWire(tools_list={"tools": [{"name": "a"}], "nextCursor": cursor})
    assert len(await link(wire).list_tools()) == 1


async def test_entries_that_are_no_tools_are_left_out() -> None:
    wire = FakeWire(tools_list={"tools": [{"name": "a"}, {}, "b", None, {"name": 7}]})
    assert await link(wire).list_tools() == [{"name": "a"}]


@pytest.mark.parametrize("page", [{}, {"tools": {}}, {"tools": None}])
async def test_a_page_without_a_list_is_the_servers_fault(page: object) -> None:
    with pytest.raises(WireError) as raised:
        await link(FakeWire(tools_list=page)).list_tools()
    assert raised.value.failure is Failure.BAD_REPLY


async def test_a_server_that_offers_no_tools_is_not_asked_for_them() -> None:
    wire = FakeWire()
    assert await link(wire, resources={}).list_tools() == []
    assert wire.sent == []


# Announcements


async def test_a_modern_server_is_listened_to_when_it_announces() -> None:
    wire = FakeWire(subscriptions_listen={})
    await link(wire, Era.MODERN, tools={"listChanged": True}).listen()
    assert wire.sent[0].params["notifications"] == {"toolsListChanged": True}


@pytest.mark.parametrize("era", Era)
async def test_a_server_that_announces_nothing_is_not_listened_to(era: Era) -> None:
    wire = FakeWire()
    await link(wire, era).listen()
    assert wire.sent == []
