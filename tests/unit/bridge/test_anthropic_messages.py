from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_proxy.bridge.chat import (
    ChatRequest,
    ChatResult,
    Image,
    Message,
    OutputFormat,
    Role,
    StopReason,
    Text,
    Tool,
    ToolChoice,
    ToolMode,
    ToolResult,
    ToolUse,
    Usage,
)
from mcp_proxy.bridge.errors import BAD_REQUEST, NO_ANSWER, UNSUPPORTED, ChatError, ChatProblem
from mcp_proxy.bridge.wire.anthropic_messages import count_tokens, error_body, read, whole

HELLO = [{"role": "user", "content": "hello"}]
WEATHER = {"name": "weather", "description": "what it is like", "input_schema": {"type": "object"}}
USE = {"type": "tool_use", "id": "u1", "name": "weather", "input": {"at": "sea"}}
RESULT = {"type": "tool_result", "tool_use_id": "u1", "content": "fine"}
PNG = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}


def body(**more: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 10, "messages": HELLO, **more}


def said(*content: Any, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": list(content)}


def refusal(value: Any) -> tuple[ChatProblem, str | None]:
    with pytest.raises(ChatError) as caught:
        read(value)
    return caught.value.problem, caught.value.param


def test_a_plain_request_is_read() -> None:
    ask = read(body(system="be kind", temperature=0.5, stop_sequences=["END"], stream=True))
    assert ask == ChatRequest(
        "m",
        (Message(Role.USER, (Text("hello"),)),),
        system="be kind",
        max_tokens=10,
        temperature=0.5,
        stop=("END",),
        stream=True,
    )


def test_model_and_limit_may_be_missing() -> None:
    ask = read({"messages": HELLO})
    assert (ask.model, ask.max_tokens) == ("", None)


def test_what_the_system_says_is_joined_wherever_it_stands() -> None:
    messages = [*HELLO, {"role": "system", "content": "and brief"}, said({"type": "text", "text": "go"})]
    ask = read(body(system=[{"type": "text", "text": "be kind", "cache_control": {}}], messages=messages))
    assert ask.system == "be kind\n\nand brief"
    assert ask.messages == (Message(Role.USER, (Text("hello"), Text("go"))),)


def test_images_and_documents_of_text_are_read() -> None:
    document = {"type": "document", "title": "T", "source": {"type": "text", "media_type": "text/plain", "data": "D"}}
    blocks = {"type": "content", "content": [{"type": "text", "text": "C"}, {"type": "image", "source": PNG}]}
    ask = read(
        body(messages=[said({"type": "image", "source": PNG}, document, {"type": "document", "source": blocks})])
    )
    image = Image("image/png", "iVBORw0KGgo=")
    assert ask.messages[0].content == (image, Text("T"), Text("D"), Text("C"), image)


def test_thoughts_and_empty_texts_are_left_out() -> None:
    thoughts = said(
        {"type": "thinking", "thinking": "…", "signature": "s"}, {"type": "redacted_thinking"}, role="assistant"
    )
    ask = read(body(messages=[*HELLO, thoughts, said({"type": "text", "text": ""}, {"type": "text", "text": "go"})]))
    assert [message.content for message in ask.messages] == [(Text("hello"),), (Text("go"),)]


def test_tool_results_come_before_what_else_the_message_says() -> None:
    image = {"type": "image", "source": PNG}
    failed = {"type": "tool_result", "tool_use_id": "u2", "is_error": True, "content": [image]}
    messages = [
        *HELLO,
        said({"type": "text", "text": "let me see"}, role="assistant"),
        said(USE, {**USE, "id": "u2"}, role="assistant"),
        said({"type": "text", "text": "note"}, RESULT),
        said(failed),
    ]
    assert read(body(messages=messages)).messages[1:] == (
        Message(
            Role.ASSISTANT,
            (Text("let me see"), ToolUse("u1", "weather", {"at": "sea"}), ToolUse("u2", "weather", {"at": "sea"})),
        ),
        Message(
            Role.USER,
            (
                ToolResult("u1", (Text("fine"),)),
                ToolResult("u2", (Image("image/png", "iVBORw0KGgo="),), is_error=True),
            ),
        ),
        Message(Role.USER, (Text("note"),)),
    )


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([said(RESULT)], "messages[0]"),
        ([*HELLO, said(USE, role="assistant")], "messages[1]"),
        ([*HELLO, said(USE, role="assistant"), *HELLO], "messages[2]"),
        ([*HELLO, said(USE, role="assistant"), said(RESULT, RESULT)], "messages[2]"),
        ([*HELLO, said(USE, USE, role="assistant"), said(RESULT, RESULT)], "messages[1]"),
        ([said(USE)], "messages[0].content[0]"),
        ([said(RESULT, role="assistant")], "messages[0].content[0]"),
    ],
)
def test_uses_and_results_that_do_not_fit_are_refused(messages: Any, param: str) -> None:
    assert refusal(body(messages=messages)) == (BAD_REQUEST, param)


