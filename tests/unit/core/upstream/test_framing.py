from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_proxy.core.upstream.framing import LineFramer, Overlong, broken_reply_id

pieces = st.sampled_from([b"a", b"{}", b"\n", b"\r\n", b"\r", b"", b"long" * 100])
streams = st.lists(pieces, max_size=30).map(b"".join) | st.binary(max_size=60)


def lines(data: bytes, cuts: list[int] | None = None, cap: int = 200) -> list[bytes | Overlong]:
    bounds = sorted({min(cut, len(data)) for cut in cuts or []} | {0, len(data)})
    framer = LineFramer(cap)
    return [line for start, end in itertools.pairwise(bounds) for line in framer.feed(data[start:end])]


@given(streams, st.lists(st.integers(0, 2000)))
def test_any_chunking_gives_the_same_lines(data: bytes, cuts: list[int]) -> None:
    assert lines(data, cuts) == lines(data)


@given(streams)
def test_no_line_is_longer_than_the_cap_and_short_ones_arrive_whole(data: bytes) -> None:
    expected = [part.rstrip(b"\r") if len(part) <= 200 else None for part in data.split(b"\n")[:-1]]
    found = [None if isinstance(line, Overlong) else line for line in lines(data)]
    assert found == [part for part in expected if part != b""]


@given(st.binary(min_size=201, max_size=1000).filter(lambda data: b"\n" not in data), st.lists(st.integers(0, 1000)))
def test_an_overlong_line_is_reported_with_its_two_ends(data: bytes, cuts: list[int]) -> None:
    [line] = lines(data + b"\n", cuts)
    assert line == Overlong(data[:160], data[-160:])


def test_after_an_overlong_line_the_next_ones_are_read() -> None:
    assert lines(b"x" * 300 + b"\nnext\n")[1:] == [b"next"]
    framer = LineFramer(200)
    for _ in range(100):
        assert framer.feed(b"x" * 100) == []
    assert framer.feed(b"\nnext\n")[1:] == [b"next"]


def test_empty_lines_are_skipped_and_line_ends_removed() -> None:
    assert lines(b"\n\r\na\r\n\nb\n") == [b"a", b"b"]


def test_a_line_that_is_not_finished_is_kept() -> None:
    framer = LineFramer(100)
    assert framer.feed(b"ab") == []
    assert framer.feed(b"c\nd") == [b"abc"]
    assert framer.feed(b"\n") == [b"d"]


BIG = "x" * 500


def overlong(message: object, *, spaced: bool = False) -> int | None:
    text = json.dumps(message, separators=(", ", ": ") if spaced else (",", ":"))
    [line] = lines(text.encode() + b"\r\n")
    assert isinstance(line, Overlong)
    return line.reply_id()


@pytest.mark.parametrize("spaced", [True, False])
@pytest.mark.parametrize("field", ["result", "error"])
def test_the_id_of_an_answer_is_found_where_servers_write_it(field: str, spaced: bool) -> None:
    assert overlong({"jsonrpc": "2.0", "id": 7, field: {"text": BIG}}, spaced=spaced) == 7
    assert overlong({field: {"text": BIG}, "jsonrpc": "2.0", "id": 7}, spaced=spaced) == 7


@pytest.mark.parametrize(
    "message",
    [
        {"jsonrpc": "2.0", "id": "7", "result": {"text": BIG}},
        {"jsonrpc": "2.0", "id": -7, "result": {"text": BIG}},
        {"jsonrpc": "2.0", "id": 7.5, "result": {"text": BIG}},
        {"jsonrpc": "2.0", "result": {"text": BIG, "id": 7}},
        {"result": {"text": BIG, "inner": {"a": {}, "jsonrpc": "2.0", "id": 7}}},
        {"result": {"text": BIG + '},"jsonrpc":"2.0","id":7}'}},
        {"text": '{"jsonrpc":"2.0","id":7,"result":' + BIG},
    ],
)
def test_an_id_whose_place_proves_nothing_is_not_taken(message: object) -> None:
    assert overlong(message) is None


@pytest.mark.parametrize(
    "message",
    [
        {"jsonrpc": "2.0", "id": 7, "method": "sampling/createMessage", "params": {"text": BIG}},
        {"method": "sampling/createMessage", "params": {"text": BIG}, "jsonrpc": "2.0", "id": 7},
        {"jsonrpc": "2.0", "method": "notifications/message", "params": {"text": BIG}},
    ],
)
def test_a_request_of_the_servers_own_is_no_answer_to_ours(message: object) -> None:
    assert overlong(message) is None


def test_a_broken_line_still_says_whose_answer_it_was() -> None:
    assert broken_reply_id(b'{"jsonrpc":"2.0","id":3,"result":{"a":NaN}}') == 3
    assert broken_reply_id(b'{"jsonrpc":"2.0","id":3,"result":{"a":') == 3
    assert broken_reply_id(b'{"jsonrpc":"2.0","id":3,"method":"x","params":NaN}') is None
    assert broken_reply_id(b"garbage") is None
