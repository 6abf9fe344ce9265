from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from mcp_proxy.base.errors import (
    BAD_REQUEST,
    DRAINING,
    NOT_FOUND,
    OVERLOADED,
    PAYLOAD_TOO_LARGE,
    UNAUTHORIZED,
    UNSUPPORTED_MEDIA_TYPE,
    Kind,
    ProxyError,
)
from mcp_proxy.core.auth.principal import LOCAL
from mcp_proxy.core.upstream.terms import Era
from mcp_proxy.edge import presence
from mcp_proxy.edge.body import ClientGone
from mcp_proxy.gateway.asked import Answer, Asked
from mcp_proxy.gateway.session import Introduction
from mcp_proxy.gateway.sse import Sse
from tests.unit.gateway.http_fakes import (
    ADA,
    EVE,
    EVENTS,
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

NOTICE = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1}}'


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(presence, "LOOK_AFTER", 0)
    bench = Bench()
    yield bench
    await bench.close()


def transport(bench: Bench, **options: Any) -> Sse:
    ids = iter(range(1, 99))
    return Sse(
        bench.door,
        **{"tasks": bench.tasks, "max_body": 10_000, "clock": bench.clock, "ids": lambda: f"id {next(ids)}", **options},
    )


@pytest.fixture
async def sse(bench: Bench) -> AsyncIterator[Sse]:
    sse = transport(bench)
    yield sse
    await sse.close()


class Client:
    """A stream, and POSTs to the address that it gave."""

    def __init__(self, app: Sse, stream: Exchange) -> None:
        self.app = app
        self.stream = stream
        self.place = stream.blocks[0].decode().removeprefix("event: endpoint\ndata: ")

    async def post(self, message: Any, *headers: Any, **options: Any) -> Exchange:
        path, _, query = self.place.partition("?")
        return await request(self.app, message, *headers, path=path, query=query.encode(), **options).done()

    async def tell(self, message: Any, **options: Any) -> None:
        """Post what is taken."""
        answer = await self.post(message, **options)
        assert (answer.status, answer.body) == (202, b"")

    async def events(self, number: int) -> list[Any]:
        await self.stream.until(lambda seen: len(seen.events) >= number)
        return self.stream.events

    async def leave(self) -> None:
        self.stream.leave()
        with pytest.raises(ClientGone):
            await self.stream.done()


async def connect(app: Sse, **options: Any) -> Client:
    stream = request(app, None, EVENTS, method="GET", **{"path": "/sse", **options})
    await stream.until(lambda seen: len(seen.sent) > 1)
    return Client(app, stream)


async def refused(exchange: Exchange, kind: Kind) -> None:
    with pytest.raises(ProxyError) as caught:
        await exchange.done()
    assert caught.value.kind is kind


async def refused_post(client: Client, kind: Kind, message: Any, *headers: Any, **options: Any) -> None:
    with pytest.raises(ProxyError) as caught:
        await client.post(message, *headers, **options)
    assert caught.value.kind is kind


# Who, where, how


@pytest.mark.parametrize(("method", "path"), [("GET", "/sse"), ("POST", "/messages/")])
async def test_without_a_token_there_is_nothing(method: str, path: str, sse: Sse) -> None:
    await refused(request(sse, call(), method=method, path=path, principal=None), UNAUTHORIZED)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/sse", b"GET"),
        ("HEAD", "/sse", b"GET"),
        ("GET", "/messages/", b"POST"),
        ("DELETE", "/messages/", b"POST"),
    ],
)
async def test_each_path_has_one_method(method: str, path: str, allowed: bytes, sse: Sse) -> None:
    answer = await request(sse, call(), method=method, path=path).done()
    assert (answer.status, answer.header(b"allow")) == (405, allowed)


@pytest.mark.parametrize("path", ["/sse/math", "/messages/more"])
async def test_there_is_nothing_below(path: str, sse: Sse) -> None:
    await refused(request(sse, None, method="GET", path=path), NOT_FOUND)


# The stream


async def test_the_first_event_says_where_to_post(sse: Sse) -> None:
    client = await connect(sse)
    assert client.stream.blocks == [b"event: endpoint\ndata: /messages/?session_id=id%201"]
    assert client.stream.header(b"cache-control") == b"no-cache, no-transform"
    assert client.stream.record.door == "sse"


async def test_the_address_is_below_the_root_path(sse: Sse) -> None:
    assert (await connect(sse, root_path="/an app/", path="/sse/")).place == "/an%20app/messages/?session_id=id%201"


async def test_the_stream_is_kept_alive(bench: Bench) -> None:
    client = await connect(transport(bench, keep_alive=0.005))
    await client.stream.until(lambda seen: seen.body.count(b": ping\n\n") >= 2)
    await client.leave()


