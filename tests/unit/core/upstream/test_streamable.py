from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from mcp_proxy.base.json import Fields, encode
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.core.upstream.client import OnRequest
from mcp_proxy.core.upstream.failures import Attempt, Failure, Phase, RpcError, WireError
from mcp_proxy.core.upstream.link import Link
from mcp_proxy.core.upstream.messages import Incoming
from mcp_proxy.core.upstream.streamable import StreamableHttpWire, header_value
from mcp_proxy.core.upstream.terms import Era, Terms
from mcp_proxy.core.upstream.wire import ACKNOWLEDGED, Outgoing
from tests.unit.core.upstream.scripted import (
    Answer,
    Request,
    Script,
    ScriptedExchange,
    as_events,
    as_json,
    result,
)  # fmt: skip
from tests.unit.core.upstream.wires import begun

pytestmark = pytest.mark.anyio

MODERN = Terms(Era.MODERN, "2026-07-28")
LEGACY = Terms(Era.LEGACY, "2025-11-25")
CALL = Outgoing("tools/call", {"name": "add", "arguments": {}})
NOTICE = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": "hello"}}


def unexpected(name: str, error: BaseException) -> None:
    raise AssertionError(f"{name}: {error!r}")


class Bench:
    """A wire on a scripted exchange."""

    def __init__(self) -> None:
        self.exchange = ScriptedExchange()
        self.tasks = TaskSet(unexpected)
        self.heard: list[Incoming] = []
        self.attempt = Attempt()
        self.wire = StreamableHttpWire(
            self.exchange, "http://up.test/mcp", {"Authorization": "Bearer k"},
            max_result=1000, tasks=self.tasks, on_incoming=self.heard.append,
        )  # fmt: skip
        self.wire.terms = MODERN

    def legacy(self, session: str | None = "s1") -> Bench:
        self.wire.terms = LEGACY
        self.wire.session_id = session
        return self

    def answers(self, *answers: Answer) -> Bench:
        left = list(answers)
        self.exchange.script = lambda _: left.pop(0)
        return self

    def script(self, script: Script) -> Bench:
        self.exchange.script = script
        return self

    async def call(self, out: Outgoing = CALL) -> Fields:
        self.attempt = Attempt()
        async with asyncio.timeout(10):
            return await self.wire.request(out, self.attempt)

    async def quiet(self) -> None:
        """Let everything that was started come to its end."""
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(self.tasks) == 0

    async def failure(self) -> WireError:
        with pytest.raises(WireError) as raised:
            await self.call()
        assert self.exchange.all_closed
        return raised.value


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.tasks.close()


# Answers


async def test_a_json_answer_is_the_result(bench: Bench) -> None:
    bench.answers(as_json(result(1, {"a": 1})))
    assert json.loads(encode(await bench.call())) == {"a": 1}
    assert bench.exchange.all_closed


async def test_an_event_stream_ends_with_the_answer(bench: Bench) -> None:
    bench.answers(as_events(b": hello\n\n", NOTICE, result(1, {"a": 1}), NOTICE, hangs=True))
    assert json.loads(encode(await bench.call())) == {"a": 1}
    assert [one.method for one in bench.heard] == ["notifications/message"]
    assert bench.exchange.all_closed


async def test_an_answer_in_pieces_is_put_together(bench: Bench) -> None:
    data = b"data: " + json.dumps(result(1, {"a": 1})).encode() + b"\n\n"
    bench.answers(as_events(*(data[i : i + 1] for i in range(len(data)))))
    assert json.loads(encode(await bench.call())) == {"a": 1}


async def test_each_request_has_an_id_of_its_own(bench: Bench) -> None:
    await asyncio.gather(*(bench.call() for _ in range(20)))
    assert len({request.message["id"] for request in bench.exchange.requests}) == 20


