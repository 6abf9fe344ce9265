"""What things are called at the MCP door, and that what is listed is what a call reaches, whichever form it uses."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from tests.flows.mcp_client import JSON, KINDS, House, reachable
from tests.flows.mcp_upstream import Upstream, tool, upstream
from tests.harness import make_token

pytestmark = pytest.mark.anyio
ECHO = tool("echo", text="string")
PROMPT = {"name": "greet"}


@asynccontextmanager
async def servers(**offers: dict[str, Any]) -> AsyncIterator[tuple[dict[str, Upstream], dict[str, Any]]]:
    """Upstreams by name, and their configuration."""
    async with AsyncExitStack() as stack:
        found = {
            name: await stack.enter_async_context(upstream(**{"name": name, "tools": [ECHO], **offer}))
            for name, offer in offers.items()
        }
        yield found, {name: {"url": one.url} for name, one in found.items()}


async def reached(client: Any, name: str) -> str:
    """Which server's tool answers to the name."""
    return str((await client.call(name, {"text": ""})).text.split()[0])


@pytest.mark.parametrize("kind", KINDS)
async def test_one_server_is_bare_and_several_are_prefixed(kind: str):
    async with servers(a={"prompts": [PROMPT]}, b={"prompts": [PROMPT]}) as (_, config):
        async with reachable({"a": config["a"]}) as house, house.client(kind) as client:
            assert (await client.names(), await client.names("prompts")) == (["echo"], ["greet"])
            for name in ("echo", "a.echo", "a__echo"):
                assert await reached(client, name) == "a"
        async with reachable(config) as house, house.client(kind) as client:
            assert await client.names() == ["a.echo", "b.echo"]
            assert await client.names("prompts") == ["a.greet", "b.greet"]
            for owner in ("a", "b"):
                for separator in (".", "__"):
                    assert await reached(client, f"{owner}{separator}echo") == owner
                    got = await client.request("prompts/get", {"name": f"{owner}{separator}greet"})
                    assert got.result["messages"][0]["content"]["text"] == f"{owner} greet"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_bare_name_that_several_servers_have_is_ambiguous_and_names_the_candidates(kind: str):
    only = tool("only", text="string")
    async with (
        servers(a={"tools": [ECHO, only], "prompts": [PROMPT]}, b={"prompts": [PROMPT]}) as (_, config),
        reachable(config) as house,
        house.client(kind) as client,
    ):
        assert await reached(client, "only") == "a"
        for method, name, full in [("tools/call", "echo", "echo"), ("prompts/get", "greet", "greet")]:
            error = (await client.request(method, {"name": name, "arguments": {}})).error
            assert (error["code"], error["data"]["type"]) == (-32602, "ambiguous_tool")
            assert error["data"]["candidates"] == [f"a.{full}", f"b.{full}"]


@pytest.mark.parametrize("kind", KINDS)
async def test_names_that_strict_clients_would_refuse_are_shortened_and_can_be_called(kind: str):
    long = tool("x" * 60, text="string")
    longer = tool("x" * 60 + "y", text="string")
    odd = tool("häuser/suche.v2", text="string")
    prompts = [{"name": "p" * 70}, {"name": "a b"}]
    offers = {"tools": [ECHO, long, longer, odd], "prompts": prompts}
    async with (
        servers(first=offers, second=offers) as (_, config),
        reachable(config, separator="__") as house,
        house.client(kind) as client,
    ):
        names, prompted = await client.names(), await client.names("prompts")
        assert len(set(names)) == 8
        assert len(set(prompted)) == 4
        assert "first__echo" in names
        for name in names + prompted:
            assert len(name) <= 64
            assert all(c.isascii() and (c.isalnum() or c in "_-") for c in name), name
        for name in names:
            assert await reached(client, name) == name.partition("__")[0]
        for name in prompted:
            got = (await client.request("prompts/get", {"name": name})).result
            assert got["messages"][0]["content"]["text"].startswith(name.partition("__")[0])
        assert await client.names() == names, "and stay the same"