async def test_streams_are_bounded(bench: Bench) -> None:
    sse = transport(bench, max_streams=1)
    client = await connect(sse)
    await refused(request(sse, None, method="GET", path="/sse"), OVERLOADED)
    await client.leave()
    await (await connect(sse)).leave()


async def test_the_stream_ends_with_its_token(sse: Sse, bench: Bench) -> None:
    principal = replace(ADA, expires=bench.clock.time() + 0.01)
    exchange = await request(sse, None, method="GET", path="/sse", principal=principal).done()
    assert exchange.ended


async def test_close_ends_streams_and_their_sessions(sse: Sse, bench: Bench) -> None:
    client = await connect(sse)
    await client.tell(call(0, "initialize"))
    async with asyncio.timeout(LIMIT):
        await sse.close()
    await client.stream.done()
    assert (client.stream.ended, len(bench.door.sessions)) == (True, 0)
    await refused(request(sse, None, method="GET", path="/sse"), DRAINING)


# Messages


async def test_answers_come_through_the_stream(sse: Sse, bench: Bench) -> None:
    client = await connect(sse)
    await client.tell(call(0, "initialize", capabilities={"roots": {}}))
    assert await client.events(1) == [{"jsonrpc": "2.0", "id": 0, "result": {"welcome": True}}]
    posted = await client.post(call(1))
    assert (await client.events(2))[1] == {"jsonrpc": "2.0", "id": 1, "result": {"did": "tools/call"}}
    asked = bench.door.asked[-1]
    assert asked.session is bench.door.sessions.find("key-1", ADA)
    assert (asked.client.era, asked.client.capabilities) == (Era.LEGACY, {"roots": {}})
    assert (asked.record, asked.record.door, asked.headers, asked.namespace) == (posted.record, "sse", None, None)


async def test_requests_before_initialize_are_served_statelessly(sse: Sse, bench: Bench) -> None:
    client = await connect(sse)
    await client.tell(call(1))
    assert (await client.events(1))[0]["id"] == 1
    asked = bench.door.asked[0]
    assert (asked.session, asked.client.era, asked.client.capabilities) == (None, Era.LEGACY, {})


async def test_a_stream_is_initialized_once(sse: Sse, bench: Bench) -> None:
    client = await connect(sse)
    await client.tell(call(0, "initialize"))
    await client.tell(call(1, "initialize"))
    events = await client.events(2)
    assert (events[1]["id"], events[1]["error"]["code"]) == (1, -32600)
    assert len(bench.door.sessions) == 1


async def test_after_a_refused_initialize_it_can_be_tried_again(sse: Sse, bench: Bench) -> None:
    others = [bench.door.sessions.open(ADA, Introduction("2025-11-25")) for _ in range(8)]
    client = await connect(sse)
    await client.tell(call(0, "initialize"))
    assert await client.events(1) == [{"error": "full"}]
    bench.door.sessions.end(others[0])
    await client.tell(call(0, "initialize"))
    assert (await client.events(2))[1]["result"] == {"welcome": True}
    bench.door.sessions.close()


async def test_notifications_reach_the_door(sse: Sse, bench: Bench) -> None:
    client = await connect(sse)
    await client.tell(note("notifications/early"))
    await client.tell(call(0, "initialize"))
    await client.tell(note("notifications/initialized"))
    session = bench.door.sessions.find("key-1", ADA)
    assert bench.door.notes == [(None, "notifications/early"), (session, "notifications/initialized")]


async def test_what_is_sent_before_the_answer_comes_before_it(sse: Sse, bench: Bench) -> None:
    async def work(asked: Asked) -> Answer:
        assert asked.channel.send(NOTICE)
        return result(asked, {})

    bench.door.work = work
    client = await connect(sse)
    await client.tell(call(1))
    assert [event.get("id") for event in await client.events(2)] == [None, 1]


async def test_a_request_of_ours_is_answered_by_a_post(sse: Sse, bench: Bench) -> None:
    async def work(asked: Asked) -> Answer:
        assert asked.session is not None
        return result(asked, await asked.session.ask("roots/list", None, asked.channel))

    bench.door.work = work
    client = await connect(sse)
    await client.tell(call(0, "initialize"))
    await client.tell(call(1))
    number = (await client.events(2))[1]["id"]
    await client.tell({"jsonrpc": "2.0", "id": number, "result": {"roots": []}})
    assert (await client.events(3))[2]["result"] == {"roots": []}
    await client.tell({"jsonrpc": "2.0", "id": number, "result": {"roots": []}})


async def test_a_response_before_initialize_is_dropped(sse: Sse) -> None:
    await (await connect(sse)).tell({"jsonrpc": "2.0", "id": 1, "result": {}})


