from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_proxy.bridge.chat import (
    ArgumentsDelta,
    Audio,
    ChatRequest,
    Ended,
    Image,
    Message,
    OutputFormat,
    Role,
    Started,
    StopReason,
    Text,
    TextDelta,
    Tool,
    ToolChoice,
    ToolMode,
    ToolResult,
    ToolUse,
    ToolUseStarted,
    Usage,
)
from mcp_proxy.bridge.errors import NOT_READY, RATE_LIMITED, SOURCE_ERROR, UNSUPPORTED, ChatError, ChatProblem
from mcp_proxy.bridge.wire.anthropic_messages import read
from mcp_proxy.bridge.wire.anthropic_provider import Reader, headers, read_result, write

HELLO = Message(Role.USER, (Text("hello"),))
TOOL = Tool("weather", {"type": "object"}, "what it is like")
USE = ToolUse("u1", "weather", {"at": "sea"})
START = {"type": "message_start", "message": {"model": "clever-1", "usage": {"input_tokens": 3, "output_tokens": 1}}}
STOP = {"type": "message_stop"}


def asked(*messages: Message, **more: Any) -> dict[str, Any]:
    return write(ChatRequest("alias", messages or (HELLO,), **more), "clever-1", max_tokens=10)


def block(index: int, **content: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": content}


def piece(index: int, **delta: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def heard(reader: Reader, *events: Any) -> list[Any]:
    return [delta for event in events for delta in reader.feed(None, json.dumps(event).encode())]


def failure(*events: Any) -> ChatProblem:
    with pytest.raises(ChatError) as caught:
        heard(Reader(), *events)
    return caught.value.problem


def test_a_request_carries_its_key_and_version() -> None:
    assert headers("k") == {"x-api-key": "k", "anthropic-version": "2023-06-01"}


def test_a_plain_request_is_written_without_what_was_not_asked() -> None:
    assert asked() == {
        "model": "clever-1",
        "max_tokens": 10,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
    }


def test_settings_are_passed_on_and_the_temperature_is_kept_in_its_range() -> None:
    body = asked(system="be kind", temperature=1.7, stop=("END",))
    assert (body["system"], body["temperature"], body["stop_sequences"]) == ("be kind", 1.0, ["END"])


def test_messages_of_one_side_become_one_and_results_begin_it() -> None:
    image = Image("image/png", "iVBORw0KGgo=")
    result = ToolResult("u1", (Text("fine"), image), is_error=True)
    source = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    shown = {"type": "image", "source": source}
    messages = asked(
        HELLO,
        Message(Role.ASSISTANT, (USE,)),
        Message(Role.USER, (result,)),
        Message(Role.USER, (Text("note"), image)),
    )["messages"]
    assert messages[1:] == [
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "u1", "name": "weather", "input": {"at": "sea"}}],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "u1",
                    "content": [{"type": "text", "text": "fine"}, shown],
                    "is_error": True,
                },
                {"type": "text", "text": "note"},
                shown,
            ],
        },
    ]


def test_ids_that_the_api_would_refuse_are_rewritten_alike() -> None:
    use, result = ToolUse("a.b/c", "t", {}), ToolResult("a.b/c", ())
    _, said, answered = asked(HELLO, Message(Role.ASSISTANT, (use,)), Message(Role.USER, (result,)))["messages"]
    assert said["content"][0]["id"] == answered["content"][0]["tool_use_id"] == "hex_612e622f63"


@pytest.mark.parametrize(
    ("choice", "written"),
    [
        (ToolChoice(), None),
        (ToolChoice(parallel=False), {"type": "auto", "disable_parallel_tool_use": True}),
        (ToolChoice(ToolMode.NONE), {"type": "none"}),
        (ToolChoice(ToolMode.REQUIRED), {"type": "any"}),
        (ToolChoice(ToolMode.REQUIRED, "weather"), {"type": "tool", "name": "weather"}),
    ],
)
def test_tools_are_written_with_the_way_they_are_to_be_used(choice: ToolChoice, written: Any) -> None:
    body = asked(tools=(TOOL,), tool_choice=choice)
    assert body["tools"] == [{"name": "weather", "description": "what it is like", "input_schema": {"type": "object"}}]
    assert body.get("tool_choice") == written


def test_a_schema_is_passed_on_and_any_object_is_asked_for_in_words() -> None:
    body = asked(output=OutputFormat({"type": "object"}))
    assert body["output_config"] == {"format": {"type": "json_schema", "schema": {"type": "object"}}}
    body = asked(output=OutputFormat(), system="be kind")
    assert "output_config" not in body
    assert body["system"].startswith("be kind\n\nAnswer with one JSON object")


def test_audio_is_refused() -> None:
    with pytest.raises(ChatError) as caught:
        asked(Message(Role.USER, (Audio("audio/wav", "UklGRg=="),)))
    assert caught.value.problem is UNSUPPORTED


def test_what_is_written_is_what_the_api_reads() -> None:
    ask = ChatRequest(
        "clever-1",
        (HELLO, Message(Role.ASSISTANT, (Text("let me see"), USE)), Message(Role.USER, (ToolResult("u1", ()),))),
        system="be kind",
        tools=(TOOL,),
        tool_choice=ToolChoice(ToolMode.REQUIRED, "weather", parallel=False),
        max_tokens=10,
        temperature=0.5,
        stop=("END",),
        output=OutputFormat({"type": "object"}),
    )
    assert read(write(ask, "clever-1", max_tokens=10)) == ask


