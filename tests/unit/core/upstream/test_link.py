from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest

from mcp_proxy.base.json import Raw, decode, encode
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.core.upstream.client import PROXY, Client, OnRequest
from mcp_proxy.core.upstream.failures import Attempt, Failure, Phase, RpcError, WireError
from mcp_proxy.core.upstream.link import Link, negotiate
from mcp_proxy.core.upstream.messages import Incoming
from mcp_proxy.core.upstream.streamable import StreamableHttpWire
from mcp_proxy.core.upstream.terms import Era, Terms
from mcp_proxy.core.upstream.wire import ACKNOWLEDGED, Outgoing, Wire
from tests.unit.core.upstream.scripted import ScriptedExchange, as_events
from tests.unit.core.upstream.wires import FakeWire, acknowledge, begun, terms, turns

pytestmark = pytest.mark.anyio

DISCOVERED = {
    "supportedVersions": ["2026-07-28"],
    "capabilities": {"tools": {"listChanged": True}},
    "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "s"}},
}
INITIALIZED = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "old"}}
Says = Callable[[Outgoing], object]


def answering(**answers: object) -> FakeWire:
    """A wire that answers these methods, their ``/`` written ``_``."""
    return FakeWire({name.replace("_", "/"): answer for name, answer in answers.items()})


async def agree(wire: FakeWire, *, modern: bool = True) -> Terms:
    async with asyncio.timeout(10):
        return await negotiate(cast(Wire, wire), probe_timeout=0.05, modern_possible=modern)


def link(wire: FakeWire, era: Era = Era.LEGACY, **capabilities: object) -> Link:
    return Link(cast(Wire, wire), terms(era, **capabilities))


async def tools(wire: FakeWire, **capabilities: object) -> list[dict[str, Any]]:
    return (await link(wire, **capabilities).list_all())["tools"]


# Eras


async def test_a_modern_server_is_spoken_to_without_a_handshake() -> None:
    wire = answering(server_discover=DISCOVERED)
    agreed = await agree(wire)
    assert (agreed.era, agreed.version, agreed.list_changed) == (Era.MODERN, "2026-07-28", ("tools",))
    assert agreed.server_info == {"name": "s"}
    assert wire.methods == ["server/discover"]
    assert wire.notified == []
    assert wire.terms == agreed


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
    wire = answering(server_discover=probed, initialize=INITIALIZED)
    agreed = await agree(wire)
    assert (agreed.era, agreed.version) == (Era.LEGACY, "2025-06-18")
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
    wire = answering(server_discover=error)
    with pytest.raises(WireError):
        await agree(wire)
    assert wire.methods == ["server/discover"]


async def test_where_no_modern_server_can_be_there_is_no_probe() -> None:
    wire = answering(initialize=INITIALIZED)
    await agree(wire, modern=False)
    assert wire.methods == ["initialize"]


async def test_a_modern_server_that_was_slow_to_start_is_recognised_all_the_same() -> None:
    answers = iter([None, DISCOVERED])
    wire = answering(server_discover=lambda _: next(answers), initialize=RpcError(-32022, "unsupported version"))
    assert (await agree(wire)).era is Era.MODERN


@pytest.mark.parametrize("version", ["1.0", None, 7, "2026-07-28", ["2025-06-18"]])
async def test_a_version_that_does_not_exist_is_refused(version: object) -> None:
    wire = answering(initialize={**INITIALIZED, "protocolVersion": version})
    with pytest.raises(WireError, match="version"):
        await agree(wire)


@pytest.mark.parametrize("odd", [None, [], "x"])
async def test_odd_capabilities_count_as_none(odd: object) -> None:
    agreed = await agree(answering(initialize={**INITIALIZED, "capabilities": odd, "serverInfo": odd}), modern=False)
    assert (agreed.capabilities, agreed.server_info) == ({}, {})


# Requests


