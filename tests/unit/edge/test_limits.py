"""How large a body may be, by its word and by its weight."""

from __future__ import annotations

import pytest

from mcp_proxy.base.errors import ProxyError
from mcp_proxy.edge.body import ClientGone, read_body
from mcp_proxy.edge.respond import send_json
from mcp_proxy.edge.types import Message, Receive, Scope, Send

from .conftest import LOCALHOST, Edge, MakeEdge, answer_ok, http, messages

pytestmark = pytest.mark.anyio
LIMIT = 1024


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads all there is, trusting the edge's limit, and answers its size."""
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message["body"])
        more = message.get("more_body", False)
    await send_json(send, 200, b"%d" % size)


@pytest.fixture
def limited(make_edge: MakeEdge) -> Edge:
    return make_edge(echo, max_body=LIMIT)


def chunk(size: int, more: bool = True) -> Message:
    return {"type": "http.request", "body": b"x" * size, "more_body": more}


def length(value: bytes) -> list[tuple[bytes, bytes]]:
    return [LOCALHOST, (b"content-length", value)]


async def test_a_declared_body_of_just_the_limit_passes(limited: Edge) -> None:
    answer = await limited.send(http(headers=length(b"1024")), messages(chunk(1024, more=False)))
    assert (answer.status, answer.json) == (200, 1024)


@pytest.mark.parametrize("value", [b"1025", b"0001025", b"9" * 400])
async def test_a_declared_body_over_the_limit_is_refused_before_the_app_sees_it(limited: Edge, value: bytes) -> None:
    answer = await limited.send(http(headers=length(value)))
    assert (answer.status, answer.error["type"]) == (413, "payload_too_large")
    assert answer.header(b"connection") == b"close"
    assert limited.scopes == []


@pytest.mark.parametrize("value", [b"", b"-1", b"+1", b"1.0", b"0x10", b"1,1", b"1 1", b"ten", "١".encode(), b"\xb2"])
async def test_a_malformed_length_is_a_bad_request(limited: Edge, value: bytes) -> None:
    answer = await limited.send(http(headers=length(value)))
    assert (answer.status, answer.error["type"]) == (400, "bad_request")
    assert limited.scopes == []


async def test_lengths_that_differ_are_a_bad_request(limited: Edge) -> None:
    answer = await limited.send(http(headers=[*length(b"3"), (b"content-length", b"4")]))
    assert answer.status == 400


async def test_an_undeclared_body_is_counted_and_may_have_just_the_limit(limited: Edge) -> None:
    answer = await limited.send(http(), messages(chunk(1000), chunk(24, more=False)))
    assert (answer.status, answer.json) == (200, 1024)


@pytest.mark.parametrize("scope", [http(), http(method="GET", http_version="2")])
async def test_an_undeclared_body_over_the_limit_is_refused_when_it_gets_there(limited: Edge, scope: Scope) -> None:
    answer = await limited.send(scope, messages(chunk(1000), chunk(25), chunk(1, more=False)))
    assert (answer.status, answer.error["type"]) == (413, "payload_too_large")
    assert limited.requests[0]["error"] == "payload_too_large"


async def test_an_answer_that_has_begun_is_not_followed_by_a_second_one(make_edge: MakeEdge) -> None:
    async def early(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await echo(scope, receive, send)

    edge = make_edge(early, max_body=LIMIT)
    answer = await edge.send(http(), messages(chunk(2000, more=False)))
    assert [message["type"] for message in answer.sent] == ["http.response.start"]
    assert edge.requests[0]["status_code"] == 413


async def test_a_bodyless_get_passes(make_edge: MakeEdge) -> None:
    assert (await make_edge(answer_ok, max_body=LIMIT).send(http(method="GET"))).status == 200


async def test_a_body_is_read_whole_from_its_pieces() -> None:
    assert await read_body(messages(chunk(3, more=False)), 3) == b"xxx"
    assert await read_body(messages(chunk(2), chunk(0), chunk(1, more=False)), 3) == b"xxx"
    assert await read_body(messages({"type": "http.request"}), 0) == b""


@pytest.mark.parametrize("parts", [[chunk(4, more=False)], [chunk(2), chunk(2, more=False)], [chunk(2), chunk(2)]])
async def test_a_body_over_the_limit_is_not_read_on(parts: list[Message]) -> None:
    with pytest.raises(ProxyError, match="3 bytes") as caught:
        await read_body(messages(*parts), 3)
    assert caught.value.status == 413


@pytest.mark.parametrize("parts", [[], [chunk(2)]])
async def test_reading_ends_when_the_client_is_gone(parts: list[Message]) -> None:
    with pytest.raises(ClientGone):
        await read_body(messages(*parts), 3)
