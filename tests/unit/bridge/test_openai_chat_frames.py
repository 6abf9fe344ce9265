from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
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
from mcp_proxy.bridge.wire.openai_chat import Frames, whole
from mcp_proxy.bridge.wire.openai_provider import Reader, read_result
from mcp_proxy.core.upstream.sse import SseParser

ASK = ChatRequest("m", (Message(Role.USER, (Text("hello"),)),), stream=True)
COUNTED = replace(ASK, stream_usage=True)
USAGE = Usage(3, 4, estimated=False)
START = Started("clever-1", 3)
END = Ended(StopReason.END, USAGE)
INTERLEAVED: list[Delta] = [
    START,
    TextDelta("so "),
    ToolUseStarted("a", "f"),
    ToolUseStarted("b", "g"),
    ArgumentsDelta("b", '{"x"'),
    ArgumentsDelta("a", '{"y": '),
    TextDelta("late"),
    ArgumentsDelta("b", ": 1}"),
    ArgumentsDelta("a", "2}"),
    ToolUseStarted("c", "h"),
    Ended(StopReason.TOOL_USE, USAGE),
]


def stream(deltas: Iterable[Delta], ask: ChatRequest = ASK) -> bytes:
    frames = Frames(ask, id="chatcmpl-1", created=5)
    return frames.first() + frames.KEEP_ALIVE + b"".join(map(frames.delta, deltas))


def texts(data: bytes) -> list[bytes]:
    return [event.data for event in SseParser(10_000_000).feed(data)]


def chunks(data: bytes) -> list[dict[str, Any]]:
    """All but the ``[DONE]`` that must be the last."""
    *told, done = texts(data)
    assert done == b"[DONE]"
    return [json.loads(one) for one in told]


def choices(data: bytes) -> list[tuple[Any, Any]]:
    return [(one["delta"], one["finish_reason"]) for chunk in chunks(data) for one in chunk["choices"]]


def heard(data: bytes) -> list[Delta]:
    reader = Reader()
    deltas = [delta for event in SseParser(10_000_000).feed(data) for delta in reader.feed(event.event, event.data)]
    reader.end()
    return deltas


ARGUMENTS = st.dictionaries(st.text(max_size=5), st.integers(-(2**53), 2**53) | st.text(max_size=9), max_size=3)
BLOCKS = st.lists(
    st.builds(Text, st.text(max_size=60)) | st.builds(ToolUse, st.uuids().map(str), st.text(min_size=1), ARGUMENTS),
    max_size=5,
)
RESULTS = st.builds(
    ChatResult,
    BLOCKS.map(tuple),
    st.sampled_from(StopReason),
    st.text(max_size=9),
    st.builds(Usage, st.integers(0, 9**9), st.integers(0, 9**9), st.just(False)),
)


def sayable(result: ChatResult) -> ChatResult:
    """What the format can say of it: words first and in one piece, and no stop text as such."""
    uses = tuple(block for block in result.content if isinstance(block, ToolUse))
    words = (Text(result.text),) if result.text else ()
    stop = result.stop
    if stop not in (StopReason.MAX_TOKENS, StopReason.REFUSAL):
        stop = StopReason.TOOL_USE if uses else StopReason.END
    return replace(result, content=words + uses, stop=stop)


def words_first(result: ChatResult) -> ChatResult:
    blocks = sorted(result.content, key=lambda block: isinstance(block, ToolUse))
    return replace(result, content=tuple(blocks))


@settings(deadline=None)
@given(RESULTS)
def test_what_is_streamed_is_what_a_client_gathers(result: ChatResult) -> None:
    assert gathered(heard(stream(deltas_of(words_first(result)), COUNTED))) == sayable(result)


@settings(deadline=None)
@given(RESULTS)
def test_what_is_told_whole_is_what_a_client_reads(result: ChatResult) -> None:
    told = json.loads(json.dumps(whole(result, ASK, id="i", created=0)))
    assert read_result(told) == sayable(result)


def test_tool_uses_that_go_on_together_are_told_apart_by_their_index() -> None:
    result = gathered(heard(stream(INTERLEAVED, COUNTED)))
    assert [block for block in result.content if isinstance(block, ToolUse)] == [
        ToolUse("a", "f", {"y": 2}),
        ToolUse("b", "g", {"x": 1}),
        ToolUse("c", "h", {}),
    ]
    assert result.text == "so late"


def test_a_stream_is_a_role_words_a_reason_and_done() -> None:
    assert choices(stream([START, TextDelta("a"), TextDelta(""), TextDelta("b"), END])) == [
        ({"role": "assistant", "content": "", "refusal": None}, None),
        ({"content": "a"}, None),
        ({"content": "b"}, None),
        ({}, "stop"),
    ]


def test_ids_and_names_of_tool_uses_are_told_once() -> None:
    deltas: list[Delta] = [START, ToolUseStarted("a", "f"), ArgumentsDelta("a", "{"), ArgumentsDelta("a", "}"), END]
    _, *told = choices(stream(deltas))
    function = {"name": "f", "arguments": ""}
    assert told == [
        ({"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": function}]}, None),
        ({"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]}, None),
        ({"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]}, None),
        ({}, "tool_calls"),
    ]


@pytest.mark.parametrize("blank", [[], [ArgumentsDelta("a", "")], [ArgumentsDelta("a", " \n")]])
def test_no_arguments_are_an_empty_object(blank: list[Delta]) -> None:
    told = choices(stream([START, ToolUseStarted("a", "f"), *blank, END]))
    calls = [call for delta, _ in told for call in delta.get("tool_calls", [])]
    assert json.loads("".join(call["function"]["arguments"] for call in calls)) == {}


def test_all_chunks_have_one_id_time_model_and_kind() -> None:
    heads = {(one["id"], one["created"], one["model"], one["object"]) for one in chunks(stream(INTERLEAVED, COUNTED))}
    assert heads == {("chatcmpl-1", 5, "clever-1", "chat.completion.chunk")}


def test_tokens_are_told_last_and_only_to_who_wants_them() -> None:
    *before, last = chunks(stream([START, TextDelta("a"), END], COUNTED))
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 7
    assert [one["usage"] for one in before] == [None] * 3
    assert all("usage" not in one for one in chunks(stream([START, TextDelta("a"), END])))


def test_what_comes_before_the_answer_is_no_event() -> None:
    frames = Frames(ASK, id="i", created=0)
    assert texts(frames.first() + frames.KEEP_ALIVE) == []
    assert frames.first().endswith(b"\n\n")


@pytest.mark.parametrize("begun", [[], [START, TextDelta("a")]])
def test_an_error_is_the_last_event_and_nothing_is_done(begun: list[Delta]) -> None:
    frames = Frames(ASK, id="i", created=0)
    data = b"".join(map(frames.delta, begun)) + frames.error(ChatError(NO_ANSWER, "gone"), "req-1")
    last = json.loads(texts(data)[-1])
    assert (last["error"]["message"], last["error"]["code"]) == ("gone", "no_answer")
    assert last["request_id"] == "req-1"
    assert b"[DONE]" not in data