def test_tools_are_read_with_the_way_they_are_to_be_used() -> None:
    choice = {"type": "tool", "name": "weather", "disable_parallel_tool_use": True}
    ask = read(body(tools=[WEATHER, {"type": "custom", "name": "bare", "input_schema": {}}], tool_choice=choice))
    assert ask.tools == (
        Tool("weather", {"type": "object"}, "what it is like"),
        Tool("bare", {"type": "object"}, None),
    )
    assert ask.tool_choice == ToolChoice(ToolMode.REQUIRED, "weather", parallel=False)


@pytest.mark.parametrize(("kind", "mode"), [("auto", "auto"), ("any", "required"), ("none", "none")])
def test_tool_choices_have_neutral_words(kind: str, mode: str) -> None:
    assert read(body(tools=[WEATHER], tool_choice={"type": kind})).tool_choice == ToolChoice(ToolMode(mode))


@pytest.mark.parametrize("more", [{"mcp_tools": True}, {"tools": [{"type": "mcp"}]}])
def test_the_tools_of_this_service_can_be_asked_for(more: Any) -> None:
    ask = read(body(**more))
    assert ask.house_tools
    assert ask.tools == ()


def test_the_output_format_is_read_from_both_of_its_places() -> None:
    form = {"type": "json_schema", "schema": {"type": "object"}}
    ask = read(body(output_config={"format": form, "effort": "low"}))
    assert ask.output == OutputFormat({"type": "object"})
    assert ask.ignored == ("output_config.effort",)
    assert read(body(output_format=form)).output == ask.output


def test_what_changes_only_the_manner_is_passed_over_by_name() -> None:
    ask = read(body(top_p=1, metadata={"user_id": "u"}, cache_control={}, thinking=None, **{"a\nb": 1}))
    assert ask.ignored == ("top_p", "metadata")


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"mcp_servers": [{"type": "url", "url": "https://example.com"}]}, "mcp_servers"),
        ({"container": "c"}, "container"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0]"),
        ({"tools": [{"type": "mcp", "server_url": "https://example.com"}]}, "tools[0]"),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format"),
        (
            {"messages": [said({"type": "image", "source": {"type": "url", "url": "u"}})]},
            "messages[0].content[0].source",
        ),
        ({"messages": [said({"type": "image", "source": {"type": "file"}})]}, "messages[0].content[0].source"),
        ({"messages": [said({"type": "document", "source": {"type": "base64"}})]}, "messages[0].content[0].source"),
        ({"messages": [said({"type": "search_result"})]}, "messages[0].content[0]"),
        ({"messages": [said({"type": "image", "source": PNG}, role="assistant")]}, "messages[0].content[0]"),
    ],
)
def test_what_would_change_the_answer_is_refused_with_its_place(more: Any, param: str) -> None:
    assert refusal(body(**more)) == (UNSUPPORTED, param)


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"model": 1}, "model"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 10**20}, "max_tokens"),
        ({"temperature": 1.5}, "temperature"),
        ({"stream": "yes"}, "stream"),
        ({"stop_sequences": ["a", ""]}, "stop_sequences[1]"),
        ({"system": [{"type": "text"}]}, "system[0].text"),
        ({"messages": None}, "messages"),
        ({"messages": [said()]}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [said("x")]}, "messages[0].content[0]"),
        ({"messages": [said({"type": "text", "text": None})]}, "messages[0].content[0].text"),
        ({"messages": [said({"type": "image", "source": {**PNG, "data": "?"}})]}, "messages[0].content[0].source.data"),
        ({"tools": [WEATHER, WEATHER]}, "tools[1].name"),
        ({"tools": [{**WEATHER, "input_schema": {"type": "array"}}]}, "tools[0].input_schema.type"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "other"}}, "tool_choice.name"),
        ({"mcp_tools": 1}, "mcp_tools"),
    ],
)
def test_what_is_wrong_is_refused_with_its_place(more: Any, param: str) -> None:
    assert refusal(body(**more)) == (BAD_REQUEST, param)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