async def test_modern_requests_carry_who_we_are_and_what_we_can() -> None:
    wire = answering(tools_call={})
    await link(wire, Era.MODERN).request("tools/call", {"name": "t"}, Attempt())
    meta = json.loads(bytes(wire.sent[0].params["_meta"]))
    assert meta["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"
    assert meta["io.modelcontextprotocol/clientCapabilities"] == {}
    assert meta["io.modelcontextprotocol/clientInfo"]["name"] == "mcp-proxy-api"


async def test_legacy_requests_carry_nothing_of_that() -> None:
    wire = answering(tools_call={})
    await link(wire).request("tools/call", {"name": "t"}, Attempt())
    assert wire.sent[0].params == {"name": "t"}


@pytest.mark.parametrize(("era", "method"), [(Era.MODERN, "server/discover"), (Era.LEGACY, "ping")])
async def test_a_sign_of_life_is_asked_for_in_the_words_of_the_era(era: Era, method: str) -> None:
    wire = answering(server_discover={}, ping={})
    await link(wire, era).check()
    assert wire.methods == [method]


# Lists


def pages(**by_cursor: object) -> Says:
    return lambda out: by_cursor[str(out.params.get("cursor", "first"))]


async def test_all_pages_are_read() -> None:
    wire = answering(
        tools_list=pages(
            first={"tools": [{"name": "a"}], "nextCursor": "p2"},
            p2={"tools": [{"name": "b"}], "nextCursor": "p3"},
            p3={"tools": [{"name": "c"}]},
        )
    )
    assert [tool["name"] for tool in await tools(wire)] == ["a", "b", "c"]


async def test_a_cursor_that_comes_back_ends_the_list() -> None:
    wire = answering(tools_list={"tools": [{"name": "a"}], "nextCursor": "again"})
    assert len(await tools(wire)) == 2


async def test_pages_without_end_end() -> None:
    numbers = iter(range(10**6))
    wire = answering(tools_list=lambda _: {"tools": [], "nextCursor": f"p{next(numbers)}"})
    assert await tools(wire) == []
    assert len(wire.sent) == 1000


@pytest.mark.parametrize("cursor", ["", None, 7, {}])
async def test_an_odd_cursor_ends_the_list(cursor: object) -> None:
    wire = answering(tools_list={"tools": [{"name": "a"}], "nextCursor": cursor})
    assert len(await tools(wire)) == 1


async def test_entries_that_are_no_tools_are_left_out() -> None:
    wire = answering(tools_list={"tools": [{"name": "a"}, {}, "b", None, {"name": 7}]})
    assert await tools(wire) == [{"name": "a"}]


@pytest.mark.parametrize("page", [{}, {"tools": {}}, {"tools": None}])
async def test_a_page_without_a_list_is_the_servers_fault(page: object) -> None:
    with pytest.raises(WireError) as raised:
        await tools(answering(tools_list=page))
    assert raised.value.failure is Failure.BAD_REPLY


async def test_a_server_that_offers_no_tools_is_not_asked_for_them() -> None:
    wire = answering()
    assert await tools(wire, completions={}) == []
    assert wire.sent == []


# Announcements


async def test_a_modern_server_is_listened_to_when_it_announces() -> None:
    wire = answering(subscriptions_listen={})
    await link(wire, Era.MODERN, tools={"listChanged": True}).listen()
    assert wire.sent[0].params["notifications"] == {"toolsListChanged": True}


@pytest.mark.parametrize("era", Era)
async def test_a_server_that_announces_nothing_is_not_listened_to(era: Era) -> None:
    wire = answering()
    await link(wire, era).listen()
    assert wire.sent == []


# Whom a request is for


ASKABLE = Client(
    Era.LEGACY, {"name": "editor", "version": "1"}, {"sampling": {}}, log_level="info", progress=True, key="k"
)  # fmt: skip


async def test_modern_requests_carry_what_their_client_says_of_itself() -> None:
    wire = answering(tools_call={})
    await link(wire, Era.MODERN).request("tools/call", {"name": "t"}, Attempt(), client=ASKABLE)
    assert wire.sent[0].params == {
        "name": "t",
        "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "editor", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {"sampling": {}},
            "io.modelcontextprotocol/logLevel": "info",
        },
    }
    assert (wire.sent[0].logs, wire.sent[0].progress) == (True, True)