@pytest.mark.parametrize("form", [as_json, as_events])
async def test_a_json_rpc_error_is_the_upstreams_own_answer(bench: Bench, form: object) -> None:
    message = {"jsonrpc": "2.0", "id": 1, "error": {"code": -32602, "message": "no"}}
    bench.answers(as_json(message) if form is as_json else as_events(message))
    with pytest.raises(RpcError) as raised:
        await bench.call()
    assert raised.value.code == -32602


@pytest.mark.parametrize("wrong", [2, "1", None, 0])
@pytest.mark.parametrize("form", ["json", "events"])
async def test_an_answer_with_another_id_never_reaches_the_caller(bench: Bench, wrong: object, form: str) -> None:
    message = result(wrong)
    bench.answers(as_json(message) if form == "json" else as_events(message, hangs=True))
    error = await bench.failure()
    assert (error.failure, error.phase) == (Failure.BAD_REPLY, Phase.STREAMING)


async def test_an_error_without_an_id_belongs_to_the_exchange_it_came_in(bench: Bench) -> None:
    bench.answers(as_json({"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "bad"}}))
    with pytest.raises(RpcError, match="bad"):
        await bench.call()


@pytest.mark.parametrize(
    "answer",
    [
        as_json(NOTICE),
        as_json({"jsonrpc": "2.0", "id": 1, "method": "ping"}),
        as_json([result(1)]),
        as_json({"id": 1, "result": {}}),
        as_json(None),
        Answer(200, {"Content-Type": "application/json"}, [b""]),
        Answer(200, {"Content-Type": "application/json"}, [b"\xff\xfe"]),
        Answer(200, {"Content-Type": "application/json"}, [b'{"jsonrpc":"2.0","id":1,"result":{"a":NaN}}']),
        Answer(200, {"Content-Type": "text/html"}, [b"<html>"]),
        Answer(200, {}, [json.dumps(result(1)).encode()]),
        as_events(b"data: garbage\n\n", hangs=True),
        as_events(b'data: {"jsonrpc":"2.0","id":1\n\n', hangs=True),
    ],
)
async def test_what_is_no_answer_is_a_bad_reply_at_once(bench: Bench, answer: Answer) -> None:
    bench.answers(answer)
    assert (await bench.failure()).failure is Failure.BAD_REPLY


async def test_a_truncated_answer_is_lost_after_it_was_sent(bench: Bench) -> None:
    bench.answers(Answer(200, {"Content-Type": "application/json"}, [b'{"jsonrpc":'], breaks=True))
    error = await bench.failure()
    assert (error.failure, error.phase) == (Failure.LOST, Phase.STREAMING)


@pytest.mark.parametrize("events", [[], [NOTICE], [b"id: 5\ndata:\n\n"]])
async def test_a_modern_stream_that_ends_without_an_answer_is_lost_and_not_polled(
    bench: Bench, events: list[object]
) -> None:
    bench.answers(as_events(*events))
    error = await bench.failure()
    assert error.failure is Failure.LOST
    assert error.phase is not Phase.NOT_SENT
    assert len(bench.exchange.requests) == 1


async def test_a_result_over_the_cap_is_refused_in_both_forms(bench: Bench) -> None:
    big = result(1, {"text": "x" * 2000})
    bench.answers(as_json(big), as_events(big, hangs=True))
    for _ in range(2):
        error = await bench.failure()
        assert (error.failure, error.phase) == (Failure.TOO_LARGE, Phase.STREAMING)


async def test_what_is_posted_to_us_is_answered(bench: Bench) -> None:
    bench.legacy()
    ping = {"jsonrpc": "2.0", "id": "p", "method": "ping"}
    bench.script(lambda request: as_events(ping, result(1)) if "method" in request.message else Answer(202))
    await bench.call()
    await bench.quiet()
    assert bench.exchange.requests[1].message == {"jsonrpc": "2.0", "id": "p", "result": {}}


async def test_messages_of_a_call_go_to_the_call_that_listens(bench: Bench) -> None:
    heard: list[Incoming] = []
    changed = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
    bench.answers(as_events(NOTICE, changed, result(1)))
    await bench.call(Outgoing("tools/call", {"name": "add"}, on_message=heard.append))
    assert [one.method for one in heard] == ["notifications/message"]
    assert [one.method for one in bench.heard] == ["notifications/tools/list_changed"]
    assert bench.exchange.requests[0].message["params"]["_meta"]["progressToken"] == 1


# HTTP statuses


@pytest.mark.parametrize(
    ("status", "failure", "words"),
    [
        (202, Failure.HTTP, "HTTP 202"),
        (204, Failure.HTTP, "HTTP 204"),
        (301, Failure.HTTP, "redirects are not followed"),
        (307, Failure.HTTP, "redirects are not followed"),
        (400, Failure.HTTP, "HTTP 400"),
        (401, Failure.HTTP, "credentials"),
        (403, Failure.HTTP, "credentials"),
        (404, Failure.HTTP, "HTTP 404"),
        (429, Failure.BUSY, "HTTP 429"),
        (500, Failure.HTTP, "HTTP 500"),
        (503, Failure.BUSY, "HTTP 503"),
    ],
)
async def test_other_statuses_are_failures_after_the_request_was_sent(
    bench: Bench, status: int, failure: Failure, words: str
) -> None:
    bench.answers(Answer(status, {"Location": "http://elsewhere.test/"}, [b"secret text of the server"]))
    error = await bench.failure()
    assert (error.failure, error.status) == (failure, status)
    assert error.phase is not Phase.NOT_SENT
    assert words in error.message
    assert "secret" not in error.message
    assert len(bench.exchange.requests) == 1


@pytest.mark.parametrize(
    ("text", "seconds"), [("7", 7.0), ("", None), ("Wed, 21 Oct", None), ("-1", None), ("9" * 9, None)]
)
async def test_retry_after_is_read_in_seconds(bench: Bench, text: str, seconds: float | None) -> None:
    bench.answers(Answer(429, {"Retry-After": text}))
    assert (await bench.failure()).retry_after == seconds


@pytest.mark.parametrize("status", [400, 404, 500])
async def test_a_json_rpc_error_with_a_status_is_the_upstreams_own_answer(bench: Bench, status: int) -> None:
    bench.answers(as_json({"jsonrpc": "2.0", "id": 1, "error": {"code": -32601, "message": "no"}}, status))
    with pytest.raises(RpcError):
        await bench.call()


async def test_an_error_for_another_request_is_not_ours(bench: Bench) -> None:
    bench.answers(as_json({"jsonrpc": "2.0", "id": 9, "error": {"code": -32601, "message": "no"}}, 400))
    assert (await bench.failure()).failure is Failure.HTTP


# Legacy sessions


async def test_a_session_that_is_given_is_sent_along(bench: Bench) -> None:
    bench.wire.terms = None
    bench.answers(as_json(result(1), Mcp_Session_Id="s-42"), as_json(result(2)))
    await bench.call(Outgoing("initialize", {}))
    bench.wire.terms = LEGACY
    await bench.call()
    first, second = bench.exchange.requests
    assert "Mcp-Session-Id" not in first.headers
    assert second.headers["Mcp-Session-Id"] == "s-42"


@pytest.mark.parametrize("session", ["s\x01", "s s", "\udcff", "ä"])
async def test_a_session_id_that_could_not_be_sent_back_is_refused(bench: Bench, session: str) -> None:
    bench.wire.terms = None
    bench.answers(as_json(result(1), Mcp_Session_Id=session))
    with pytest.raises(WireError, match="visible ASCII"):
        await bench.call(Outgoing("initialize", {}))


@pytest.mark.parametrize(
    "answer",
    [
        Answer(404),
        as_json({"jsonrpc": "2.0", "id": None, "error": {"code": -32000, "message": "Session not found"}}, 404),
        as_json({"jsonrpc": "2.0", "id": None, "error": {"code": -32000, "message": "No valid session ID"}}, 400),
    ],
)
async def test_a_session_the_upstream_does_not_know_was_not_executed(bench: Bench, answer: Answer) -> None:
    error = await bench.legacy().answers(answer).failure()
    assert (error.failure, error.phase) == (Failure.SESSION_LOST, Phase.NOT_SENT)
    assert bench.attempt.phase is Phase.NOT_SENT


@pytest.mark.parametrize("session", [None, "s1"])
async def test_a_400_that_does_not_name_the_session_is_an_answer(bench: Bench, session: str | None) -> None:
    bench.legacy(session).answers(
        as_json({"jsonrpc": "2.0", "id": 1, "error": {"code": -32602, "message": "bad arguments"}}, 400)
    )
    with pytest.raises(RpcError):
        await bench.call()


async def test_closing_ends_the_session_once_and_the_connections(bench: Bench) -> None:
    bench.legacy().script(lambda _: Answer(200))
    await bench.wire.close()
    [request] = bench.exchange.requests
    assert (request.method, request.headers["Mcp-Session-Id"]) == ("DELETE", "s1")
    assert bench.exchange.closed
    assert bench.wire.ended.result() == "closed"


async def test_closing_works_when_the_upstream_is_gone(bench: Bench) -> None:
    bench.legacy().answers(Answer(error=WireError(Failure.UNREACHABLE, Phase.NOT_SENT, "refused")))
    await bench.wire.close()
    assert bench.exchange.closed


async def test_retiring_waits_for_the_requests_in_flight(bench: Bench) -> None:
    bench.answers(as_events(hangs=True))
    call = bench.tasks.spawn(bench.wire.request(CALL, Attempt()), "call")
    await asyncio.sleep(0)
    retiring = bench.tasks.spawn(bench.wire.retire(), "retire")
    await asyncio.sleep(0)
    assert not retiring.done()
    call.cancel()
    await asyncio.wait([retiring], timeout=5)
    assert bench.exchange.closed


# Resumption (legacy)


def polled(*answers: Answer) -> Script:
    left = list(answers)
    return lambda _: left.pop(0)


EARLY = b"id: e1\nretry: 1\ndata:\n\n"


async def test_a_legacy_stream_that_ends_early_is_polled_from_its_last_event(bench: Bench) -> None:
    bench.legacy().script(polled(as_events(EARLY), as_events(b"id: e2\ndata:\n\n"), as_events(result(1, {"a": 1}))))
    assert json.loads(encode(await bench.call())) == {"a": 1}
    posted, first, second = bench.exchange.requests
    assert (posted.method, first.method, second.method) == ("POST", "GET", "GET")
    assert (first.headers["Last-Event-ID"], second.headers["Last-Event-ID"]) == ("e1", "e2")
    assert first.headers["Accept"] == "text/event-stream"
    assert first.headers["Mcp-Session-Id"] == "s1"
    assert bench.exchange.all_closed


async def test_a_stream_that_is_polled_in_vain_is_polled_again_from_the_same_place(bench: Bench) -> None:
    bench.legacy().script(polled(as_events(EARLY), as_events(), as_events(result(1))))
    await bench.call()
    assert [one.headers.get("Last-Event-ID") for one in bench.exchange.requests] == [None, "e1", "e1"]


async def test_the_streams_of_earlier_polls_are_closed_before_the_next(bench: Bench) -> None:
    def script(request: Request) -> Answer:
        assert bench.exchange.all_closed or len(bench.exchange.responses) == 1 or bench.exchange.responses[-1].closed
        return as_events(EARLY) if len(bench.exchange.requests) < 10 else as_events(result(1))

    bench.legacy().script(script)
    await bench.call()
    assert sum(not response.closed for response in bench.exchange.responses) == 0


@pytest.mark.parametrize(
    "second",
    [
        Answer(404),
        Answer(405),
        Answer(error=WireError(Failure.UNREACHABLE, Phase.NOT_SENT, "connection refused")),
        Answer(error=WireError(Failure.LOST, Phase.SENT, "connection lost")),
    ],
)
async def test_a_call_whose_stream_cannot_be_resumed_may_have_been_executed(bench: Bench, second: Answer) -> None:
    """The connection that fails is not the one that carried the call: "not sent" here would have it sent twice."""
    error = await bench.legacy().answers(as_events(EARLY), second).failure()
    assert error.failure is Failure.LOST
    assert error.phase is not Phase.NOT_SENT
    assert bench.attempt.phase is not Phase.NOT_SENT


async def test_a_legacy_stream_without_ids_is_not_polled(bench: Bench) -> None:
    assert (await bench.legacy().answers(as_events(NOTICE)).failure()).failure is Failure.LOST


# Headers


async def test_modern_requests_carry_version_method_and_name(bench: Bench) -> None:
    await bench.call(Outgoing("tools/call", {"name": "grüße"}, {"Mcp-Param-Region": "eu"}))
    headers = bench.exchange.requests[0].headers
    assert headers["MCP-Protocol-Version"] == "2026-07-28"
    assert headers["Mcp-Method"] == "tools/call"
    assert headers["Mcp-Name"] == "=?base64?Z3LDvMOfZQ==?="
    assert headers["Mcp-Param-Region"] == "eu"
    assert headers["Authorization"] == "Bearer k"
    assert headers["Accept"] == "application/json, text/event-stream"
    assert headers["Content-Type"] == "application/json"
    assert "Mcp-Session-Id" not in headers


async def test_other_modern_methods_carry_no_name(bench: Bench) -> None:
    await bench.call(Outgoing("tools/list", {}))
    assert "Mcp-Name" not in bench.exchange.requests[0].headers


async def test_the_probe_is_modern_and_the_handshake_is_not(bench: Bench) -> None:
    bench.wire.terms = None
    await bench.call(Outgoing("server/discover", {}))
    await bench.call(Outgoing("initialize", {}))
    probe, handshake = (request.headers for request in bench.exchange.requests)
    assert probe["MCP-Protocol-Version"] == "2026-07-28"
    assert "MCP-Protocol-Version" not in handshake
    assert "Mcp-Method" not in handshake


async def test_legacy_requests_carry_the_version_and_no_modern_header(bench: Bench) -> None:
    await bench.legacy().call()
    headers = bench.exchange.requests[0].headers
    assert headers["MCP-Protocol-Version"] == "2025-11-25"
    assert not {"Mcp-Method", "Mcp-Name"} & set(headers)


@pytest.mark.parametrize("terms", [MODERN, LEGACY])
async def test_a_notification_is_posted_and_a_refusal_is_raised(bench: Bench, terms: Terms) -> None:
    bench.wire.terms = terms
    bench.answers(Answer(202), Answer(400))
    await bench.wire.notify("notifications/initialized")
    request = bench.exchange.requests[0]
    assert request.message == {"jsonrpc": "2.0", "method": "notifications/initialized"}
    assert request.headers.get("Mcp-Method") == ("notifications/initialized" if terms is MODERN else None)
    with pytest.raises(WireError, match="HTTP 400"):
        await bench.wire.notify("notifications/initialized")


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("plain text", "plain text"),
        (" edge", "=?base64?IGVkZ2U=?="),
        ("new\nline", "=?base64?bmV3CmxpbmU=?="),
        ("=?base64?eA==?=", "=?base64?PT9iYXNlNjQ/ZUE9PT89?="),
    ],
)
async def test_header_values_that_would_not_survive_are_wrapped(value: str, sent: str) -> None:
    assert header_value(value) == sent


# Cancellation


@pytest.mark.parametrize(("terms", "notices"), [(LEGACY, 1), (MODERN, 0)])
async def test_cancelling_closes_the_stream_and_tells_only_a_legacy_upstream(
    bench: Bench, terms: Terms, notices: int
) -> None:
    bench.wire.terms = terms
    bench.script(lambda request: as_events(hangs=True) if "id" in request.message else Answer(202))
    call = bench.tasks.spawn(bench.wire.request(CALL, Attempt()), "call")
    await asyncio.sleep(0)
    call.cancel()
    await bench.quiet()
    assert bench.exchange.all_closed
    sent = [request.message for request in bench.exchange.requests[1:]]
    assert [one["method"] for one in sent] == ["notifications/cancelled"] * notices
    assert all(one["params"]["requestId"] == 1 for one in sent)


async def test_cancelling_what_may_not_be_cancelled_tells_nobody(bench: Bench) -> None:
    bench.legacy().script(lambda _: as_events(hangs=True))
    call = bench.tasks.spawn(bench.wire.request(Outgoing("initialize", {}, cancellable=False), Attempt()), "call")
    await asyncio.sleep(0)
    call.cancel()
    await bench.quiet()
    assert len(bench.exchange.requests) == 1


async def test_one_calls_trouble_does_not_touch_another(bench: Bench) -> None:
    def script(request: Request) -> Answer:
        number = request.message["id"]
        return Answer(200, {"Content-Type": "application/json"}, breaks=True) if number % 2 else as_json(result(number))

    bench.script(script)
    outcomes = await asyncio.gather(*(bench.call() for _ in range(20)), return_exceptions=True)
    assert [isinstance(one, WireError) for one in outcomes] == [True, False] * 10


# The stream of announcements


async def test_the_legacy_stream_hands_on_what_comes(bench: Bench) -> None:
    changed = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
    bench.legacy().answers(as_events(changed, changed))
    await bench.wire.stream()
    assert [one.method for one in bench.heard] == ["notifications/tools/list_changed"] * 2
    assert bench.exchange.requests[0].headers["Accept"] == "text/event-stream"


async def test_an_upstream_without_a_stream_says_so(bench: Bench) -> None:
    bench.legacy().answers(Answer(405))
    with pytest.raises(WireError, match="HTTP 405"):
        await bench.wire.stream()
    assert bench.exchange.all_closed


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (400, -32000, "card charged, but the user session has expired"),
        (404, -32002, "Resource not found"),
        (404, -32601, "Session not found"),
        (400, -32000, "Session not found in the booking system"),
    ],
)
async def test_an_error_that_only_speaks_of_sessions_is_an_answer_and_no_reason_to_send_again(
    bench: Bench, status: int, code: int, message: str
) -> None:
    error = {"jsonrpc": "2.0", "id": 1, "error": {"code": code, "message": message}}
    bench.legacy("s1").answers(as_json(error, status))
    attempt = Attempt()
    with pytest.raises(RpcError) as raised:
        await bench.wire.request(CALL, attempt)
    assert (raised.value.code, raised.value.message) == (code, message)
    assert attempt.phase is not Phase.NOT_SENT


