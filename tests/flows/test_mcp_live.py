"""The MCP door while things change: servers that come late or again, lists, resources, sessions and streams that end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.faults.harness import faulty_stdio
from tests.flows.mcp_client import KINDS, House, reachable
from tests.flows.mcp_upstream import Upstream, tool, upstream
from tests.harness import eventually, make_token

pytestmark = pytest.mark.anyio
ECHO = tool("echo", text="string")
NOTE = {"uri": "one://note", "name": "note"}
CHANGED = "notifications/tools/list_changed"
UPDATED = "notifications/resources/updated"
ERAS = ["legacy", "modern"]


@asynccontextmanager
async def one_server(era: str = "both", **settings: Any) -> AsyncIterator[tuple[House, Upstream]]:
    """A house with one server that has a bit of everything."""
    offer = {"tools": [ECHO, tool("ask", who="string")], "resources": [NOTE], "prompts": [{"name": "greet"}]}
    async with (
        upstream(era=era, name="one", **offer) as one,
        reachable({"one": {"url": one.url, "type": "http"}}, **settings) as house,
    ):
        yield house, one


async def is_heard_by(one: Upstream) -> None:
    """Wait until the proxy would hear what the upstream announces."""
    await eventually(lambda: one.is_listened_to, what="the proxy listens to the upstream")


# Servers that come late


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("kind", KINDS)
async def test_whoever_asks_while_servers_are_being_connected_waits_for_them(kind: str, era: str):
    async with (
        upstream(era=era, delay=0.4, prompts=[{"name": "greet"}], resources=[NOTE]) as slow,
        reachable({"slow": {"url": slow.url, "type": "http"}}, settle=False) as house,
        house.client(kind) as client,
        house.client(kind) as other,
        house.client(kind) as third,
    ):
        names, called, prompts = await asyncio.gather(
            client.names(), other.call("echo", {"text": "x"}), third.names("prompts")
        )
        assert "echo" in names
        assert called.text == "upstream echo x"
        assert prompts == ["greet"]


@pytest.mark.parametrize("era", ERAS)
async def test_whoever_listens_is_told_of_a_server_that_comes_late(era: str):
    async with upstream(era=era, name="late", prompts=[{"name": "greet"}]) as late:
        await late.stop()
        async with reachable({"late": {"url": late.url, "type": "http"}}) as house:
            clients = [house.client(kind) for kind in KINDS]
            async with clients[0], clients[1], clients[2]:
                for client in clients:
                    await client.listen()
                    assert await client.names() == []
                await late.start()
                for client in clients:
                    await client.hears(CHANGED, timeout=15)
                    await client.hears("notifications/prompts/list_changed")
                    assert "echo" in await client.names()
                    assert client.heard("notifications/resources/list_changed") == []


# Changed lists


@pytest.mark.parametrize("links", ["shared", "own"])
@pytest.mark.parametrize("era", ERAS)
async def test_a_burst_of_changes_is_one_notice_to_each_who_listens(era: str, links: str):
    async with one_server(era) as (house, one):
        await is_heard_by(one)
        clients = [house.client(kind) for kind in KINDS]
        async with clients[0], clients[1], clients[2]:
            for client in clients:
                await client.listen()
                if links == "own":
                    await client.call("ask", {"who": "x"})
            if era == "legacy" and links == "own":
                # The modern client's call was asked something, so its link is not kept for the next one.
                await eventually(lambda: len(one._streams) == 3, what="the shared link and the sessions' own listen")
            for number in range(10):
                one.tools.append(tool(f"new-{number}"))
                await one.announce()
            for client in clients:
                await client.hears(CHANGED)
                assert "new-9" in await client.names()
            await asyncio.sleep(1.5)  # a second round of notices would come within this
            assert [len(client.heard(CHANGED)) for client in clients] == [1, 1, 1]
            assert [len(client.heard("notifications/prompts/list_changed")) for client in clients] == [0, 0, 0]


@pytest.mark.parametrize("era", ERAS)
async def test_only_those_are_told_whose_own_view_has_changed(era: str):
    async with (
        upstream(era=era, name="one", tools=[ECHO]) as one,
        upstream(era=era, name="two", tools=[ECHO]) as two,
        reachable({"one": {"url": one.url, "type": "http"}, "two": {"url": two.url, "type": "http"}}) as house,
    ):
        await is_heard_by(one)
        narrow = [house.client(kind, token=make_token(servers=["two"])) for kind in KINDS]
        inside = house.client("modern", path="/mcp/two"), house.client("legacy", path="/mcp/two")
        wide = house.client("modern")
        async with narrow[0], narrow[1], narrow[2], inside[0], inside[1], wide:
            for client in (*narrow, *inside, wide):
                await client.listen()
            one.tools.append(tool("new"))
            await one.announce()
            await wide.hears(CHANGED)
            await asyncio.sleep(0.3)
            assert [client.heard(CHANGED) for client in (*narrow, *inside)] == [[]] * 5


@pytest.mark.parametrize(
    "wish", [{"toolsListChanged": True}, {"promptsListChanged": True}, {}, {"toolsListChanged": False}]
)
async def test_a_modern_client_is_told_of_what_it_asked_for_and_of_nothing_else(wish: dict[str, bool]):
    async with one_server() as (house, one), house.client("modern") as client, house.client("modern") as other:
        await is_heard_by(one)
        await other.listen()
        client.tasks.spawn(client._listen(wish), "listen")
        client.ended = asyncio.get_running_loop().create_future()
        await client.hears("notifications/subscriptions/acknowledged")
        acknowledged = client.notes[0]["params"]
        assert acknowledged["notifications"] == {key: True for key, value in wish.items() if value}
        assert acknowledged["_meta"]["io.modelcontextprotocol/subscriptionId"] == "listening"
        one.tools.append(tool("new"))
        await one.announce()
        await other.hears(CHANGED)
        await asyncio.sleep(0.2)
        assert len(client.heard(CHANGED)) == (1 if wish.get("toolsListChanged") else 0)


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_tool_that_is_shown_to_those_who_can_be_asked_is_shown_and_announced_to_them_alone(kind: str, era: str):
    async with (
        one_server(era) as (house, one),
        house.client(kind) as able,
        house.client(kind, capabilities={}) as unable,
    ):
        one.gated.append(tool("gated"))
        await one.announce()
        await eventually(lambda: _lists(able, "gated"), what="the gated tool is listed")
        assert "gated" not in await unable.names()
        assert (await able.call("gated")).text == "one gated"
        await able.listen()
        await unable.listen()
        one.gated.append(tool("second"))
        await one.announce()
        await able.hears(CHANGED)
        assert "second" in await able.names()
        assert "second" not in await unable.names()


async def _lists(client: Any, name: str) -> bool:
    return name in await client.names()


# Resources that are followed


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("kind", KINDS)
async def test_who_follows_a_resource_is_told_of_its_updates_until_it_lets_go(kind: str, era: str):
    async with (
        one_server(era) as (house, one),
        house.client(kind) as client,
        house.client(kind) as idle,
    ):
        await is_heard_by(one)
        await client.listen([NOTE["uri"]])
        await idle.listen()
        await eventually(lambda: NOTE["uri"] in one.following, what="the upstream is asked")
        await one.update(NOTE["uri"])
        (note,) = await client.hears(UPDATED)
        assert note["params"]["uri"] == NOTE["uri"]
        if kind == "modern":
            assert note["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"] == "listening"
            await client.leave()
        else:
            assert "_meta" not in note["params"]
            assert (await client.request("resources/unsubscribe", {"uri": NOTE["uri"]})).result == {}
        await eventually(lambda: not one.following, what="the upstream is told")
        await one.update(NOTE["uri"])
        await asyncio.sleep(0.2)
        assert len(client.heard(UPDATED)) == 1
        assert idle.heard(UPDATED) == []


@pytest.mark.parametrize("era", ERAS)
async def test_a_server_is_asked_once_however_many_follow(era: str):
    async with one_server(era) as (house, one):
        clients = [house.client(kind) for kind in KINDS]
        async with clients[0], clients[1], clients[2]:
            for client in clients:
                await client.listen([NOTE["uri"]])
            await eventually(lambda: NOTE["uri"] in one.following, what="the upstream is asked")
            method = "resources/subscribe" if era == "legacy" else "subscriptions/listen"
            asked = [one_ for one_ in one.calls(method) if NOTE["uri"] in str(one_.params)]
            assert len(asked) == 1
            for client in clients[:2]:
                await client.leave()
            house.runtime.door.sessions.end(next(iter(house.runtime.door.sessions)))
            await one.update(NOTE["uri"])
            await clients[2].hears(UPDATED)


# Servers that come again


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("kind", KINDS)
async def test_clients_go_on_and_followed_resources_are_followed_again_after_a_server_was_restarted(
    kind: str, era: str
):
    async with one_server(era, health_interval=0.3) as (house, one), house.client(kind) as client:
        await client.listen([NOTE["uri"]])
        assert "answer" in (await client.call("ask", {"who": "before"})).text
        await one.stop()
        await house.inside.in_state(one="down")
        refused = await client.request("tools/call", {"name": "echo", "arguments": {"text": "x"}})
        assert refused.error["data"]["type"] == "upstream_unavailable"
        await one.start()
        await house.inside.in_state(one="connected")
        assert (await client.call("echo", {"text": "x"})).text == "one echo x"
        assert "after" in (await client.call("ask", {"who": "after"})).text
        await eventually(lambda: NOTE["uri"] in one.following, what="it is followed again")
        await one.update(NOTE["uri"])
        await client.hears(UPDATED)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_that_forgot_the_clients_session_is_met_anew(kind: str):
    async with one_server("legacy") as (house, one), house.client(kind) as client:
        assert "answer" in (await client.call("ask", {"who": "before"})).text
        one.opened.clear()
        one.subscribed.clear()
        assert "again" in (await client.call("ask", {"who": "again"})).text


# Stopping


async def test_streams_end_with_what_they_are_owed_when_the_service_stops():
    async with one_server() as (house, _):
        modern, legacy, sse = (house.client(kind) for kind in KINDS)
        async with modern, legacy, sse:
            for client in (modern, legacy, sse):
                await client.listen()
            await asyncio.wait_for(house.stop(), 8)
            answer = await asyncio.wait_for(modern.ended, 3)
            assert answer.status == 200
            assert answer.message["id"] == "listening"
            assert answer.result["_meta"]["io.modelcontextprotocol/subscriptionId"] == "listening"
            assert answer.result["resultType"] == "complete"
            await asyncio.wait([legacy.stream, sse.stream], timeout=3)
            assert legacy.stream.done()
            assert sse.stream.done()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_in_flight_is_answered_though_the_service_stops(kind: str):
    offer = [tool("ask_later", who="string"), ECHO]
    async with (
        upstream(era="legacy", tools=offer) as one,
        reachable({"one": {"url": one.url}}) as house,
        house.client(kind, capabilities={}) as client,
    ):
        call = client.tasks.spawn(
            client.request("tools/call", {"name": "ask_later", "arguments": {"who": "x"}}), "call"
        )
        await eventually(lambda: one.called("ask_later") == 1, what="the call has arrived")
        stopping = client.tasks.spawn(house.stop(), "stop")
        await asyncio.sleep(0.2)
        assert not call.done()
        one.go.set()
        answer = await asyncio.wait_for(call, 5)
        assert "is not offered" in answer.error["message"], "the server's own answer, which is an error"
        await asyncio.wait_for(stopping, 8)


# Streams and sessions that end


async def test_a_stream_ends_with_the_token_that_opened_it():
    async with one_server() as (house, _):
        clients = [house.client(kind, token=make_token(ttl=2.2)) for kind in KINDS]
        async with clients[0], clients[1], clients[2]:
            for client in clients:
                await client.listen()
            streams = [client.stream for client in clients]
            _, left = await asyncio.wait(streams, timeout=6)
            assert not left


async def test_a_session_has_one_standing_stream_and_the_latest_counts():
    async with one_server() as (house, one), house.client("legacy") as client, house.client("legacy") as again:
        await is_heard_by(one)
        again.key = client.key
        await client.listen()
        await again.listen()
        await asyncio.wait_for(asyncio.wait([client.stream]), 5)
        one.tools.append(tool("new"))
        await one.announce()
        await again.hears(CHANGED)
        assert client.heard(CHANGED) == []
        await again.http.send("DELETE", "/mcp", again.session_headers)
        await asyncio.wait_for(asyncio.wait([again.stream]), 5)


@pytest.mark.parametrize("kind", ["legacy", "sse"])
async def test_a_client_whose_roots_change_lets_its_servers_know(kind: str):
    told = "notifications/roots/list_changed"
    async with one_server("legacy") as (house, one), house.client(kind) as client, house.client(kind) as other:
        for each in (client, other):
            await each.call("ask", {"who": "x"})
        await client.tell(told)
        await eventually(lambda: len(one.calls(told)) == 1, what="the server is told")
        assert one.opened[one.calls(told)[0].session or ""]["clientInfo"]["name"] == "by-hand"


async def test_a_modern_request_that_carries_a_session_is_served_without_it():
    async with one_server() as (house, _), house.client("legacy") as owner, house.client("modern") as client:
        for key in (owner.key, "unknown"):
            answer = await client.request("tools/list", headers={"Mcp-Session-Id": key, "Last-Event-ID": "7"})
            assert answer.status == 200
            assert "Mcp-Session-Id" not in answer.headers


async def test_a_session_that_nobody_uses_ends_and_its_servers_sessions_with_it():
    async with (
        one_server("legacy", session_idle=0.6) as (house, one),
        house.client("legacy") as idle,
        house.client("legacy") as listening,
    ):
        await listening.listen()
        for client in (idle, listening):
            assert "answer" in (await client.call("ask", {"who": "x"})).text
        sessions = len(one.opened)
        await eventually(lambda: len(one.ended) == 1, 5, what="the idle client's session at the server has ended")
        assert len(one.opened) == sessions - 1
        assert (await idle.request("ping")).refusal == (404, -32600)
        assert (await listening.request("ping")).result == {}
        assert "answer" in (await listening.call("ask", {"who": "x"})).text


@pytest.mark.parametrize("kind", ["legacy", "sse"])
async def test_a_client_that_leaves_takes_its_processes_with_it(kind: str):
    async with (
        faulty_stdio("legacy-only") as command,
        reachable({"calc": {**command.entry, "type": "stdio"}}, session_idle=5) as house,
        house.client(kind) as client,
        house.client(kind) as other,
    ):
        for one in (client, other):
            assert (await one.call("echo", {"text": "x"})).text == "x"
        assert len(command.running()) == 3, "one that is shared, and one for each client that can be asked"
        if kind == "legacy":
            await client.http.send("DELETE", "/mcp", client.session_headers)
        else:
            await client.leave()
        await eventually(lambda: len(command.running()) == 2, what="its process has ended")
        assert (await other.call("echo", {"text": "y"})).text == "y"
    assert command.running() == []


async def test_the_processes_of_modern_clients_that_stay_away_end():
    async with (
        faulty_stdio("legacy-only") as command,
        reachable({"calc": {**command.entry, "type": "stdio"}}, session_idle=0.2) as house,
        house.client("modern") as client,
    ):
        for _ in range(3):
            assert (await client.call("echo", {"text": "x"})).text == "x"
        assert len(command.running()) == 2, "its calls after one another share a process"
        await asyncio.sleep(0.3)
        house.runtime.door.parking.reap()
        await eventually(lambda: len(command.running()) == 1, what="the process has ended")
        assert (await client.call("echo", {"text": "x"})).text == "x"


# Caps


async def test_there_are_only_so_many_sessions():
    async with (
        one_server(max_sessions=2, session_idle=60) as (house, _),
        house.client("legacy") as first,
        house.client("sse") as second,
    ):
        third = house.client("legacy")
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
        refused = await third.request("initialize", params)
        assert refused.refusal == (503, -31003)
        assert int(refused.headers["Retry-After"]) >= 1
        assert "Mcp-Session-Id" not in refused.headers
        for client in (first, second):
            assert (await client.call("echo", {"text": "x"})).text == "one echo x"
        async with house.client("modern") as modern:
            assert await modern.names()
        await first.http.send("DELETE", "/mcp", first.session_headers)
        async with third:
            assert (await third.call("echo", {"text": "x"})).text == "one echo x"


async def test_there_are_only_so_many_streams():
    async with one_server(max_streams=2) as (house, _):
        legacy, modern = house.client("legacy"), house.client("modern")
        async with legacy, modern:
            await legacy.listen()
            await modern.listen()
            async with house.client("legacy") as more, house.client("modern") as fourth:
                events = {"Accept": "text/event-stream", **more.session_headers}
                refused = await more.http.send("GET", "/mcp", events)
                assert (refused.status, refused.message["error"]["type"]) == (503, "overloaded")
                assert int(refused.headers["Retry-After"]) >= 1
                wanted = {"notifications": {"toolsListChanged": True}}
                assert (await fourth.request("subscriptions/listen", wanted)).status == 503
                assert (await more.call("echo", {"text": "x"})).text == "one echo x"
                await modern.leave()
                await eventually(lambda: len(house.runtime.mcp._streams) == 1, what="a stream has ended")
                await more.listen()


async def test_there_are_only_so_many_calls_of_one_caller_that_wait_for_it():
    async with one_server("legacy", max_parked=20) as (house, _), house.client("modern") as client:
        ask = {"name": "ask", "arguments": {"who": "x"}}
        waiting = [(await client.request("tools/call", ask)).result for _ in range(2)]
        assert [one_["resultType"] for one_ in waiting] == ["input_required"] * 2
        refused = await client.request("tools/call", ask)
        assert refused.error["code"] == -31003
        assert refused.error["data"]["retry_after"] >= 1
        async with house.client("modern", token=make_token(sub="another")) as other:
            assert "answer" in (await other.call("ask", {"who": "x"})).text
        async with house.client("legacy") as legacy:
            assert "answer" in (await legacy.call("ask", {"who": "x"})).text
        answers = {key: {"action": "decline"} for key in waiting[0]["inputRequests"]}
        back = {**ask, "requestState": waiting[0]["requestState"], "inputResponses": answers}
        assert "decline" in (await client.request("tools/call", back)).text
        assert "answer" in (await client.call("ask", {"who": "x"})).text


# What is left


@pytest.mark.parametrize("era", ERAS)
async def test_nothing_is_left_of_clients_that_came_and_went_in_any_way(era: str):
    async with one_server(era, session_idle=2) as (house, one):

        async def visit(number: int) -> None:
            kind = KINDS[number % 3]
            client = house.client(kind, token=make_token(sub=f"client-{number}"))
            async with client:
                if number % 2:
                    await client.listen([NOTE["uri"]])
                assert "answer" in (await client.call("ask", {"who": str(number)})).text
                if number % 4 > 1:
                    client.tasks.spawn(client.call("ask_later", {"who": str(number)}), "unfinished")
                    await asyncio.sleep(0.05)
                await client.leave()

        one.tools.append(tool("ask_later", who="string"))
        await one.announce()
        await asyncio.wait_for(asyncio.gather(*(visit(number) for number in range(36))), 30)
        runtime = house.runtime
        door, link = runtime.door, runtime.manager.upstream("one")

        def left() -> dict[str, int]:
            door.parking.reap()
            return {
                "sessions": len(door.sessions),
                "parked": len(door.parking),
                "followed": len(door.following),
                "audiences": len(door.notices),
                "streams": len(runtime.mcp._streams) + len(runtime.sse._streams),
                "tasks": len(runtime._streaming),
                "links": link.own_links,
                "calls": runtime.gate.inflight,
            }

        # A question for somebody who has left, and was not missed yet, would wait for the answer.
        await eventually(lambda: not len(door.parking), what="it is noticed who has left")
        one.go.set()
        await eventually(lambda: not any(left().values()) or None, 10, what="nothing is left", pause=0.1)
        kept = 1 if era == "legacy" else 0
        await eventually(lambda: len(one.opened) == kept, what="the servers' sessions have ended too")
        await eventually(lambda: not one.following, what="nothing is followed at the server")