@pytest.mark.parametrize("client", [PROXY, ASKABLE], ids=["the proxy", "a client"])
async def test_the_callers_own_meta_is_kept_but_cannot_say_who_it_is(client: Client) -> None:
    wire = answering(tools_call={})
    own = {"com.example/trace": "x", "io.modelcontextprotocol/clientInfo": {"name": "somebody else"}}
    params = {"name": "t", "_meta": own}
    await link(wire, Era.MODERN).request("tools/call", params, Attempt(), client=client)
    meta = wire.sent[0].params["_meta"]
    assert meta["com.example/trace"] == "x"
    assert meta["io.modelcontextprotocol/clientInfo"] == client.info
    assert ("io.modelcontextprotocol/logLevel" in meta) is (client is ASKABLE)
    assert params["_meta"] is own
    assert len(own) == 2


@pytest.mark.parametrize("odd", [7, "x", [1], None])
async def test_meta_that_is_no_object_is_replaced(odd: object) -> None:
    wire = answering(tools_call={})
    await link(wire, Era.MODERN).request("tools/call", {"_meta": odd}, Attempt(), client=ASKABLE)
    assert wire.sent[0].params["_meta"]["io.modelcontextprotocol/clientInfo"] == ASKABLE.info


async def test_legacy_requests_carry_the_callers_own_meta_as_it_is() -> None:
    wire = answering(tools_call={})
    params = {"name": "t", "_meta": {"com.example/trace": "x"}}
    await link(wire).request("tools/call", params, Attempt(), client=ASKABLE)
    assert wire.sent[0].params is params


async def test_a_legacy_server_is_told_whose_link_it_is() -> None:
    wire = answering(initialize=INITIALIZED)
    client = Client(Era.LEGACY, {"name": "editor"}, {"roots": {}, "tasks": {}}, key="k")
    agreed = await negotiate(cast(Wire, wire), probe_timeout=0.05, client=client)
    assert wire.methods == ["initialize"]
    assert wire.sent[0].params["capabilities"] == {"roots": {}}
    assert wire.sent[0].params["clientInfo"] == {"name": "editor"}
    assert wire.notified == ["notifications/initialized"]
    assert wire.terms == agreed


async def test_a_link_of_a_clients_own_is_legacy_or_none() -> None:
    wire = answering(server_discover=DISCOVERED, initialize=RpcError(-32022, "unsupported version"))
    with pytest.raises(RpcError):
        await negotiate(cast(Wire, wire), probe_timeout=0.05, client=ASKABLE)
    assert wire.methods == ["initialize"]


# Whom the server asks


def handler(name: str) -> OnRequest:
    async def handle(request: Incoming) -> Mapping[str, Any]:
        return {"by": name, "method": request.method}

    return handle


async def test_a_question_that_shows_no_request_it_belongs_to_goes_to_the_latest() -> None:
    wire = answering(tools_call=None)
    shared = link(wire)
    asked = Incoming("roots/list", None, 1)

    def call(name: str) -> asyncio.Task[Any]:
        work = shared.request("tools/call", {}, Attempt(), client=ASKABLE, on_request=handler(name))
        return begun(work)

    assert wire.on_request is not None
    with pytest.raises(RpcError):
        await wire.on_request(asked)
    first, second = call("first"), call("second")
    await turns()
    assert (await wire.on_request(asked))["by"] == "second"
    second.cancel()
    await asyncio.wait([second])
    assert (await wire.on_request(asked))["by"] == "first"
    first.cancel()
    await asyncio.wait([first])
    with pytest.raises(RpcError) as raised:
        await wire.on_request(asked)
    assert raised.value.code == -32601