async def test_a_cancelled_request_gets_no_answer(sse: Sse, bench: Bench) -> None:
    bench.door.work = gate = Gate()
    client = await connect(sse)
    await client.tell(call(0, "initialize"))
    await client.tell(call(5))
    await within(gate.begun)
    await client.tell(note("notifications/cancelled", requestId=5))
    await settle(lambda: bench.door.cancelled == [5])
    bench.door.work = None
    await client.tell(call(6))
    assert [event["id"] for event in await client.events(2)] == [0, 6]


async def test_requests_are_served_at_once_side_by_side(sse: Sse, bench: Bench) -> None:
    bench.door.work = gate = Gate()
    client = await connect(sse)
    await client.tell(call(1))
    await within(gate.begun)
    bench.door.work = None
    await client.tell(call(2))
    assert (await client.events(1))[0]["id"] == 2
    gate.open.set()
    assert (await client.events(2))[1]["id"] == 1


async def test_large_answers_wait_for_room_and_none_is_lost(sse: Sse, bench: Bench, monkeypatch: Any) -> None:
    monkeypatch.setattr("mcp_proxy.gateway.outlet.BACKLOG_BYTES", 100)

    async def work(asked: Asked) -> Answer:
        return result(asked, "x" * 1000)

    bench.door.work = work
    client = await connect(sse)
    client.stream.reading.clear()
    for number in range(5):
        await client.tell(call(number))
    await settle(lambda: len(bench.door.asked) == 5)
    client.stream.reading.set()
    assert [event["id"] for event in await client.events(5)] == [0, 1, 2, 3, 4]


async def test_requests_in_flight_are_bounded(sse: Sse, bench: Bench, monkeypatch: Any) -> None:
    monkeypatch.setattr("mcp_proxy.gateway.sse.IN_FLIGHT", 1)
    bench.door.work = gate = Gate()
    client = await connect(sse)
    await client.tell(call(1))
    await within(gate.begun)
    await refused_post(client, OVERLOADED, call(2))
    await client.tell(note("notifications/initialized"))


async def test_when_the_stream_ends_everything_of_its_client_ends(sse: Sse, bench: Bench) -> None:
    bench.door.work = gate = Gate()
    client = await connect(sse)
    await client.tell(call(4))
    await within(gate.begun)
    await client.tell(call(0, "initialize"))
    await client.tell(call(5))
    await settle(lambda: len(gate.asked) == 2)
    await client.leave()
    await settle(lambda: len(bench.tasks) == 0)
    assert sorted(bench.door.cancelled) == [4, 5]
    assert (len(bench.door.sessions), len(bench.door.ended)) == (0, 1)
    await refused_post(client, NOT_FOUND, call(6))


async def test_a_client_too_slow_for_its_notifications_loses_the_stream(
    sse: Sse, bench: Bench, monkeypatch: Any
) -> None:
    monkeypatch.setattr("mcp_proxy.gateway.outlet.BACKLOG", 2)
    client = await connect(sse)
    await client.tell(call(0, "initialize"))
    await client.events(1)
    session = bench.door.sessions.find("key-1", ADA)
    assert session is not None
    assert [session.notify(NOTICE) for _ in range(3)] == [True, True, False]
    await client.stream.done()
    assert (client.stream.ended, len(bench.door.sessions)) == (True, 0)


# Posts that are refused


async def test_a_stream_is_its_openers_alone(sse: Sse) -> None:
    client = await connect(sse)
    await refused_post(client, NOT_FOUND, call(), principal=EVE)
    await refused(request(sse, call(), path="/messages/", query=b"session_id=id"), NOT_FOUND)
    await refused(request(sse, call(), path="/messages/"), BAD_REQUEST)


async def test_a_fresh_token_of_the_same_subject_counts_from_then_on(sse: Sse, bench: Bench) -> None:
    fresh = replace(ADA, scopes=LOCAL.scopes)
    client = await connect(sse)
    await client.tell(call(0, "initialize"))
    await client.tell(call(1), principal=fresh)
    await client.events(2)
    session = bench.door.asked[-1].session
    assert session is not None
    assert (session.principal, bench.door.asked[-1].principal) == (fresh, fresh)


async def test_a_body_has_to_be_json_and_no_larger_than_the_limit(bench: Bench) -> None:
    client = await connect(transport(bench, max_body=50))
    await refused_post(client, UNSUPPORTED_MEDIA_TYPE, call(), (b"content-type", b"text/plain"))
    await refused_post(client, PAYLOAD_TOO_LARGE, call(1, "x" * 50))
    await client.leave()


async def test_what_is_no_message_is_refused_at_the_post(sse: Sse) -> None:
    client = await connect(sse)
    answer = await client.post(b"{")
    assert (answer.status, answer.json["error"]["code"], answer.record.error) == (400, -32700, "bad_request")
    assert client.stream.events == []
