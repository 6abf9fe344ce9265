"""Host, Origin and the framing of a request."""

from __future__ import annotations

import pytest

from mcp_proxy.base.errors import StartError
from mcp_proxy.edge.addresses import Addresses, Authority, parse_authority, same_origin

from .conftest import Edge, MakeEdge, answer_ok, http, websocket

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "host",
    [b"localhost", b"LOCALHOST:1", b"localhost:5000", b"127.0.0.1", b"127.8.9.1:80", b"[::1]", b"[::1]:5000",
     b"[0:0::1]:5000"],
)  # fmt: skip
async def test_a_loopback_bind_answers_to_loopback_names(edge: Edge, host: bytes) -> None:
    assert (await edge.send(http(headers=[(b"host", host)]))).status == 200


@pytest.mark.parametrize(
    "host",
    [b"evil.example", b"localhost.evil.example", b"localhost.", b"127.0.0.1.evil.example", b"127.1", b"0.0.0.0",
     b"[::ffff:127.0.0.1]", b"128.0.0.1", b"[::2]", b"2130706433", b"127.0.0.01"],
)  # fmt: skip
async def test_a_loopback_bind_is_misdirected_by_other_names(edge: Edge, host: bytes) -> None:
    answer = await edge.send(http(headers=[(b"host", host)]))
    assert (answer.status, answer.error["type"]) == (421, "unknown_host")
    assert edge.scopes == []
    assert edge.requests[0]["error"] == "unknown_host"


@pytest.mark.parametrize(
    "host",
    [b"localhost:abc", b"localhost:", b"localhost:0", b"localhost:65536", b"localhost:5000:5000", b"user@localhost",
     b"localhost/", b"localhost ", b" localhost", b"localhost,evil.example", b"::1", b"[::1", b"[:::]", b"[]",
     b"localhost\n", b"\xff", b".", b":5000", b"localhost:\xb2"],
)  # fmt: skip
@pytest.mark.parametrize("bind", ["127.0.0.1", "0.0.0.0"])
async def test_a_malformed_host_is_refused_on_every_bind(make_edge: MakeEdge, host: bytes, bind: str) -> None:
    edge = make_edge(host=bind)
    answer = await edge.send(http(headers=[(b"host", host)]))
    assert (answer.status, answer.error["type"]) == (400, "bad_request")
    assert answer.header(b"connection") == b"close"


@pytest.mark.parametrize("headers", [[], [(b"host", b"")]])
async def test_a_loopback_bind_needs_a_host(edge: Edge, headers: list[tuple[bytes, bytes]]) -> None:
    assert (await edge.send(http(headers=headers))).status == 421


async def test_two_host_headers_are_refused(edge: Edge) -> None:
    answer = await edge.send(http(headers=[(b"host", b"localhost"), (b"host", b"localhost")]))
    assert answer.status == 400


@pytest.mark.parametrize("bind", ["0.0.0.0", "::", "192.0.2.1", "gateway.example"])
async def test_other_binds_answer_to_any_name(make_edge: MakeEdge, bind: str) -> None:
    assert (await make_edge(host=bind).send(http(headers=[(b"host", b"anything.example")]))).status == 200


@pytest.mark.parametrize("bind", ["127.0.0.1", "::1", "[::1]", "localhost", "127.9.9.9", "0.0.0.0"])
@pytest.mark.parametrize(
    ("host", "status"),
    [(b"api.example", 200), (b"API.example:8443", 200), (b"localhost", 200), (b"port.example:81", 200),
     (b"port.example", 421), (b"[2001:db8::1]:5000", 200), (b"other.example", 421)],
)  # fmt: skip
async def test_allowed_names_come_beside_the_loopback_ones(
    make_edge: MakeEdge, bind: str, host: bytes, status: int
) -> None:
    edge = make_edge(host=bind, allow_host=("Api.Example", "port.example:81", "2001:db8::1"))
    assert (await edge.send(http(headers=[(b"host", host)]))).status == status


@pytest.mark.parametrize("entry", ["", "*", "https://api.example", "api.example:x", "a b"])
def test_an_allowed_name_that_is_no_name_stops_the_start(entry: str) -> None:
    with pytest.raises(StartError, match="MCP_PROXY_ALLOW_HOST"):
        Addresses(answer_ok, "127.0.0.1", (entry,))


