from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_proxy.core.upstream.sse import Event, EventTooLarge, SseParser

CAP = 1 << 20

pieces = st.sampled_from(
    [b"data: x", b"data:y", b"data", b"data:  two", b"event: ping", b"id: 7", b"id:", b"retry: 10", b"retry: x",
     b": comment", b"other: z", b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\r\n\r\n", b"\xef\xbb\xbf", b"\xff", b"\0"]
)  # fmt: skip
streams = st.lists(pieces, max_size=30).map(b"".join) | st.binary(max_size=60)


def events(data: bytes, cuts: list[int] | None = None, cap: int = CAP) -> list[Event | str]:
    """What the parser makes of the data, cut where asked; an event that is too large ends the list with a word."""
    bounds = sorted({min(cut, len(data)) for cut in cuts or []} | {0, len(data)})
    parser, found = SseParser(cap), list[Event | str]()
    try:
        for start, end in itertools.pairwise(bounds):
            found.extend(parser.feed(data[start:end]))
            found.extend(parser.feed(b""))
    except EventTooLarge:
        found.append("too large")
    return found


@given(streams, st.lists(st.integers(0, 200)))
def test_any_chunking_gives_the_same_events(data: bytes, cuts: list[int]) -> None:
    assert events(data, cuts) == events(data)


@given(streams)
def test_byte_by_byte_gives_the_same_events(data: bytes) -> None:
    assert events(data, list(range(len(data)))) == events(data)


@given(streams, st.lists(st.integers(0, 200)), st.integers(1, 20))
def test_any_chunking_finds_the_same_event_too_large(data: bytes, cuts: list[int], cap: int) -> None:
    assert events(data, cuts, cap) == events(data, None, cap)


@given(st.lists(st.text(alphabet=st.characters(blacklist_characters="\r\n", codec="utf-8")), min_size=1))
def test_what_is_written_line_by_line_comes_back_joined_by_newlines(lines: list[str]) -> None:
    data = "".join(f"data: {line}\n" for line in lines).encode() + b"\n"
    assert events(data) == [Event("\n".join(lines).encode())]


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"data: a\n\n", [Event(b"a")]),
        (b"data: a\r\rdata: b\r\r", [Event(b"a"), Event(b"b")]),
        (b"data: a\r\n\r\n", [Event(b"a")]),
        (b"data:a\ndata: b\n\n", [Event(b"a\nb")]),
        (b"data\n\n", [Event(b"")]),
        (b"data:  a\n\n", [Event(b" a")]),
        (b"event: endpoint\ndata: /m\n\n", [Event(b"/m", "endpoint")]),
        (b"event:\ndata: a\n\n", [Event(b"a", "message")]),
        (b"id: 5\ndata: a\n\ndata: b\n\n", [Event(b"a", id="5"), Event(b"b")]),
        (b"id: 5\n\n", [Event(b"", id="5")]),
        (b"id: a\0b\ndata: x\n\n", [Event(b"x")]),
        (b"retry: 250\n\n", [Event(b"", retry=250)]),
        (b"retry: -1\nretry: 1.5\nretry: 99999999999\n\n", []),
        (b": only a comment\n\n", []),
        (b"event: x\n\ndata: a\n\n", [Event(b"a")]),
        (b"unknown: x\nno colon\ndata: a\n\n", [Event(b"a")]),
        (b"\xef\xbb\xbfdata: a\n\n", [Event(b"a")]),
        (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [Event(b"a")]),
        (b"data: \xff\nevent: \xff\n\n", [Event(b"\xff", "\ufffd")]),
        (b"\n\n\n", []),
    ],
)
def test_the_rules_of_the_standard(data: bytes, found: list[Event]) -> None:
    assert events(data) == found


def test_an_event_that_is_not_finished_is_no_event() -> None:
    assert events(b"data: a\n") == []
    assert events(b"data: a") == []


def test_an_event_up_to_the_cap_is_accepted_and_one_beyond_is_not() -> None:
    fits = b"data: " + b"x" * 94
    assert events(fits + b"\n\n", cap=100) == [Event(b"x" * 94)]
    assert events(fits + b"x\n\n", cap=100) == ["too large"]


def test_an_event_of_many_small_lines_is_capped_as_well() -> None:
    assert events(b"data: x\n" * 100, cap=100) == ["too large"]


def test_a_line_that_never_ends_is_given_up_at_the_cap() -> None:
    parser = SseParser(100)
    assert list(parser.feed(b"data: " + b"x" * 94)) == []
    with pytest.raises(EventTooLarge):
        list(parser.feed(b"x"))


def test_events_before_the_one_that_is_too_large_are_not_lost() -> None:
    assert events(b"data: a\n\ndata: " + b"x" * 200, cap=100) == [Event(b"a"), "too large"]


def test_comments_that_keep_the_stream_alive_do_not_add_up() -> None:
    assert events(b": still here\n" * 1000 + b"data: a\n\n", cap=100) == [Event(b"a")]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_a_megabyte_of_line_ends_is_one_pass(end: bytes) -> None:
    """Looked for line by line, the kind of line end that is not there would make this take minutes."""
    parser = SseParser(CAP)
    assert list(parser.feed(end * (CAP // len(end)))) == []
    assert list(parser.feed(b"data: after" + end + end)) == [Event(b"after")]


def test_a_large_event_in_small_chunks_is_put_together_once() -> None:
    parser = SseParser(8 * CAP)
    assert list(parser.feed(b"data: ")) == []
    for _ in range(4096):
        assert list(parser.feed(b"x" * 1024)) == []
    [event] = parser.feed(b"\n\n")
    assert len(event.data) == 4 * CAP


@pytest.mark.parametrize("size", [1, 3, 7, 50, 10_000])
def test_an_overlong_event_can_be_skipped_and_shows_whose_answer_it_was(size: int) -> None:
    long = b'{"jsonrpc":"2.0","id":7,"result":{"text":"' + b"x" * 900 + b'"}}'
    tail = b'{"result":{"text":"' + b"x" * 900 + b'"},"jsonrpc":"2.0","id":8}'
    data = b"data: before\n\ndata: " + long + b"\r\n\r\ndata: " + tail + b"\n\ndata: a\ndata: b\n\n"
    parser = SseParser(500, skip_overlong=True)
    events = [event for at in range(0, len(data), size) for event in parser.feed(data[at : at + size])]
    assert [event.data for event in events] == [b"before", b"", b"", b"a\nb"]
    assert [event.overlong.reply_id() for event in events if event.overlong is not None] == [7, 8]
