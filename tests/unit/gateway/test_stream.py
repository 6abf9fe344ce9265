from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_proxy.base.errors import DRAINING, OVERLOADED, UNSUPPORTED_MEDIA_TYPE, ProxyError
from mcp_proxy.core.auth.principal import LOCAL, Principal
from mcp_proxy.edge import presence
from mcp_proxy.edge.body import ClientGone
from mcp_proxy.edge.event_stream import PING, event
from mcp_proxy.edge.streams import Streams, calling_after
from mcp_proxy.edge.types import Receive, Scope, Send
from mcp_proxy.gateway.outlet import Outlet
from mcp_proxy.gateway.stream import MAX_STREAMS, check_json, stream_outlet
from tests.unit.gateway.http_fakes import LIMIT, Exchange, request

pytestmark = pytest.mark.anyio


# Events


def test_an_event_is_a_name_and_its_data() -> None:
    assert event(b'{"a":1}') == b'event: message\ndata: {"a":1}\n\n'
    assert event(b"/messages/", b"endpoint") == b"event: endpoint\ndata: /messages/\n\n"


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_line_ends_within_the_data_become_fields(end: bytes) -> None:
    assert event(b"{" + end + b'"a":1}') == b'event: message\ndata: {\ndata: "a":1}\n\n'


@given(st.lists(st.sampled_from(["\n", "\r", "\r\n", " ", ""]), min_size=5, max_size=5))
def test_json_read_back_from_an_event_is_the_same(gaps: list[str]) -> None:
    a, b, c, d, e = gaps
    text = f'{a}{{{b}"k"{c}:{d}[1, "x\\n"]{e}}}'
    lines = event(text.encode()).decode().removesuffix("\n\n").split("\n")
    assert lines[0] == "event: message"
    assert all(line.startswith("data: ") and "\r" not in line for line in lines[1:])
    assert json.loads("\n".join(line.removeprefix("data: ") for line in lines[1:])) == {"k": [1, "x\n"]}


# Whole streams


def streaming(outlet: Outlet, **options: Any) -> Exchange:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await stream_outlet(outlet, receive, send, **{"keep_alive": LIMIT, "seconds": None, **options})

    return request(app, method="GET")


async def test_a_stream_begins_at_once_and_ends_with_its_outlet() -> None:
    outlet = Outlet()
    exchange = streaming(outlet)
    await exchange.until(lambda seen: seen.body == PING)
    outlet.send(b"1")
    outlet.send(b"2")
    outlet.close()
    await exchange.done()
    assert exchange.blocks == [b": ping", b"event: message\ndata: 1", b"event: message\ndata: 2"]
    assert exchange.ended
    assert exchange.sent[0]["status"] == 200


async def test_a_first_event_takes_the_place_of_the_first_comment() -> None:
    outlet = Outlet()
    outlet.close()
    assert (await streaming(outlet, first=event(b"x", b"endpoint")).done()).blocks == [b"event: endpoint\ndata: x"]


async def test_a_client_that_leaves_closes_the_outlet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "LOOK_AFTER", 0)
    outlet = Outlet()
    exchange = streaming(outlet)
    exchange.leave()
    with pytest.raises(ClientGone):
        await exchange.done()
    assert outlet.closed
    assert not exchange.ended


async def test_a_stream_ends_when_its_time_is_over() -> None:
    for seconds in (0.005, 0, -3):
        outlet = Outlet()
        outlet.send(b"1")
        exchange = await streaming(outlet, seconds=seconds).done()
        assert (exchange.events, exchange.ended, outlet.closed) == ([1], True, True)


async def test_a_client_that_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_proxy.edge.event_stream.STALLED", 0.005)
    outlet = Outlet()
    exchange = streaming(outlet)
    exchange.reading.clear()
    with pytest.raises(ClientGone):
        await exchange.done()
    assert outlet.closed


async def test_a_timer_is_gone_with_its_block() -> None:
    calls: list[int] = []
    with calling_after(0, lambda: calls.append(1)):
        pass
    with calling_after(None, lambda: calls.append(2)):
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert calls == []


# Counting


def test_streams_are_counted_and_bounded() -> None:
    streams = Streams(1)
    with streams.open(lambda: None, LOCAL):
        assert len(streams) == 1
        with pytest.raises(ProxyError) as caught, streams.open(lambda: None, LOCAL):
            pass
    assert (caught.value.kind, caught.value.retry_after, len(streams)) == (OVERLOADED, 5, 0)


async def test_close_ends_them_and_waits_for_the_last() -> None:
    streams, outlets, left = Streams(MAX_STREAMS), [Outlet(), Outlet()], []

    async def serve(outlet: Outlet) -> None:
        with streams.open(outlet.close, LOCAL):
            assert await outlet.next() is None
            await asyncio.sleep(0)
            left.append(outlet)

    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
        for outlet in outlets:
            group.create_task(serve(outlet))
        await asyncio.sleep(0)
        await streams.close()
        assert set(left) == set(outlets)
    with pytest.raises(ProxyError) as caught, streams.open(lambda: None, LOCAL):
        pass
    assert caught.value.kind is DRAINING


async def test_close_does_not_wait_for_ever() -> None:
    streams = Streams(MAX_STREAMS)
    with streams.open(lambda: None, LOCAL):
        async with asyncio.timeout(LIMIT):
            await streams.close(0.005)


# Headers


def test_a_body_has_to_be_declared_as_json() -> None:
    check_json(b"application/json")
    check_json(b"application/JSON ; charset=utf-8")
    for content_type in (None, b"", b"text/json"):
        with pytest.raises(ProxyError) as caught:
            check_json(content_type)
        assert caught.value.kind is UNSUPPORTED_MEDIA_TYPE


def test_a_callers_streams_end_when_its_token_is_revoked_and_nobody_elses() -> None:
    streams, ended = Streams(MAX_STREAMS), []
    revoked, other = Principal("a", token_id="t1"), Principal("a", token_id="t2")
    with streams.open(lambda: ended.append("one"), revoked), streams.open(lambda: ended.append("two"), other):
        streams.end_where(lambda principal: principal.token_id == "t1")
    assert ended == ["one"]


def test_nobody_takes_more_than_a_share_of_the_streams() -> None:
    streams = Streams(100)
    greedy = Principal("greedy")
    with ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(streams.open(lambda: None, greedy))
        with pytest.raises(ProxyError) as caught:
            stack.enter_context(streams.open(lambda: None, greedy))
        assert caught.value.kind is OVERLOADED
        stack.enter_context(streams.open(lambda: None, Principal("modest")))
