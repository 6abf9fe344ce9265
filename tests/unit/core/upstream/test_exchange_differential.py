"""Our own HTTP exchange beside the reference: the same bytes in, the same outcome out.

Where the two differ on purpose, `DIFFERENCES` says so and why; a difference that has gone fails as well.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_proxy.core.upstream.aiohttp_exchange import AiohttpExchange
from mcp_proxy.core.upstream.exchange import Exchange
from mcp_proxy.core.upstream.failures import Attempt, Failure, Phase, WireError
from mcp_proxy.core.upstream.http_exchange import HttpExchange
from tests.unit.core.upstream.scripted_peer import Ending, Script, ScriptedPeer

pytestmark = pytest.mark.anyio

LIMIT = 200_000
"""Bytes that an answer may have."""
EMPTY = (101, 204, 304)
"""Answers without a body, which is not read here: the reference would never get to its end."""
PATIENCE = 5.0


@pytest.fixture(scope="session", params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """The program runs on uvloop where that is installed, whose transports are not quite asyncio's."""
    return "asyncio", {"use_uvloop": request.param}


CHOSEN = ("content-type", "mcp-session-id", "set-cookie", "x-twice", "location", "retry-after", "x-trailer")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an exchange made of a script. ``connections`` and ``probed``: after one more request, and its answer."""

    status: int | None = None
    headers: tuple[str, ...] = ()
    body: bytes | None = None
    failure: Failure | None = None
    phase: Phase | None = None
    attempt: Phase = Phase.NOT_SENT
    requests: int = 0
    connections: int | None = None
    probed: bytes | None = None


@dataclass(frozen=True, slots=True)
class Case:
    script: Script
    method: str = "POST"
    body: bytes | None = b"{}"
    probe: bool = True
    """Whether one more request shows if the connection is used again."""
    warm: bool = False
    """Whether there has been a request before, so that a connection is there."""


async def outcome(make: Callable[[float], Exchange], case: Case) -> Outcome:
    exchange = make(2.0)
    attempt = Attempt()
    async with asyncio.timeout(PATIENCE), ScriptedPeer(case.script) as peer:
        try:
            if case.warm:
                await once(exchange, f"{peer.url}/probe", Case(case.script), Attempt())
            found = replace(await once(exchange, f"{peer.url}/mcp", case, attempt), attempt=attempt.phase)
            found = replace(found, requests=len(peer.requests))
            if case.probe:
                await peer.played()
                probed = await once(exchange, f"{peer.url}/probe", Case(case.script), Attempt())
                found = replace(found, connections=len(peer.connections), probed=probed.body)
        finally:
            await exchange.close()
    return found


async def once(exchange: Exchange, url: str, case: Case, attempt: Attempt) -> Outcome:
    try:
        response = await exchange.open(case.method, url, {}, case.body, attempt)
    except WireError as error:
        return Outcome(failure=error.failure, phase=error.phase)
    known = Outcome(status=response.status, headers=tuple(response.header(name) for name in CHOSEN))
    try:
        return known if response.status in EMPTY else replace(known, body=await response.read(LIMIT))
    except WireError as error:
        return replace(known, failure=error.failure, phase=error.phase)
    finally:
        await response.close()


def says(*pieces: bytes, ending: Ending = Ending.KEEP, early: bool = False, **more: object) -> Case:
    return Case(Script(pieces, ending, early), probe=ending is Ending.KEEP, **more)  # type: ignore[arg-type]


OK = b"HTTP/1.1 200 OK\r\n"
TWO = b"Content-Length: 2\r\n\r\n{}"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
JSON = b'{"answer": "' + b"x" * 500 + b'"}'
ZIPPED = gzip.compress(JSON, mtime=0)


def coded(coding: bytes, body: bytes) -> bytes:
    return OK + b"Content-Encoding: " + coding + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body


CASES: dict[str, Case] = {
    # Framing
    "length": says(OK + TWO),
    "length, byte by byte": says(*(bytes([byte]) for byte in OK + TWO)),
    "length of none": says(OK + b"Content-Length: 0\r\n\r\n"),
    "length, close announced": says(OK + b"Connection: close\r\n" + TWO),
    "length, close announced and done": says(OK + b"Connection: close\r\n" + TWO, ending=Ending.CLOSE),
    "length, broken off": says(OK + b"Content-Length: 9\r\n\r\n{", ending=Ending.CLOSE),
    "length, broken off before the body": says(OK + b"Content-Length: 9\r\n\r\n", ending=Ending.CLOSE),
    "length, half-closed": says(OK + b"Content-Length: 9\r\n\r\n{", ending=Ending.HALF),
    "length, reset": says(OK + b"Content-Length: 9\r\n\r\n{", ending=Ending.RESET),
    "length over the limit": says(OK + b"Content-Length: 200001\r\n\r\n"),
    "length that is no number": says(OK + b"Content-Length: 2x\r\n\r\n{}"),
    "length below zero": says(OK + b"Content-Length: -2\r\n\r\n{}"),
    "length with a plus": says(OK + b"Content-Length: +2\r\n\r\n{}"),
    "length beyond counting": says(OK + b"Content-Length: 99999999999999999999999\r\n\r\n{}"),
    "length twice, the same": says(OK + b"Content-Length: 2\r\n" + TWO),
    "length twice, different": says(OK + b"Content-Length: 3\r\n" + TWO),
    "length as a list": says(OK + b"Content-Length: 2, 2\r\n\r\n{}"),
    "length and chunks": says(OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
    "chunks and length": says(OK + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
    "chunks": says(CHUNKED + b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"),
    "chunks in pieces": says(CHUNKED, b"1", b"\r", b"\n{", b"\r\n1\r\n}", b"\r\n0", b"\r\n\r", b"\n"),
    "chunks of none": says(CHUNKED + b"0\r\n\r\n"),
    "chunks with extensions": says(CHUNKED + b'2;a=b;c="d;e"\r\n{}\r\n0;z\r\n\r\n'),
    "chunks with trailers": says(CHUNKED + b"2\r\n{}\r\n0\r\nX-Trailer: t\r\nContent-Type: text/x\r\n\r\n"),
    "chunks, broken off": says(CHUNKED + b"2\r\n{}\r\n", ending=Ending.CLOSE),
    "chunks, broken off in a size": says(CHUNKED + b"2\r\n{}\r\n1", ending=Ending.CLOSE),
    "chunks, broken off in trailers": says(CHUNKED + b"2\r\n{}\r\n0\r\nX-Trailer: t\r\n", ending=Ending.CLOSE),
    "chunks, reset": says(CHUNKED + b"2\r\n{}\r\n", ending=Ending.RESET),
    "chunks over the limit": says(CHUNKED + b"30d41\r\n" + b"x" * 200_001 + b"\r\n"),
    "chunk of a wrong size": says(CHUNKED + b"1\r\n{}\r\n0\r\n\r\n"),
    "chunk whose size is no number": says(CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n"),
    "chunk whose size is beyond counting": says(CHUNKED + b"fffffffffffffffff\r\n{}\r\n0\r\n\r\n"),
    "chunk with spaces after its size": says(CHUNKED + b"2  \r\n{}\r\n0\r\n\r\n"),
    "chunks of HTTP/1.0": says(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
    "coding that is none of transfer": says(OK + b"Transfer-Encoding: gzip\r\n\r\n{}", ending=Ending.CLOSE),
    "coding identity of transfer": says(OK + b"Transfer-Encoding: identity\r\n\r\n{}", ending=Ending.CLOSE),
    "chunks that are not last": says(OK + b"Transfer-Encoding: chunked, gzip\r\n\r\n{}", ending=Ending.CLOSE),
    "until the end": says(OK + b"\r\n{}", ending=Ending.CLOSE),
    "until the end, in pieces": says(OK + b"\r\n", b"{", b"}", ending=Ending.CLOSE),
    "until the end, half-closed": says(OK + b"\r\n{}", ending=Ending.HALF),
    "until the end, nothing": says(OK + b"\r\n", ending=Ending.CLOSE),
    "until the end, reset": says(OK + b"\r\n{}", ending=Ending.RESET),
    "until the end, over the limit": says(OK + b"\r\n" + b"x" * 200_001),
    "HTTP/1.0 until the end": says(b"HTTP/1.0 200 OK\r\n\r\n{}", ending=Ending.CLOSE),
    "HTTP/1.0 with a length": says(b"HTTP/1.0 200 OK\r\n" + TWO),
    "HTTP/1.0 kept alive": says(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + TWO),
    # Statuses
    "status 100 before": says(b"HTTP/1.1 100 Continue\r\n\r\n" + OK + TWO),
    "status 103 before, with headers": says(
        b"HTTP/1.1 103 Early\r\nContent-Type: no/no\r\nContent-Length: 7\r\n\r\n", OK + TWO
    ),
    "several statuses before": says(b"HTTP/1.1 102 Processing\r\n\r\n" * 5 + OK + TWO),
    "only a status before": says(b"HTTP/1.1 100 Continue\r\n\r\n", ending=Ending.CLOSE),
    "status 101": says(b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", ending=Ending.CLOSE),
    "status 202": says(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"),
    "status 204": says(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "status 204 with a length": says(b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n"),
    "status 204 with a length over the limit": says(b"HTTP/1.1 204 No Content\r\nContent-Length: 200001\r\n\r\n"),
    "status 204 with a body": says(b"HTTP/1.1 204 No Content\r\n" + TWO),
    "status 304": says(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n"),
    "status 404": says(b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\n" + TWO),
    "status 307": says(b"HTTP/1.1 307 X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"),
    "status 401 with a challenge": says(b"HTTP/1.1 401 X\r\nWWW-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n"),
    "status 503": says(b"HTTP/1.1 503 X\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"),
    "status 999": says(b"HTTP/1.1 999 X\r\n" + TWO),
    "status 000": says(b"HTTP/1.1 000 X\r\n" + TWO),
    "status of two digits": says(b"HTTP/1.1 20 X\r\n" + TWO),
    "status of four digits": says(b"HTTP/1.1 2000 X\r\n" + TWO),
    "status without a reason": says(b"HTTP/1.1 200\r\n" + TWO),
    "status with a reason in UTF-8": says("HTTP/1.1 200 Schön\r\n".encode() + TWO),
    # Heads
    "header folded": says(OK + b"X-Twice: a\r\n b\r\n" + TWO),
    "header twice": says(OK + b"X-Twice: a\r\nX-Twice: b\r\n" + TWO),
    "header in UTF-8": says(OK + "X-Twice: schön\r\n".encode() + TWO),
    "header in Latin-1": says(OK + b"X-Twice: sch\xf6n\r\n" + TWO),
    "header without a value": says(OK + b"X-Twice:\r\n" + TWO),
    "header with spaces around its value": says(OK + b"X-Twice:   a b \t \r\n" + TWO),
    "header with a space before the colon": says(OK + b"X-Twice : a\r\n" + TWO),
    "header without a colon": says(OK + b"X-Twice\r\n" + TWO),
    "header without a name": says(OK + b": a\r\n" + TWO),
    "header with a NUL": says(OK + b"X-Twice: a\0b\r\n" + TWO),
    "header with a CR": says(OK + b"X-Twice: a\rb\r\n" + TWO),
    "many cookies": says(OK + b"".join(b"Set-Cookie: c%d=%d\r\n" % (n, n) for n in range(40)) + TWO),
    "many headers": says(OK + b"".join(b"X-%d: %d\r\n" % (n, n) for n in range(200)) + TWO),
    "head of 30 kB in one header": says(OK + b"X-Twice: " + b"x" * 30_000 + b"\r\n" + TWO),
    "head of 40 kB in one header": says(OK + b"X-Twice: " + b"x" * 40_000 + b"\r\n" + TWO),
    "head of 900 kB in one header": says(OK + b"X-Twice: " + b"x" * 900_000 + b"\r\n" + TWO),
    "head without an end": says(OK + b"X-Twice: ", *([b"x" * 100_000] * 8)),
    "name of a header without an end": says(OK, *([b"x" * 100_000] * 8)),
    "reason without an end": says(b"HTTP/1.1 200 ", *([b"x" * 100_000] * 8)),
    "session id": says(OK + b"MCP-SESSION-ID: abc\r\n" + TWO),
    "type twice": says(OK + b"Content-Type: application/json\r\nContent-Type: text/x\r\n" + TWO),
    "lines that end in LF": says(b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}"),
    "empty lines before": says(b"\r\n\r\n" + OK + TWO),
    "in capitals or not": says(b"HTTP/1.1 200 OK\r\ncOnTeNt-LeNgTh: 2\r\n\r\n{}"),
    # Not HTTP
    "nothing": says(ending=Ending.CLOSE),
    "nothing, half-closed": says(ending=Ending.HALF),
    "nothing, reset": says(ending=Ending.RESET),
    "part of a head": says(b"HTTP/1.1 20", ending=Ending.CLOSE),
    "part of a head, reset": says(b"HTTP/1.1 20", ending=Ending.RESET),
    "part of the headers": says(OK + b"Content-Le", ending=Ending.CLOSE),
    "garbage": says(b"garbage\r\n\r\n", ending=Ending.CLOSE),
    "garbage, kept open": says(b"\x16\x03\x01\x00\x00garbage\r\n\r\n"),
    "another protocol": says(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "HTTP/0.9": says(b"<html></html>", ending=Ending.CLOSE),
    "HTTP/2": says(b"\0\0\x12\x04\0\0\0\0\0", ending=Ending.CLOSE),
    "version 1.2": says(b"HTTP/1.2 200 OK\r\n" + TWO),
    "version 2.0": says(b"HTTP/2.0 200 OK\r\n" + TWO),
    "a request": says(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    # More than was asked for
    "two answers at once": says(OK + TWO + OK + TWO),
    "two answers, one after another": says(OK + TWO, OK + TWO),
    "garbage after the answer": says(OK + TWO + b"garbage"),
    "line end after the answer": says(OK + TWO + b"\r\n"),
    "answer after the announced close": says(OK + b"Connection: close\r\n" + TWO + OK + TWO),
    "garbage after the announced close": says(OK + b"Connection: close\r\n" + TWO + b"garbage", ending=Ending.CLOSE),
    # Codings that were not asked for
    "gzip": says(coded(b"gzip", ZIPPED)),
    "gzip without a body": says(coded(b"gzip", b"")),
    "gzip, status 204": says(b"HTTP/1.1 204 X\r\nContent-Encoding: gzip\r\n\r\n"),
    "GZIP": says(coded(b"GZIP", ZIPPED)),
    "identity": says(coded(b"identity", JSON)),
    "coding that nobody knows": says(coded(b"rot13", JSON)),
    # Requests
    "GET": says(OK + TWO, method="GET", body=None),
    "DELETE": says(OK + TWO, method="DELETE", body=None),
    "GET whose connection is closed": says(method="GET", body=None, ending=Ending.CLOSE),
    "POST over a kept connection": says(OK + TWO, warm=True),
    "POST over a kept connection that is closed": says(warm=True, ending=Ending.CLOSE),
    "POST over a kept connection that is reset": says(warm=True, ending=Ending.RESET),
    "POST over a kept connection, broken off": says(b"HTTP/1.1 2", warm=True, ending=Ending.CLOSE),
    "GET over a kept connection that is closed": says(method="GET", body=None, warm=True, ending=Ending.CLOSE),
    "GET over a kept connection that is reset": says(method="GET", body=None, warm=True, ending=Ending.RESET),
    "GET over a kept connection, broken off": says(
        b"HTTP/1.1 2", method="GET", body=None, warm=True, ending=Ending.CLOSE
    ),
    "DELETE over a kept connection that is closed": says(method="DELETE", body=None, warm=True, ending=Ending.CLOSE),
    "large request": says(OK + TWO, body=b"x" * 3_000_000),
    "answer before the request is whole": says(OK + TWO, body=b"x" * 20_000_000, early=True),
    "answer before the request is whole, and closed": says(
        b"HTTP/1.1 413 X\r\nConnection: close\r\n" + TWO, body=b"x" * 20_000_000, early=True
    ),
    "closed before the request is whole": says(body=b"x" * 20_000_000, early=True, ending=Ending.CLOSE),
    "half-closed before the request is whole": says(body=b"x" * 20_000_000, early=True, ending=Ending.HALF),
}


@dataclass(frozen=True, slots=True)
class Difference:
    """``ours``: the fields of our outcome that are not the reference's."""

    reason: str
    ours: dict[str, object]