WORDS = "text image document thinking tool_use tool_result base64 content url json_schema mcp custom auto tool"
VALUE = st.sampled_from(WORDS.split()) | JSON
BLOCK = st.fixed_dictionaries(
    {"type": st.sampled_from(WORDS.split()) | JSON},
    optional=dict.fromkeys(("text", "id", "name", "input", "tool_use_id", "content", "is_error", "citations"), VALUE)
    | {
        "source": st.fixed_dictionaries(
            {"type": VALUE}, optional={"data": VALUE, "content": VALUE, "media_type": VALUE}
        )
    },
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system"]) | JSON, "content": st.lists(BLOCK, max_size=3) | JSON}
)
KEYS = (
    "model system max_tokens stop_sequences temperature stream tools tool_choice output_config output_format mcp_tools"
    " mcp_servers container other"
)
BODY = st.fixed_dictionaries(
    {"messages": st.lists(MESSAGE, max_size=3) | JSON},
    optional={key: st.lists(BLOCK, max_size=2) | BLOCK | VALUE for key in KEYS.split()},
)


@settings(max_examples=200, deadline=None)
@given(BODY | JSON)
def test_any_json_is_read_or_refused_in_our_words(value: Any) -> None:
    refused: list[ChatProblem] = []
    for reader in (read, count_tokens):
        try:
            reader(value)
        except ChatError as error:
            refused.append(error.problem)
    assert refused in ([], [BAD_REQUEST] * 2, [UNSUPPORTED] * 2)


@given(st.text(min_size=1), st.text(min_size=1))
def test_longer_questions_do_not_count_less(text: str, more: str) -> None:
    shorter, longer = ({"messages": [{"role": "user", "content": words}]} for words in (text, text + more))
    assert 1 <= count_tokens(shorter) <= count_tokens(longer)


def test_an_image_counts_by_the_piece() -> None:
    counted = count_tokens(body(messages=[said({"type": "image", "source": PNG}, {"type": "text", "text": "what?"})]))
    assert counted > count_tokens(body())


def test_a_whole_answer_has_all_that_the_library_reads() -> None:
    content = (Text("let me see"), ToolUse("u1", "weather", {"at": "sea"}))
    result = ChatResult(content, StopReason.TOOL_USE, "clever-1", Usage(3, 4))
    assert whole(result, read(body()), id="msg_1", created=0) == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "clever-1",
        "content": [{"type": "text", "text": "let me see"}, USE],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 3,
            "output_tokens": 4,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
        },
        "request_id": "msg_1",
    }


def test_an_error_names_its_parameter_in_the_message() -> None:
    assert error_body(ChatError(BAD_REQUEST, "must be a string", param="model"), "r") == {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": "model: must be a string"},
        "request_id": "r",
    }
    assert error_body(ChatError(NO_ANSWER, "gone"), "r")["error"] == {"type": "timeout_error", "message": "gone"}