async def test_a_modern_server_can_ask_nobody() -> None:
    """Its links are shared, and it has no business to send requests: whoever called last must not get them."""
    wire = answering(tools_call=None)
    shared = link(wire, Era.MODERN)
    call = begun(shared.request("tools/call", {}, Attempt(), on_request=handler("caller")))
    await turns()
    assert wire.sent[0].on_request is None
    assert wire.on_request is not None
    with pytest.raises(RpcError):
        await wire.on_request(Incoming("sampling/createMessage", None, 1))
    call.cancel()
    await asyncio.wait([call])


# All lists


async def test_all_that_is_offered_is_listed_page_by_page() -> None:
    wire = answering(
        tools_list={"tools": [{"name": "t"}]},
        prompts_list=pages(
            first={"prompts": [{"name": "p1"}, {"title": "no name"}], "nextCursor": "2"},
            **{"2": {"prompts": [{"name": "p2"}]}},
        ),
        resources_list={"resources": [{"uri": "file:///a"}, {"name": "no uri"}]},
        resources_templates_list={"resourceTemplates": [{"uriTemplate": "file:///{x}"}, {"uri": "file:///b"}]},
    )
    assert await link(wire, tools={}, prompts={}, resources={}).list_all() == {
        "tools": [{"name": "t"}],
        "prompts": [{"name": "p1"}, {"name": "p2"}],
        "resources": [{"uri": "file:///a"}],
        "resourceTemplates": [{"uriTemplate": "file:///{x}"}],
    }


@pytest.mark.parametrize(
    ("capabilities", "methods"),
    [
        ({"tools": {}}, ["tools/list"]),
        ({"prompts": {}}, ["prompts/list"]),
        ({"resources": {}}, ["resources/list", "resources/templates/list"]),
        ({"completions": {}}, []),
    ],
)
async def test_only_what_is_declared_is_listed(capabilities: dict[str, object], methods: list[str]) -> None:
    wire = answering()
    wire.answers |= {
        "tools/list": {"tools": []},
        "prompts/list": {"prompts": []},
        "resources/list": {"resources": []},
        "resources/templates/list": {"resourceTemplates": []},
    }
    listed = await link(wire, **capabilities).list_all()
    assert wire.methods == methods
    assert listed == {"tools": [], "prompts": [], "resources": [], "resourceTemplates": []}


async def test_a_list_that_is_refused_is_empty_unless_it_is_that_of_the_tools() -> None:
    wire = answering(tools_list={"tools": [{"name": "t"}]})
    listed = await link(wire, tools={}, prompts={}, resources={}).list_all()
    assert listed == {"tools": [{"name": "t"}], "prompts": [], "resources": [], "resourceTemplates": []}
    wire.answers["tools/list"] = RpcError(-32603, "no")
    with pytest.raises(RpcError):
        await link(wire, tools={}, prompts={}).list_all()


async def test_lists_are_asked_for_in_the_clients_name() -> None:
    wire = answering(tools_list={"tools": []})
    await link(wire, Era.MODERN).list_all(ASKABLE)
    assert wire.sent[0].params["_meta"]["io.modelcontextprotocol/clientCapabilities"] == {"sampling": {}}


# Listening and following


CHANGING = {"listChanged": True}


@pytest.mark.parametrize(
    ("capabilities", "wanted"),
    [
        ({"tools": CHANGING}, {"toolsListChanged": True}),
        (
            {"tools": CHANGING, "prompts": CHANGING, "resources": CHANGING},
            {"toolsListChanged": True, "promptsListChanged": True, "resourcesListChanged": True},
        ),
        ({"tools": {}, "resources": {"listChanged": True, "subscribe": True}}, {"resourcesListChanged": True}),
    ],
)
async def test_a_modern_server_is_listened_to_for_the_kinds_it_announces(
    capabilities: dict[str, object], wanted: dict[str, bool]
) -> None:
    wire = answering(subscriptions_listen={})
    assert await link(wire, Era.MODERN, **capabilities).listen()
    assert wire.sent[0].params["notifications"] == wanted


