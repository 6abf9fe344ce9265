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
    ChatResult,
    Delta,
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
from mcp_proxy.bridge.errors import SOURCE_ERROR, UNSUPPORTED, ChatError
from mcp_proxy.bridge.wire.openai_chat import read
from mcp_proxy.bridge.wire.openai_provider import Reader, headers, read_result, write

HELLO = Message(Role.USER, (Text("hello"),))
TOOL = Tool("weather", {"type": "object"}, "what it is like")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def written(*messages: Message, **more: Any) -> dict[str, Any]:
    return write(ChatRequest("m", messages or (HELLO,), **more), "gpt", max_tokens=9)


def said(*messages: Message) -> Any:
    return written(*messages)["messages"]


def test_a_request_asks_for_a_stream_that_tells_its_tokens() -> None:
    assert written() == {
        "model": "gpt",
        "messages": [{"role": "user", "content": "hello"}],
        "max_completion_tokens": 9,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_what_was_asked_for_is_passed_on() -> None:
    body = written(
        system="be brief",
        tools=(TOOL,),
        tool_choice=ToolChoice(ToolMode.REQUIRED, "weather", parallel=False),
        temperature=0.5,
        stop=("a", "b", "c", "d", "e"),
        output=OutputFormat({"type": "object"}, "the name", strict=True),
    )
    assert body["messages"][0] == {"role": "system", "content": "be brief"}
    function = {"name": "weather", "description": "what it is like", "parameters": {"type": "object"}}
    assert body["tools"] == [{"type": "function", "function": function}]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert body["parallel_tool_calls"] is False
    assert body["temperature"] == 0.5
    assert body["stop"] == ["a", "b", "c", "d"]
    schema = {"name": "the_name", "schema": {"type": "object"}, "strict": True}
    assert body["response_format"] == {"type": "json_schema", "json_schema": schema}


def test_a_format_without_a_schema_is_any_object() -> None:
    assert written(output=OutputFormat())["response_format"] == {"type": "json_object"}
    assert "strict" not in written(output=OutputFormat({}))["response_format"]["json_schema"]


@pytest.mark.parametrize(
    ("mode", "choice"), [(ToolMode.AUTO, None), (ToolMode.NONE, "none"), (ToolMode.REQUIRED, "required")]
)
def test_how_tools_are_to_be_used_goes_with_them_alone(mode: ToolMode, choice: str | None) -> None:
    assert written(tools=(TOOL,), tool_choice=ToolChoice(mode)).get("tool_choice") == choice
    without = written(tool_choice=ToolChoice(mode, parallel=False))
    assert without.keys().isdisjoint({"tools", "tool_choice", "parallel_tool_calls"})


def test_turns_with_tools_are_written_one_message_a_result() -> None:
    use, other = ToolUse("c1", "weather", {"at": "sea"}), ToolUse("c2", "weather", {})
    results = (ToolResult("c1", (Text("fine"), Text("warm"))), ToolResult("c2", ()))
    assert said(HELLO, Message(Role.ASSISTANT, (Text("see"), use, other)), Message(Role.USER, results)) == [
        {"role": "user", "content": "hello"},
        {
            "role": "assistant",
            "content": "see",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"at": "sea"}'}},
                {"id": "c2", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "fine\nwarm"},
        {"role": "tool", "tool_call_id": "c2", "content": ""},
    ]


def test_pictures_of_a_tool_are_shown_by_the_user_after_all_results() -> None:
    results = (ToolResult("c1", (Text("here"), Image("image/png", "AAAA"))), ToolResult("c2", (Text("no"),)))
    first, second, shown = said(Message(Role.USER, results))
    assert (first["content"], second["content"], shown["role"]) == ("here", "no", "user")
    assert "c1" in shown["content"][0]["text"]
    assert shown["content"][1] == {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


@pytest.mark.parametrize(("media_type", "form"), [("audio/wav", "wav"), ("audio/mpeg", "mp3")])
def test_recordings_are_passed_on(media_type: str, form: str) -> None:
    (message,) = said(Message(Role.USER, (Audio(media_type, "AAAA"),)))
    assert message["content"] == [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": form}}]


def test_recordings_of_other_kinds_are_refused() -> None:
    with pytest.raises(ChatError) as raised:
        said(Message(Role.USER, (Audio("audio/ogg", "AAAA"),)))
    assert raised.value.problem is UNSUPPORTED


def test_what_is_written_can_be_read_again() -> None:
    ask = ChatRequest(
        model="gpt",
        system="be brief",
        messages=(
            Message(Role.USER, (Text("see"), Image("image/png", "AAAA"))),
            Message(Role.ASSISTANT, (Text("well"), ToolUse("c1", "weather", {"at": ["sea"]}))),
            Message(Role.USER, (ToolResult("c1", (Text("fine"),)),)),
            Message(Role.USER, (Audio("audio/wav", "AAAA"),)),
        ),
        tools=(TOOL,),
        tool_choice=ToolChoice(ToolMode.NONE, parallel=False),
        max_tokens=9,
        temperature=0.5,
        stop=("a",),
        output=OutputFormat({"type": "object"}, "n", strict=True),
        stream=True,
        stream_usage=True,
    )
    assert read(json.loads(json.dumps(write(ask, "gpt", max_tokens=9)))) == ask


def test_the_key_goes_as_a_bearer() -> None:
    assert headers("k") == {"Authorization": "Bearer k"}


# Whole answers


def body(message: Any, finish: Any = "stop", **more: Any) -> dict[str, Any]:
    return {"model": "gpt-1", "choices": [{"message": message, "finish_reason": finish}], **more}


def test_a_whole_answer_is_read() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 4}
    assert read_result(body({"content": "hi"}, "length", usage=usage)) == ChatResult(
        (Text("hi"),), StopReason.MAX_TOKENS, "gpt-1", Usage(3, 4, estimated=False)
    )


def test_what_other_servers_leave_out_is_made_up() -> None:
    calls = [
        {"function": {"name": "f", "arguments": ""}},
        {"id": "x", "function": {"name": "f", "arguments": {"a": 1}}},
        {"id": "x", "function": {"name": "f"}},
    ]
    result = read_result({"id": "r", "choices": [{"message": {"tool_calls": calls}}]})
    uses = [ToolUse("call_r_0", "f", {}), ToolUse("x", "f", {"a": 1}), ToolUse("x_", "f", {})]
    assert list(result.content) == uses
    assert (result.stop, result.model) == (StopReason.TOOL_USE, "")
    assert result.usage.estimated


def test_thoughts_are_left_out_and_a_refusal_is_one() -> None:
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "so"}]
    assert read_result(body({"content": parts, "reasoning_content": "hm"})).text == "so"
    refused = read_result(body({"content": None, "refusal": "I will not"}))
    assert (refused.text, refused.stop) == ("I will not", StopReason.REFUSAL)


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        {"choices": []},
        {"choices": ["x"]},
        body(None),
        body({"content": 5}),
        body({"tool_calls": [{"function": {"arguments": "{}"}}]}),
        body({"tool_calls": [{"function": {"name": "f", "arguments": "[]"}}]}),
        body({"tool_calls": {"a": 1}}),
    ],
)
def test_what_is_no_answer_is_the_sources_error(value: Any) -> None:
    with pytest.raises(ChatError) as raised:
        read_result(value)
    assert raised.value.problem is SOURCE_ERROR