def test_a_whole_answer_is_read_without_its_thinking() -> None:
    result = read_result(
        {
            "type": "message",
            "model": "clever-1",
            "content": [{"type": "thinking", "thinking": "…"}, {"type": "text", "text": "hi", "citations": None}],
            "stop_reason": "model_context_window_exceeded",
            "usage": {"input_tokens": 3, "cache_read_input_tokens": 10, "output_tokens": 4},
        }
    )
    assert result.content == (Text("hi"),)
    assert result.stop is StopReason.MAX_TOKENS
    assert result.usage == Usage(13, 4, estimated=False)


def test_an_answer_that_nobody_counted_is_estimated() -> None:
    result = read_result({"type": "message", "model": "m", "content": [{"type": "text", "text": "x" * 40}]})
    assert result.usage == Usage(0, 10, estimated=True)


@pytest.mark.parametrize(
    "body",
    [
        None,
        {"type": "error", "error": {"type": "api_error", "message": "no"}},
        {"type": "message", "content": []},
        {"type": "message", "model": "m", "content": [{"type": "image"}]},
        {"type": "message", "model": "m", "content": [{"type": "tool_use", "id": "u", "name": "t", "input": "x"}]},
    ],
)
def test_what_is_no_answer_is_the_sources_fault(body: Any) -> None:
    with pytest.raises(ChatError) as caught:
        read_result(body)
    assert caught.value.problem is SOURCE_ERROR


def test_a_stream_is_read_without_its_thinking() -> None:
    reader = Reader()
    deltas = heard(
        reader,
        START,
        {"type": "ping"},
        block(0, type="thinking", thinking=""),
        piece(0, type="thinking_delta", thinking="hm"),
        {"type": "content_block_stop", "index": 0},
        block(1, type="text", text=""),
        piece(1, type="text_delta", text="hi"),
        block(2, type="tool_use", id="u1", name="weather", input={}),
        piece(2, type="input_json_delta", partial_json=""),
        piece(2, type="input_json_delta", partial_json='{"at":"sea"}'),
        {"type": "content_block_stop", "index": 2},
        {"type": "of_the_future"},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 4}},
        STOP,
    )
    reader.end()
    assert deltas == [
        Started("clever-1", 3),
        TextDelta("hi"),
        ToolUseStarted("u1", "weather"),
        ArgumentsDelta("u1", '{"at":"sea"}'),
        Ended(StopReason.TOOL_USE, Usage(3, 4, estimated=False)),
    ]


def test_arguments_that_come_with_the_beginning_of_a_block_are_not_lost() -> None:
    use = block(0, type="tool_use", id="u1", name="weather", input={"at": "sea"})
    deltas = heard(Reader(), START, use, {"type": "content_block_stop", "index": 0})
    assert deltas[1:] == [ToolUseStarted("u1", "weather"), ArgumentsDelta("u1", '{"at":"sea"}')]


def test_the_count_at_the_beginning_is_not_taken_for_the_answers() -> None:
    deltas = heard(Reader(), START, block(0, type="text", text="x" * 40), STOP)
    assert deltas[-1] == Ended(StopReason.END, Usage(3, 10, estimated=True))


def test_a_stream_that_is_cut_is_no_answer() -> None:
    reader = Reader()
    heard(reader, START, block(0, type="text", text="hi"))
    with pytest.raises(ChatError, match="broke off"):
        reader.end()


def test_what_follows_the_end_is_nobodys_matter() -> None:
    reader = Reader()
    heard(reader, START, STOP)
    assert reader.feed("message", b"[DONE]") == []


def test_an_error_before_the_answer_tells_whether_another_try_is_worth_it() -> None:
    def told(kind: str) -> dict[str, Any]:
        return {"type": "error", "error": {"type": kind, "message": "busy"}}

    assert failure(told("overloaded_error")) is NOT_READY
    assert failure(told("rate_limit_error")) is RATE_LIMITED
    assert failure(told("api_error")) is SOURCE_ERROR
    assert failure(START, told("overloaded_error")) is SOURCE_ERROR


@pytest.mark.parametrize(
    "events",
    [
        [[]],
        [STOP],
        [{"type": "message_start"}],
        [START, START],
        [START, block(0, type="server_tool_use")],
        [START, piece(0, type="input_json_delta", partial_json="{}")],
        [START, {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "x"}}],
    ],
)
def test_a_stream_that_is_not_of_the_format_is_the_sources_fault(events: Any) -> None:
    assert failure(*events) is SOURCE_ERROR


NAMES = "type message model usage index delta content_block text partial_json id name input error stop_reason content"
WORDS = (
    "message_start message_delta message_stop content_block_start content_block_delta content_block_stop ping error text"
    " tool_use text_delta input_json_delta message thinking"
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | st.sampled_from(WORDS.split()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES.split()), inner, max_size=5),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(st.lists(VALUES, max_size=4))
def test_whatever_comes_is_heard_or_the_sources_fault(events: list[Any]) -> None:
    problems = []
    for first in ([], [START]):
        try:
            heard(Reader(), *first, *events)
            read_result(events[0] if events else None)
        except ChatError as error:
            problems.append(error.problem)
    assert set(problems) <= {SOURCE_ERROR, NOT_READY, RATE_LIMITED}