@pytest.mark.parametrize(
    ("capabilities", "streams"),
    [
        ({"tools": CHANGING}, True),
        ({"prompts": CHANGING}, True),
        ({"resources": {"subscribe": True}}, True),
        ({"tools": {}, "resources": {}}, False),
    ],
)
async def test_a_legacy_server_on_http_is_listened_to_when_it_has_anything_to_announce(
    capabilities: dict[str, object], streams: bool
) -> None:
    exchange = ScriptedExchange(lambda _: as_events())
    tasks = TaskSet(lambda *_: None)
    wire = StreamableHttpWire(
        exchange, "http://up.test/mcp", {}, max_result=1000, tasks=tasks, on_incoming=lambda _: None
    )
    wire.terms = terms(Era.LEGACY, **capabilities)
    streaming = Link(wire, wire.terms)
    assert await streaming.listen() is streams
    assert [request.method for request in exchange.requests] == ["GET"] * streams
    assert await streaming.hold()
    assert len(exchange.requests) == streams + 1


async def test_a_legacy_server_that_may_ask_on_a_shared_link_is_listened_to_though_it_announces_nothing() -> None:
    exchange = ScriptedExchange(lambda _: as_events())
    wire = StreamableHttpWire(
        exchange,
        "http://up.test/mcp",
        {},
        max_result=1000,
        tasks=TaskSet(lambda *_: None),
        on_incoming=lambda _: None,
    )
    wire.terms = terms(Era.LEGACY)
    assert await Link(wire, wire.terms, EVERYBODY).listen()
    assert [request.method for request in exchange.requests] == ["GET"]


async def test_other_transports_have_no_standing_stream_to_hold() -> None:
    wire = answering()
    assert not await link(wire, tools=CHANGING).listen()
    assert not await link(wire).hold()
    assert wire.sent == []


URI = "file:///a"


async def follow(wire: FakeWire, accepted: asyncio.Future[None]) -> None:
    """Follow `URI` until the server ends the stream."""
    async with asyncio.timeout(5):
        await link(wire, Era.MODERN).follow(URI, accepted)


def promise() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


async def test_a_resource_is_followed_on_a_stream_whose_acknowledgement_names_it() -> None:
    wire, accepted = answering(subscriptions_listen=acknowledge), promise()
    following = begun(follow(wire, accepted))
    await turns()
    [out] = wire.sent
    assert (out.method, out.params["notifications"]) == ("subscriptions/listen", {"resourceSubscriptions": [URI]})
    assert accepted.done()
    assert accepted.result() is None
    assert not following.done()
    following.cancel()
    await asyncio.wait([following])


async def test_a_resource_that_is_one_of_several_in_the_acknowledgement_is_followed() -> None:
    agreed = {"resourceSubscriptions": ["file:///b", URI], "toolsListChanged": True}
    wire, accepted = answering(subscriptions_listen=saying(agreed)), promise()
    await follow(wire, accepted)
    assert accepted.result() is None


def saying(notifications: object) -> Says:
    """A server that agrees to these, and ends the stream."""

    def answer(out: Outgoing) -> object:
        acknowledge(out, notifications)
        return {}

    return answer


@pytest.mark.parametrize(
    "agreed",
    [
        {},
        {"resourceSubscriptions": []},
        {"resourceSubscriptions": [URI + "/"]},
        {"resourceSubscriptions": [[URI], None, 7]},
        {"resourceSubscriptions": URI},
        {"resourceSubscriptions": {URI: True}},
        {"resourceSubscriptions": True},
        [URI],
        "resourceSubscriptions",
    ],
    ids=str,
)
async def test_an_acknowledgement_that_does_not_name_the_resource_is_a_refusal(agreed: object) -> None:
    wire, accepted = answering(subscriptions_listen=saying(agreed)), promise()
    await follow(wire, accepted)
    assert isinstance(error := accepted.exception(), RpcError)
    assert error.code == -32600


