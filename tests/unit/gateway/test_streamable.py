from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from mcp_proxy.base.errors import (
    DRAINING,
    NOT_ACCEPTABLE,
    NOT_FOUND,
    OVERLOADED,
    PAYLOAD_TOO_LARGE,
    SERVER_NOT_FOUND,
    UNAUTHORIZED,
    UNSUPPORTED_MEDIA_TYPE,
    Kind,
    ProxyError,
)
from mcp_proxy.base.protocol import META_CLIENT_CAPABILITIES, META_VERSION
from mcp_proxy.base.timers import running_timers
from mcp_proxy.core.upstream.terms import Era
from mcp_proxy.edge import presence
from mcp_proxy.edge.body import ClientGone
from mcp_proxy.gateway.asked import Answer, Asked
from mcp_proxy.gateway.streamable import StreamableHttp
from tests.unit.gateway.http_fakes import (
    ADA,
    BOTH,
    EVE,
    EVENTS,
    JSON,
    LIMIT,
    Bench,
    Exchange,
    Gate,
    call,
    note,
    request,
    result,
    settle,
    within,
)

pytestmark = pytest.mark.anyio

MODERN = (b"mcp-protocol-version", b"2026-07-28")
LEGACY = (b"mcp-protocol-version", b"2025-06-18")
NOTICE = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1}}'


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(presence, "LOOK_AFTER", 0)
    bench = Bench()
    yield bench
    bench.door.sessions.close()
    await bench.close()


def transport(bench: Bench, **options: Any) -> StreamableHttp:
    return StreamableHttp(bench.door, **{"tasks": bench.tasks, "max_body": 10_000, "clock": bench.clock, **options})


@pytest.fixture
def http(bench: Bench) -> StreamableHttp:
    return transport(bench)


def modern(id: int = 1, method: str = "tools/list", **params: Any) -> tuple[dict[str, Any], Any, Any]:
    """A modern request and the headers that it needs."""
    meta = {META_VERSION: "2026-07-28", META_CLIENT_CAPABILITIES: {"sampling": {}}}
    return call(id, method, _meta=meta, **params), MODERN, (b"mcp-method", method.encode())


async def open_session(http: StreamableHttp, **options: Any) -> tuple[bytes, bytes]:
    """The session header of a new session."""
    opened = await request(http, call(0, "initialize"), JSON, **options).done()
    key = opened.header(b"mcp-session-id")
    assert opened.status == 200
    assert key
    return (b"mcp-session-id", key)


async def refused(exchange: Exchange, kind: Kind) -> ProxyError:
    with pytest.raises(ProxyError) as caught:
        await exchange.done()
    assert caught.value.kind is kind
    assert exchange.sent == []
    return caught.value


async def gone(exchange: Exchange) -> None:
    with pytest.raises(ClientGone):
        await exchange.done()


# Who, where, how


async def test_without_a_token_nothing_is_read(http: StreamableHttp, bench: Bench) -> None:
    exchange = request(http, call(), principal=None)
    await refused(exchange, UNAUTHORIZED)
    assert (await exchange.receive())["type"] == "http.request"
    assert bench.door.asked == []


async def test_the_log_names_the_door(http: StreamableHttp) -> None:
    assert (await request(http, call()).done()).record.door == "mcp"


@pytest.mark.parametrize(
    ("path", "namespace"),
    [("/mcp", None), ("/mcp/", None), ("/mcp/math", "math"), ("/mcp/a b", "a b"), ("/mcp/math/", "math")],
)
async def test_the_path_names_the_namespace(
    path: str, namespace: str | None, http: StreamableHttp, bench: Bench
) -> None:
    await request(http, call(), path=path).done()
    assert bench.door.asked[0].namespace == namespace


async def test_an_unknown_namespace_is_not_found(http: StreamableHttp) -> None:
    await refused(request(http, call(), path="/mcp/nope"), SERVER_NOT_FOUND)


@pytest.mark.parametrize("path", ["/mcp/math/more", "/mcp//math", "/mcp/math//"])
async def test_there_is_nothing_below_a_namespace(path: str, http: StreamableHttp) -> None:
    await refused(request(http, call(), path=path), NOT_FOUND)


