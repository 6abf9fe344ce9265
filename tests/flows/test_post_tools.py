"""``POST /tools`` and ``POST /tools/{server}/{tool}``: what a call is answered with (contract, section 4)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.faults.harness import FaultyUpstream, faulty_http
from tests.flows.inside import Inside, error_of, refusal, serving

pytestmark = pytest.mark.anyio


async def test_a_call_is_answered_with_the_tools_result_and_who_gave_it(calc: Inside):
    reply = await calc.post("/tools", {"method": "add", "args": {"a": 2, "b": 3}, "server": "calc"})
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert reply.json == {
        "content": [{"type": "text", "text": "5"}],
        "structuredContent": {"sum": 5},
        "isError": False,
        "server": "calc",
        "request_id": reply.headers["x-request-id"],
    }


@pytest.mark.parametrize("method", ["add", "calc.add", "calc__add"])
@pytest.mark.parametrize("server", [None, "calc"])
async def test_a_tool_is_found_by_every_form_of_its_name(calc: Inside, method: str, server: str | None):
    reply = await calc.post("/tools", {"method": method, "args": {"a": 1, "b": 1}, "server": server})
    assert (reply.status, reply.json["structuredContent"]) == (200, {"sum": 2})


async def test_the_server_can_be_named_by_its_url(calc: Inside, upstream: FaultyUpstream):
    reply = await calc.call("add", {"a": 1, "b": 2}, server=upstream.url)
    assert (reply.status, reply.json["server"]) == (200, "calc")


@pytest.mark.parametrize("tool", ["add", "calc.add"])
async def test_the_path_can_name_server_and_tool_and_the_body_is_the_arguments(calc: Inside, tool: str):
    reply = await calc.post(f"/tools/calc/{tool}", {"a": 20, "b": 1})
    assert (reply.status, reply.json["structuredContent"], reply.json["server"]) == (200, {"sum": 21}, "calc")


async def test_a_tool_without_arguments_needs_neither_args_nor_a_body(calc: Inside):
    by_body = await calc.post("/tools", {"method": "count"})
    by_path = await calc.request("POST", "/tools/calc/count")
    null = await calc.post("/tools", {"method": "count", "args": None, "server": None})
    assert [by_body.status, by_path.status, null.status] == [200, 200, 200]


async def test_every_request_has_an_id_of_its_own(calc: Inside):
    replies = await asyncio.gather(*(calc.call("echo", {"text": "x"}) for _ in range(20)))
    assert len({reply.json["request_id"] for reply in replies}) == 20


async def test_many_calls_at_once_each_get_their_own_answer(calc: Inside, upstream: FaultyUpstream):
    before = upstream.ledger.count("echo")
    texts = [f"text {n}" for n in range(64)]
    replies = await asyncio.gather(*(calc.call("echo", {"text": text}) for text in texts))
    assert [reply.json["content"][0]["text"] for reply in replies] == texts
    assert upstream.ledger.count("echo") == before + 64


async def test_a_tool_that_ran_and_failed_is_an_answer_not_an_error(calc: Inside):
    reply = await calc.call("echo", {"text": "x", "fault": "is-error"})
    assert (reply.status, reply.json["isError"]) == (200, True)
    assert reply.json["content"] == [{"type": "text", "text": "failed as asked"}]


@pytest.mark.parametrize("text", ["Grüße, 世界 🌍", "a\nb\u0000c\u2028", '"quoted\\"', ""])
async def test_texts_come_back_as_they_were_sent(calc: Inside, text: str):
    reply = await calc.call("echo", {"text": text})
    assert reply.json["content"][0]["text"] == text


async def test_large_whole_numbers_are_not_rounded(calc: Inside):
    reply = await calc.call("add", {"a": 2**63, "b": 1})
    assert reply.json["structuredContent"] == {"sum": 2**63 + 1}


@pytest.mark.parametrize(
    ("args", "path"),
    [({"a": 1}, ""), ({"a": 1, "b": "two"}, "/b"), ({}, ""), ({"a": None, "b": 1}, "/a")],
)
async def test_arguments_that_do_not_fit_are_refused_before_they_are_sent(
    calc: Inside, upstream: FaultyUpstream, args: dict[str, Any], path: str
):
    before = len(upstream.ledger.events("received"))
    reply = await calc.call("add", args)
    assert refusal(reply) == (400, "invalid_arguments")
    assert error_of(reply)["details"]["path"] == path
    assert len(upstream.ledger.events("received")) == before


@pytest.mark.parametrize(
    ("method", "server", "kind"),
    [
        ("nothing", None, "tool_not_found"),
        ("nothing", "calc", "tool_not_found"),
        ("calc.nothing", None, "tool_not_found"),
        ("nobody.add", None, "tool_not_found"),
        ("add", "nobody", "server_not_found"),
        ("add", "http://127.0.0.1:1/mcp", "server_not_found"),
    ],
)
async def test_what_is_unknown_is_404(calc: Inside, method: str, server: str | None, kind: str):
    reply = await calc.post("/tools", {"method": method, "server": server})
    assert refusal(reply) == (404, kind)


async def test_what_is_unknown_in_a_path_is_404_too(calc: Inside):
    assert refusal(await calc.post("/tools/nobody/add", {})) == (404, "server_not_found")
    assert refusal(await calc.post("/tools/calc/nothing", {})) == (404, "tool_not_found")


async def test_an_error_of_the_upstream_is_told_with_its_code(calc: Inside):
    reply = await calc.call("echo", {"text": "x", "fault": "error", "code": -32050})
    error = error_of(reply)
    assert (reply.status, error["type"], error["details"]["rpc_code"]) == (502, "upstream_error", -32050)
    assert "failed as asked" in error["message"]


async def test_an_upstream_that_refuses_the_arguments_makes_a_400(calc: Inside):
    reply = await calc.call("echo", {"text": "x", "fault": "error", "code": -32602})
    assert reply.status == 400
    assert error_of(reply)["details"]["rpc_code"] == -32602


@pytest.mark.parametrize("fault", ["garbage", "wrong-id", "html", "odd-result", "no-result"])
async def test_an_upstream_that_breaks_the_protocol_makes_a_502(calc: Inside, fault: str):
    reply = await calc.call("echo", {"text": "x", "fault": fault})
    assert reply.status == 502
    assert (await calc.call("echo", {"text": "after it"})).status == 200


async def test_a_call_that_may_have_been_executed_says_so_and_is_sent_once(calc: Inside, upstream: FaultyUpstream):
    reply = await calc.call("count", {"fault": "close", "mark": "once"})
    assert refusal(reply) == (502, "outcome_unknown")
    assert error_of(reply)["details"]["executed"] == "unknown"
    assert upstream.ledger.count("count", mark="once") == 1


async def test_what_a_tool_asks_for_is_told_where_it_cannot_be_given(calc: Inside):
    reply = await calc.call("echo", {"text": "x", "fault": "input-required"})
    assert refusal(reply) == (422, "input_required")
    asked = error_of(reply)["details"]["inputRequests"]["name"]
    assert asked["params"]["message"] == "Who?"


async def test_no_answer_in_time_is_504(upstream: FaultyUpstream):
    async with serving({"calc": {"url": upstream.url, "timeout": 0.3}}) as inside:
        reply = await inside.call("count", {"fault": "hang", "mark": "slow"})
    assert refusal(reply) == (504, "outcome_unknown")
    assert upstream.ledger.count("count", mark="slow") == 1


async def test_a_result_over_the_limit_is_502(upstream: FaultyUpstream):
    async with serving({"calc": {"url": upstream.url}}, max_result=64 * 1024) as inside:
        reply = await inside.call("echo", {"text": "x", "fault": "huge", "size": 200_000})
    assert refusal(reply) == (502, "result_too_large")


async def test_a_named_server_that_is_down_is_503_with_a_time_to_come_back():
    async with (
        faulty_http() as one,
        serving({"calc": {"url": one.url}, "gone": {"url": "http://127.0.0.1:9/mcp"}}, health_interval=0.2) as inside,
    ):
        reply = await inside.call("add", {"a": 1, "b": 2}, server="gone")
        assert refusal(reply) == (503, "upstream_unavailable")
        assert int(reply.headers["retry-after"]) >= 1
        await one.kill()
        await inside.in_state(calc="down")
        known = await inside.call("add", {"a": 1, "b": 2})
        assert refusal(known) == (503, "upstream_unavailable")


async def test_too_many_calls_at_once_are_503_overloaded(upstream: FaultyUpstream):
    async with serving({"calc": {"url": upstream.url}}, max_inflight=2) as inside:
        slow = {"text": "x", "fault": "slow", "ms": 600}
        replies = await asyncio.gather(*(inside.call("echo", slow) for _ in range(6)))
    assert sorted(reply.status for reply in replies) == [200, 200, 503, 503, 503, 503]
    refused = next(reply for reply in replies if reply.status == 503)
    assert refusal(refused) == (503, "overloaded")
    assert int(refused.headers["retry-after"]) >= 1


async def test_too_many_calls_at_one_upstream_leave_the_others_alone(upstream: FaultyUpstream):
    servers = {"slow": {"url": upstream.url}, "calc": {"url": upstream.url}}
    async with serving(servers, max_inflight_per_upstream=1) as inside:
        slow = {"text": "x", "fault": "slow", "ms": 600}
        first, second, other = await asyncio.gather(
            inside.call("echo", slow, server="slow"),
            inside.call("echo", slow, server="slow"),
            inside.call("echo", {"text": "quick"}, server="calc"),
        )
    assert sorted([first.status, second.status]) == [200, 503]
    assert other.status == 200
