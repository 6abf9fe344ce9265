from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_proxy.bridge.chat import (
    ArgumentsDelta,
    ChatRequest,
    ChatResult,
    Delta,
    Ended,
    Message,
    Role,
    Started,
    StopReason,
    Text,
    TextDelta,
    ToolUse,
    ToolUseStarted,
    Usage,
    deltas_of,
    gathered,
)
from mcp_proxy.bridge.errors import NO_ANSWER, ChatError
from mcp_proxy.bridge.wire.anthropic_messages import Frames, read, whole
from mcp_proxy.bridge.wire.anthropic_provider import Reader, read_result
from mcp_proxy.core.upstream.sse import SseParser

ASK = ChatRequest("m", (Message(Role.USER, (Text("hello"),)),))
USAGE = Usage(3, 4, estimated=False)
START = Started("clever-1", 3)


def end(stop: StopReason = StopReason.END) -> Ended:
    return Ended(stop, USAGE)


def stream(deltas: Iterable[Delta]) -> bytes:
    frames = Frames(ASK, id="msg_1", created=0)
    return frames.first() + frames.KEEP_ALIVE + b"".join(map(frames.delta, deltas))


def events(data: bytes) -> list[dict[str, Any]]:
    found = []
    for event in SseParser(10_000_000).feed(data):
        value = json.loads(event.data)
        assert value["type"] == event.event
        found.append(value)
    return found


def heard(data: bytes) -> list[Delta]:
    reader = Reader()
    deltas = [delta for event in SseParser(10_000_000).feed(data) for delta in reader.feed(event.event, event.data)]
    reader.end()
    return deltas


def test_a_stream_has_the_events_of_the_format_in_their_order() -> None:
    deltas = [START, TextDelta("a"), TextDelta("b"), ToolUseStarted("u", "t"), ArgumentsDelta("u", "{}")]
    told = events(stream([*deltas, end(StopReason.TOOL_USE)]))
    assert [event["type"] for event in told if event["type"] != "ping"] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    start, stop = (
        next(event for event in told if event["type"] == kind) for kind in ("message_start", "message_delta")
    )
    assert start["message"]["model"] == "clever-1"
    assert start["message"]["content"] == []
    assert start["message"]["usage"]["input_tokens"] == 3
    assert stop["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert stop["usage"]["output_tokens"] == 4


def test_what_can_be_sent_is_sent_at_once() -> None:
    frames = Frames(ASK, id="msg_1", created=0)
    told = [events(frames.delta(delta)) for delta in (START, TextDelta("a"), TextDelta(""), ToolUseStarted("u", "t"))]
    assert [len(group) for group in told] == [2, 2, 0, 2]
    assert told[1][1]["delta"] == {"type": "text_delta", "text": "a"}
    assert [event["type"] for event in told[3]] == ["content_block_stop", "content_block_start"]
    piece = events(frames.delta(ArgumentsDelta("u", '{"a"')))
    assert [event["delta"]["partial_json"] for event in piece] == ['{"a"']


def test_pieces_of_several_tool_uses_come_out_one_block_after_the_other() -> None:
    deltas = [
        START,
        ToolUseStarted("u1", "t"),
        ToolUseStarted("u2", "t"),
        ArgumentsDelta("u2", '{"b":'),
        ArgumentsDelta("u1", '{"a":'),
        TextDelta("so"),
        ArgumentsDelta("u2", "2}"),
        ArgumentsDelta("u1", "1}"),
        ToolUseStarted("u3", "t"),
        end(StopReason.TOOL_USE),
    ]
    data = stream(deltas)
    order = [event["index"] for event in events(data) if "index" in event]
    assert order == sorted(order)
    assert gathered(heard(data)).content == (
        ToolUse("u1", "t", {"a": 1}),
        ToolUse("u2", "t", {"b": 2}),
        Text("so"),
        ToolUse("u3", "t", {}),
    )


def test_a_block_whose_arguments_are_complete_does_not_hold_up_the_next() -> None:
    frames = Frames(ASK, id="msg_1", created=0)
    for delta in (START, ToolUseStarted("u1", "t"), ArgumentsDelta("u1", '{"a":{}}')):
        frames.delta(delta)
    assert [event["type"] for event in events(frames.delta(ToolUseStarted("u2", "t")))] == [
        "content_block_stop",
        "content_block_start",
    ]
    assert frames.delta(ArgumentsDelta("u1", "\n")) == b""


def test_an_error_ends_the_stream_as_an_event() -> None:
    frames = Frames(ASK, id="msg_1", created=0)
    assert events(frames.error(ChatError(NO_ANSWER, "gone"), "r")) == [
        {"type": "error", "error": {"type": "timeout_error", "message": "gone"}, "request_id": "r"}
    ]


ARGUMENTS = st.dictionaries(
    st.text(),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    ),
    max_size=4,
)
USES = st.builds(ToolUse, st.text(min_size=1), st.text(min_size=1), ARGUMENTS)
RESULTS = st.builds(
    ChatResult,
    content=st.lists(st.builds(Text, st.text()) | USES, max_size=5, unique_by=lambda b: getattr(b, "id", b)).map(tuple),
    stop=st.sampled_from(StopReason),
    model=st.text(min_size=1),
    usage=st.builds(Usage, st.integers(0, 10**9), st.integers(0, 10**9), st.just(False)),
    stop_sequence=st.none() | st.text(min_size=1),
)


@settings(max_examples=200, deadline=None)
@given(RESULTS)
def test_an_answer_that_is_streamed_and_heard_is_the_same(result: ChatResult) -> None:
    expected = gathered(deltas_of(result))  # words that follow words are one block
    assert gathered(heard(stream(deltas_of(result)))) == expected


@settings(deadline=None)
@given(RESULTS)
def test_an_answer_that_is_written_and_read_is_the_same(result: ChatResult) -> None:
    assert read_result(whole(result, ASK, id="msg_1", created=0)) == result


@settings(deadline=None)
@given(st.lists(USES, min_size=1, max_size=4, unique_by=lambda use: use.id), st.data())
def test_however_tool_uses_are_interleaved_they_are_heard_the_same(uses: list[ToolUse], data: st.DataObject) -> None:
    queues = []
    for use in uses:
        text = json.dumps(use.arguments)
        size = data.draw(st.integers(1, len(text)))
        pieces = [ArgumentsDelta(use.id, text[at : at + size]) for at in range(0, len(text), size)]
        queues.append([ToolUseStarted(use.id, use.name), *pieces])
    deltas: list[Delta] = [START]
    while queues:
        queue = queues[data.draw(st.integers(0, len(queues) - 1))]
        deltas.append(queue.pop(0))
        queues = [left for left in queues if left]
    deltas.append(end(StopReason.TOOL_USE))
    told = stream(deltas)
    assert gathered(heard(told)) == gathered(deltas)
    order = [event["index"] for event in events(told) if "index" in event]
    assert order == sorted(order)


def test_what_an_answer_holds_can_be_said_again_by_the_client() -> None:
    use = ToolUse("u1", "t", {"a": 1})
    answer = whole(ChatResult((Text("x"), use), StopReason.TOOL_USE, "m", USAGE), ASK, id="msg_1", created=0)
    history = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": answer["content"]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "u1"}]},
    ]
    assert read({"messages": history}).messages[1].content == (Text("x"), use)