@pytest.mark.parametrize("params", [None, b"{}", b"[]", b"7", b'{"notifications":7}', b'{"notifications":null}'])
async def test_an_acknowledgement_that_says_nothing_is_a_refusal(params: bytes | None) -> None:
    def answer(out: Outgoing) -> object:
        assert out.on_message is not None
        out.on_message(Incoming(ACKNOWLEDGED, None if params is None else Raw(params)))
        return {}

    accepted = promise()
    await follow(answering(subscriptions_listen=answer), accepted)
    assert isinstance(accepted.exception(), RpcError)


async def test_only_the_first_acknowledgement_counts() -> None:
    def answer(out: Outgoing) -> object:
        acknowledge(out)
        acknowledge(out, {})
        return {}

    accepted = promise()
    await follow(answering(subscriptions_listen=answer), accepted)
    assert accepted.result() is None


async def test_what_else_comes_on_the_stream_is_no_acknowledgement() -> None:
    def answer(out: Outgoing) -> object:
        assert out.on_message is not None
        agreed = Raw(encode({"notifications": out.params["notifications"]}))
        out.on_message(Incoming("notifications/message", agreed))
        out.on_message(Incoming("notifications/progress", None))
        return {}

    accepted = promise()
    await follow(answering(subscriptions_listen=answer), accepted)
    assert not accepted.done()


@pytest.mark.parametrize("error", [RpcError(-32602, "no"), WireError(Failure.LOST, Phase.SENT, "lost")], ids=str)
async def test_a_stream_that_fails_is_its_callers_to_judge(error: Exception) -> None:
    accepted = promise()
    with pytest.raises(type(error)):
        await follow(answering(subscriptions_listen=error), accepted)
    assert not accepted.done()


# Links that speak for everybody


async def _anybody(request: Incoming) -> Mapping[str, Any]:
    return {"by": "anybody", "method": request.method}


EVERYBODY = Client(capabilities={"roots": {}}, on_request=_anybody)


async def test_a_shared_link_says_what_can_be_asked_on_it() -> None:
    wire = answering(server_discover=RpcError(-32601, "no"), initialize=INITIALIZED)
    await negotiate(cast(Wire, wire), probe_timeout=0.05, base=EVERYBODY)
    assert wire.sent[0].params["_meta"]["io.modelcontextprotocol/clientCapabilities"] == {"roots": {}}
    assert wire.sent[1].params["capabilities"] == {"roots": {}}


async def test_requests_of_nobody_in_particular_are_those_of_whom_the_link_speaks_for() -> None:
    wire = answering(tools_call={}, tools_list={"tools": []})
    shared = Link(cast(Wire, wire), terms(Era.MODERN), EVERYBODY)
    await shared.request("tools/call", {"_meta": {"com.example/trace": "x"}}, Attempt())
    await shared.request("tools/call", {}, Attempt(), client=EVERYBODY)
    await shared.request("tools/call", {}, Attempt(), client=ASKABLE)
    await shared.list_all()
    said = [decode(encode(out.params))["_meta"] for out in wire.sent]
    own = [one["io.modelcontextprotocol/clientCapabilities"] for one in said]
    assert own == [{"roots": {}}, {"roots": {}}, dict(ASKABLE.capabilities), {"roots": {}}]
    assert said[0]["com.example/trace"] == "x"


async def test_what_is_asked_on_a_shared_link_is_never_the_latest_callers_matter() -> None:
    async def asks(out: Outgoing) -> object:
        assert wire.on_request is not None
        return await wire.on_request(Incoming("roots/list", None, 1))

    wire = answering(tools_call=asks)
    shared = Link(cast(Wire, wire), terms(Era.LEGACY), EVERYBODY)
    answer = await shared.request("tools/call", {}, Attempt(), on_request=handler("the caller"))
    assert decode(answer["by"]) == "anybody"


@pytest.mark.parametrize(("era", "asks"), [(Era.LEGACY, True), (Era.MODERN, False)])
async def test_only_a_legacy_server_asks_on_a_shared_link(era: Era, asks: bool) -> None:
    assert Link(cast(Wire, FakeWire()), terms(era), EVERYBODY).asks is asks
    assert not Link(cast(Wire, FakeWire()), terms(era)).asks
