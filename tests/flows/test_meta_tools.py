"""The meta tools at the MCP door: who is shown them, what they answer, and that calls through them are calls like any other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.faults.harness import faulty_stdio
from tests.flows.inside import Inside
from tests.flows.mcp_client import KINDS, Answer, House, Message, reachable
from tests.flows.mcp_upstream import TOOLS, Upstream, tool, upstream
from tests.flows.test_stdio_door import ENVELOPE, INITIALIZE, program
from tests.harness import eventually, make_token

pytestmark = pytest.mark.anyio

ERAS = ["legacy", "modern"]
SESSIONS = ["legacy", "sse"]
COMPACT = make_token(listing="compact")
WORDS = ["list", "help", "use", "search", "call"]
MANAGING = ["add", "remove", "enable", "disable"]
CHANGED = "notifications/tools/list_changed"


def names(*words: str, separator: str = ".") -> list[str]:
    return [separator.join(("mcp", "router", word)) for word in words]


def described(name: str, description: str, **properties: str) -> Message:
    return {**tool(name, **properties), "description": description}


@asynccontextmanager
async def two(era: str = "both", **settings: Any) -> AsyncIterator[tuple[House, Upstream, Upstream]]:
    """Two servers that share some names. The meta tools are listed alone, unless the settings say otherwise."""
    issue = described("createIssue", "Opens an issue.\nIn any project.", text="string")
    async with (
        upstream(era=era, name="one", tools=[*TOOLS, issue], prompts=[{"name": "greet"}]) as one,
        upstream(
            era=era, name="two", tools=[tool("echo", text="string"), described("mail", "Sends a letter.")]
        ) as other,
    ):
        entries = {
            "one": {"url": one.url, "description": "Does everything.", "provider": "acme"},
            "two": {"url": other.url, "provider": "acme"},
        }
        async with reachable(entries, **{"meta_tools": "only", **settings}) as house:
            yield house, one, other


async def asks(client: Any, word: str, /, **arguments: Any) -> Message:
    """The structured result of a meta tool."""
    answer = await client.call(f"mcp.router.{word}", arguments)
    assert answer.result.get("isError") is False, answer.message
    found: Message = answer.result["structuredContent"]
    return found


async def calls(client: Any, tool_name: str, arguments: Message | None = None, **more: Any) -> Answer:
    """A call through ``mcp.router.call``."""
    given = {"tool_name": tool_name, "arguments": arguments or {}, **more}
    answer: Answer = await client.call("mcp.router.call", given)
    return answer


# Lists


@pytest.mark.parametrize("kind", KINDS)
async def test_the_setting_says_whether_they_are_listed_and_whether_anything_else_is(kind: str):
    for setting, expected in (("off", []), ("on", names(*WORDS)), ("only", names(*WORDS))):
        async with two(meta_tools=setting) as (house, _, _), house.client(kind) as client:
            listed = await client.names()
            assert listed[: len(expected)] == expected
            assert ("one.echo" in listed) is (setting != "only")
            assert len(listed) == len(set(listed))
            assert (await client.call("one.echo", {"text": "x"})).text == "one echo x"
            answer = await client.call("mcp.router.list")
            if setting == "off":
                assert answer.error["data"]["type"] == "tool_not_found"
            else:
                assert [row["name"] for row in answer.result["structuredContent"]["servers"]] == ["one", "two"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_token_may_ask_for_the_compact_list_whatever_the_setting(kind: str):
    async with two(meta_tools="off") as (house, _, _):
        async with house.client(kind, token=COMPACT) as compact, house.client(kind) as plain:
            assert await compact.names() == names(*WORDS)
            assert "one.echo" in await plain.names()
            assert (await asks(compact, "search", query="letter"))["tools"][0]["name"] == "two.mail"
            assert (await compact.call("two.mail")).text == "two mail"
            assert (await plain.call("mcp.router.list")).error["code"] == -32602
        for wrong in ("full", "", True, None, ["compact"]):
            token = make_token(listing=wrong) if wrong is not None else None
            assert (await house.inside.get("/tools", token=token)).status == 401


async def test_one_namespace_and_the_rest_door_have_none_of_them():
    async with two() as (house, _, _), house.client("modern", path="/mcp/two", token=COMPACT) as client:
        assert await client.names() == ["echo", "mail"]
        assert (await client.call("mcp.router.list")).error["data"]["type"] == "tool_not_found"
        rows = (await house.inside.get("/tools")).json["tools"]
        assert not [row for row in rows if row["name"].startswith("mcp")]
        assert (await house.inside.call("mcp.router.list")).status == 404


@pytest.mark.parametrize("kind", KINDS)
async def test_names_follow_the_separator_and_calls_take_either_form(kind: str):
    async with two(separator="__") as (house, _, _), house.client(kind) as client:
        assert await client.names() == names(*WORDS, separator="__")
        assert "mcp__router__search" in (await client.call("mcp__router__help")).text
        for form in ("mcp.router.call", "mcp__router__call"):
            given = {"tool_name": "one__echo", "arguments": {"text": "x"}}
            assert (await client.call(form, given)).text == "one echo x"


async def test_a_servers_own_tool_of_that_name_gives_way_and_is_reached_by_its_full_name():
    async with (
        upstream(name="one", tools=[tool("mcp.router.list"), tool("mcp__router__call"), tool("meta")]) as one,
        reachable({"one": {"url": one.url}}, meta_tools="on") as house,
        house.client("legacy") as client,
        house.client("legacy", token=make_token(scope="tools:read tools:call"), path="/mcp/one") as inside,
    ):
        assert await client.names() == [*names(*WORDS), "meta"]
        assert (await asks(client, "list"))["servers"][0]["name"] == "one"
        assert (await client.call("one.mcp.router.list")).text == "one mcp.router.list"
        assert (await calls(client, "mcp.router.list", instance_name="one")).text == "one mcp.router.list"
        assert await inside.names() == ["mcp.router.list", "mcp__router__call", "meta"]
        assert (await inside.call("mcp.router.list")).text == "one mcp.router.list"


@pytest.mark.parametrize("kind", KINDS)
async def test_what_a_token_may_not_call_is_not_listed(kind: str):
    async with two() as (house, one, _):
        async with house.client(kind, token=make_token(scope="tools:read")) as reader:
            assert await reader.names() == names("list", "help", "use", "search")
            refused = await calls(reader, "one.echo", {"text": "x"})
            assert refused.error["data"]["scope"] == "tools:call"
        async with house.client(kind, token=make_token(scope="tools:call")) as caller:
            assert (await calls(caller, "one.echo", {"text": "x"})).text == "one echo x"
            assert (await caller.call("mcp.router.list")).error["data"]["scope"] == "tools:read"
            wrong = (await calls(caller, "one.ehco")).error
            assert wrong["data"]["type"] == "tool_not_found"
            assert "one.echo" not in str(wrong), "names are for those who may list them"
        assert one.called("echo") == 1


async def test_who_sees_no_tools_is_told_how_to_find_them():
    async with two() as (house, _, _), house.client("legacy") as legacy, house.client("modern") as modern:
        assert "mcp.router.search" in legacy.opened["instructions"]
        assert "mcp.router.search" in (await modern.request("server/discover")).result["instructions"]
    async with two(meta_tools="on") as (house, _, _), house.client("legacy") as legacy:
        assert "mcp.router" not in legacy.opened.get("instructions", "")


# Looking


@pytest.mark.parametrize("kind", KINDS)
async def test_list_says_which_servers_there_are(kind: str):
    async with two() as (house, _, _), house.client(kind) as client:
        answer = await client.call("mcp.router.list")
        one, two_ = answer.result["structuredContent"]["servers"]
        assert one == {
            "name": "one", "state": "connected", "tools": len(TOOLS) + 1, "provider": "acme",
            "description": "Does everything.",
        }  # fmt: skip
        assert (two_["name"], two_["tools"]) == ("two", 2)
        assert "- one (connected): " in answer.text
        assert "Does everything." in answer.text
        assert (await asks(client, "list", provider_name="acme"))["more"] == 0
        assert (await asks(client, "list", provider_name="nobody"))["servers"] == []


@pytest.mark.parametrize("kind", KINDS)
async def test_help_explains_the_router_a_server_and_a_tool(kind: str):
    async with two() as (house, _, _), house.client(kind) as client:
        general = await client.call("mcp.router.help")
        assert "mcp.router.call" in general.text
        assert "- one.createIssue: Opens an issue." in general.text
        assert "two.mail" in general.text
        server = await asks(client, "help", instance_name="two")
        assert server["tools"] == [
            {"name": "two.echo", "server": "two", "tool_name": "echo", "description": ""},
            {"name": "two.mail", "server": "two", "tool_name": "mail", "description": "Sends a letter."},
        ]
        for given in ({"tool_name": "one.createIssue"}, {"tool_name": "createIssue"},
                      {"tool_name": "createIssue", "instance_name": "one"}):  # fmt: skip
            answer = await client.call("mcp.router.help", given)
            found = answer.result["structuredContent"]["tool"]
            assert (found["name"], found["server"]) == ("one.createIssue", "one")
            assert found["description"] == "Opens an issue.\nIn any project."
            assert found["inputSchema"]["required"] == ["text"]
            assert '"required":["text"]' in answer.text


@pytest.mark.parametrize(
    ("word", "given", "kind_of_error", "hint"),
    [
        ("help", {"instance_name": "onee"}, "server_not_found", "did you mean one?"),
        ("help", {"instance_name": "elsewhere"}, "server_not_found", "mcp.router.list"),
        ("help", {"tool_name": "one.creatissue"}, "tool_not_found", "one.createIssue"),
        ("help", {"tool_name": "mial", "instance_name": "two"}, "tool_not_found", "mail"),
        ("help", {"tool_name": "echo"}, "ambiguous_tool", "several servers"),
        ("use", {"provider_name": "nobody"}, "server_not_found", "mcp.router.list"),
        ("call", {"tool_name": "one.creatissue"}, "tool_not_found", "one.createIssue"),
        ("call", {"tool_name": "mial", "instance_name": "two"}, "tool_not_found", "did you mean mail?"),
        ("call", {"tool_name": "zzz"}, "tool_not_found", "mcp.router.search"),
        ("call", {"tool_name": "echo", "instance_name": "oone"}, "server_not_found", "did you mean one?"),
        ("call", {"tool_name": "echo"}, "ambiguous_tool", "several servers"),
        ("call", {"tool_name": "mcp.router.add"}, "tool_not_found", ""),
    ],
)
async def test_a_wrong_name_is_answered_with_what_may_have_been_meant(
    word: str, given: Message, kind_of_error: str, hint: str
):
    async with two() as (house, one, other):
        for kind in ERAS:
            async with house.client(kind) as client:
                error = (await client.call(f"mcp.router.{word}", given)).error
                assert error["data"]["type"] == kind_of_error
                assert hint in error["message"]
        assert one.calls() == other.calls() == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("word", "given", "fault"),
    [
        ("call", {}, "'tool_name' is required"),
        ("call", {"tool_name": "one.echo", "text": "x"}, "unknown property 'text'"),
        ("call", {"tool_name": "one.echo", "arguments": "text"}, "/arguments"),
        ("call", {"tool_name": "one.echo", "arguments": {"text": 3}}, "/text"),
        ("search", {"query": "x", "limit": 0}, "/limit"),
        ("use", {}, "instance_name"),
        ("use", {"provider_name": "acme"}, "one, two"),
    ],
)
async def test_arguments_that_do_not_fit_come_back_as_a_result_for_the_model(
    kind: str, word: str, given: Message, fault: str
):
    async with two() as (house, one, _), house.client(kind) as client:
        answer = await client.call(f"mcp.router.{word}", given)
        assert answer.result["isError"] is True
        assert fault in answer.text
        assert one.calls() == []


@pytest.mark.parametrize("kind", KINDS)
async def test_search_ranks_tools_of_all_servers_and_gives_their_arguments(kind: str):
    async with two() as (house, one, _), house.client(kind) as client:
        answer = await client.call("mcp.router.search", {"query": "open issues"})
        best = answer.result["structuredContent"]["tools"][0]
        assert (best["name"], best["server"], best["tool_name"]) == ("one.createIssue", "one", "createIssue")
        assert best["inputSchema"]["required"] == ["text"]
        assert answer.text.startswith("one.createIssue\nOpens an issue.")
        both = await asks(client, "search", query="echo")
        assert {row["name"] for row in both["tools"]} == {"one.echo", "two.echo"}
        first = await asks(client, "search", query="echo", limit=1)
        assert (len(first["tools"]), first["more"]) == (1, 1)
        nothing = await client.call("mcp.router.search", {"query": "xylophone"})
        assert nothing.result["structuredContent"] == {"tools": [], "more": 0}
        assert "mcp.router.list" in nothing.text
        one.tools.append(described("play", "Plays the xylophone."))
        await eventually(lambda: one.is_listened_to, what="the proxy listens")
        await one.announce()
        await eventually(lambda: _finds(client, "xylophone"), what="the new tool is found")


async def _finds(client: Any, query: str) -> list[Message]:
    found: list[Message] = (await asks(client, "search", query=query))["tools"]
    return found


async def test_answers_are_bounded_and_say_how_much_more_there_is():
    long = [described(f"tool_{n}", f"Number {n}. " + "Goes on and on. " * 40, text="string") for n in range(400)]
    async with (
        upstream(name="one", tools=long) as one,
        reachable({"one": {"url": one.url}}, meta_tools="only", naming="always") as house,
        house.client("modern") as client,
    ):
        for word, given in (
            ("use", {"instance_name": "one"}), ("help", {}), ("help", {"instance_name": "one"}),
            ("search", {"query": "number", "limit": 50}),
        ):  # fmt: skip
            answer = await client.call(f"mcp.router.{word}", given)
            data = answer.result["structuredContent"]
            assert len(answer.text.encode()) < 34 * 1024
            assert len(json.dumps(data["tools"]).encode()) < 40 * 1024
            assert len(data["tools"]) + data["more"] == 400
            assert f"{data['more']} more" in answer.text or not data["more"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_narrow_token_finds_and_calls_only_what_it_sees(kind: str):
    async with two() as (house, one, other):
        token = make_token(listing="compact", servers=["two"], tools=["mail"])
        async with house.client(kind, token=token) as client:
            assert await client.names() == names(*WORDS)
            assert [(row["name"], row["tools"]) for row in (await asks(client, "list"))["servers"]] == [("two", 1)]
            assert [row["name"] for row in (await asks(client, "help"))["tools"]] == ["two.mail"]
            assert [row["name"] for row in (await asks(client, "use", instance_name="two"))["tools"]] == ["two.mail"]
            assert (await asks(client, "search", query="echo issue"))["tools"] == []
            assert (await calls(client, "mail", instance_name="two")).text == "two mail"
            for refused in (
                await calls(client, "one.echo", {"text": "x"}),
                await calls(client, "echo", {"text": "x"}, instance_name="one"),
                await calls(client, "two.ehco", {"text": "x"}),
                await client.call("mcp.router.help", {"instance_name": "one"}),
                await client.call("mcp.router.use", {"instance_name": "one"}),
            ):
                assert refused.error["data"]["type"] in ("tool_not_found", "server_not_found")
                assert "echo" not in str(refused.error["data"].get("near"))
                assert "one" not in str(refused.error["data"].get("near"))
        assert (one.calls(), other.called("echo"), other.called("mail")) == ([], 0, 1)


# Using a server


@pytest.mark.parametrize("kind", SESSIONS)
async def test_in_a_session_bare_names_mean_the_server_that_is_used(kind: str):
    async with two(meta_tools="on") as (house, _, _), house.client(kind) as client, house.client(kind) as other:
        assert (await client.call("echo", {"text": "x"})).error["data"]["type"] == "ambiguous_tool"
        used = await asks(client, "use", instance_name="two")
        assert (used["server"], used["preferred"]) == ("two", True)
        assert [row["tool_name"] for row in used["tools"]] == ["echo", "mail"]
        assert (await client.call("echo", {"text": "x"})).text == "two echo x"
        assert (await calls(client, "echo", {"text": "x"})).text == "two echo x"
        assert (await client.call("one.echo", {"text": "x"})).text == "one echo x"
        assert (await calls(client, "echo", {"text": "x"}, instance_name="one")).text == "one echo x"
        assert (await client.call("meta")).text.startswith("{"), "what the other server alone has is still reached"
        assert (await other.call("echo", {"text": "x"})).error["data"]["type"] == "ambiguous_tool"
        await asks(client, "use", instance_name="one")
        assert (await client.call("echo", {"text": "x"})).text == "one echo x"


@pytest.mark.parametrize("kind", SESSIONS)
async def test_a_server_that_is_used_comes_before_the_one_whose_bare_name_is_listed(kind: str):
    async with two(meta_tools="on", naming="never") as (house, _, _), house.client(kind) as client:
        assert (await client.call("echo", {"text": "x"})).text == "one echo x"
        await asks(client, "use", instance_name="two")
        assert (await client.call("echo", {"text": "x"})).text == "two echo x"


@pytest.mark.parametrize("kind", SESSIONS)
async def test_a_preference_ends_with_the_server_it_was_for(kind: str):
    admin = make_token(scope="admin")
    async with two(meta_tools="on", allow_network=("127.0.0.0/8",)) as (house, _, other):
        inside = house.inside
        await inside.post("/servers", {"mcpServers": {"three": {"url": other.url}}}, token=admin)
        await inside.in_state(three="connected")
        async with house.client(kind) as client:
            await asks(client, "use", instance_name="three")
            assert (await client.call("mail")).text == "two mail"
            assert other.called("mail") == 1
            assert (await inside.request("DELETE", "/servers/three", token=admin)).status == 200
            assert (await client.call("mail")).text == "two mail", "only two has it now"


async def test_without_a_session_use_says_that_it_changes_nothing():
    async with two(meta_tools="on") as (house, _, _), house.client("modern") as modern:
        used = await modern.call("mcp.router.use", {"instance_name": "two"})
        assert used.result["structuredContent"]["preferred"] is False
        assert "changes nothing" in used.text
        assert (await modern.call("echo", {"text": "x"})).error["data"]["type"] == "ambiguous_tool"
        params = {"name": "mcp.router.use", "arguments": {"instance_name": "two"}}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        reply = await house.inside.post("/mcp", body)
        assert "changes nothing" in reply.json["result"]["content"][0]["text"]


# Calling


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("kind", KINDS)
async def test_whatever_a_server_asks_and_reports_passes_through_a_call(kind: str, era: str):
    async with two(era) as (house, one, _), house.client(kind) as client:
        assert "answer to who is x?" in (await calls(client, "one.ask", {"who": "x"})).text
        twice = await calls(client, "ask_twice", {"who": "x"}, instance_name="one")
        assert twice.text.index("answer to first, x") < twice.text.index("answer to second, x")
        assert (await calls(client, "one.sample", {"text": "this"})).text == "model on this"
        assert [method for method, _ in client.asked] == ["elicitation/create"] * 3 + ["sampling/createMessage"]
        params = {
            "name": "mcp.router.call",
            "arguments": {"tool_name": "one.progress"},
            "_meta": {"progressToken": "mine"},
        }
        assert (await client.use("tools/call", params)).text == "progress"
        await client.hears("notifications/progress", 3)
        assert {note["params"]["progressToken"] for note in client.heard("notifications/progress")} == {"mine"}
        assert not any(one_.params.get("name", "").startswith("mcp") for one_ in one.calls())


@pytest.mark.parametrize("era", ERAS)
async def test_the_state_of_a_round_is_good_for_the_call_that_it_was_given_for(era: str):
    async with two(era) as (house, _, _), house.client("modern") as client:
        given = {"tool_name": "ask", "instance_name": "one", "arguments": {"who": "x"}}
        params: Message = {"name": "mcp.router.call", "arguments": given}
        first = await client.request("tools/call", params)
        assert first.result["resultType"] == "input_required"
        other = {**given, "instance_name": "two", "tool_name": "mail"}
        back = {"requestState": first.result["requestState"], "inputResponses": {}}
        assert (await client.request("tools/call", {**params, "arguments": other, **back})).error["code"] == -32602


@pytest.mark.parametrize("kind", KINDS)
async def test_errors_limits_log_and_audit_know_the_tool_that_was_reached(kind: str):
    token = make_token(rate=2)
    async with two(log_level="DEBUG") as (house, _, _), house.client(kind, token=token) as client:
        inside: Inside = house.inside
        given = {"code": -32050, "message": "no"}
        failed = await calls(client, "one.fail", given)
        assert (failed.error["code"], failed.error["data"]) == (-32050, {"of": "one"})
        assert (await calls(client, "echo", {"text": "x"}, instance_name="two")).text == "two echo x"
        assert (await calls(client, "two.mail")).error["data"]["type"] == "rate_limited"
        assert (await asks(client, "list"))["more"] == 0, "what reaches no server does not count"
        assert inside.lines(event="tool_call", tool="echo", server="two", outcome="ok")
        assert inside.lines(event="tool_call", tool="fail", server="one", outcome="upstream_error")
        if kind != "sse":
            await eventually(lambda: inside.lines(event="request", tool="echo", server="two"), what="its line")
            await eventually(lambda: inside.lines(event="request", tool="mcp.router.list"), what="its line")


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("kind", SESSIONS)
async def test_a_call_through_the_router_can_be_cancelled(kind: str, era: str):
    async with two(era) as (house, one, _), house.client(kind) as client:
        params = {"name": "mcp.router.call", "arguments": {"tool_name": "one.hang"}}
        client.tasks.spawn(client.request("tools/call", params, id="long"), "call")
        await eventually(lambda: one.called("hang"), what="the call has arrived")
        await client.cancel("long")
        await eventually(lambda: one.cancelled == ["hang"], what="the server is told")


async def test_headers_that_repeat_arguments_are_made_for_the_tool_and_not_asked_of_the_client():
    schema = {"type": "object", "properties": {"text": {"type": "string", "x-mcp-header": "Text"}}}
    async with (
        upstream(era="modern", name="one", tools=[{"name": "echo", "inputSchema": schema}]) as one,
        reachable({"one": {"url": one.url}}, meta_tools="on") as house,
        house.client("modern") as client,
    ):
        assert (await client.call("echo", {"text": "x"})).error["code"] == -32020
        assert (await calls(client, "echo", {"text": "x"})).text == "one echo x"
        sent = one.calls()[-1].headers
        assert (sent["Mcp-Param-Text"], sent["Mcp-Name"]) == ("x", "echo")


async def test_call_can_call_the_other_meta_tools():
    async with two() as (house, _, _), house.client("modern") as client:
        found = await calls(client, "mcp.router.search", {"query": "letter"})
        assert found.result["structuredContent"]["tools"][0]["name"] == "two.mail"
        again = {"tool_name": "mcp.router.call", "arguments": {"tool_name": "two.mail"}}
        assert (await calls(client, "mcp__router__call", again)).text == "two mail"


# Changes


@pytest.mark.parametrize("kind", KINDS)
async def test_who_does_not_see_the_tools_is_not_told_that_they_changed(kind: str):
    async with two(meta_tools="on") as (house, one, _):
        await eventually(lambda: one.is_listened_to, what="the proxy listens")
        async with house.client(kind, token=COMPACT) as compact, house.client(kind) as plain:
            await compact.listen()
            await plain.listen()
            await compact.call("one.ask", {"who": "x"})
            one.tools.append(tool("new"))
            one.prompts.append({"name": "part"})
            await one.announce()
            await plain.hears(CHANGED)
            await asyncio.sleep(0.6)
            assert compact.heard(CHANGED) == []
            assert (await compact.call("one.new")).text == "one new"
            await one.announce("prompts")
            await plain.hears("notifications/prompts/list_changed")
            await compact.hears("notifications/prompts/list_changed")


# Managing


@asynccontextmanager
async def managed(**settings: Any) -> AsyncIterator[tuple[House, Upstream]]:
    fields = {"meta_tools": "on", "allow_instance_management": True, "allow_network": ("127.0.0.0/8",), **settings}
    async with upstream(name="new") as one, reachable(naming="always", **fields) as house:
        yield house, one


WRITER = make_token(scope="tools:read tools:call servers:write")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_is_added_called_switched_and_removed(kind: str):
    async with managed() as (house, one), house.client(kind, token=WRITER) as client:
        assert await client.names() == names(*WORDS, *MANAGING)
        added = await asks(client, "add", instance_name="new", provider_name="acme", config={"url": one.url})
        assert added["added"] == "new"
        assert (await calls(client, "new.echo", {"text": "x"})).text == "new echo x"
        assert [row["provider"] for row in (await asks(client, "list"))["servers"]] == ["acme"]
        assert "new" in json.loads((house.runtime.settings.state_dir / "servers.json").read_text())["servers"]
        assert (await asks(client, "disable", instance_name="new"))["state"] == "disabled"
        refused = await calls(client, "new.echo", {"text": "x"})
        assert refused.error["data"]["type"] == "upstream_unavailable"
        await asks(client, "enable", instance_name="new")
        assert (await calls(client, "new.echo", {"text": "x"})).text == "new echo x"
        assert (await asks(client, "remove", instance_name="new")) == {"removed": "new"}
        assert (await calls(client, "new.echo", {"text": "x"})).error["data"]["type"] == "tool_not_found"
        assert (await asks(client, "list"))["servers"] == []


@pytest.mark.parametrize("meta", ["off", "only"])
async def test_managing_has_a_setting_of_its_own(meta: str):
    async with managed(meta_tools=meta) as (house, _), house.client("legacy", token=WRITER) as client:
        assert await client.names() == names(*(WORDS if meta == "only" else []), *MANAGING)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("settings", "token"),
    [({"allow_instance_management": False}, WRITER), ({}, make_token()), ({}, make_token(scope="tools:call"))],
    ids=["no setting", "no scope", "calls only"],
)
async def test_without_setting_and_scope_there_are_no_such_tools(kind: str, settings: Message, token: str):
    async with managed(**settings) as (house, one), house.client(kind, token=token) as client:
        answer = await client.call("mcp.router.add", {"instance_name": "new", "config": {"url": one.url}})
        assert answer.error["data"]["type"] == "tool_not_found"
        assert one.received == []


async def test_the_rules_for_added_servers_are_those_of_the_api():
    narrow = make_token(scope="tools:read tools:call servers:write", servers=["mine"])
    async with managed(allow_network=()) as (house, one), house.client("modern", token=WRITER) as client:
        cases: list[tuple[str, Message, str]] = [
            ("add", {"instance_name": "new", "config": {"url": one.url}}, "url_not_allowed"),
            ("add", {"instance_name": "new", "config": {"command": "sh"}}, "command_not_allowed"),
            ("add", {"instance_name": "mcp", "config": {"url": one.url}}, "unprocessable"),
            ("add", {"instance_name": "new", "config": {"nonsense": 1}}, "unprocessable"),
            ("remove", {"instance_name": "nobody"}, "server_not_found"),
            ("enable", {"instance_name": "nobody"}, "server_not_found"),
        ]
        for word, given, expected in cases:
            assert (await client.call(f"mcp.router.{word}", given)).error["data"]["type"] == expected
        assert (await client.call("mcp.router.remove", {})).result["isError"] is True
    async with managed() as (house, one), house.client("modern", token=narrow) as client:
        given = {"instance_name": "other", "config": {"url": one.url}}
        assert (await client.call("mcp.router.add", given)).error["data"]["type"] == "server_not_found"
        assert (await asks(client, "add", instance_name="mine", config={"url": one.url}))["added"] == "mine"
    async with two(allow_instance_management=True) as (house, _, _), house.client("modern", token=WRITER) as client:
        gone = await client.call("mcp.router.remove", {"instance_name": "one"})
        assert (gone.error["code"], gone.error["data"]["type"]) == (-31013, "conflict")


# On stdin and stdout


async def test_the_stdio_door_has_them_in_both_eras_and_its_session_keeps_a_preference(tmp_path: Path):
    async with faulty_stdio() as child:
        servers = {"calc": child.entry, "more": child.entry}
        async with program(tmp_path, "--meta-tools", "only", "--allow-instance-management", servers=servers) as one:
            await one.ask(1, "initialize", **INITIALIZE)
            listed = (await one.ask(2, "tools/list"))["result"]["tools"]
            assert [row["name"] for row in listed] == names(*WORDS, *MANAGING)
            numbers = {"a": 2, "b": 3}
            assert "error" in await one.call(3, "add", numbers)
            used = await one.call(4, "mcp.router.use", {"instance_name": "more"})
            assert used["result"]["structuredContent"]["preferred"] is True
            assert (await one.call(5, "add", numbers))["result"]["structuredContent"] == {"sum": 5}
            through = await one.call(
                6, "mcp.router.call", {"tool_name": "calc.add", "arguments": numbers}, _meta=ENVELOPE
            )
            assert through["result"]["structuredContent"] == {"sum": 5}
            assert through["result"]["resultType"] == "complete"