@pytest.mark.parametrize(
    ("host", "origin"),
    [(b"localhost:5000", b"http://localhost:5000"), (b"localhost:5000", b"https://localhost:5000"),
     (b"localhost", b"http://localhost"), (b"localhost", b"http://localhost:80"), (b"localhost:80", b"http://localhost"),
     (b"localhost", b"https://localhost"), (b"localhost:443", b"https://LOCALHOST"), (b"[::1]:5000", b"http://[::1]:5000")],
)  # fmt: skip
async def test_a_page_of_our_own_origin_may_call(edge: Edge, host: bytes, origin: bytes) -> None:
    assert (await edge.send(http(headers=[(b"host", host), (b"origin", origin)]))).status == 200


FOREIGN_ORIGINS = [
    b"null", b"", b"https://evil.example", b"http://localhost", b"http://localhost:5001", b"http://127.0.0.1:5000",
    b"ws://localhost:5000", b"file://", b"http://localhost:5000/", b"http://localhost:5000 ", b"localhost:5000",
    b"http://user@localhost:5000", b"http://localhost:5000.evil.example", b"http://localhost:5000#", b"\xff",
]  # fmt: skip


@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
async def test_pages_of_other_origins_are_refused(edge: Edge, origin: bytes) -> None:
    answer = await edge.send(http(headers=[(b"host", b"localhost:5000"), (b"origin", origin)]))
    assert (answer.status, answer.error["type"]) == (403, "origin_not_allowed")
    assert answer.header(b"www-authenticate") is None


@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
@pytest.mark.parametrize("denial", [True, False])
async def test_websockets_of_other_origins_are_refused(edge: Edge, origin: bytes, denial: bool) -> None:
    answer = await edge.send(websocket([(b"host", b"localhost:5000"), (b"origin", origin)], denial=denial))
    assert answer.status == (403 if denial else None)
    assert [message["type"] for message in answer.sent if "accept" in message["type"]] == []
    assert edge.requests[0]["status_code"] == 403
    assert edge.scopes == []


async def test_an_origin_without_a_host_is_refused_where_any_host_is_accepted(make_edge: MakeEdge) -> None:
    edge = make_edge(host="0.0.0.0")
    assert (await edge.send(http(headers=[]))).status == 200
    assert (await edge.send(http(headers=[(b"origin", b"http://localhost")]))).status == 403


async def test_two_origins_are_refused(edge: Edge) -> None:
    own = (b"origin", b"http://localhost:5000")
    assert (await edge.send(http(headers=[(b"host", b"localhost:5000"), own, own]))).status == 400


async def test_a_decision_stands_when_it_is_asked_for_again_and_for_many_names(edge: Edge) -> None:
    for _ in range(2):
        for number in range(600):
            assert (await edge.send(http(headers=[(b"host", b"n%d.example" % number)]))).status == 421
        assert (await edge.send(http())).status == 200


async def test_a_length_beside_a_transfer_encoding_is_refused_and_the_connection_closed(edge: Edge) -> None:
    framing = [(b"host", b"localhost"), (b"content-length", b"4"), (b"transfer-encoding", b"chunked")]
    answer = await edge.send(http(headers=framing))
    assert (answer.status, answer.header(b"connection")) == (400, b"close")


async def test_a_hundred_headers_are_accepted_and_one_more_is_not(edge: Edge) -> None:
    many = [(b"host", b"localhost"), *((b"x-%d" % number, b"v") for number in range(99))]
    assert (await edge.send(http(headers=many))).status == 200
    assert (await edge.send(http(headers=[*many, (b"x-more", b"v")]))).status == 400


async def test_header_bytes_are_counted_over_names_and_values(edge: Edge) -> None:
    host = (b"host", b"localhost")
    room = 32 * 1024 - len(host[0] + host[1]) - len(b"x-big")
    assert (await edge.send(http(headers=[host, (b"x-big", b"v" * room)]))).status == 200
    assert (await edge.send(http(headers=[host, (b"x-big", b"v" * (room + 1))]))).status == 400


async def test_http2_answers_carry_no_connection_header(edge: Edge) -> None:
    answer = await edge.send(http(headers=[(b"host", b"a b")], http_version="2"))
    assert (answer.status, answer.header(b"connection")) == (400, None)


def test_addresses_compare_by_value_not_by_spelling() -> None:
    assert parse_authority("[2001:DB8:0::1]:80") == Authority("[2001:db8::1]", 80)
    assert same_origin("http://[2001:db8::1]", Authority("[2001:db8::1]", 80))