LOST_IN_BODY = {"status": 200, "headers": ("",) * len(CHOSEN)}
WHOLE = {**LOST_IN_BODY, "body": b"{}", "failure": None, "phase": None, "attempt": Phase.STREAMING}
"""An answer that the reference has not got."""
REFUSED = {
    "status": None,
    "headers": (),
    "body": None,
    "failure": Failure.LOST,
    "phase": Phase.SENT,
    "attempt": Phase.SENT,
}
"""No answer, where the reference has one."""
UNREADABLE = {"body": None, "failure": Failure.BAD_REPLY, "phase": Phase.STREAMING}
BROKEN = {"body": None, "failure": Failure.LOST, "phase": Phase.STREAMING, "attempt": Phase.STREAMING}

_AS_IT_COMES = "what came before what is broken has come: the status says more than a lost connection"
_WHOLE_IS_WHOLE = "an answer that came whole is one, whatever follows it; the connection is dropped all the same"
_COMPRESSED = "none was asked for, so none is undone: that is what bombs are made of"
_AGAIN = (
    "what was sent on a connection that answered, or was new, is not sent again: that it idled too long is no excuse"
)

DIFFERENCES: dict[str, Difference] = {
    "chunk of a wrong size": Difference(
        _AS_IT_COMES, {**LOST_IN_BODY, "phase": Phase.STREAMING, "attempt": Phase.STREAMING}
    ),
    "chunk whose size is no number": Difference(_AS_IT_COMES, LOST_IN_BODY),
    "chunk whose size is beyond counting": Difference(_AS_IT_COMES, LOST_IN_BODY),
    "until the end, reset": Difference("a reset is no end (RFC 9112 §8)", BROKEN),
    "status 101": Difference("nobody asked for another protocol, and none is spoken", REFUSED),
    "status 204 with a body": Difference(
        _WHOLE_IS_WHOLE, {**WHOLE, "status": 204, "body": None, "attempt": Phase.SENT}
    ),
    "header folded": Difference(
        "folding is obsolete, and allowing it allows control characters as well (RFC 9112 §5.2)",
        {**REFUSED, "connections": 2},
    ),
    "many headers": Difference("a head is limited by its size, not by its lines", {**WHOLE, "connections": 1}),
    "head of 40 kB in one header": Difference(
        "a head is limited by its size, not by its lines",
        {**WHOLE, "headers": ("", "", "", "x" * 40_000, "", "", ""), "connections": 1},
    ),
    "garbage after the answer": Difference(_WHOLE_IS_WHOLE, WHOLE),
    "answer after the announced close": Difference(_WHOLE_IS_WHOLE, WHOLE),
    "garbage after the announced close": Difference(_WHOLE_IS_WHOLE, WHOLE),
    "two answers, one after another": Difference(
        "an answer that nobody asked for is not that to the next request", {"connections": 2, "probed": b"probe"}
    ),
    "gzip": Difference(_COMPRESSED, UNREADABLE),
    "GZIP": Difference(_COMPRESSED, UNREADABLE),
    "GET whose connection is closed": Difference(_AGAIN, {**REFUSED, "requests": 1}),
    "GET over a kept connection, broken off": Difference(_AGAIN, {**REFUSED, "requests": 2}),
}