@pytest.mark.parametrize(
    "message",
    ["Session not found", "Bad Request: No valid session ID provided", "Session terminated", "Invalid session ID",
     "Bad Request: Mcp-Session-Id header is required", "Not Found: Invalid session ID"],
)  # fmt: skip
async def test_the_words_of_the_common_servers_for_a_lost_session_are_understood(bench: Bench, message: str) -> None:
    error = {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": message}}
    bench.legacy("s1").answers(as_json(error, 400))
    with pytest.raises(WireError) as raised:
        await bench.wire.request(CALL, Attempt())
    assert (raised.value.failure, raised.value.phase) == (Failure.SESSION_LOST, Phase.NOT_SENT)


# Requests of the upstream


ROOTS = {"jsonrpc": "2.0", "id": "r1", "method": "roots/list"}


def handler(name: str, asked: list[str]) -> OnRequest:
    async def handle(request: Incoming) -> Mapping[str, Any]:
        asked.append(f"{name} {request.method}")
        return {"by": name}

    return handle


def calls_get(*events: object) -> Script:
    """Calls are answered with these events, what we post back is taken."""
    return lambda request: as_events(*events) if "method" in request.message else Answer(202)


async def test_a_request_on_the_stream_of_a_request_reaches_that_requests_handler(bench: Bench) -> None:
    asked: list[str] = []
    bench.legacy().wire.on_request = handler("link", asked)

    def script(request: Request) -> Answer:
        if "method" not in request.message:
            return Answer(202)
        number = request.message["id"]
        return as_events({**ROOTS, "id": f"r{number}"}, result(number))

    bench.script(script)
    for name in ("one", "two"):
        await bench.call(Outgoing("tools/call", {"name": "add"}, on_request=handler(name, asked)))
    await bench.call()
    await bench.quiet()
    assert asked == ["one roots/list", "two roots/list", "link roots/list"]
    answers = [request.message for request in bench.exchange.requests if "result" in request.message]
    assert [(one["id"], one["result"]["by"]) for one in answers] == [("r1", "one"), ("r2", "two"), ("r3", "link")]


async def test_a_request_that_nobody_can_answer_is_refused(bench: Bench) -> None:
    bench.legacy().script(calls_get(ROOTS, result(1)))
    await bench.call()
    await bench.quiet()
    refusal = bench.exchange.requests[1].message
    assert (refusal["id"], refusal["error"]["code"]) == ("r1", -32601)


async def test_a_request_on_the_standing_stream_reaches_the_links_handler(bench: Bench) -> None:
    asked: list[str] = []
    bench.legacy().script(lambda request: as_events(ROOTS) if request.method == "GET" else Answer(202))
    bench.wire.on_request = handler("link", asked)
    await bench.wire.stream()
    await bench.quiet()
    assert asked == ["link roots/list"]
    assert bench.exchange.requests[1].message["result"] == {"by": "link"}


async def test_a_request_is_withdrawn_by_a_notification_that_goes_no_further(bench: Bench) -> None:
    heard: list[Incoming] = []

    async def never(_: Incoming) -> Mapping[str, Any]:
        await asyncio.Event().wait()
        return {}

    gone = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "r1"}}
    bench.legacy().script(calls_get(ROOTS, gone, result(1)))
    await bench.call(Outgoing("tools/call", {"name": "add"}, on_message=heard.append, on_request=never))
    await bench.quiet()
    assert (len(bench.exchange.requests), heard, bench.heard) == (1, [], [])


