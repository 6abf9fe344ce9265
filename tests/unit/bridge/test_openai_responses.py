from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from mcp_proxy.bridge.chat import (
    Audio,
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
from mcp_proxy.bridge.errors import BAD_REQUEST, UNSUPPORTED, ChatError, ChatProblem
from mcp_proxy.bridge.wire.openai_responses import read, whole
from tests.unit.bridge.test_openai_chat import JSON, PNG, check_read, spoiled

HELLO = {"role": "user", "content": "hello"}
WEATHER = {"type": "function", "name": "weather", "description": "what it is like", "parameters": {"type": "object"}}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "weather", "arguments": '{"at": "sea"}'}
TOLD = {"type": "function_call_output", "call_id": "c1", "output": "fine"}
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}
FULL: dict[str, Any] = {
    "model": "m",
    "instructions": "be brief",
    "input": [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "be kind"}]},
        {
            "role": "user",
            "content": [{"type": "input_text", "text": "see"}, {"type": "input_image", "image_url": PNG}],
        },
        THOUGHT,
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "well", "annotations": []}],
        },
        CALL,
        {**CALL, "call_id": "c2", "arguments": ""},
        TOLD,
        {**TOLD, "call_id": "c2", "output": [{"type": "input_text", "text": "warm"}]},
        {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}]},
    ],
    "tools": [WEATHER],
    "tool_choice": {"type": "function", "name": "weather"},
    "parallel_tool_calls": False,
    "max_output_tokens": 9,
    "temperature": 1.5,
    "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}},
    "stream": True,
    "background": False,
    "store": False,
    "truncation": "disabled",
    "top_logprobs": 0,
}


def asked(*items: dict[str, Any], **more: Any) -> ChatRequest:
    return read({"model": "m", "input": list(items or [HELLO]), **more})


def refusal(*items: Any, **more: Any) -> tuple[ChatProblem, str | None]:
    with pytest.raises(ChatError) as raised:
        asked(*items, **more)
    return raised.value.problem, raised.value.param


def test_everything_that_can_be_honoured_is_read() -> None:
    uses = (ToolUse("c1", "weather", {"at": "sea"}), ToolUse("c2", "weather", {}))
    results = (ToolResult("c1", (Text("fine"),)), ToolResult("c2", (Text("warm"),)))
    assert read(FULL) == ChatRequest(
        model="m",
        system="be brief\n\nbe kind",
        messages=(
            Message(Role.USER, (Text("see"), Image("image/png", "iVBORw0KGgo="))),
            Message(Role.ASSISTANT, (Text("well"), *uses)),
            Message(Role.USER, results),
            Message(Role.USER, (Audio("audio/wav", "AAAA"),)),
        ),
        tools=(Tool("weather", {"type": "object"}, "what it is like"),),
        tool_choice=ToolChoice(ToolMode.REQUIRED, "weather", parallel=False),
        max_tokens=9,
        temperature=1.5,
        output=OutputFormat({"type": "object"}, "n", strict=True),
        stream=True,
    )


def test_the_input_can_be_words_alone() -> None:
    assert read({"input": "hello"}) == ChatRequest("", (Message(Role.USER, (Text("hello"),)),))


def test_calls_with_their_results_one_after_the_other_are_turns_of_their_own() -> None:
    ask = asked(HELLO, CALL, TOLD, {**CALL, "call_id": "c2"}, {**TOLD, "call_id": "c2"})
    assert [message.role for message in ask.messages] == ["user", "assistant", "user", "assistant", "user"]


def test_a_tools_output_can_hold_pictures() -> None:
    ask = asked(HELLO, CALL, {**TOLD, "output": [{"type": "input_image", "image_url": PNG, "detail": "low"}]})
    assert ask.messages[-1].content == (ToolResult("c1", (Image("image/png", "iVBORw0KGgo="),)),)
    assert ask.ignored == ("input_image.detail",)


def test_what_codex_sends_beside_is_named_or_passed_over() -> None:
    ask = asked(
        tools=[{**WEATHER, "strict": False}],
        tool_choice="auto",
        parallel_tool_calls=True,
        reasoning={"effort": "high", "summary": "auto"},
        store=False,
        stream=True,
        include=["reasoning.encrypted_content"],
        prompt_cache_key="k",
        text={"verbosity": "low"},
        client_metadata={"a": "b"},
    )
    assert ask.ignored == ("reasoning", "include", "text.verbosity")


def test_that_nothing_is_stored_is_named() -> None:
    assert asked(store=True).ignored == ("store",)


