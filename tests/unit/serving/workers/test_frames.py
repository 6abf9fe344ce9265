"""Bytes between owner and worker, and how much of a conversation may be on its way."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_proxy.serving.workers.frames import (
    Answered,
    Dropped,
    FrameReader,
    Opened,
    Passed,
    Said,
    Stop,
    Taken,
    append,
    wire_scope,
)
from mcp_proxy.serving.workers.window import PIECE, WINDOW, Receipts, Window, pieces, size_of

pytestmark = pytest.mark.anyio

NUMBERS = st.integers(0, 2**53)
HEADERS = st.lists(st.tuples(st.binary(max_size=8), st.binary(max_size=8)), max_size=3)
MESSAGES = st.fixed_dictionaries(
    {"type": st.text(max_size=8)},
    optional={
        "body": st.binary(max_size=300), "more_body": st.booleans(), "status": st.integers(100, 999), "headers": HEADERS,
        "text": st.none() | st.text(max_size=50), "bytes": st.none() | st.binary(max_size=50), "code": st.integers(0, 4999),
        "reason": st.none() | st.text(max_size=8), "subprotocol": st.none() | st.text(max_size=8),
    },
)  # fmt: skip
SCOPES = st.fixed_dictionaries(
    {"type": st.sampled_from(["http", "websocket"]), "path": st.text(max_size=9), "headers": HEADERS},
    optional={
        "client": st.none() | st.tuples(st.text(max_size=9), st.none() | st.integers(0, 65535)),
        "extensions": st.just({"websocket.http.response": {}}), "asgi": st.just({"version": "3.0"}),
    },
)  # fmt: skip
FRAMES = st.one_of(
    st.builds(Opened, NUMBERS, SCOPES), st.builds(Passed, NUMBERS, MESSAGES), st.builds(Taken, NUMBERS, NUMBERS),
    st.builds(Answered, NUMBERS), st.builds(Dropped, NUMBERS), st.just(Stop()),
    st.builds(Said, st.sampled_from(["debug", "error"]), st.text(max_size=9), st.dictionaries(st.text(max_size=3), NUMBERS)),
)  # fmt: skip


@given(st.lists(FRAMES, max_size=6), st.lists(st.integers(1, 40), min_size=1, max_size=6))
def test_frames_come_out_as_they_went_in_however_their_bytes_are_cut(frames: list[Any], cuts: list[int]) -> None:
    written = bytearray()
    for frame in frames:
        append(written, frame)
    reader, read, start, turn = FrameReader(), [], 0, 0
    while start < len(written):
        end = start + cuts[turn % len(cuts)]
        read += reader.read(bytes(written[start:end]))
        start, turn = end, turn + 1
    assert read == frames


def test_what_is_no_frame_is_refused() -> None:
    with pytest.raises(msgspec.DecodeError):
        list(FrameReader().read(b"\0\0\0\2ab"))


def test_what_cannot_cross_is_refused_and_leaves_nothing_behind() -> None:
    written = bytearray()
    with pytest.raises(TypeError):
        append(written, Passed(1, {"type": "http.response.body", "body": object()}))  # type: ignore[typeddict-item]
    assert written == b""


def test_of_a_scope_what_is_the_servers_own_stays_there() -> None:
    scope = {"type": "http", "state": {"a": object()}, "path": "/", "extensions": {"http.response.push": {}, "tls": {}}}
    assert wire_scope(scope) == {"type": "http", "path": "/", "extensions": {}}


@given(st.integers(0, 5 * PIECE), st.booleans())
def test_a_long_body_crosses_in_pieces_that_make_the_same_body(size: int, more: bool) -> None:
    body = bytes(size)
    found = list(pieces({"type": "http.response.body", "body": body, "more_body": more}))
    assert b"".join(one["body"] for one in found) == body
    assert all(len(one["body"]) <= PIECE for one in found)
    assert [one.get("more_body", False) for one in found] == [True] * (len(found) - 1) + [more]


def test_what_has_been_taken_is_said_once_it_is_worth_it_and_nothing_is_forgotten() -> None:
    receipts = Receipts()
    said = [receipts.taken(1000) for _ in range(1000)]
    assert all(one == 0 or one >= WINDOW // 2 for one in said)
    assert 1_000_000 - WINDOW // 2 < sum(said) <= 1_000_000


async def test_a_window_that_is_used_up_is_waited_for() -> None:
    window = Window(10)
    window.left -= size_of({"type": "x", "body": b"12"})
    waiting = asyncio.gather(window.room())
    window.widen(56)
    await asyncio.sleep(0)
    assert (window.left, waiting.done()) == (0, False)
    window.widen(1)
    await asyncio.wait_for(waiting, 10)