@pytest.mark.parametrize("naming", ["always", "on-conflict", "never"])
@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_listed_is_what_a_call_reaches(kind: str, naming: str):
    """Tools with the same name, and a tool that is called like another with its server in front."""
    tricky = tool("b.echo", text="string")
    async with (
        servers(
            a={"tools": [ECHO, tricky], "prompts": [PROMPT, {"name": "b.greet"}]},
            b={"tools": [ECHO, tool("own", text="string")], "prompts": [PROMPT]},
        ) as (upstreams, config),
        reachable(config, naming=naming) as house,
        house.client(kind) as client,
    ):
        names = await client.names()
        assert len(names) == len(set(names)) >= 3
        definitions = (await client.request("tools/list")).result["tools"]
        for definition in definitions:
            before = {name: len(one.calls()) for name, one in upstreams.items()}
            text = (await client.call(definition["name"], {"text": ""})).text
            server, own = text.split()
            assert len(upstreams[server].calls()) == before[server] + 1
            wanted = {
                "always": {"a.echo": "a echo", "a.b.echo": "a b.echo", "b.own": "b own"},
                "on-conflict": {"a.echo": "a echo", "own": "b own"},
                "never": {"echo": "a echo", "own": "b own"},
            }[naming]
            assert wanted.get(definition["name"], text) == f"{server} {own}"
        for prompt in await client.names("prompts"):
            assert (await client.request("prompts/get", {"name": prompt})).result["messages"]


@pytest.mark.parametrize("kind", KINDS)
async def test_what_a_conflict_hides_is_said_and_can_be_called_by_its_full_name(kind: str):
    note = [{"uri": "same://note", "name": "n"}]
    async with (
        servers(a={"resources": note}, b={"resources": note}) as (_, config),
        reachable(config, naming="never") as house,
        house.client(kind) as client,
    ):
        names = await client.names()
        assert names[0] == "echo"
        assert await reached(client, "echo") == "a"
        assert await reached(client, "b.echo") == "b"
        assert await client.names("resources") == ["same://note"]
        rows = (await house.inside.get("/servers")).json["servers"]
        hidden = {row["name"]: {(one["kind"], one["name"]) for one in row["withheld"]} for row in rows}
        assert hidden["a"] == set()
        assert {("tools", "echo"), ("resources", "same://note")} <= hidden["b"]


async def test_what_is_withheld_is_said_with_its_reason():
    mirrored = tool("bad", text="string")
    mirrored["inputSchema"]["properties"]["text"]["x-mcp-header"] = "Not A Header"
    async with (
        servers(a={"tools": [ECHO, mirrored]}) as (_, config),
        reachable(config) as house,
        house.client("modern") as client,
    ):
        assert await client.names() == ["echo"]
        (row,) = (await house.inside.get("/servers")).json["servers"]
        (one,) = row["withheld"]
        assert (one["kind"], one["name"]) == ("tools", "bad")
        assert one["reason"]


# Resources


def days(name: str) -> dict[str, Any]:
    return {
        "resources": [{"uri": f"{name}://note", "name": "n"}],
        "templates": [{"uriTemplate": f"{name}://days/{{day}}", "name": "d"}],
    }


@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_resource_is_read_where_it_is_listed_under_its_own_uri(kind: str, era: str):
    async with (
        servers(a={"era": era, **days("a")}, b={"era": era, **days("b")}) as (_, config),
        reachable(config) as house,
        house.client(kind) as client,
    ):
        assert await client.names("resources") == ["a://note", "b://note"]
        assert await client.names("resourceTemplates") == ["a://days/{day}", "b://days/{day}"]
        for owner in ("a", "b"):
            for uri in (f"{owner}://note", f"{owner}://days/monday"):
                contents = (await client.request("resources/read", {"uri": uri})).result["contents"]
                assert contents == [{"uri": uri, "text": f"{owner} has {uri}"}]


@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_resource_that_only_a_result_links_to_is_found(kind: str, era: str):
    async with (
        servers(a={"era": era, **days("a")}, b={"era": era, **days("b")}) as (_, config),
        reachable(config) as house,
        house.client(kind) as client,
    ):
        for owner in ("a", "b"):
            read = await client.request("resources/read", {"uri": f"{owner}://linked/1"})
            assert read.result["contents"][0]["text"].startswith(f"{owner} has")