async def test_an_answer_that_cannot_be_delivered_harms_nobody(bench: Bench) -> None:
    lost = Answer(error=WireError(Failure.LOST, Phase.SENT, "lost"))
    bench.legacy().script(lambda request: as_events(ROOTS, result(1)) if "method" in request.message else lost)
    await bench.call(Outgoing("tools/call", {"name": "add"}, on_request=handler("one", [])))
    await bench.quiet()
    assert len(bench.exchange.requests) == 2


async def test_an_answer_that_is_turned_away_is_brought_again_when_the_upstream_says(bench: Bench) -> None:
    turned_away = iter([Answer(503, {"Retry-After": "0"}), Answer(202)])
    bench.legacy().script(
        lambda request: as_events(ROOTS, result(1)) if "method" in request.message else next(turned_away)
    )
    await bench.call(Outgoing("tools/call", {"name": "add"}, on_request=handler("one", [])))
    await bench.quiet()
    first, again = bench.exchange.requests[1:]
    assert first.message == again.message


async def test_closing_gives_up_what_is_still_asked(bench: Bench) -> None:
    given_up: list[str] = []

    async def never(request: Incoming) -> Mapping[str, Any]:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            given_up.append(request.method)
            raise
        return {}

    bench.legacy(None).script(calls_get(ROOTS, result(1)))
    await bench.call(Outgoing("tools/call", {"name": "add"}, on_request=never))
    await asyncio.sleep(0)
    await bench.wire.close()
    await bench.quiet()
    assert given_up == ["roots/list"]


