"""Bodies that are not what they should be: each is refused with a status and a sentence, and nothing is called."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.harness import FaultyUpstream
from tests.flows.inside import Inside, error_of, refusal, serving

pytestmark = pytest.mark.anyio

PATHS = ["/tools", "/tools/calc/echo"]


def deep(levels: int) -> bytes:
    return b'{"method": "echo", "args": {"text": "x", "more": ' + b"[" * levels + b"]" * levels + b"}}"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "JSON"),
        (b"nonsense", "JSON"),
        (b'{"method": "echo"} {}', "JSON"),
        (b"{'method': 'echo'}", "JSON"),
        (b'{"method": "echo",}', "JSON"),
        (b"[]", "object"),
        (b'"echo"', "object"),
        (b"null", "object"),
        (b"   ", "empty"),
        (b'{"method": "caf\xe9"}', "UTF-8"),
        (b"\xff\xfe{\x00}\x00", "UTF-8"),
        (b"\xef\xbb\xbf{}", "JSON"),
        (b'{"method": "echo", "method": "add"}', "twice"),
        (b'{"args": {"text": "a", "text": "b"}, "method": "echo"}', "twice"),
        (b'{"method": "echo", "args": {"text": "x", "n": NaN}}', "NaN"),
        (b'{"method": "echo", "args": {"text": "x", "n": -Infinity}}', "Infinity"),
        (b'{"method": "echo", "args": {"text": "x", "n": 1e999}}', "range"),
        (b'{"method": "echo", "args": {"text": "\\ud800"}}', "surrogate"),
        (deep(63), "nested"),
        (b"[" * 100_000, "nested"),
        (b'{"n": ' + b"9" * 10_000 + b"}", "too long"),
    ],
)
async def test_what_is_not_one_sound_json_object_is_400_and_says_why(
    calc: Inside, upstream: FaultyUpstream, path: str, body: bytes, words: str
):
    before = len(upstream.ledger.events("received"))
    reply = await calc.send(body, path)
    assert refusal(reply) == (400, "bad_request")
    assert words in error_of(reply)["message"]
    assert len(error_of(reply)["message"]) < 300
    assert len(upstream.ledger.events("received")) == before


async def test_nesting_up_to_the_limit_is_accepted(calc: Inside):
    assert (await calc.send(deep(62))).status == 200


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/json"]
)
@pytest.mark.parametrize("path", PATHS)
async def test_a_body_that_is_not_called_json_is_415(calc: Inside, path: str, kind: str):
    reply = await calc.send(b'{"method": "echo", "args": {"text": "x"}}', path, kind)
    assert refusal(reply) == (415, "unsupported_media_type")


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "Application/JSON ;x=y"])
async def test_json_may_be_called_so_in_every_legal_way(calc: Inside, kind: str):
    assert (await calc.send(b'{"method": "echo", "args": {"text": "x"}}', kind=kind)).status == 200


async def test_no_body_at_all_where_one_is_needed_is_400(calc: Inside):
    reply = await calc.request("POST", "/tools")
    assert refusal(reply) == (400, "bad_request")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "method"),
        ({"args": {}}, "method"),
        ({"method": None}, "method"),
        ({"method": ""}, "method"),
        ({"method": 7}, "method"),
        ({"method": ["echo"]}, "method"),
        ({"method": "echo", "args": []}, "args"),
        ({"method": "echo", "args": "text"}, "args"),
        ({"method": "echo", "args": 0}, "args"),
        ({"method": "echo", "args": False}, "args"),
        ({"method": "echo", "server": ""}, "server"),
        ({"method": "echo", "server": 5}, "server"),
    ],
)
async def test_a_field_of_the_wrong_kind_is_400_and_named(calc: Inside, body: dict[str, Any], field: str):
    reply = await calc.post("/tools", body)
    assert refusal(reply) == (400, "bad_request")
    assert error_of(reply)["details"] == {"field": field}


@pytest.mark.parametrize("field", ["arguments", "Method", "params", "", "x" * 500])
async def test_a_field_that_means_nothing_is_422_and_named(calc: Inside, field: str):
    reply = await calc.post("/tools", {"method": "echo", field: 1})
    assert refusal(reply) == (422, "unprocessable")
    assert error_of(reply)["details"] == {"field": field[:64]}


@pytest.mark.parametrize("path", PATHS)
async def test_a_body_over_the_limit_is_413_and_one_at_the_limit_is_read(upstream: FaultyUpstream, path: str):
    async with serving({"calc": {"url": upstream.url}}, max_body=2048) as inside:
        within = b'{"method": "none"}'.ljust(2048)
        assert (await inside.send(within, path)).status in (400, 404)
        assert refusal(await inside.send(within + b" ", path)) == (413, "payload_too_large")


@pytest.mark.parametrize("length", [b"4194305", b"9" * 30])
async def test_a_length_over_the_limit_is_refused_before_anything_is_read(calc: Inside, length: bytes):
    headers = {"Content-Length": length.decode(), "Content-Type": "application/json"}
    reply = await calc.request("POST", "/tools", headers=headers, data=b"{}")
    assert refusal(reply) == (413, "payload_too_large")
    assert reply.headers["connection"] == "close"


@pytest.mark.parametrize("length", ["-1", "1e3", "abc", "+5"])
async def test_a_length_that_is_no_number_is_400(calc: Inside, length: str):
    headers = {"Content-Length": length, "Content-Type": "application/json"}
    assert (await calc.request("POST", "/tools", headers=headers, data=b"{}")).status == 400


async def test_what_was_sent_is_not_repeated_in_full(calc: Inside):
    secret = "x" * 300 + "the-end-of-it"
    for reply in [
        await calc.call(secret),
        await calc.call("echo", server=secret),
        await calc.post(f"/tools/{secret}/a", {}),
    ]:
        assert reply.status == 404
        assert b"the-end-of-it" not in reply.body


@pytest.mark.parametrize(
    "body", [{}, {"jti": 5}, {"jti": ""}, {"jti": "a", "why": "x"}, {"jti": "a\nb"}, {"jti": "x" * 300}]
)
async def test_a_revocation_names_one_token_id(calc: Inside, body: dict[str, Any]):
    from tests.harness import make_token

    reply = await calc.post("/api/tokens/revoke", body, token=make_token(scope="admin"))
    assert reply.status in (400, 422)
    error_of(reply)