@pytest.mark.parametrize("kind", KINDS)
async def test_completions_come_from_whose_prompt_or_template_it_is(kind: str):
    async with (
        servers(a={"prompts": [PROMPT], **days("a")}, b={"prompts": [PROMPT], **days("b")}) as (_, config),
        reachable(config) as house,
        house.client(kind) as client,
    ):
        for owner in ("a", "b"):
            for ref in (
                {"type": "ref/prompt", "name": f"{owner}.greet"},
                {"type": "ref/resource", "uri": f"{owner}://days/{{day}}"},
            ):
                params = {"ref": ref, "argument": {"name": "x", "value": "y"}}
                found = (await client.request("completion/complete", params)).result
                assert found["completion"]["values"] == [f"{owner} completes"]


# Namespaces


@asynccontextmanager
async def grouped() -> AsyncIterator[House]:
    async with servers(a={"prompts": [PROMPT], **days("a")}, b={}, c={"prompts": [PROMPT], **days("c")}) as (_, config):
        config["a"]["group"] = config["b"]["group"] = "pair"
        async with reachable(config) as house:
            yield house


@pytest.mark.parametrize("kind", ["modern", "legacy"])
async def test_a_namespace_of_the_path_is_served_without_prefixes_and_alone(kind: str):
    async with grouped() as house:
        async with house.client(kind, path="/mcp/c") as client:
            assert (await client.names(), await client.names("prompts")) == (["echo"], ["greet"])
            assert await client.names("resources") == ["c://note"]
            for name in ("echo", "c.echo", "c__echo"):
                assert await reached(client, name) == "c"
            for name in ("a.echo", "pair.echo"):
                refused = await client.request("tools/call", {"name": name, "arguments": {"text": ""}})
                assert refused.error["code"] == -32602
            got = await client.request("prompts/get", {"name": "greet"})
            assert got.result["messages"][0]["content"]["text"] == "c greet"
            assert "error" in (await client.request("resources/read", {"uri": "a://note"})).message
        async with house.client(kind, path="/mcp/pair") as client:
            assert await client.names() == ["echo"]
            assert await reached(client, "echo") in ("a", "b")
        async with house.client(kind, path="/mcp/a") as client:
            assert await client.names() == ["echo"]
            assert await reached(client, "echo") == "a"


async def test_a_namespace_that_is_not_there_is_404_and_so_is_one_that_the_token_does_not_cover():
    async with grouped() as house:
        http = house.http(make_token(servers=["c"]))
        body = b'{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}'
        said = []
        for path in ("/mcp/nothing", "/mcp/a", "/mcp/pair", "/mcp/c/echo", "/mcp//"):
            for method in ("POST", "GET", "DELETE"):
                answer = await http.send(method, path, JSON, body if method == "POST" else None)
                if path != "/mcp//":
                    assert answer.status == 404, (method, path)
            said.append(answer.body.replace(path.rpartition("/")[2].encode(), b"NAME"))
        assert (await http.send("POST", "/mcp/c", JSON, body)).status == 200
        assert (await http.send("POST", "/mcp/c/", JSON, body)).status == 200
        await http.close()


async def test_a_session_belongs_to_the_namespace_where_it_was_opened():
    async with grouped() as house, house.client("legacy", path="/mcp/c") as client, house.client("legacy") as other:
        for path in ("/mcp", "/mcp/a"):
            client.path = path
            assert (await client.request("ping")).refusal == (404, -32600)
            events = {"Accept": "text/event-stream", **client.session_headers}
            assert (await client.http.send("GET", path, events)).refusal == (404, -32600)
            assert (await client.http.send("DELETE", path, events)).refusal == (404, -32600)
        client.path = "/mcp/c"
        assert (await client.request("ping")).result == {}
        other.path = "/mcp/c"
        assert (await other.request("ping")).refusal == (404, -32600)


# Without a session


async def test_a_client_without_a_session_is_answered_as_it_is():
    async with servers(a={"era": "legacy"}, b={"era": "modern"}) as (_, config), reachable(config) as house:
        http = house.http()

        async def ask(method: str, **params: Any) -> Any:
            body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
            return (
                await http.send("POST", "/mcp", {"Content-Type": "application/json"}, json.dumps(body).encode())
            ).result

        assert [one["name"] for one in (await ask("tools/list"))["tools"]] == ["a.echo", "b.echo"]
        for owner in ("a", "b"):
            called = await ask("tools/call", name=f"{owner}.echo", arguments={"text": "x"})
            assert called["content"][0]["text"] == f"{owner} echo x"
            assert "resultType" not in called
        assert await ask("ping") == {}
        await http.close()