@pytest.mark.parametrize(
    "method",
    [
        "notifications/tools/list_changed",
        "notifications/prompts/list_changed",
        "notifications/resources/list_changed",
        "notifications/resources/updated",
    ],
)
async def test_what_concerns_everybody_is_handed_on_to_all_whosever_stream_it_comes_on(
    bench: Bench, method: str
) -> None:
    heard: list[Incoming] = []
    bench.answers(as_events({"jsonrpc": "2.0", "method": method}, result(1)))
    await bench.call(Outgoing("tools/call", {"name": "add"}, on_message=heard.append))
    assert ([one.method for one in bench.heard], heard) == ([method], [])


@pytest.mark.parametrize(
    ("method", "params", "name"),
    [("prompts/get", {"name": "p"}, "p"), ("resources/read", {"uri": "file:///a"}, "file:///a")],
)
async def test_prompts_and_resources_are_named_in_the_headers_as_well(
    bench: Bench, method: str, params: dict[str, str], name: str
) -> None:
    await bench.call(Outgoing(method, params))
    assert bench.exchange.requests[0].headers["Mcp-Name"] == name


# Acknowledgements


def acknowledged(*uris: str, subscription: object = 1) -> dict[str, Any]:
    meta = {"io.modelcontextprotocol/subscriptionId": subscription}
    params = {"notifications": {"resourceSubscriptions": list(uris)}, "_meta": meta}
    return {"jsonrpc": "2.0", "method": ACKNOWLEDGED, "params": params}


