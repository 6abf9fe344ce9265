"""One line a request, whatever happens to it, and an answer to everything that can still be answered."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from mcp_proxy.base.errors import OVERLOADED, ProxyError
from mcp_proxy.edge.body import ClientGone, read_body
from mcp_proxy.edge.types import Message, Receive, Scope, Send
from mcp_proxy.telemetry.record import SCOPE_KEY

from .conftest import LOCALHOST, Edge, MakeEdge, answer_ok, http, messages, websocket

pytestmark = pytest.mark.anyio

FIELDS = [
    "timestamp", "level", "event", "request_id", "method", "path", "status_code", "execution_time_ms", "remote_addr",
    "user_agent", "principal", "door", "tool", "server", "error",
]  # fmt: skip

START = {"type": "http.response.start", "status": 200, "headers": []}


def failing(error: BaseException, *first: Message) -> Any:
    """An app that sends ``first`` and raises."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in first:
            await send(message)
        raise error

    return app


def answering(status: int) -> Any:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({**START, "status": status})
        await send({"type": "http.response.body", "body": b""})

    return app


async def test_a_request_is_one_line_with_the_fields_of_the_contract(edge: Edge) -> None:
    await edge.send(http("/tools", [LOCALHOST, (b"user-agent", b"curl/8")], query=b"server=calc"))
    assert len(edge.lines) == 1
    assert list(edge.lines[0]) == FIELDS
    assert edge.lines[0] == {
        "timestamp": "2027-01-15T08:00:00.500Z", "level": "info", "event": "request", "request_id": "id-1",
        "method": "POST", "path": "/tools", "status_code": 200, "execution_time_ms": 250.0,
        "remote_addr": "192.0.2.7", "user_agent": "curl/8", "principal": None, "door": "rest", "tool": None,
        "server": None, "error": None,
    }  # fmt: skip


async def test_every_answer_carries_the_request_id_of_its_line(edge: Edge) -> None:
    good, refused = await edge.send(http()), await edge.send(http(headers=[(b"host", b"evil.example")]))
    assert [answer.header(b"x-request-id") for answer in (good, refused)] == [b"id-1", b"id-2"]
    assert refused.error["request_id"] == "id-2"
    assert [line["request_id"] for line in edge.lines] == ["id-1", "id-2"]


async def test_what_the_app_knows_of_the_request_is_logged(make_edge: MakeEdge) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        record = scope[SCOPE_KEY]
        record.tool, record.server, record.door, record.error = "add", "calc", "mcp", "tool_not_found"
        await answer_ok(scope, receive, send)

    edge = make_edge(app)
    await edge.send(http())
    line = edge.requests[0]
    assert (line["tool"], line["server"], line["door"], line["error"]) == ("add", "calc", "mcp", "tool_not_found")


@pytest.mark.parametrize("bodies", [False, True])
async def test_bodies_are_logged_redacted_and_only_when_wanted(make_edge: MakeEdge, bodies: bool) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope[SCOPE_KEY].request = {"args": {"password": "hunter22", "a": 2}}
        await answer_ok(scope, receive, send)

    edge = make_edge(app, log_bodies=bodies)
    await edge.send(http())
    line = edge.requests[0]
    assert list(line) == FIELDS + (["request"] if bodies else [])
    assert "hunter22" not in edge.stream.getvalue()
    assert line.get("request", {}).get("args", {}).get("a") == (2 if bodies else None)


@pytest.mark.parametrize(
    ("status", "level"), [(200, "info"), (404, "info"), (500, "error"), (502, "warning"), (503, "warning")]
)
async def test_the_level_tells_our_faults_from_others(make_edge: MakeEdge, status: int, level: str) -> None:
    edge = make_edge(answering(status))
    await edge.send(http())
    assert (edge.lines[0]["status_code"], edge.lines[0]["level"]) == (status, level)


async def test_an_exception_is_answered_in_the_error_shape_and_its_text_stays_in_the_log(make_edge: MakeEdge) -> None:
    edge = make_edge(failing(RuntimeError("inner detail")))
    answer = await edge.send(http())
    assert answer.status == 500
    assert {key: answer.error[key] for key in ("code", "type", "request_id")} == {
        "code": 500, "type": "internal_error", "request_id": "id-1",
    }  # fmt: skip
    assert b"inner detail" not in answer.body
    assert answer.header(b"x-content-type-options") == b"nosniff"
    assert answer.header(b"content-length") == str(len(answer.body)).encode()
    traced, line = edge.lines
    assert "RuntimeError: inner detail" in traced["exception"]
    assert traced["request_id"] == "id-1"
    assert (line["status_code"], line["level"], line["error"]) == (500, "error", "internal_error")
    assert list(line) == FIELDS


async def test_an_exception_after_the_answer_began_leaves_it_incomplete(make_edge: MakeEdge) -> None:
    edge = make_edge(
        failing(ValueError("late"), START, {"type": "http.response.body", "body": b"a", "more_body": True})
    )
    answer = await edge.send(http())
    assert [message["type"] for message in answer.sent] == ["http.response.start", "http.response.body"]
    assert answer.sent[-1]["more_body"] is True
    assert edge.requests[0]["status_code"] == 500