@pytest.mark.parametrize("error", [{"message": "no room"}, "no room"])
def test_an_error_in_place_of_an_answer_is_told(error: Any) -> None:
    with pytest.raises(ChatError, match="reports an error: no room"):
        read_result({"error": error})


@settings(deadline=None)
@given(JSON | st.builds(body, JSON | st.fixed_dictionaries({"tool_calls": st.lists(JSON)}), JSON, usage=JSON))
def test_any_json_is_an_answer_or_the_sources_error(value: Any) -> None:
    try:
        result: ChatResult | ChatError = read_result(value)
    except ChatError as error:
        result = error
    assert isinstance(result, ChatResult) or result.problem is SOURCE_ERROR


# Streams


def chunk(delta: Any = None, finish: Any = None, **more: Any) -> dict[str, Any]:
    return {"id": "r", "model": "gpt-1", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


def call(index: int | None, arguments: str | None = None, **more: Any) -> dict[str, Any]:
    where = {} if index is None else {"index": index}
    return chunk({"tool_calls": [{**where, **more, "function": {"name": more.get("name"), "arguments": arguments}}]})


def heard(*chunks: Any, done: bool = True) -> list[Delta]:
    reader = Reader()
    data = [json.dumps(one).encode() for one in chunks] + ([b"[DONE]"] if done else [])
    deltas = [delta for one in data for delta in reader.feed(None, one)]
    reader.end()
    return deltas


START = Started("gpt-1", 0)
TOKENS = {"prompt_tokens": 3, "completion_tokens": 4}
COUNTED = Usage(3, 4, estimated=False)


def test_a_stream_is_read() -> None:
    first = chunk({"role": "assistant", "content": ""})
    assert heard(first, chunk({"content": "hi"}), chunk({}, "stop"), {"choices": [], "usage": TOKENS}) == [
        START,
        TextDelta("hi"),
        Ended(StopReason.END, COUNTED),
    ]


def test_a_stream_can_end_with_its_tokens_or_with_done_and_only_once() -> None:
    end = [START, Ended(StopReason.END, COUNTED)]
    assert heard(chunk({}, "stop"), {"choices": [], "usage": TOKENS}, chunk({"content": "x"}), done=False) == end
    assert heard(chunk({}, "stop", usage=TOKENS), done=False) == end
    assert heard(chunk({}, usage={"prompt_tokens": 3, "completion_tokens": 0}), chunk({}, "stop", usage=TOKENS)) == end


def test_tokens_are_guessed_where_nobody_tells() -> None:
    assert heard(chunk({"content": "x" * 40}), chunk({}, "stop", usage=None))[-1] == Ended(StopReason.END, Usage(0, 10))


def test_a_verdict_on_the_question_before_the_answer_is_passed_over() -> None:
    verdict = {"model": "", "choices": [], "prompt_filter_results": []}
    assert heard(verdict, chunk({"content": "hi"}), chunk({}, "stop"))[:2] == [START, TextDelta("hi")]


@pytest.mark.parametrize(
    "calls",
    [
        # OpenAI's own
        [call(0, "", id="a", name="f"), call(0, '{"x":'), call(1, "", id="b", name="g"), call(0, "1}"), call(1, "{}")],
        # the id again with every piece
        [call(0, '{"x":', id="a", name="f"), call(0, "1}", id="a"), call(1, "{}", id="b", name="g")],
        # the same index for all
        [call(0, '{"x":1}', id="a", name="f"), call(0, "{}", id="b", name="g")],
        # none at all
        [call(None, '{"x":', id="a", name="f"), call(None, "1}"), call(None, "{}", id="b", name="g")],
    ],
)
def test_tool_calls_are_told_apart_however_they_are_numbered(calls: list[Any]) -> None:
    deltas = heard(*calls, chunk({}, "stop"))
    assert [delta for delta in deltas if isinstance(delta, ToolUseStarted)] == [
        ToolUseStarted("a", "f"),
        ToolUseStarted("b", "g"),
    ]
    pieces = [delta for delta in deltas if isinstance(delta, ArgumentsDelta)]
    assert {id: "".join(one.json for one in pieces if one.id == id) for id in "ab"} == {"a": '{"x":1}', "b": "{}"}
    assert isinstance(deltas[-1], Ended)
    assert deltas[-1].stop is StopReason.TOOL_USE


def test_tool_calls_without_an_id_get_one_of_the_answers() -> None:
    assert ToolUseStarted("call_r_0", "f") in heard(call(0, "{}", name="f"))


@pytest.mark.parametrize(
    ("finish", "stop"),
    [
        ("stop", StopReason.END),
        ("length", StopReason.MAX_TOKENS),
        ("content_filter", StopReason.REFUSAL),
        ("tool_calls", StopReason.END),
        ("whatever", StopReason.END),
        (None, StopReason.END),
    ],
)
def test_why_a_stream_ends_is_read(finish: Any, stop: StopReason) -> None:
    (end,) = [delta for delta in heard(chunk({"content": "x"}), chunk({}, finish)) if isinstance(delta, Ended)]
    assert end.stop is stop


def test_a_refusal_in_a_stream_is_one() -> None:
    deltas = heard(chunk({"refusal": "I will"}), chunk({"refusal": " not"}), chunk({}, "stop"))
    assert deltas[1:3] == [TextDelta("I will"), TextDelta(" not")]
    assert isinstance(deltas[-1], Ended)
    assert deltas[-1].stop is StopReason.REFUSAL


@pytest.mark.parametrize("chunks", [[], [chunk({"content": "x"})], [chunk({"content": "x"}), chunk({}, "stop")]])
def test_a_stream_that_was_cut_is_the_sources_error(chunks: list[Any]) -> None:
    with pytest.raises(ChatError, match="broke off") as raised:
        heard(*chunks, done=False)
    assert raised.value.problem is SOURCE_ERROR


@pytest.mark.parametrize(
    "value",
    [
        5,
        "x",
        {"choices": 5},
        {"choices": [5]},
        chunk(5),
        chunk({"content": 5}),
        chunk({"tool_calls": 5}),
        chunk({"tool_calls": [5]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": 5}}]}),
    ],
)
def test_chunks_that_are_none_are_the_sources_error(value: Any) -> None:
    with pytest.raises(ChatError, match="cannot be read") as raised:
        heard(value)
    assert raised.value.problem is SOURCE_ERROR


@pytest.mark.parametrize("data", [b"", b"{", b'{"model": "\xff"}'])
def test_events_that_are_no_json_are_the_sources_error(data: bytes) -> None:
    with pytest.raises(ChatError, match="no JSON object") as raised:
        Reader().feed(None, data)
    assert raised.value.problem is SOURCE_ERROR


def test_done_without_an_answer_is_the_sources_error() -> None:
    with pytest.raises(ChatError, match="empty"):
        heard()


@pytest.mark.parametrize(
    ("event", "value"), [(None, {"error": {"message": "no room"}}), ("error", {"message": "no room"})]
)
def test_an_error_in_a_stream_is_told(event: str | None, value: Any) -> None:
    with pytest.raises(ChatError, match="reports an error: no room"):
        Reader().feed(event, json.dumps(value).encode())


@settings(deadline=None)
@given(st.lists(st.builds(chunk, JSON | st.fixed_dictionaries({"tool_calls": st.lists(JSON)}), JSON) | JSON))
def test_any_stream_is_read_or_the_sources_error(chunks: list[Any]) -> None:
    try:
        deltas = heard(*chunks)
    except ChatError as error:
        refused = error
    else:
        assert isinstance(deltas[0], Started)
        assert isinstance(deltas[-1], Ended)
        return
    assert refused.problem is SOURCE_ERROR