def test_formats_of_the_answer_are_read() -> None:
    assert asked(text={"format": {"type": "text"}}).output is None
    assert asked(text={"format": {"type": "json_object"}}).output == OutputFormat()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": {"id": "conv_1"}}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"background": True}, "background"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"tools": [{"type": "mcp", "server_url": "https://a.b"}]}, "tools[0].server_url"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
        ({"input": [{"type": "web_search_call", "id": "x"}]}, "input[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0]"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "input[0].content[0].file_id",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "http://a.b"}]}]},
            "input[0].content[0].image_url",
        ),
        ({"input": [{"role": "assistant", "content": [{"type": "input_image"}]}]}, "input[0].content[0]"),
    ],
)
def test_what_would_make_it_another_answer_is_refused(fields: dict[str, Any], param: str) -> None:
    assert refusal(**fields) == (UNSUPPORTED, param)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["hello"]}, "input[0]"),
        ({"input": [{"role": "robot", "content": ""}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
        ({"input": [{**CALL, "arguments": "[]"}]}, "input[0].arguments"),
        ({"input": [{**CALL, "call_id": ""}]}, "input[0].call_id"),
        ({"input": [CALL]}, "input[0]"),
        ({"input": [CALL, HELLO]}, "input[1]"),
        ({"input": [TOLD]}, "input[0].call_id"),
        ({"input": [CALL, {"type": "function_call_output", "call_id": "c1"}]}, "input[1].output"),
        ({"instructions": []}, "instructions"),
        ({"max_output_tokens": 1.5}, "max_output_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"text": "json"}, "text"),
        ({"text": {"format": {"type": "json_schema", "schema": 5}}}, "text.format.schema"),
        ({"background": "no"}, "background"),
        ({"stream": 1}, "stream"),
    ],
)
def test_a_value_that_is_wrong_is_named_by_its_path(fields: dict[str, Any], param: str) -> None:
    assert refusal(**fields) == (BAD_REQUEST, param)


@settings(deadline=None)
@given(JSON | spoiled(FULL))
def test_any_json_is_read_or_refused_in_our_words(value: Any) -> None:
    check_read(value, read)


def told(*content: Text | ToolUse, stop: StopReason = StopReason.END, **asking: Any) -> dict[str, Any]:
    result = ChatResult(content, stop, "clever-1", Usage(3, 4))
    return whole(result, asked(**asking), id="resp_1", created=5)


def test_an_answer_is_items_in_their_order() -> None:
    response = told(Text("see"), ToolUse("c1", "f", {"ü": 1}), Text("so"), stop=StopReason.TOOL_USE)
    part = {"type": "output_text", "annotations": [], "logprobs": []}
    said = {"type": "message", "status": "completed", "role": "assistant"}
    assert response["output"] == [
        {"id": "msg_1_0", **said, "content": [{**part, "text": "see"}]},
        {
            "id": "fc_1_1",
            "type": "function_call",
            "status": "completed",
            "call_id": "c1",
            "name": "f",
            "arguments": '{"ü": 1}',
        },
        {"id": "msg_1_2", **said, "content": [{**part, "text": "so"}]},
    ]
    assert (response["object"], response["status"], response["model"]) == ("response", "completed", "clever-1")
    assert (response["id"], response["created_at"], response["request_id"]) == ("resp_1", 5, "resp_1")
    usage = response["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (3, 4, 7)


def test_an_answer_can_be_sent_back_as_input() -> None:
    response = told(Text("see"), ToolUse("c1", "weather", {"at": "sea"}))
    ask = asked(HELLO, *response["output"], TOLD)
    assert ask.messages[1].content == (Text("see"), ToolUse("c1", "weather", {"at": "sea"}))


@pytest.mark.parametrize(
    ("stop", "reason"), [(StopReason.MAX_TOKENS, "max_output_tokens"), (StopReason.REFUSAL, "content_filter")]
)
def test_an_answer_that_is_not_complete_says_why(stop: StopReason, reason: str) -> None:
    response = told(ToolUse("c1", "f", {}), Text("a"), stop=stop)
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": reason})
    assert [item["status"] for item in response["output"]] == ["completed", "incomplete"]


def test_what_was_asked_for_is_repeated_in_the_answer() -> None:
    body = {key: FULL[key] for key in ("tools", "tool_choice", "parallel_tool_calls", "text", "temperature")}
    response = told(max_output_tokens=9, instructions="be brief", **body)
    assert {key: response[key] for key in ("tool_choice", "parallel_tool_calls", "text", "temperature")} == {
        key: FULL[key] for key in ("tool_choice", "parallel_tool_calls", "text", "temperature")
    }
    assert response["tools"] == [{**WEATHER, "strict": False}]
    assert (response["instructions"], response["max_output_tokens"]) == ("be brief", 9)
    assert (response["store"], response["previous_response_id"], response["background"]) == (False, None, False)


@pytest.mark.parametrize(
    ("asking", "choice", "form"),
    [
        ({}, "auto", {"type": "text"}),
        ({"tool_choice": "none", "text": {"format": {"type": "json_object"}}}, "none", {"type": "json_object"}),
    ],
)
def test_what_was_not_asked_for_is_as_it_is_by_default(asking: Any, choice: str, form: Any) -> None:
    response = told(**asking)
    assert (response["tool_choice"], response["text"], response["tools"]) == (choice, {"format": form}, [])