async def follow(bench: Bench, accepted: asyncio.Future[None], uri: str = "file:///a") -> None:
    async with asyncio.timeout(10):
        await Link(bench.wire, MODERN).follow(uri, accepted)


def promise() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


async def test_an_acknowledgement_is_that_of_the_request_on_whose_stream_it_comes(bench: Bench) -> None:
    """Whatever subscription it names: the stream says it already."""

    def script(request: Request) -> Answer:
        [uri] = request.message["params"]["notifications"]["resourceSubscriptions"]
        return as_events(acknowledged(uri, subscription="x"), hangs=True)

    bench.script(script)
    promises = {uri: promise() for uri in ("file:///a", "file:///b")}
    streams = [begun(follow(bench, accepted, uri)) for uri, accepted in promises.items()]
    async with asyncio.timeout(10):
        await asyncio.gather(*promises.values())
    assert [request.headers["Mcp-Method"] for request in bench.exchange.requests] == ["subscriptions/listen"] * 2
    assert not any(stream.done() for stream in streams)
    for stream in streams:
        stream.cancel()
    await asyncio.wait(streams, timeout=10)
    assert (bench.heard, bench.exchange.all_closed) == ([], True)


async def test_updates_after_the_acknowledgement_concern_everybody(bench: Bench) -> None:
    updated = {"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": "file:///a"}}
    bench.answers(as_events(acknowledged("file:///a"), updated, result(1, {})))
    accepted = promise()
    await follow(bench, accepted)
    assert accepted.result() is None
    assert [one.method for one in bench.heard] == ["notifications/resources/updated"]


async def test_an_acknowledgement_that_does_not_honour_the_resource_is_a_refusal(bench: Bench) -> None:
    bench.answers(as_events(acknowledged("file:///b"), result(1, {})))
    accepted = promise()
    await follow(bench, accepted)
    assert isinstance(error := accepted.exception(), RpcError)
    assert error.code == -32600


async def test_a_stream_that_breaks_before_the_acknowledgement_leaves_the_question_open(bench: Bench) -> None:
    bench.answers(as_events(breaks=True))
    accepted = promise()
    with pytest.raises(WireError):
        await follow(bench, accepted)
    assert not accepted.done()
    assert bench.exchange.all_closed