@pytest.mark.parametrize("name", CASES)
async def test_the_same_bytes_have_the_same_outcome(name: str) -> None:
    ours, reference = await outcome(HttpExchange, CASES[name]), await outcome(AiohttpExchange, CASES[name])
    if name in DIFFERENCES:
        assert ours != reference, "the difference has gone"
        reference = replace(reference, **DIFFERENCES[name].ours)  # type: ignore[arg-type]
    assert ours == reference


def test_every_difference_is_that_of_a_case() -> None:
    assert DIFFERENCES.keys() <= CASES.keys()


# Generated

GENERATED = settings(max_examples=120, deadline=None, derandomize=True)
HEADERS = (
    b"Content-Type: application/json",
    b"mcp-session-id:abc",
    b"SET-COOKIE: a=1",
    b"Set-Cookie:   b=2  ",
    b"X-Twice: \xc3\xa4",
    b"X-Other: " + b"y" * 300,
)


@st.composite
def answers(draw: st.DrawFn) -> tuple[bytes, bool]:
    """An answer as it is sent, and whether it says itself where it ends."""
    body = draw(st.binary(max_size=300))
    lines = draw(st.lists(st.sampled_from(HEADERS), max_size=5))
    framing = draw(st.sampled_from(("length", "chunks", "end")))
    if framing == "length":
        lines.append(b"content-length: %d" % len(body))
    elif framing == "chunks":
        lines.append(b"Transfer-Encoding: chunked")
        body = chunked(draw, body)
    lines += draw(st.sampled_from(([], [b"Connection: close"], [b"Connection: Keep-Alive"])))
    version = b"HTTP/1.0" if framing != "chunks" and draw(st.booleans()) else b"HTTP/1.1"
    status = draw(st.sampled_from((200, 202, 400, 404, 500)))
    before = draw(st.sampled_from((b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 E\r\nX-Twice: no\r\n\r\n")))
    head = b"\r\n".join([version + b" %d Some reason" % status, *draw(st.permutations(lines)), b"", b""])
    return before + head + body, framing != "end"


def chunked(draw: st.DrawFn, body: bytes) -> bytes:
    chunks = []
    while body:
        size = draw(st.integers(1, len(body)))
        extension = draw(st.sampled_from((b"", b";a=b", b';a="b;c"')))
        chunks.append(b"%x" % size + extension + b"\r\n" + body[:size] + b"\r\n")
        body = body[size:]
    return b"".join(chunks) + b"0\r\n" + draw(st.sampled_from((b"", b"Some: trailer\r\n"))) + b"\r\n"


def pieces(data: bytes, cuts: list[int]) -> tuple[bytes, ...]:
    """``data`` cut at these places, wherever they are."""
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return tuple(data[a:b] for a, b in pairwise(places))


CUTS = st.lists(st.integers(0, 2000), max_size=6)


async def both(case: Case) -> tuple[Outcome, Outcome]:
    return await outcome(HttpExchange, case), await outcome(AiohttpExchange, case)


def loss(found: Outcome) -> Outcome:
    """How much came before the loss depends on what came at once."""
    return Outcome(failure=found.failure, requests=found.requests) if found.failure is not None else found


@given(answers(), CUTS)
@GENERATED
async def test_any_answer_is_read_alike(answer: tuple[bytes, bool], cuts: list[int]) -> None:
    sent, ends_itself = answer
    ours, reference = await both(says(*pieces(sent, cuts), ending=Ending.KEEP if ends_itself else Ending.CLOSE))
    assert ours == reference
    assert (ours.failure, ours.requests) == (None, 1)


@given(answers(), CUTS, st.integers(1, 600), st.sampled_from((Ending.CLOSE, Ending.HALF)))
@GENERATED
async def test_any_answer_that_breaks_off_is_lost_alike(
    answer: tuple[bytes, bool], cuts: list[int], missing: int, ending: Ending
) -> None:
    sent = answer[0][: -(missing % len(answer[0])) or None]
    ours, reference = await both(says(*pieces(sent, cuts), ending=ending))
    assert loss(ours) == loss(reference)
    assert ours.failure in (None, Failure.LOST)
    assert ours.attempt is not Phase.NOT_SENT


@given(answers(), CUTS, st.integers(0, 600), st.integers(0, 3), st.binary(max_size=4))
@GENERATED
async def test_no_damage_makes_one_read_what_the_other_does_not(
    answer: tuple[bytes, bool], cuts: list[int], place: int, gone: int, instead: bytes
) -> None:
    place %= len(answer[0])
    sent = answer[0][:place] + instead + answer[0][place + gone :]
    ours, reference = await both(says(*pieces(sent, cuts), ending=Ending.CLOSE))
    assert {ours.failure, reference.failure} <= {None, Failure.LOST}
    if ours.failure is reference.failure:
        assert loss(ours) == loss(reference)
    assert ours.requests == 1
