"""`http_connection` on a transport that only notes what it is told."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_proxy.core.upstream.failures import Attempt, Failure, Phase, WireError
from mcp_proxy.core.upstream.http_connection import Answer, Connection, Gone

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\n"
TWO = OK + b"Content-Length: 2\r\n\r\n{}"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
MIB = 1024 * 1024


class Transport:
    """``unsent``: bytes of the request that the kernel has not taken yet."""

    def __init__(self) -> None:
        self.written = b""
        self.paused = False
        self.aborted = False
        self.unsent = 0

    def write(self, data: bytes) -> None:
        assert not self.aborted
        self.written += data

    def writelines(self, pieces: tuple[bytes, ...]) -> None:
        self.write(b"".join(pieces))

    def pause_reading(self) -> None:
        assert not self.paused
        self.paused = True

    def resume_reading(self) -> None:
        assert self.paused
        self.paused = False

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.aborted

    def get_write_buffer_size(self) -> int:
        return self.unsent


class Owner:
    def __init__(self) -> None:
        self.freed = 0
        self.ended_once = False

    def free(self, connection: Connection) -> None:
        assert connection.usable
        self.freed += 1

    def ended(self, connection: Connection) -> None:
        assert not self.ended_once
        assert not connection.usable
        self.ended_once = True


class Line:
    """A connection with what is on both of its sides."""

    def __init__(self) -> None:
        self.transport, self.owner = Transport(), Owner()
        self.connection = Connection(("http", "example", 80), self.owner)
        self.connection.connection_made(cast("asyncio.Transport", self.transport))

    def ask(self, attempt: Attempt | None = None) -> Answer:
        return self.connection.send(b"GET", None, attempt or Attempt())

    def hear(self, *pieces: bytes) -> None:
        """As a transport does: nothing comes after the end, and what was read is overwritten by what comes next."""
        for piece in pieces:
            while piece and not self.transport.aborted:
                buffer = self.connection.get_buffer(-1)
                size = min(len(piece), len(buffer))
                buffer[:size] = piece[:size]
                self.connection.buffer_updated(size)
                piece = piece[size:]

    def end(self, error: Exception | None = None) -> None:
        if error is None and not self.transport.aborted:
            self.connection.eof_received()
        self.connection.connection_lost(error)


async def outcome(answer: Answer) -> bytes | WireError | Gone:
    async with asyncio.timeout(5):
        try:
            await answer.beginning()
            return await answer.read(100 * MIB)
        except (WireError, Gone) as error:
            return error


async def test_an_answer_frees_its_connection() -> None:
    line = Line()
    for turn in range(3):
        answer = line.ask()
        line.hear(TWO)
        assert await outcome(answer) == b"{}"
        assert line.owner.freed == turn + 1


async def test_whatever_comes_unasked_ends_the_connection() -> None:
    line = Line()
    answer = line.ask()
    line.hear(TWO)
    line.hear(TWO)
    assert (await outcome(answer), line.transport.aborted, line.owner.ended_once) == (b"{}", True, True)


async def test_while_the_request_is_not_sent_whole_its_connection_is_not_free() -> None:
    line = Line()
    answer = line.ask()
    line.transport.unsent = 1
    line.hear(TWO)
    assert (await outcome(answer), line.owner.freed, line.transport.aborted) == (b"{}", 0, True)


async def test_an_end_before_the_request_is_sent_whole_is_noticed_at_once() -> None:
    line = Line()
    answer = line.ask()
    line.transport.unsent = 1
    line.connection.eof_received()
    assert isinstance(await outcome(answer), Gone)
    assert line.transport.aborted


async def test_an_end_before_the_first_byte_is_told_from_one_after_it() -> None:
    line = Line()
    answer = line.ask()
    line.hear(b"H")
    line.end()
    error = await outcome(answer)
    assert isinstance(error, WireError)
    assert (error.failure, error.phase) == (Failure.LOST, Phase.SENT)


async def test_what_waits_to_be_read_is_bounded() -> None:
    line = Line()
    answer = line.ask()
    line.hear(OK + b"\r\n")
    came = 0
    while not line.transport.paused:
        line.hear(b"x" * 100_000)
        came += 1
    assert came * 100_000 < 3 * MIB
    chunks = answer.chunks()
    while line.transport.paused:
        assert len(await anext(chunks)) == 100_000
        came -= 1
    assert 0 < came * 100_000 < MIB


async def test_small_pieces_count_for_more_than_their_content() -> None:
    line = Line()
    line.ask()
    line.hear(CHUNKED)
    came = 0
    while not line.transport.paused:
        line.hear(b"1\r\nx\r\n" * 1000)
        came += 1000
    assert came < 50_000


async def test_who_reads_an_answer_late_does_not_touch_the_next() -> None:
    line = Line()
    first = line.ask()
    line.hear(OK + b"Content-Length: 3000000\r\n\r\n" + b"x" * 2_999_999)
    assert line.transport.paused
    line.hear(b"x")
    assert not line.transport.paused
    line.ask()
    line.hear(OK + b"\r\n" + b"y" * 3_000_000)
    assert line.transport.paused
    assert len(cast("bytes", await outcome(first))) == 3_000_000
    assert line.transport.paused


@pytest.mark.parametrize(
    "endless",
    [
        (b"HTTP/1.1 200 ", b"x"),
        (OK, b"x"),
        (OK + b"X: ", b"x"),
        (OK, b"X: x\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (CHUNKED + b"1;", b"x"),
        (CHUNKED + b"0\r\n", b"x"),
        (CHUNKED + b"0\r\nX: ", b"x"),
        (CHUNKED + b"0\r\n", b"X: x\r\n"),
    ],
)
async def test_what_is_not_content_is_bounded(endless: tuple[bytes, bytes]) -> None:
    line = Line()
    answer = line.ask()
    begin, more = endless
    line.hear(begin)
    came = 0
    while not line.transport.aborted:
        line.hear(more * 100)
        came += len(more) * 100
        assert came < MIB
    error = await outcome(answer)
    assert isinstance(error, WireError)
    assert error.failure is Failure.LOST


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
@pytest.mark.parametrize("length", [b"", b"Content-Length: 7\r\n", b"Content-Length: 999999999999\r\n"])
async def test_an_answer_that_has_no_body_is_read_as_none(status: bytes, length: bytes) -> None:
    line = Line()
    for _ in range(2):
        answer = line.ask()
        line.hear(b"HTTP/1.1 " + status + b"\r\n" + length + b"\r\n")
        assert await outcome(answer) == b""
    assert line.owner.freed == 2


async def test_another_protocol_is_no_answer() -> None:
    line = Line()
    answer = line.ask()
    line.hear(b"HTTP/1.1 101 Switching\r\n\r\n")
    assert isinstance(await outcome(answer), WireError)
    assert line.transport.aborted


async def test_reasons_hold_nothing_that_was_sent() -> None:
    line = Line()
    answer = line.ask()
    line.hear(OK + b"Secret\x00: secret\r\n\r\n")
    error = await outcome(answer)
    assert isinstance(error, WireError)
    assert "ecret" not in error.message


@pytest.mark.parametrize("last", ["chunked", "Chunked", "gzip, chunked", "gzip\r\nTransfer-Encoding: chunked"])
async def test_chunks_that_break_off_are_never_taken_for_whole(last: str) -> None:
    line = Line()
    answer = line.ask()
    line.hear(OK + b"Transfer-Encoding: " + last.encode() + b"\r\n\r\n2\r\n{}\r\n")
    line.end()
    assert isinstance(await outcome(answer), WireError)


# Anything at all

FRAGMENTS = (
    b"HTTP/1.1 ",
    b"HTTP/1.0 200 OK\r\n",
    b"200 OK\r\n",
    b"100 Continue\r\n\r\n",
    b"101 X\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    b"204 X\r\n",
    b"304 X\r\n",
    OK,
    b"\r\n",
    b"\n",
    b"\r\n\r\n",
    b"Content-Length: 2\r\n",
    b"Content-Length: 5\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip\r\n\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"Content-Encoding: gzip\r\n",
    b"Content-Encoding: deflate\r\n\r\n",
    b"X: y\r\n",
    b" folded\r\n",
    b"2\r\n{}\r\n",
    b"0\r\n\r\n",
    b"0\r\nX: y\r\n\r\n",
    b"{}",
    b"\x1f\x8b\x08\x00",
    b"x" * 70_000,
    TWO,
    CHUNKED,
)
PIECES = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.binary(max_size=8)), max_size=12)


@given(PIECES, st.sampled_from((None, ConnectionResetError())), st.booleans())
@settings(max_examples=600, deadline=None, derandomize=True)
async def test_whatever_comes_every_answer_ends(pieces: list[bytes], error: Exception | None, joined: bool) -> None:
    line = Line()
    answers = [line.ask()]
    for piece in [b"".join(pieces)] if joined else pieces:
        line.hear(piece)
        if line.owner.freed == len(answers):
            assert not line.transport.paused
            answers.append(line.ask())
    line.end(error)
    outcomes = [await outcome(answer) for answer in answers]
    assert all(isinstance(found, bytes) for found in outcomes[:-1])
    assert line.owner.ended_once
    assert not line.connection.usable
    if isinstance(outcomes[-1], Gone):
        assert not line.connection.heard
    elif isinstance(outcomes[-1], WireError):
        assert outcomes[-1].failure is Failure.LOST
    assert line.transport.written == b"GET" * len(answers)