@pytest.mark.parametrize("method", ["PUT", "PATCH", "HEAD", "OPTIONS"])
async def test_other_methods_are_not_allowed(method: str, http: StreamableHttp) -> None:
    answer = await request(http, method=method).done()
    assert (answer.status, answer.header(b"allow")) == (405, b"GET, POST, DELETE")
    assert answer.record.error == "method_not_allowed"


@pytest.mark.parametrize("version", [b"2026-07-28", b"1999-01-01"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_modern_clients_have_only_post(method: str, version: bytes, http: StreamableHttp) -> None:
    answer = await request(http, None, EVENTS, (b"mcp-protocol-version", version), method=method).done()
    assert (answer.status, answer.header(b"allow")) == (405, b"POST")


@pytest.mark.parametrize("kind", [b"text/plain", b"", b"application/jsonp", b"application/x-www-form-urlencoded"])
async def test_a_body_that_is_not_declared_as_json_is_refused(kind: bytes, http: StreamableHttp) -> None:
    await refused(request(http, call(), (b"content-type", kind)), UNSUPPORTED_MEDIA_TYPE)


async def test_json_may_be_declared_with_parameters(http: StreamableHttp) -> None:
    assert (await request(http, call(), (b"content-type", b"Application/JSON; charset=utf-8")).done()).status == 200


async def test_a_body_over_the_limit_is_refused(bench: Bench) -> None:
    await refused(request(transport(bench, max_body=5), call()), PAYLOAD_TOO_LARGE)


@pytest.mark.parametrize(
    ("body", "code"), [(b"{", -32700), (b"[]", -32600), (b'{"jsonrpc":"1.0","id":7,"method":"x"}', -32600)]
)
async def test_what_is_no_message_is_refused_as_json_rpc(body: bytes, code: int, http: StreamableHttp) -> None:
    answer = await request(http, body).done()
    assert (answer.status, answer.json["error"]["code"]) == (400, code)
    assert answer.record.error == "bad_request"


# Accept


async def test_a_client_that_takes_anything_gets_json(http: StreamableHttp) -> None:
    for headers in ((), ((b"accept", b"*/*"),), (JSON,), (BOTH,)):
        answer = await request(http, call(7), *headers).done()
        assert (answer.status, answer.json["id"]) == (200, 7)


async def test_a_client_that_takes_only_events_gets_its_answer_as_one(http: StreamableHttp) -> None:
    answer = await request(http, call(7), EVENTS).done()
    assert answer.status == 200
    assert answer.header(b"cache-control") == b"no-cache, no-transform"
    assert answer.header(b"x-accel-buffering") == b"no"
    assert [event["id"] for event in answer.events] == [7]
    assert answer.ended


async def test_a_client_that_takes_neither_is_refused(http: StreamableHttp, bench: Bench) -> None:
    for message in (call(), call(1, "initialize")):
        await refused(request(http, message, (b"accept", b"text/html, application/json;q=0")), NOT_ACCEPTABLE)
    assert bench.door.asked == []
    assert len(bench.door.sessions) == 0


async def test_a_notification_needs_no_accept(http: StreamableHttp) -> None:
    assert (await request(http, note("notifications/initialized"), (b"accept", b"text/html")).done()).status == 202


# The modern half


async def test_a_modern_request_comes_with_its_envelope(http: StreamableHttp, bench: Bench) -> None:
    message, *headers = modern(3)
    answer = await request(http, message, *headers, BOTH, path="/mcp/math").done()
    asked = bench.door.asked[0]
    assert answer.json == {"jsonrpc": "2.0", "id": 3, "result": {"did": "tools/list"}}
    assert (asked.client.era, asked.session, asked.namespace) == (Era.MODERN, None, "math")
    assert (asked.client.capabilities, asked.principal, asked.record) == ({"sampling": {}}, ADA, answer.record)
    assert asked.headers is not None
    assert asked.headers["mcp-method"] == "tools/list"


async def test_a_modern_request_is_answered_with_the_doors_status_and_headers(
    http: StreamableHttp, bench: Bench
) -> None:
    async def work(asked: Asked) -> Answer:
        return Answer(b'{"error":1}', 404, ((b"x-more", b"yes"),))

    bench.door.work = work
    message, *headers = modern(1, "initialize")
    for accept, body in ((BOTH, b'{"error":1}'), (EVENTS, b'event: message\ndata: {"error":1}\n\n')):
        answer = await request(http, message, *headers, accept).done()
        assert (answer.status, answer.header(b"x-more"), answer.body) == (404, b"yes", body)


async def test_an_envelope_that_does_not_fit_is_refused(http: StreamableHttp, bench: Bench) -> None:
    answer = await request(http, call(4), MODERN).done()
    assert (answer.status, answer.json["id"], answer.json["error"]["code"]) == (400, 4, -32602)
    assert bench.door.asked == []


async def test_a_modern_notification_is_dropped(http: StreamableHttp, bench: Bench) -> None:
    answer = await request(http, note("notifications/cancelled", requestId=1), MODERN).done()
    assert (answer.status, answer.body, bench.door.notes) == (202, b"", [])


async def test_a_notification_of_an_unknown_revision_is_refused(http: StreamableHttp) -> None:
    answer = await request(http, note("x"), (b"mcp-protocol-version", b"1999-01-01")).done()
    assert (answer.status, answer.json["error"]["code"]) == (400, -32022)


async def test_a_modern_response_is_refused(http: StreamableHttp) -> None:
    answer = await request(http, {"jsonrpc": "2.0", "id": 1, "result": {}}, MODERN).done()
    assert (answer.status, answer.json["error"]["code"]) == (400, -32600)


async def test_a_modern_client_that_leaves_has_cancelled(http: StreamableHttp, bench: Bench) -> None:
    bench.door.work = gate = Gate()
    message, *headers = modern(5)
    exchange = request(http, message, *headers, BOTH)
    await within(gate.begun)
    exchange.leave()
    await gone(exchange)
    assert bench.door.cancelled == [5]
    assert exchange.sent == []


# Answers with something before them


async def test_what_is_sent_before_the_answer_begins_a_stream(http: StreamableHttp, bench: Bench) -> None:
    async def work(asked: Asked) -> Answer:
        assert asked.channel.send(NOTICE)
        assert asked.channel.send(NOTICE)
        return structs.replace(result(asked, {}), status=404)

    bench.door.work = work
    answer = await request(http, call(9), BOTH).done()
    assert answer.status == 200
    assert [event.get("method", event.get("id")) for event in answer.events] == [
        "notifications/progress", "notifications/progress", 9,
    ]  # fmt: skip
    assert answer.ended


async def test_a_message_leaves_before_the_answer_is_there(http: StreamableHttp, bench: Bench) -> None:
    bench.door.work = gate = Gate()
    exchange = request(http, call(9), BOTH)
    await within(gate.begun)
    assert gate.asked[0].channel.send(NOTICE)
    await exchange.until(lambda seen: len(seen.sent) > 1)
    assert exchange.events == [json.loads(NOTICE)]
    assert not exchange.ended
    gate.open.set()
    await exchange.done()
    assert exchange.events[1]["id"] == 9


async def test_who_takes_no_events_is_not_sent_any(http: StreamableHttp, bench: Bench) -> None:
    async def work(asked: Asked) -> Answer:
        return result(asked, asked.channel.send(NOTICE))

    bench.door.work = work
    for headers in ((JSON,), ((b"accept", b"*/*"),), ()):
        assert (await request(http, call(), *headers).done()).json["result"] is False


async def test_after_the_answer_the_channel_is_closed(http: StreamableHttp, bench: Bench) -> None:
    answer = await request(http, call(), BOTH).done()
    assert bench.door.asked[0].channel.send(NOTICE) is False
    assert answer.header(b"content-type") == b"application/json"
    assert len(bench.tasks) == 0


async def test_a_long_call_is_kept_alive(bench: Bench) -> None:
    bench.door.work = gate = Gate()
    exchange = request(transport(bench, keep_alive=0.005), call(2), BOTH)
    await exchange.until(lambda seen: seen.body.count(b": ping") >= 2)
    gate.open.set()
    await exchange.done()
    assert (exchange.status, [event["id"] for event in exchange.events]) == (200, [2])
    assert set(exchange.blocks[:-1]) == {b": ping"}


async def test_a_long_call_of_who_takes_no_events_is_not(bench: Bench) -> None:
    bench.door.work = gate = Gate()
    exchange = request(transport(bench, keep_alive=0), call(2), JSON)
    await within(gate.begun)
    await settle(lambda: bench.door.asked)
    gate.open.set()
    assert (await exchange.done()).json["id"] == 2


async def test_an_answer_may_be_larger_than_what_may_wait(http: StreamableHttp, bench: Bench, monkeypatch: Any) -> None:
    monkeypatch.setattr("mcp_proxy.gateway.outlet.BACKLOG_BYTES", 100)

    async def work(asked: Asked) -> Answer:
        asked.channel.send(NOTICE)
        return result(asked, "x" * 1000)

    bench.door.work = work
    assert (await request(http, call(), BOTH).done()).events[1]["result"] == "x" * 1000


async def test_a_client_that_leaves_its_stream_is_written_nothing_more(http: StreamableHttp, bench: Bench) -> None:
    bench.door.work = gate = Gate()
    exchange = request(http, call(5), BOTH)
    await within(gate.begun)
    gate.asked[0].channel.send(NOTICE)
    await exchange.until(lambda seen: len(seen.sent) > 1)
    exchange.leave()
    await gone(exchange)
    assert bench.door.cancelled == [5]
    assert gate.asked[0].channel.send(NOTICE) is False
    assert (len(exchange.events), exchange.ended, len(bench.tasks)) == (1, False, 0)


async def test_a_client_that_does_not_read_its_stream_is_given_up(
    http: StreamableHttp, bench: Bench, monkeypatch: Any
) -> None:
    monkeypatch.setattr("mcp_proxy.edge.event_stream.STALLED", 0.005)

    async def work(asked: Asked) -> Answer:
        asked.channel.send(NOTICE)
        return result(asked, {})

    bench.door.work = work
    exchange = request(http, call(5), BOTH)
    exchange.reading.clear()
    await gone(exchange)
    assert exchange.sent == []


async def test_a_request_that_fails_unforeseen_leaves_nothing_behind(http: StreamableHttp, bench: Bench) -> None:
    async def fail(asked: Asked) -> Answer:
        raise RuntimeError("a bug")

    async def fail_in_a_stream(asked: Asked) -> Answer:
        asked.channel.send(NOTICE)
        return await fail(asked)

    for bench.door.work in (fail, fail_in_a_stream):
        with pytest.raises(RuntimeError):
            await request(http, call(5), BOTH).done()
        assert bench.door.asked[-1].channel.send(NOTICE) is False
        assert len(bench.tasks) == 0
    assert repr(running_timers()) == "<Timers 0>"


# The legacy half, without a session


async def test_a_legacy_request_without_a_session_is_answered_statelessly(http: StreamableHttp, bench: Bench) -> None:
    for headers in ((), (LEGACY,)):
        answer = await request(http, call(1, "tools/list"), *headers).done()
        asked = bench.door.asked.pop()
        assert answer.json["result"] == {"did": "tools/list"}
        assert (asked.client.era, asked.session, asked.client.capabilities) == (Era.LEGACY, None, {})


async def test_a_legacy_client_without_a_session_that_leaves_has_cancelled(http: StreamableHttp, bench: Bench) -> None:
    bench.door.work = gate = Gate()
    exchange = request(http, call(5), BOTH)
    await within(gate.begun)
    exchange.leave()
    await gone(exchange)
    assert bench.door.cancelled == [5]


async def test_notifications_without_a_session_are_accepted(http: StreamableHttp, bench: Bench) -> None:
    assert (await request(http, note("notifications/initialized")).done()).status == 202
    assert bench.door.notes == []


async def test_responses_without_a_session_are_refused(http: StreamableHttp) -> None:
    answer = await request(http, {"jsonrpc": "2.0", "id": 1, "result": {}}).done()
    assert (answer.status, answer.json["error"]["code"]) == (400, -32600)


# The legacy half, with a session


async def test_initialize_opens_a_session(http: StreamableHttp, bench: Bench) -> None:
    answer = await request(http, call(0, "initialize", capabilities={"roots": {}}), BOTH).done()
    assert answer.header(b"mcp-session-id") == b"key-1"
    assert answer.json["result"] == {"welcome": True}
    session = bench.door.sessions.find("key-1", ADA)
    assert session is not None
    assert session.introduction.capabilities == {"roots": {}}


async def test_initialize_as_an_event_has_the_session_too(http: StreamableHttp) -> None:
    answer = await request(http, call(0, "initialize"), EVENTS).done()
    assert (answer.header(b"mcp-session-id"), len(answer.events)) == (b"key-1", 1)


async def test_initialize_within_a_session_opens_another(http: StreamableHttp) -> None:
    for given in (b"key-1", b"unknown"):
        await open_session(http)
        answer = await request(http, call(0, "initialize"), (b"mcp-session-id", given)).done()
        assert answer.header(b"mcp-session-id") not in (None, given)


async def test_a_refused_initialize_has_no_session(bench: Bench) -> None:
    bench.door = type(bench.door)(bench.clock, limit=0)
    answer = await request(transport(bench), call(0, "initialize")).done()
    assert (answer.status, answer.header(b"retry-after"), answer.header(b"mcp-session-id")) == (503, b"5", None)


async def test_requests_of_a_session_come_with_it(http: StreamableHttp, bench: Bench) -> None:
    opened = await request(http, call(0, "initialize", capabilities={"roots": {}})).done()
    key = (b"mcp-session-id", opened.header(b"mcp-session-id") or b"")
    answer = await request(http, call(1), key, LEGACY, BOTH).done()
    asked = bench.door.asked[-1]
    assert asked.session is bench.door.sessions.find("key-1", ADA)
    assert (asked.client.era, asked.client.capabilities, asked.client.info) == (
        Era.LEGACY,
        {"roots": {}},
        {"name": "t"},
    )
    assert answer.json["id"] == 1


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_a_session_that_is_not_the_callers_is_not_found(method: str, http: StreamableHttp) -> None:
    own = await open_session(http)
    message = call(6) if method == "POST" else None
    for key, principal, path in (
        ((b"mcp-session-id", b"nope"), ADA, "/mcp"),
        (own, EVE, "/mcp"),
        (own, ADA, "/mcp/math"),
    ):
        answer = await request(http, message, key, BOTH, method=method, principal=principal, path=path).done()
        assert (answer.status, answer.json["error"]) == (404, {"code": -32600, "message": "Session not found"})
        assert answer.json["id"] == (6 if message else None)
        assert answer.record.error == "not_found"


async def test_a_session_of_a_namespace_is_found_there(http: StreamableHttp) -> None:
    own = await open_session(http, path="/mcp/math")
    assert (await request(http, call(), own, path="/mcp/math").done()).status == 200
    assert (await request(http, call(), own).done()).status == 404


async def test_notifications_of_a_session_reach_the_door(http: StreamableHttp, bench: Bench) -> None:
    own = await open_session(http)
    answer = await request(http, note("notifications/initialized"), own).done()
    assert (answer.status, answer.body) == (202, b"")
    assert bench.door.notes == [(bench.door.sessions.find("key-1", ADA), "notifications/initialized")]


async def test_a_request_of_ours_goes_into_the_stream_and_the_response_comes_back(
    http: StreamableHttp, bench: Bench
) -> None:
    async def work(asked: Asked) -> Answer:
        assert asked.session is not None
        return result(asked, await asked.session.ask("elicitation/create", None, asked.channel))

    bench.door.work = work
    own = await open_session(http)
    exchange = request(http, call(1), own, BOTH)
    await exchange.until(lambda seen: len(seen.sent) > 1)
    number = exchange.events[0]["id"]
    response = {"jsonrpc": "2.0", "id": number, "result": {"action": "accept"}}
    assert (await request(http, response, own).done()).status == 202
    await exchange.done()
    assert exchange.events[1]["result"] == {"action": "accept"}
    assert (await request(http, response, own).done()).status == 202  # nobody waits any more


async def test_a_client_of_a_session_that_leaves_has_not_cancelled(http: StreamableHttp, bench: Bench) -> None:
    bench.door.work = gate = Gate()
    own = await open_session(http)
    exchange = request(http, call(5), own, BOTH)
    await within(gate.begun)
    exchange.leave()
    channel: Any = gate.asked[0].channel
    await settle(lambda: not channel.reachable)
    assert channel.send(NOTICE) is False
    gate.open.set()
    await gone(exchange)
    assert gate.finished
    assert bench.door.cancelled == []
    assert exchange.sent == []


async def test_a_client_of_a_session_cancels_by_notification(http: StreamableHttp, bench: Bench) -> None:
    bench.door.work = gate = Gate()
    own = await open_session(http)
    exchange = request(http, call(5), own, BOTH)
    await within(gate.begun)
    await request(http, note("notifications/cancelled", requestId=5), own).done()
    answer = await exchange.done()
    assert bench.door.cancelled == [5]
    assert answer.json["error"] == {"code": -31017, "message": "the client cancelled the request"}
    assert (answer.status, answer.json["id"], answer.record.error) == (200, 5, "cancelled")


async def test_a_cancelled_stream_just_ends(http: StreamableHttp, bench: Bench) -> None:
    bench.door.work = gate = Gate()
    own = await open_session(http)
    exchange = request(http, call(5), own, BOTH)
    await within(gate.begun)
    gate.asked[0].channel.send(NOTICE)
    await request(http, note("notifications/cancelled", requestId=5), own).done()
    await exchange.done()
    assert (exchange.events, exchange.ended) == ([json.loads(NOTICE)], True)


async def test_when_the_server_cancels_the_handler_nothing_is_left_of_the_stream(
    http: StreamableHttp, bench: Bench
) -> None:
    bench.door.work = gate = Gate()
    exchange = request(http, call(5), BOTH)
    await within(gate.begun)
    gate.asked[0].channel.send(NOTICE)
    await exchange.until(lambda seen: len(seen.sent) > 1)
    exchange.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await exchange.done()
    assert len(bench.tasks) == 0


# GET


async def listening(http: StreamableHttp, *headers: tuple[bytes, bytes], **options: Any) -> Exchange:
    exchange = request(http, None, EVENTS, *headers, method="GET", **options)
    await exchange.until(lambda seen: len(seen.sent) > 1)
    return exchange


async def test_get_opens_the_stream_of_the_session(http: StreamableHttp, bench: Bench) -> None:
    own = await open_session(http)
    exchange = await listening(http, own)
    session = bench.door.sessions.find("key-1", ADA)
    assert session is not None
    assert session.notify(NOTICE)
    await exchange.until(lambda seen: seen.events)
    assert (exchange.status, exchange.header(b"content-type"), exchange.ended) == (200, b"text/event-stream", False)
    exchange.leave()
    await gone(exchange)
    assert session.outlet is None


async def test_a_second_stream_ends_the_first(http: StreamableHttp, bench: Bench) -> None:
    own = await open_session(http)
    first = await listening(http, own)
    second = await listening(http, own)
    await first.done()
    session = bench.door.sessions.find("key-1", ADA)
    assert session is not None
    assert session.notify(NOTICE)
    await second.until(lambda seen: seen.events)
    assert (first.ended, first.events) == (True, [])
    second.leave()
    await gone(second)


async def test_a_stream_without_messages_is_kept_alive(bench: Bench) -> None:
    http = transport(bench, keep_alive=0.005)
    exchange = await listening(http, await open_session(http))
    await exchange.until(lambda seen: seen.body.count(b": ping") >= 3)
    exchange.leave()
    await gone(exchange)


async def test_get_needs_to_accept_events(http: StreamableHttp) -> None:
    own = await open_session(http)
    for headers in ((), (JSON,), ((b"accept", b"*/*"),)):
        await refused(request(http, None, own, *headers, method="GET"), NOT_ACCEPTABLE)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_session_has_to_be_named(method: str, http: StreamableHttp) -> None:
    answer = await request(http, None, EVENTS, method=method).done()
    assert (answer.status, answer.json["error"]["code"]) == (400, -32600)


async def test_a_stream_ends_with_its_token(http: StreamableHttp, bench: Bench) -> None:
    principal = replace(ADA, expires=bench.clock.time() + 0.01)
    own = await open_session(http, principal=principal)
    exchange = await request(http, None, EVENTS, own, method="GET", principal=principal).done()
    assert (exchange.status, exchange.ended) == (200, True)


async def test_a_stream_ends_with_its_session(http: StreamableHttp, bench: Bench) -> None:
    own = await open_session(http)
    exchange = await listening(http, own)
    assert (await request(http, None, own, method="DELETE").done()).status == 204
    await exchange.done()
    assert exchange.ended
    assert len(bench.door.sessions) == 0


async def test_streams_are_bounded(bench: Bench) -> None:
    http = transport(bench, max_streams=1)
    own = await open_session(http)
    first = await listening(http, own)
    assert (await refused(request(http, None, EVENTS, own, method="GET"), OVERLOADED)).retry_after
    message, *headers = modern(1, "subscriptions/listen")
    await refused(request(http, message, *headers, EVENTS), OVERLOADED)
    first.leave()
    await gone(first)
    second = await listening(http, own)
    second.leave()
    await gone(second)


async def test_close_ends_the_streams(http: StreamableHttp) -> None:
    own = await open_session(http)
    exchange = await listening(http, own)
    async with asyncio.timeout(LIMIT):
        await http.close()
    assert exchange.ended
    await exchange.done()
    await refused(request(http, None, EVENTS, own, method="GET"), DRAINING)


# DELETE


async def test_delete_ends_the_session(http: StreamableHttp, bench: Bench) -> None:
    own = await open_session(http)
    answer = await request(http, None, own, method="DELETE").done()
    assert (answer.status, answer.body, len(bench.door.ended)) == (204, b"", 1)
    assert (await request(http, None, own, method="DELETE").done()).status == 404


async def test_delete_cancels_what_is_in_flight(http: StreamableHttp, bench: Bench) -> None:
    bench.door.work = gate = Gate()
    own = await open_session(http)
    exchange = request(http, call(5), own, BOTH)
    await within(gate.begun)
    await request(http, None, own, method="DELETE").done()
    assert (await exchange.done()).json["error"]["code"] == -31017


# subscriptions/listen


async def subscribed(http: StreamableHttp, bench: Bench, **options: Any) -> tuple[Exchange, Gate]:
    bench.door.work = gate = Gate()
    message, *headers = modern(8, "subscriptions/listen")
    exchange = request(http, message, *headers, BOTH, **options)
    await within(gate.begun)
    gate.asked[0].channel.send(NOTICE)
    await exchange.until(lambda seen: len(seen.sent) > 1)
    return exchange, gate


async def test_a_subscription_needs_a_stream(http: StreamableHttp, bench: Bench) -> None:
    message, *headers = modern(8, "subscriptions/listen")
    for accept in (JSON, (b"accept", b"*/*")):
        await refused(request(http, message, *headers, accept), NOT_ACCEPTABLE)
    assert bench.door.asked == []


async def test_a_subscription_is_a_stream_with_its_answer_at_the_end(http: StreamableHttp, bench: Bench) -> None:
    exchange, gate = await subscribed(http, bench)
    gate.open.set()
    await exchange.done()
    assert [event.get("id") for event in exchange.events] == [None, 8]
    assert exchange.ended


async def test_a_client_that_leaves_ends_its_subscription(http: StreamableHttp, bench: Bench) -> None:
    exchange, _ = await subscribed(http, bench)
    exchange.leave()
    await gone(exchange)
    await settle(lambda: bench.door.cancelled == [8])


async def test_a_subscription_ends_with_its_token(http: StreamableHttp, bench: Bench) -> None:
    exchange, _ = await subscribed(http, bench, principal=replace(ADA, expires=bench.clock.time() + 0.05))
    await exchange.done()
    assert (exchange.ended, bench.door.cancelled) == (True, [8])


async def test_close_ends_subscriptions(http: StreamableHttp, bench: Bench) -> None:
    exchange, _ = await subscribed(http, bench)
    async with asyncio.timeout(LIMIT):
        await http.close()
    await exchange.done()
    assert (exchange.ended, bench.door.cancelled) == (True, [8])


async def test_a_legacy_subscription_is_a_request_like_any_other(http: StreamableHttp) -> None:
    assert (await request(http, call(1, "subscriptions/listen"), JSON).done()).status == 200