async def test_an_exception_after_a_whole_answer_is_logged_beside_its_status(make_edge: MakeEdge) -> None:
    edge = make_edge(failing(ValueError("afterwards"), START, {"type": "http.response.body", "body": b"a"}))
    assert (await edge.send(http())).status == 200
    assert [line["event"] for line in edge.lines] == ["unhandled_exception", "request"]
    assert (edge.requests[0]["status_code"], edge.requests[0]["error"]) == (200, "internal_error")


async def test_an_error_for_the_caller_is_answered_as_it_is(make_edge: MakeEdge) -> None:
    edge = make_edge(failing(ProxyError(OVERLOADED, "too much at once", retry_after=1.2)))
    answer = await edge.send(http())
    assert (answer.status, answer.error["type"], answer.header(b"retry-after")) == (503, "overloaded", b"2")
    assert [line["event"] for line in edge.lines] == ["request"]


async def test_an_app_that_says_nothing_is_our_fault(make_edge: MakeEdge) -> None:
    async def silent(scope: Scope, receive: Receive, send: Send) -> None: ...

    edge = make_edge(silent)
    assert (await edge.send(http())).status == 500
    assert edge.requests[0]["level"] == "error"


async def test_a_client_that_left_is_499(make_edge: MakeEdge) -> None:
    async def reading(scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive, 100)

    async def noticing(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "http.disconnect"

    async def streaming(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await noticing(scope, receive, send)

    for app in (reading, noticing, streaming, failing(ClientGone())):
        edge = make_edge(app)
        await edge.send(http(), messages())
        assert [(line["event"], line["status_code"], line["error"]) for line in edge.lines] == [
            ("request", 499, "client_gone")
        ]


async def test_a_client_that_left_after_its_answer_was_complete_is_not_499(make_edge: MakeEdge) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer_ok(scope, receive, send)
        await receive()

    edge = make_edge(app)
    await edge.send(http(), messages())
    assert (edge.requests[0]["status_code"], edge.requests[0]["error"]) == (200, None)


async def test_a_cancellation_is_logged_and_goes_on(make_edge: MakeEdge) -> None:
    edge = make_edge(failing(asyncio.CancelledError()))
    with pytest.raises(asyncio.CancelledError):
        await edge.send(http())
    assert [(line["event"], line["status_code"]) for line in edge.lines] == [("request", 499)]


async def test_untrusted_text_can_neither_forge_lines_nor_steer_terminals(edge: Edge) -> None:
    evil = '/\x1b[31m\x7f\x85\u202e\u2028\n{"event": "request"}'
    await edge.send(http(evil, [LOCALHOST, (b"user-agent", b"a\x1b\x9b\x7f\r\n" + b"u" * 9000)], raw_path=b"/"))
    raw = edge.stream.getvalue()
    assert raw.count("\n") == 1
    assert not set("\x1b\x7f\x85\x9b\u202e\u2028\r") & set(raw)
    assert len(json.loads(raw)["user_agent"]) < 2200


async def test_of_several_user_agents_the_first_is_logged(edge: Edge) -> None:
    await edge.send(http(headers=[(b"user-agent", b"one"), LOCALHOST, (b"user-agent", b"two")]))
    assert edge.requests[0]["user_agent"] == "one"


async def test_a_path_that_holds_a_token_is_masked(edge: Edge) -> None:
    token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJl"
    await edge.send(http(f"/tools/{token}"))
    assert token not in edge.stream.getvalue()


async def test_a_server_without_client_addresses_is_served(edge: Edge) -> None:
    assert (await edge.send(http(client=None))).status == 200
    assert edge.requests[0]["remote_addr"] == ""


async def test_a_websocket_is_one_line_when_it_ends(edge: Edge) -> None:
    answer = await edge.send(websocket())
    accept = answer.sent[0]
    assert accept["type"] == "websocket.accept"
    assert (b"x-request-id", b"id-1") in accept["headers"]
    line = edge.lines[0]
    assert (len(edge.lines), line["status_code"], line["path"], line["door"]) == (1, 101, "/ws", "ws")


async def test_an_exception_in_a_websocket_closes_it(make_edge: MakeEdge) -> None:
    edge = make_edge(failing(KeyError("x"), {"type": "websocket.accept"}))
    answer = await edge.send(websocket())
    assert (answer.sent[-1]["type"], answer.sent[-1]["code"]) == ("websocket.close", 1011)
    assert edge.requests[0]["status_code"] == 500


async def test_an_exception_before_a_websocket_is_accepted_is_a_500(make_edge: MakeEdge) -> None:
    edge = make_edge(failing(KeyError("x")))
    assert (await edge.send(websocket())).status == 500
    assert edge.requests[0]["status_code"] == 500


async def test_a_websocket_whose_client_leaves_keeps_101(make_edge: MakeEdge) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await receive()

    edge = make_edge(app)
    await edge.send(websocket(), messages({"type": "websocket.disconnect", "code": 1001}))
    assert (edge.requests[0]["status_code"], edge.requests[0]["error"]) == (101, None)


async def test_lifespan_passes_untouched(make_edge: MakeEdge) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert await receive() == {"type": "lifespan.startup"}
        await send({"type": "lifespan.startup.complete"})

    edge = make_edge(app)
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}}
    answer = await edge.send(scope, messages({"type": "lifespan.startup"}))
    assert answer.sent == [{"type": "lifespan.startup.complete"}]
    assert edge.lines == []
    assert edge.scopes == [scope]
