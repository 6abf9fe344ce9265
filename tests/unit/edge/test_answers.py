"""The headers of answers: what errors ask for, and what browsers are told."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_proxy.base.errors import INSUFFICIENT_SCOPE, ORIGIN_NOT_ALLOWED, RATE_LIMITED, UNAUTHORIZED, ProxyError
from mcp_proxy.edge.respond import error_headers, send_error
from mcp_proxy.edge.types import Message, Receive, Scope, Send

from .conftest import BAD, GOOD, LOCALHOST, Answer, Edge, MakeEdge, http, websocket

pytestmark = pytest.mark.anyio

EXPECTED = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"x-frame-options": b"DENY",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"cache-control": b"no-store",
}


async def answer_to(error: ProxyError, **options: Any) -> Answer:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await send_error(send, error, "id-9", **options)
    return Answer(sent)


async def test_an_error_is_one_json_object_of_the_documented_shape() -> None:
    error = ProxyError(RATE_LIMITED, "slow down", details={"rate": 3}, retry_after=2.01)
    answer = await answer_to(error, headers=[(b"x-more", b"1")])
    assert answer.json == {
        "error": {"message": "slow down", "code": 429, "type": "rate_limited", "request_id": "id-9",
                  "details": {"rate": 3}},
    }  # fmt: skip
    assert answer.header(b"content-type") == b"application/json"
    assert answer.header(b"content-length") == str(len(answer.body)).encode()
    assert answer.header(b"x-more") == b"1"


@pytest.mark.parametrize(("seconds", "header"), [(0, b"1"), (0.2, b"1"), (1, b"1"), (1.001, b"2"), (59.5, b"60")])
def test_retry_after_is_whole_seconds_and_never_none(seconds: float, header: bytes) -> None:
    assert (b"retry-after", header) in error_headers(ProxyError(RATE_LIMITED, "later", retry_after=seconds))


def test_errors_without_advice_have_no_extra_headers() -> None:
    assert error_headers(ProxyError(RATE_LIMITED, "later")) == []
    assert error_headers(ProxyError(ORIGIN_NOT_ALLOWED, "no")) == []


def test_a_missing_token_and_a_refused_one_are_told_apart() -> None:
    error = ProxyError(UNAUTHORIZED, "no")
    assert error_headers(error) == [(b"www-authenticate", b'Bearer realm="mcp-proxy-api"')]
    refused = dict(error_headers(error, token_given=True))[b"www-authenticate"]
    assert refused.startswith(b'Bearer realm="mcp-proxy-api", error="invalid_token"')


@pytest.mark.parametrize(
    ("scope", "expected"),
    [("tools:call", b', scope="tools:call"'), (["a", "b"], b', scope="a b"'), (None, b"")],
)
def test_a_missing_scope_is_named(scope: Any, expected: bytes) -> None:
    error = ProxyError(INSUFFICIENT_SCOPE, "no", details={"scope": scope})
    challenge = b'Bearer realm="mcp-proxy-api", error="insufficient_scope"'
    assert error_headers(error) == [(b"www-authenticate", challenge + expected)]


def test_a_challenge_cannot_be_broken_out_of() -> None:
    error = ProxyError(INSUFFICIENT_SCOPE, "no", details={"scope": 'a", x="\r\nset-cookie: é\\'})
    ((_, value),) = error_headers(error)
    assert value.count(b'"') == 6
    assert value.isascii()
    assert value.decode().isprintable()


async def test_at_the_mcp_door_a_challenge_names_the_metadata_of_the_resource(make_edge: MakeEdge) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ProxyError(UNAUTHORIZED, "a token is needed")

    where = b"/.well-known/oauth-protected-resource/mcp/calc"
    ours = await make_edge(app).send(http("/mcp/calc"))
    tls = await make_edge(app).send(http("/mcp/calc", scheme="https", root_path="/proxy"))
    told = await make_edge(app, public_url="https://tools.example").send(http("/mcp/calc"))
    for answer, base in (
        (ours, b"http://localhost:5000"),
        (tls, b"https://localhost:5000/proxy"),
        (told, b"https://tools.example"),
    ):
        expected = b'Bearer realm="mcp-proxy-api", resource_metadata="' + base + where + b'"'
        assert answer.header(b"www-authenticate") == expected


async def test_without_a_host_there_is_no_address_to_name(make_edge: MakeEdge) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ProxyError(UNAUTHORIZED, "a token is needed")

    answer = await make_edge(app, host="0.0.0.0").send(http("/mcp", []))
    assert answer.header(b"www-authenticate") == b'Bearer realm="mcp-proxy-api"'


async def test_a_token_that_is_not_accepted_and_one_that_lacks_a_scope_are_told_it_too(make_edge: MakeEdge) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ProxyError(INSUFFICIENT_SCOPE, "no", details={"scope": "tools:call"})

    metadata = b'resource_metadata="http://localhost:5000/.well-known/oauth-protected-resource/mcp"'
    for token in (BAD, GOOD):
        headers = [LOCALHOST, (b"authorization", b"Bearer " + token.encode())]
        challenge = (await make_edge(app).send(http("/mcp", headers))).header(b"www-authenticate")
        assert challenge is not None
        assert challenge.endswith(metadata)
    elsewhere = await make_edge(app).send(http("/tools"))
    assert elsewhere.header(b"www-authenticate") == (
        b'Bearer realm="mcp-proxy-api", error="insufficient_scope", scope="tools:call"'
    )


@pytest.mark.parametrize("host", [b"localhost", b"evil.example", b"a b"])
async def test_every_answer_has_the_security_headers(edge: Edge, host: bytes) -> None:
    answer = await edge.send(http(headers=[(b"host", host)]))
    assert {name: answer.header(name) for name in EXPECTED} == EXPECTED


async def test_a_denied_websocket_has_them_too(edge: Edge) -> None:
    answer = await edge.send(websocket([(b"host", b"evil.example")]))
    assert answer.status == 421
    assert answer.header(b"x-frame-options") == b"DENY"


async def test_the_handshake_of_a_websocket_is_no_document(edge: Edge) -> None:
    accept = (await edge.send(websocket())).sent[0]
    assert accept["headers"] == [(b"x-request-id", b"id-1")]


async def test_an_answer_keeps_the_header_it_sets_itself(make_edge: MakeEdge) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"Cache-Control", b"max-age=60"), (b"content-security-policy", b"default-src 'self'")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    answer = await make_edge(app).send(http())
    found = {name.lower(): value for name, value in answer.headers}
    assert found == EXPECTED | {
        b"cache-control": b"max-age=60", b"content-security-policy": b"default-src 'self'", b"x-request-id": b"id-1",
    }  # fmt: skip
    assert len(found) == len(answer.headers)


async def test_an_app_that_names_no_headers_gets_them_all_the_same(make_edge: MakeEdge) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    answer = await make_edge(app).send(http())
    assert answer.header(b"cache-control") == b"no-store"
