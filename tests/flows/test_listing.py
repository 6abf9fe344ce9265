"""``GET /tools/list`` and ``GET /tools``: what is listed, under which names (contract, sections 4 and 5)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.harness import FaultyUpstream, faulty_http, faulty_stdio
from tests.flows.inside import Inside, refusal, serving

pytestmark = pytest.mark.anyio


async def shown(inside: Inside, path: str = "/tools", **more: Any) -> list[tuple[str, str]]:
    """Names and servers of ``GET /tools``."""
    return sorted((tool["name"], tool["server"]) for tool in (await inside.get(path, **more)).json["tools"])


async def bare(inside: Inside, path: str = "/tools/list", **more: Any) -> list[tuple[str, list[str]]]:
    """Names and servers of ``GET /tools/list``."""
    return sorted((tool["name"], tool["servers"]) for tool in (await inside.get(path, **more)).json["tools"])


async def test_a_listed_tool_has_its_definition_as_the_server_gave_it(calc: Inside):
    reply = await calc.get("/tools/list")
    assert (reply.status, set(reply.json)) == (200, {"tools", "revision"})
    (add,) = [tool for tool in reply.json["tools"] if tool["name"] == "add"]
    assert add == {
        "name": "add",
        "servers": ["calc"],
        "description": "Add two numbers",
        "inputSchema": {
            "type": "object",
            "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
            "required": ["a", "b"],
        },
        "outputSchema": {"type": "object", "properties": {"sum": {"type": "number"}}, "required": ["sum"]},
        "annotations": {"idempotentHint": True},
    }


async def test_both_lists_are_of_one_catalogue(calc: Inside):
    listed, named = await calc.get("/tools/list"), await calc.get("/tools")
    assert listed.json["revision"] == named.json["revision"] >= 1
    assert [tool["name"] for tool in listed.json["tools"]] == [tool["name"] for tool in named.json["tools"]]


async def test_with_one_server_names_are_bare_and_with_several_they_say_the_server(upstream: FaultyUpstream):
    async with serving({"calc": {"url": upstream.url}}) as inside:
        assert await shown(inside) == [("add", "calc"), ("count", "calc"), ("echo", "calc")]
    async with serving({"calc": {"url": upstream.url}, "more": {"url": upstream.url}}) as inside:
        names = [name for name, _ in await shown(inside)]
    assert names == ["calc.add", "calc.count", "calc.echo", "more.add", "more.count", "more.echo"]


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"naming": "always"}, ["one.add", "one.count", "one.echo", "two.add"]),
        ({"naming": "always", "separator": "__"}, ["one__add", "one__count", "one__echo", "two__add"]),
        ({"naming": "on-conflict"}, ["count", "echo", "one.add", "two.add"]),
        ({"naming": "never"}, ["add", "count", "echo", "two.add"]),
    ],
)
async def test_names_follow_the_naming_policy_and_each_can_be_called(
    upstream: FaultyUpstream, settings: dict[str, Any], names: list[str]
):
    servers = {"one": {"url": upstream.url}, "two": {"url": upstream.url, "tools": {"allow": ["add"]}}}
    async with serving(servers, **settings) as inside:
        found = await shown(inside)
        assert sorted(name for name, _ in found) == names
        for name, server in found:
            args = {"a": 1, "b": 1, "text": "x"}
            reply = await inside.call(name, args)
            # A bare name that two servers have stays ambiguous in a call, whatever the list shows.
            expected = (409, None) if settings["naming"] == "never" and name == "add" else (200, server)
            assert (reply.status, reply.json.get("server")) == expected, name


async def test_a_group_is_listed_as_one_namespace(upstream: FaultyUpstream):
    servers = {
        "a": {"url": upstream.url, "group": "pair"},
        "b": {"url": upstream.url, "group": "pair"},
        "solo": {"url": upstream.url},
    }
    async with serving(servers) as inside:
        assert ("pair.add", "pair") in await shown(inside)
        assert {server for _, server in await shown(inside)} == {"pair", "solo"}
        assert ("add", ["a", "b", "solo"]) in await bare(inside)


async def test_tools_that_are_defined_differently_have_rows_of_their_own(upstream: FaultyUpstream):
    async with faulty_stdio("bad-schema") as odd, serving({"calc": {"url": upstream.url}, "odd": odd.entry}) as inside:
        rows = await bare(inside)
    assert ("add", ["calc", "odd"]) in rows
    assert ("schemaless", ["odd"]) in rows


@pytest.mark.parametrize("path", ["/tools/list", "/tools"])
async def test_a_list_can_be_asked_of_one_server_by_name_group_or_url(upstream: FaultyUpstream, path: str):
    async with faulty_stdio() as child:
        servers = {
            "web": {"url": upstream.url},
            "a": child.entry | {"group": "pair"},
            "off": {"url": "http://127.0.0.1:9/"},
        }
        async with serving(servers, connect_timeout=1) as inside:
            for server in ("web", upstream.url.replace(":", "%3A"), "a", "pair"):
                reply = await inside.get(f"{path}?server={server}")
                assert (reply.status, len(reply.json["tools"])) == (200, 3), server
            assert (await inside.get(f"{path}?server=off")).json["tools"] == []
            assert refusal(await inside.get(f"{path}?server=nobody")) == (404, "server_not_found")


async def test_tools_are_offered_as_allow_and_deny_say(upstream: FaultyUpstream):
    rules = {"allow": ["a*", "echo"], "deny": ["e?ho"]}
    async with serving({"calc": {"url": upstream.url, "tools": rules}}) as inside:
        assert await bare(inside) == [("add", ["calc"])]
        assert refusal(await inside.call("echo", {"text": "x"})) == (404, "tool_not_found")


async def test_all_pages_of_a_list_are_read():
    async with faulty_http("paged-tools") as one, serving({"calc": {"url": one.url}}) as inside:
        assert [name for name, _ in await bare(inside)] == ["add", "count", "echo"]


@pytest.mark.parametrize("path", ["/tools", "/tools/list"])
async def test_a_list_that_is_asked_for_at_once_waits_for_the_first_connection(path: str):
    async with faulty_stdio() as child, serving({"calc": child.entry}, settle=False) as inside:
        assert len((await inside.get(path)).json["tools"]) == 3


async def test_a_call_that_is_made_at_once_waits_for_the_first_connection():
    async with faulty_stdio() as child, serving({"calc": child.entry}, settle=False) as inside:
        assert (await inside.call("add", {"a": 1, "b": 1})).status == 200


async def test_a_server_that_never_answers_keeps_no_list_and_no_call_of_others_waiting(upstream: FaultyUpstream):
    async with faulty_http("hang-on-connect") as dumb:
        servers = {"dumb": {"url": dumb.url}, "calc": {"url": upstream.url}}
        async with serving(servers, settle=False, connect_timeout=0.4) as inside:
            await inside.in_state(calc="connected")
            assert (await inside.call("calc.add", {"a": 1, "b": 1})).status == 200
            assert [name for name, _ in await shown(inside)] == ["calc.add", "calc.count", "calc.echo"]


async def test_a_tool_that_appears_is_listed_under_a_new_revision():
    async with faulty_http() as one, serving({"calc": {"url": one.url}}, health_interval=0.2) as inside:
        before = (await inside.get("/tools")).json["revision"]
        await one.kill()
        await inside.in_state(calc="down")
        assert len(await shown(inside)) == 3, "the last known tools stay listed"
        one._args += ["--mode", "extra-tool"]
        await one.start()
        await inside.in_state(calc="connected")
        assert ("extra", "calc") in await shown(inside)
        assert (await inside.get("/tools")).json["revision"] > before
        assert (await inside.call("extra", {})).status == 200
