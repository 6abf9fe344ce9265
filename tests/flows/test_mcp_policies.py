"""Who may do what at the MCP door, in every era and transport: tokens, scopes, narrowed tokens, rates, and the log of it all."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.flows.mcp_client import JSON, KINDS, MODERN, Answer, House, reachable
from tests.flows.mcp_upstream import MODERN as NEW
from tests.flows.mcp_upstream import Upstream, upstream
from tests.harness import eventually, make_token

pytestmark = pytest.mark.anyio


def offering(name: str) -> dict[str, Any]:
    """Everything that a server can have, under its name."""
    return {
        "name": name,
        "prompts": [{"name": f"{name}-prompt"}],
        "resources": [{"uri": f"{name}://note", "name": "note"}],
        "templates": [{"uriTemplate": f"{name}://days/{{day}}", "name": "days"}],
    }


@pytest.fixture(scope="module", params=["legacy", "modern"])
async def mine(request: Any) -> AsyncIterator[Upstream]:
    async with upstream(era=request.param, **offering("mine")) as one:
        yield one


@pytest.fixture(scope="module")
async def payroll(mine: Upstream) -> AsyncIterator[Upstream]:
    async with upstream(era=mine.era, **offering("payroll")) as one:
        yield one


@pytest.fixture(scope="module")
async def house(mine: Upstream, payroll: Upstream) -> AsyncIterator[House]:
    async with reachable({"mine": {"url": mine.url}, "payroll": {"url": payroll.url}}, log_level="DEBUG") as one:
        yield one


PLACES = [
    ("POST", "/mcp", {}),
    ("POST", "/mcp", {"MCP-Protocol-Version": MODERN}),
    ("GET", "/mcp", {}),
    ("DELETE", "/mcp", {}),
    ("POST", "/mcp/mine", {}),
    ("POST", "/mcp/unknown", {}),
    ("GET", "/sse", {}),
    ("POST", "/messages/?session_id=x", {}),
]


@pytest.mark.parametrize(("method", "path", "more"), PLACES)
async def test_nobody_comes_in_without_a_token_and_is_told_where_tokens_come_from(
    house: House, method: str, path: str, more: dict[str, str]
):
    for token in (None, "nonsense", make_token(ttl=-600)):
        http = house.http(token)
        body = b'{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}' if method == "POST" else None
        answer = await http.send(method, path, {**JSON, **more}, body)
        await http.close()
        assert answer.status == 401, answer
        challenge = answer.headers["WWW-Authenticate"]
        where = "/sse" if path.startswith("/messages") else path
        assert f'resource_metadata="{house.base}/.well-known/oauth-protected-resource{where}"' in challenge


@pytest.mark.parametrize("path", ["/mcp", "/sse", "/messages/"])
async def test_a_token_in_the_query_is_none_at_this_door(house: House, path: str):
    http = house.http(None)
    method = "GET" if path == "/sse" else "POST"
    answer = await http.send(method, f"{path}?token={make_token()}", JSON, b'{"jsonrpc":"2.0","id":1,"method":"ping"}')
    await http.close()
    assert answer.status == 401


NEEDS = [
    ("tools/list", {}, "tools:read"),
    ("prompts/list", {}, "tools:read"),
    ("resources/list", {}, "tools:read"),
    ("resources/templates/list", {}, "tools:read"),
    ("tools/call", {"name": "mine.echo", "arguments": {"text": "x"}}, "tools:call"),
    ("prompts/get", {"name": "mine.mine-prompt"}, "tools:call"),
    ("resources/read", {"uri": "mine://note"}, "tools:call"),
    ("completion/complete", {"ref": {"type": "ref/prompt", "name": "mine.mine-prompt"}}, "tools:call"),
    ("resources/subscribe", {"uri": "mine://note"}, "tools:call"),
    ("subscriptions/listen", {"notifications": {"toolsListChanged": True}}, "tools:read"),
]


OF_ONE_ERA = {"resources/subscribe": ("legacy", "sse"), "subscriptions/listen": ("modern",)}


def by_kind(rows: list[Any]) -> list[Any]:
    """Rows that begin with a method, each with every kind of client that has the method."""
    return [(kind, *row) for row in rows for kind in OF_ONE_ERA.get(row[0], KINDS)]


@pytest.mark.parametrize(("kind", "method", "params", "scope"), by_kind(NEEDS))
async def test_a_method_needs_its_scope(house: House, kind: str, method: str, params: dict[str, Any], scope: str):
    rest = "tools:read tools:call servers:read servers:write logs:read llm:call llm:serve".replace(scope, "")
    async with house.client(kind, token=make_token(scope=rest)) as client:
        answer = await client.request(method, params)
        assert answer.refusal == (200 if kind == "sse" else 403, -31011)
        assert answer.error["data"]["scope"] == scope
        if kind != "sse":
            assert f'scope="{scope}"' in answer.headers["WWW-Authenticate"]
            assert "resource_metadata=" in answer.headers["WWW-Authenticate"]
    if method != "subscriptions/listen":
        async with house.client(kind, token=make_token(scope=scope)) as client:
            assert "result" in (await client.request(method, params)).message


LISTED = {"tools": "mine.", "prompts": "mine.", "resources": "mine:", "resourceTemplates": "mine:"}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_token_for_one_server_lists_that_one_alone(house: House, kind: str):
    async with (
        house.client(kind, token=make_token(servers=["mine"])) as narrow,
        house.client(kind) as wide,
    ):
        for what, start in LISTED.items():
            found = await narrow.names(what)
            assert found
            assert all(name.startswith(start) for name in found)
            assert len(await wide.names(what)) == 2 * len(found)


def about(answer: Answer, name: str) -> tuple[int, str]:
    """An error without the name that it is about."""
    error = dict(answer.error)
    error.get("data", {}).pop("request_id", None)
    return answer.status, json.dumps(error).replace(name, "NAME")


HIDDEN: list[tuple[str, dict[str, Any], str, str]] = [
    ("tools/call", {"name": "N", "arguments": {"text": "x"}}, "payroll.echo", "nowhere.echo"),
    ("tools/call", {"name": "N", "arguments": {"text": "x"}}, "payroll__echo", "nowhere__echo"),
    ("prompts/get", {"name": "N"}, "payroll.payroll-prompt", "payroll.nothing"),
    ("prompts/get", {"name": "N"}, "payroll-prompt", "nothing"),
    ("resources/read", {"uri": "N"}, "payroll://note", "nowhere://note"),
    ("resources/read", {"uri": "N"}, "payroll://days/monday", "nowhere://days/monday"),
    ("completion/complete", {"ref": {"type": "ref/prompt", "name": "N"}}, "payroll.payroll-prompt", "x.nothing"),
    ("completion/complete", {"ref": {"type": "ref/resource", "uri": "N"}}, "payroll://days/{day}", "nowhere://{day}"),
    ("resources/subscribe", {"uri": "N"}, "payroll://note", "nowhere://note"),
]


def named(params: Any, name: str) -> Any:
    return json.loads(json.dumps(params).replace('"N"', json.dumps(name)))


@pytest.mark.parametrize(
    "claims", [{"servers": ["mine"]}, {"tools": ["mine.*"]}, {"servers": ["mine"], "tools": ["*"]}]
)
@pytest.mark.parametrize(("kind", "method", "params", "hidden", "unknown"), by_kind(HIDDEN))
async def test_what_a_token_does_not_cover_is_answered_like_what_is_not_there(
    house: House, payroll: Upstream, kind: str, method: str, params: Any, hidden: str, unknown: str, claims: Any
):
    before = [len(payroll.calls(one)) for one in ("tools/call", "prompts/get", "resources/read", "completion/complete")]
    async with house.client(kind, token=make_token(**claims)) as client:
        first = about(await client.request(method, named(params, hidden)), hidden)
        second = about(await client.request(method, named(params, unknown)), unknown)
        assert first == second
    after = [len(payroll.calls(one)) for one in ("tools/call", "prompts/get", "resources/read", "completion/complete")]
    assert (before, payroll.following) == (after, set())


@pytest.mark.parametrize("kind", KINDS)
async def test_a_token_for_some_tools_calls_those_by_any_name_and_no_others(house: House, kind: str):
    async with house.client(kind, token=make_token(tools=["mine.echo", "roots"])) as client:
        assert sorted(await client.names()) == ["mine.echo", "mine.roots", "payroll.roots"]
        for name in ("mine.echo", "mine__echo", "echo"):
            assert (await client.call(name, {"text": "x"})).text == "mine echo x"
        for name in ("payroll.echo", "mine.sample", "mine.hang"):
            assert (await client.request("tools/call", {"name": name, "arguments": {}})).error["code"] == -32602


async def test_a_subscription_honours_what_the_token_covers(house: House, mine: Upstream, payroll: Upstream):
    async with house.client("modern", token=make_token(servers=["mine"])) as client:
        await client.listen(["mine://note", "payroll://note"])
        assert client.honoured["resourceSubscriptions"] == ["mine://note"]
        await eventually(lambda: "mine://note" in mine.following, what="the upstream is asked")
        assert payroll.following == set()
        await payroll.update("payroll://note")
        await mine.update("mine://note")
        (note,) = await client.hears("notifications/resources/updated")
        assert note["params"]["uri"] == "mine://note"


@pytest.mark.parametrize("kind", ["legacy", "sse"])
async def test_a_session_has_the_rights_of_the_token_that_comes_with_each_request(house: House, kind: str):
    async with house.client(kind) as client:
        assert "payroll.echo" in await client.names()
        client.http.token = make_token(servers=["mine"])
        assert "payroll.echo" not in await client.names()
        call = {"name": "payroll.echo", "arguments": {"text": "x"}}
        assert (await client.request("tools/call", call)).error["code"] == -32602
        client.http.token = make_token(scope="tools:read")
        call["name"] = "mine.echo"
        assert (await client.request("tools/call", call)).error["code"] == -31011


async def test_nothing_of_the_clients_token_reaches_a_server(house: House, mine: Upstream):
    token = make_token(jti="to-be-kept")
    for kind in KINDS:
        async with house.client(kind, token=token) as client:
            await client.names()
            for tool, arguments in {"echo": {"text": "x"}, "ask": {"who": "x"}, "sample": {"text": "x"}}.items():
                await client.call(f"mine.{tool}", arguments)
            await client.request("resources/read", {"uri": "mine://note"})
            cookie = {"Cookie": "session=to-be-kept", "X-Forwarded-For": "192.0.2.1", "X-Api-Key": "to-be-kept"}
            await client.request("tools/call", {"name": "mine.echo", "arguments": {"text": "y"}}, headers=cookie)
    assert mine.called("echo") >= 6
    for one in mine.received:
        said = json.dumps([one.params, dict(one.headers)])
        assert token not in said
        assert "to-be-kept" not in said
        assert "192.0.2.1" not in said
        assert "authorization" not in {name.lower() for name in one.headers}


@pytest.mark.parametrize("audience", [None, "somewhere-else", ["a", "b"]])
async def test_a_token_for_another_audience_is_refused(mine: Upstream, audience: Any):
    async with reachable({"mine": {"url": mine.url}}, jwt_audience="here") as house:
        for path in ("/mcp", "/mcp/mine"):
            http = house.http(make_token(aud=audience))
            answer = await http.send("POST", path, JSON, b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}')
            await http.close()
            assert answer.status == 401
        for kind in KINDS:
            async with house.client(kind, token=make_token(aud=["other", "here"])) as client:
                assert await client.names()


@pytest.mark.parametrize("kind", KINDS)
async def test_the_rate_of_a_token_counts_calls_and_not_lists(mine: Upstream, kind: str):
    async with (
        reachable({"mine": {"url": mine.url}}) as house,
        house.client(kind, token=make_token(rate=2, sub=f"slow-{kind}")) as client,
    ):
        for _ in range(5):
            await client.names()
        answers = [await client.request("tools/call", {"name": "echo", "arguments": {"text": "x"}}) for _ in range(4)]
        refused = [answer for answer in answers if "error" in answer.message]
        assert len(refused) == 2
        for answer in refused:
            assert answer.error["code"] == -31016
            assert answer.error["data"]["type"] == "rate_limited"
            assert answer.error["data"]["retry_after"] > 0
        async with house.client(kind, token=make_token(sub="somebody")) as other:
            assert (await other.call("echo", {"text": "x"})).text == "mine echo x"


@pytest.mark.parametrize("kind", KINDS)
async def test_answering_what_a_call_asks_is_no_further_call_while_the_call_is_held(kind: str):
    async with (
        upstream(era="legacy") as old,
        reachable({"old": {"url": old.url}}) as house,
        house.client(kind, token=make_token(rate=1)) as client,
    ):
        assert "second" in (await client.call("ask_twice", {"who": "x"})).text


# The log

LINES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "tools/call",
        {"name": "mine.echo", "arguments": {"text": "x"}},
        {"tool": "echo", "server": "mine", "error": None},
    ),
    ("tools/call", {"name": "mine.nothing"}, {"tool": "mine.nothing", "server": None, "error": "tool_not_found"}),
    ("tools/call", {"name": "mine.echo", "arguments": {"text": 7}}, {"tool": "echo", "error": "invalid_arguments"}),
    ("tools/call", {"name": "mine.echo", "arguments": []}, {"error": "bad_request"}),
    (
        "tools/call",
        {"name": "mine.fail", "arguments": {"code": -32050, "message": "no"}},
        {"tool": "fail", "server": "mine", "error": "upstream_error"},
    ),
    ("prompts/get", {"name": "mine.mine-prompt"}, {"tool": "mine-prompt", "server": "mine", "error": None}),
    ("resources/read", {"uri": "mine://note"}, {"tool": "mine://note", "server": "mine", "error": None}),
    ("tools/list", {}, {"tool": None, "server": None, "error": None}),
    ("nonsense", {}, {"tool": None, "server": None, "error": "bad_request"}),
]


@pytest.mark.parametrize(("method", "params", "shown"), LINES)
@pytest.mark.parametrize("kind", ["legacy", "modern"])
async def test_a_request_is_one_line_that_says_what_came_of_it(
    house: House, kind: str, method: str, params: Any, shown: dict[str, Any]
):
    async with house.client(kind) as client:
        answer = await client.request(method, params)
        request_id = answer.headers["X-Request-Id"]
        await eventually(lambda: house.inside.lines(event="request", request_id=request_id), what="the line")
        (line,) = house.inside.lines(event="request", request_id=request_id)
        assert line["door"] == "mcp"
        assert line["principal"] == "tester"
        assert line | shown == line
        if method == "tools/call" and shown.get("server"):
            (audit,) = house.inside.lines(event="tool_call", request_id=request_id)
            assert (audit["door"], audit["tool"], audit["server"]) == ("mcp", shown["tool"], "mine")


async def test_what_comes_over_sse_is_audited_under_its_own_door(house: House):
    async with house.client("sse") as client:
        answer = await client.call("mine.echo", {"text": "x"})
        request_id = answer.headers["X-Request-Id"]
        (audit,) = house.inside.lines(event="tool_call", request_id=request_id)
        assert (audit["door"], audit["tool"], audit["server"], audit["outcome"]) == ("sse", "echo", "mine", "ok")


async def test_no_token_stands_in_the_log(house: House):
    token = make_token(jti="in-no-log")
    for kind in KINDS:
        async with house.client(kind, token=token) as client:
            await client.call("mine.echo", {"text": "x"})
    assert token not in house.inside.log
    assert token.rpartition(".")[2] not in house.inside.log


def test_the_two_halves_of_these_tests_mean_the_same_revision():
    assert NEW == MODERN
