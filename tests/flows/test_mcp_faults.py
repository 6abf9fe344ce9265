"""Calls of MCP clients that go wrong on either side: somebody dies, leaves, cancels, declines or takes too long."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.faults.harness import faulty_stdio
from tests.flows.mcp_client import KINDS, Client, House, reachable
from tests.flows.mcp_upstream import Upstream, upstream
from tests.harness import eventually

pytestmark = pytest.mark.anyio
ERAS = ["legacy", "modern"]
UNKNOWN = -31004


@asynccontextmanager
async def one_server(era: str, **settings: Any) -> AsyncIterator[tuple[House, Upstream]]:
    async with (
        upstream(era=era, name="one") as one,
        reachable({"one": {"url": one.url, "type": "http"}}, **settings) as house,
    ):
        yield house, one


def begun(client: Client, tool: str, **more: Any) -> asyncio.Task[Any]:
    """A call that goes on beside the test."""
    return client.tasks.spawn(client.call(tool, more.pop("arguments", None), **more), f"call {tool}")


async def serves(client: Client) -> None:
    """The next call is as good as ever."""
    assert (await client.call("echo", {"text": "next"})).text == "one echo next"
    assert "answer" in (await client.call("ask", {"who": "next"})).text


# The server


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("kind", KINDS)
async def test_whoever_calls_a_server_that_breaks_off_is_told_that_nobody_knows(kind: str, era: str):
    async with one_server(era) as (house, one), house.client(kind) as client:
        answer = await client.request("tools/call", {"name": "die", "arguments": {}})
        assert answer.error["code"] == UNKNOWN
        assert answer.error["data"]["executed"] == "unknown"
        assert one.called("die") == 1
        await serves(client)


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_that_dies_while_it_waits_for_an_answer_leaves_nobody_waiting(kind: str, era: str):
    async with one_server(era, health_interval=0.3) as (house, one):
        asked = asyncio.Event()

        async def on_ask(method: str, params: Any) -> Any:
            if not asked.is_set():
                await one.stop()
                asked.set()
            return {"action": "accept", "content": {"name": "answer"}}

        async with house.client(kind, on_ask=on_ask) as client:
            answer = await client.call("ask", {"who": "x"})
            assert "error" in answer.message
            assert answer.error["data"]["type"] in ("outcome_unknown", "upstream_unavailable")
            await one.start()
            await house.inside.in_state(one="connected")
            await serves(client)


async def test_a_process_that_dies_while_a_call_is_held_leaves_nobody_waiting():
    async with faulty_stdio("legacy-only") as command, reachable({"calc": command.entry}) as house:
        for kind in KINDS:
            async with house.client(kind) as client:
                dead = await client.request("tools/call", {"name": "echo", "arguments": {"text": "x", "fault": "die"}})
                assert dead.error["code"] == UNKNOWN
                assert (await client.call("echo", {"text": "next"})).text == "next"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_question_that_the_server_takes_back_is_taken_back_from_the_client(kind: str):
    async with one_server("legacy") as (house, one):
        asked = asyncio.Event()

        async def on_ask(method: str, params: Any) -> Any:
            asked.set()
            one.go.set()
            if kind != "modern":
                await asyncio.sleep(0.2)
            return {"action": "accept", "content": {"name": "answer"}}

        async with house.client(kind, on_ask=on_ask) as client:
            answer = await client.call("withdraw", {"who": "x"})
            assert answer.text == "withdrawn"
            assert asked.is_set()
            if kind != "modern":
                assert client.heard("notifications/cancelled")
            await serves(client)


# The client


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("tool", ["hang", "ask_later"])
@pytest.mark.parametrize("kind", ["modern", "sse"])
async def test_a_client_that_leaves_has_cancelled_its_calls(kind: str, tool: str, era: str):
    async with one_server(era) as (house, one), house.client(kind) as other:
        async with house.client(kind) as client:
            begun(client, tool, arguments={"who": "x"} if tool == "ask_later" else {})
            await eventually(lambda: one.called(tool) == 1, what="the call has arrived")
            await client.leave()
        await eventually(lambda: one.cancelled == [tool], what="the server is told")
        await eventually(lambda: house.runtime.gate.inflight == 0, what="nothing is in flight")
        await serves(other)


@pytest.mark.parametrize("era", ERAS)
async def test_a_legacy_client_may_lose_its_connection_without_losing_its_call(era: str):
    """Leaving is not cancelling (2025-11-25); ending the session is."""
    async with one_server(era) as (house, one), house.client("legacy") as client:
        again = house.client("legacy")
        again.key = client.key
        begun(client, "hang")
        await eventually(lambda: one.called("hang") == 1, what="the call has arrived")
        await client.leave()
        await asyncio.sleep(0.3)
        assert one.cancelled == []
        await again.http.send("DELETE", "/mcp", again.session_headers)
        await eventually(lambda: one.cancelled == ["hang"], what="the server is told")
        await again.leave()


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("tool", ["hang", "ask_later"])
@pytest.mark.parametrize("kind", ["legacy", "sse"])
async def test_a_call_that_is_cancelled_is_cancelled_at_its_server(kind: str, tool: str, era: str):
    async with one_server(era) as (house, one), house.client(kind) as client:
        call = begun(client, tool, id="doomed", arguments={"who": "x"} if tool == "ask_later" else {})
        kept = begun(client, "ask_later", id="kept", arguments={"who": "kept"})
        await eventually(lambda: one.called(tool) + one.called("ask_later") >= 2, what="the calls have arrived")
        await client.cancel("doomed")
        await eventually(lambda: one.cancelled == [tool], what="the server is told")
        if kind == "legacy":
            assert (await asyncio.wait_for(call, 5)).error["code"] == -31017
        one.go.set()
        assert "later, kept" in (await asyncio.wait_for(kept, 5)).text
        assert one.cancelled == [tool]
        await serves(client)


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("kind", ["legacy", "sse"])
async def test_a_client_that_cancels_while_it_is_asked_is_asked_no_more(kind: str, era: str):
    async with one_server(era) as (house, one):
        asked = asyncio.Event()

        async def on_ask(method: str, params: Any) -> Any:
            if not asked.is_set():
                asked.set()
                await asyncio.sleep(3)
            return {"action": "accept", "content": {"name": "answer"}}

        async with house.client(kind, on_ask=on_ask) as client:
            begun(client, "ask", id="doomed", arguments={"who": "x"})
            await asyncio.wait_for(asked.wait(), 5)
            await client.cancel("doomed")
            await client.hears("notifications/cancelled")
            if era == "legacy":
                await eventually(lambda: one.cancelled == ["ask"], what="the server is told")
            await eventually(lambda: house.runtime.gate.inflight == 0, what="nothing is in flight")
            await serves(client)


@pytest.mark.parametrize("by", ["reaping", "drain"])
async def test_a_client_that_does_not_come_back_has_cancelled_its_call(by: str):
    async with one_server("legacy", park_timeout=0.2) as (house, one), house.client("modern") as client:
        result = (await client.request("tools/call", {"name": "ask", "arguments": {"who": "x"}})).result
        assert result["resultType"] == "input_required"
        if by == "reaping":
            await asyncio.sleep(0.3)
            house.runtime.door.parking.reap()
        else:
            house.runtime.door.drain()
        await eventually(lambda: one.cancelled == ["ask"], what="the server is told")
        await eventually(lambda: house.runtime.gate.inflight == 0, what="nothing is in flight")
        assert len(house.runtime.door.parking) == 0


async def test_a_client_that_leaves_while_it_comes_back_has_cancelled_its_call():
    async with one_server("legacy") as (house, one), house.client("modern") as client:
        async with house.client("modern") as leaving:
            ask = {"name": "ask_later", "arguments": {"who": "x"}}
            leaving.tasks.spawn(leaving.request("tools/call", ask), "first visit")
            await eventually(lambda: one.called("ask_later") == 1, what="the call has arrived")
            await leaving.leave()
        await eventually(lambda: one.cancelled == ["ask_later"], what="the server is told")
        assert len(house.runtime.door.parking) == 0
        await serves(client)


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("pause", [0, 0.3], ids=["at once", "later"])
async def test_a_tool_that_asks_after_its_client_has_left_does_not_wait_for_it(era: str, pause: float):
    async with one_server(era) as (house, one), house.client("legacy") as client:
        again = house.client("legacy")
        again.key = client.key
        begun(client, "ask_later", arguments={"who": "x"})
        await eventually(lambda: one.called("ask_later") == 1, what="the call has arrived")
        await client.leave()
        await asyncio.sleep(pause)
        one.go.set()
        await eventually(lambda: house.runtime.gate.inflight == 0, what="the call has ended")
        await serves(again)
        await again.leave()


@pytest.mark.parametrize("era", ERAS)
async def test_a_question_goes_by_the_standing_stream_when_the_calls_own_is_gone(era: str):
    async with one_server(era) as (house, one), house.client("legacy") as client:
        caller = house.client("legacy")
        caller.key = client.key
        await client.listen()
        begun(caller, "ask_later", arguments={"who": "x"})
        await eventually(lambda: one.called("ask_later") == 1, what="the call has arrived")
        await caller.leave()
        await asyncio.sleep(0.3)  # until that is noticed: nothing that can be seen from outside happens then
        one.go.set()
        await eventually(lambda: len(client.asked) == 1, what="it is asked by the other stream")


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [(kind, {"action": word}, word) for kind in KINDS for word in ("decline", "cancel")]
    # a modern client has no such answer
    + [(kind, {"error": {"code": -1, "message": "User rejected it"}}, "User rejected it") for kind in KINDS[1:]],
)
async def test_a_client_that_declines_is_understood(kind: str, era: str, given: Any, said: str):
    async with one_server(era) as (house, _), house.client(kind, on_ask=lambda *_: given) as client:
        answer = await client.call("ask", {"who": "x"})
        assert said in str(answer.message)
        client.on_ask = lambda *_: {"action": "accept", "content": {"name": "answer"}}
        await serves(client)


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_is_asked_for_nothing_that_it_does_not_offer(kind: str, era: str):
    async with one_server(era) as (house, _):
        for capabilities in ({}, {"sampling": {}}):
            async with house.client(kind, capabilities=capabilities) as client:
                answer = await client.request("tools/call", {"name": "ask", "arguments": {"who": "x"}})
                if era == "modern" and kind == "modern":
                    continue  # between the two, and the server is to know better
                assert "error" in answer.message, answer.message
                assert client.asked == []


@pytest.mark.parametrize("kind", ["legacy", "sse"])
async def test_an_answer_from_somebody_else_is_none(kind: str):
    async with one_server("legacy") as (house, _):
        asked, go = asyncio.Event(), asyncio.Event()

        async def on_ask(method: str, params: Any) -> Any:
            asked.set()
            await go.wait()
            return {"action": "accept", "content": {"name": "the right answer"}}

        async with house.client(kind, on_ask=on_ask) as client, house.client(kind) as other:
            call = begun(client, "ask", arguments={"who": "x"})
            await asyncio.wait_for(asked.wait(), 5)
            for id in range(-1, 20):
                wrong = {"action": "accept", "content": {"name": "a wrong answer"}}
                await other._post({"jsonrpc": "2.0", "id": id, "result": wrong})
                await other._post({"jsonrpc": "2.0", "id": str(id), "result": wrong})
            go.set()
            assert "the right answer" in (await asyncio.wait_for(call, 5)).text


# Time


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("kind", KINDS)
async def test_the_time_of_a_call_stands_still_while_its_client_is_asked(kind: str, era: str):
    async with one_server(era, call_timeout=0.6) as (house, _):

        async def slowly(method: str, params: Any) -> Any:
            await asyncio.sleep(0.8)
            return {"action": "accept", "content": {"name": "answer"}}

        async with house.client(kind, on_ask=slowly) as client:
            assert "answer" in (await client.call("ask_twice", {"who": "x"})).text


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_that_takes_too_long_ends_for_its_client_and_at_its_server(kind: str, era: str):
    async with one_server(era, call_timeout=0.4) as (house, one), house.client(kind) as client:
        answer = await client.request("tools/call", {"name": "hang", "arguments": {}})
        assert answer.error["code"] == UNKNOWN
        await eventually(lambda: one.cancelled == ["hang"], what="the server is told")
        await serves(client)


@pytest.mark.parametrize("kind", KINDS)
async def test_time_runs_again_after_the_answer(kind: str):
    async with one_server("legacy", call_timeout=0.5) as (house, one):

        async def lame(method: str, params: Any) -> Any:
            one.go.clear()
            return {"action": "accept", "content": {"name": "answer"}}

        one.go.set()
        async with house.client(kind, on_ask=lame) as client:
            assert "answer" in (await client.call("ask_later", {"who": "x"})).text
            answer = await client.call("ask_later", {"who": "x"})
            assert answer.error["code"] == UNKNOWN


# Several at once


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("kind", KINDS)
async def test_the_calls_of_one_client_at_the_same_time_do_not_mix_their_questions(kind: str, era: str):
    async with one_server(era) as (house, _):

        async def on_ask(method: str, params: Any) -> Any:
            await asyncio.sleep(0.02)
            return {"action": "accept", "content": {"name": params["message"]}}

        async with house.client(kind, on_ask=on_ask) as client:
            calls = [client.call("ask_twice", {"who": f"caller-{n}-"}) for n in range(12)]
            for number, answer in enumerate(await asyncio.gather(*calls)):
                assert answer.text.count(f"caller-{number}-") == 2


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("kind", KINDS)
async def test_progress_reaches_the_call_that_wants_it_under_its_own_token(kind: str, era: str):
    async with one_server(era) as (house, _), house.client(kind) as client, house.client(kind) as other:

        def call(who: Any, token: Any) -> Any:
            meta = {} if token is None else {"_meta": {"progressToken": token}}
            return who.use("tools/call", {"name": "progress", "arguments": {}, **meta})

        answers = await asyncio.gather(
            call(client, "a"), call(client, 7), call(client, None), call(other, "a"), call(other, 0)
        )
        assert {answer.text for answer in answers} == {"progress"}
        for who, tokens in ((client, ["a", 7]), (other, ["a", 0])):
            notes = [note["params"] for note in who.heard("notifications/progress")]
            for token in tokens:
                assert [note["progress"] for note in notes if note["progressToken"] == token] == [1, 2, 3]
            assert len(notes) == 6


async def test_progress_that_a_server_reports_while_a_modern_client_thinks_is_told_when_it_comes_back():
    async with one_server("legacy") as (house, one), house.client("modern") as client:
        call = {"name": "progress_while_asking", "arguments": {}, "_meta": {"progressToken": "mine"}}
        waiting = (await client.request("tools/call", call)).result
        assert waiting["resultType"] == "input_required"
        one.go.set()
        before = house.runtime.door.parking
        await eventually(lambda: any(parked.unsaid for parked in before), what="the server has reported a second step")
        answers = {key: {"action": "accept", "content": {"name": "Ada"}} for key in waiting["inputRequests"]}
        again = {**call, "_meta": {"progressToken": "another"}}
        back = await client.request(
            "tools/call", {**again, "requestState": waiting["requestState"], "inputResponses": answers}
        )
        assert "Ada" in back.text
        told = [
            (note["params"]["progressToken"], note["params"]["progress"])
            for note in client.heard("notifications/progress")
        ]
        assert told == [("mine", 1), ("another", 2), ("another", 3)]


@pytest.mark.parametrize("capabilities", [None, {}], ids=["own links", "shared link"])
@pytest.mark.parametrize("kind", KINDS)
async def test_progress_that_a_server_reports_on_its_standing_stream_finds_its_call(kind: str, capabilities: Any):
    async with one_server("legacy") as (house, _), house.client(kind, capabilities=capabilities) as client:
        meta = {"_meta": {"progressToken": "mine"}}
        call = {"name": "progress_apart", "arguments": {}}
        assert (await client.use("tools/call", {**call, **meta})).text == "progress"
        notes = [note["params"] for note in await client.hears("notifications/progress", 3)]
        assert [(note["progressToken"], note["progress"]) for note in notes] == [("mine", 1), ("mine", 2), ("mine", 3)]
        assert (await client.use("tools/call", call)).text == "progress"
        assert len(client.heard("notifications/progress")) == 3, "nobody asked for more"


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("kind", KINDS)
async def test_what_a_client_says_beside_its_request_crosses_and_what_it_says_to_the_proxy_does_not(
    kind: str, era: str
):
    async with one_server(era) as (house, _), house.client(kind) as client:
        given = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "example.org/x": [1]}
        call = {"name": "meta", "arguments": {}, "_meta": {**given, "progressToken": "mine"}}
        got = json.loads((await client.use("tools/call", call)).text)
        assert got | given == got
        assert got["progressToken"] != "mine"
        hop = {key for key in got if key.startswith("io.modelcontextprotocol/")}
        assert bool(hop) is (era == "modern")


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_large_result_crosses_whole(kind: str, era: str):
    async with one_server(era) as (house, _), house.client(kind) as client:
        answer = await client.call("large", {"size": 3_000_000})
        assert answer.text == "é\u2028" * 1_500_000


@pytest.mark.parametrize("era", ERAS)
async def test_log_messages_reach_those_who_want_them(era: str):
    async with one_server(era) as (house, _):
        legacy, silent, modern = house.client("legacy"), house.client("modern"), house.client("modern")
        modern.log_level = "info"
        async with legacy, silent, modern:
            assert (await legacy.request("logging/setLevel", {"level": "info"})).result == {}
            for client in (legacy, silent, modern):
                assert (await client.call("log")).text == "log"
            for client in (legacy, modern):
                said = [note["params"]["data"] for note in await client.hears("notifications/message", 3)]
                assert said == ["step 1", "step 2", "step 3"]
            assert silent.heard("notifications/message") == []
