from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_proxy.bridge.chat import (
    Audio,
    ChatRequest,
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
from mcp_proxy.bridge.errors import SOURCE_ERROR, TOOLS_NOT_SUPPORTED, ChatError
from mcp_proxy.bridge.sampling import Priorities, needs_tools, read_result, write

HELLO = Message(Role.USER, (Text("hello"),))
WEATHER = Tool("weather", {"type": "object"}, "what it is like")
USE = {"type": "tool_use", "id": "u1", "name": "weather", "input": {"at": "sea"}}
PRIORITIES = Priorities(intelligence=0.9, speed=0.1, cost=0)


def ask(*messages: Message, **more: Any) -> ChatRequest:
    return ChatRequest("m", messages or (HELLO,), **more)


def params(request: ChatRequest, model: str = "", *, tools: bool = False) -> dict[str, Any]:
    return write(request, model, max_tokens=10, priorities=PRIORITIES, tools=tools)


def answer(*content: Any, **more: Any) -> dict[str, Any]:
    return {
        "role": "assistant",
        "model": "clever-1",
        "content": content[0] if len(content) == 1 else list(content),
        **more,
    }


def said(text: str, **more: Any) -> dict[str, Any]:
    return answer({"type": "text", "text": text}, **more)


def failure(result: Any, request: ChatRequest | None = None) -> str:
    with pytest.raises(ChatError) as caught:
        read_result(result, request or ask())
    assert caught.value.problem is SOURCE_ERROR
    return caught.value.message


def test_a_plain_request_has_the_limit_and_the_preferences_that_some_clients_insist_on() -> None:
    assert params(ask()) == {
        "messages": [{"role": "user", "content": {"type": "text", "text": "hello"}}],
        "modelPreferences": {"intelligencePriority": 0.9, "speedPriority": 0.1, "costPriority": 0},
        "maxTokens": 10,
    }


def test_what_the_request_says_of_the_manner_is_passed_on() -> None:
    written = params(ask(system="be kind", temperature=0.5, stop=("END",)))
    assert (written["systemPrompt"], written["temperature"], written["stopSequences"]) == ("be kind", 0.5, ["END"])


@pytest.mark.parametrize("model", ["", "auto", "mcp-external-sampling"])
def test_no_model_in_particular_is_no_hint(model: str) -> None:
    assert "hints" not in params(ask(), model)["modelPreferences"]


def test_the_name_of_a_model_is_a_hint() -> None:
    assert params(ask(), "sonnet")["modelPreferences"]["hints"] == [{"name": "sonnet"}]


def test_each_block_is_a_message_for_clients_that_take_only_simple_ones() -> None:
    blocks = (Text("what is"), Image("image/png", "aW1n"), Audio("audio/wav", "d2F2"))
    written = params(ask(Message(Role.USER, blocks)))["messages"]
    assert written == [
        {"role": "user", "content": {"type": "text", "text": "what is"}},
        {"role": "user", "content": {"type": "image", "data": "aW1n", "mimeType": "image/png"}},
        {"role": "user", "content": {"type": "audio", "data": "d2F2", "mimeType": "audio/wav"}},
    ]


def test_a_tool_round_is_written_for_clients_that_can_do_tools() -> None:
    request = ask(
        HELLO,
        Message(Role.ASSISTANT, (Text("let me see"), ToolUse("u1", "weather", {"at": "sea"}))),
        Message(Role.USER, (ToolResult("u1", (Text("no"), Image("image/png", "aW1n")), is_error=True),)),
        tools=(WEATHER,),
    )
    written = params(request, tools=True)
    assert written["messages"] == [
        {"role": "user", "content": {"type": "text", "text": "hello"}},
        {"role": "assistant", "content": [{"type": "text", "text": "let me see"}, USE]},
        {
            "role": "user",
            "content": {
                "type": "tool_result",
                "toolUseId": "u1",
                "content": [
                    {"type": "text", "text": "no"},
                    {"type": "image", "data": "aW1n", "mimeType": "image/png"},
                ],
                "isError": True,
            },
        },
    ]
    assert written["tools"] == [
        {"name": "weather", "description": "what it is like", "inputSchema": {"type": "object"}}
    ]
    assert "toolChoice" not in written


@pytest.mark.parametrize(
    "request_",
    [
        ask(tools=(WEATHER,)),
        ask(HELLO, Message(Role.ASSISTANT, (ToolUse("u", "t", {}),)), Message(Role.USER, (ToolResult("u", ()),))),
    ],
)
def test_clients_that_cannot_do_tools_are_not_given_any(request_: ChatRequest) -> None:
    assert needs_tools(request_)
    with pytest.raises(ChatError) as caught:
        params(request_)
    assert caught.value.problem is TOOLS_NOT_SUPPORTED


def test_a_certain_tool_is_the_only_one() -> None:
    choice = ToolChoice(ToolMode.REQUIRED, "weather")
    written = params(ask(tools=(Tool("other", {}), WEATHER), tool_choice=choice), tools=True)
    assert [tool["name"] for tool in written["tools"]] == ["weather"]
    assert written["toolChoice"] == {"mode": "required"}


def test_an_output_format_is_said_in_the_system_prompt() -> None:
    written = params(ask(system="be kind", output=OutputFormat({"type": "array"})))
    assert written["systemPrompt"].startswith("be kind\n\n")
    assert '{"type":"array"}' in written["systemPrompt"]


@pytest.mark.parametrize(
    ("reason", "stop"),
    [
        ("endTurn", StopReason.END),
        ("maxTokens", StopReason.MAX_TOKENS),
        ("stopSequence", StopReason.STOP_SEQUENCE),
        ("refusal", StopReason.REFUSAL),
        ("toolUse", StopReason.END),
        ("somethingElse", StopReason.END),
        (None, StopReason.END),
        ({}, StopReason.END),
    ],
)
def test_reasons_have_neutral_words(reason: Any, stop: StopReason) -> None:
    result = read_result(said("hi", stopReason=reason), ask())
    assert (result.text, result.model, result.stop) == ("hi", "clever-1", stop)


def test_a_tool_use_is_the_reason_whatever_the_client_says() -> None:
    result = read_result(answer({"type": "text", "text": "so"}, USE, stopReason="endTurn"), ask(tools=(WEATHER,)))
    assert result.content == (Text("so"), ToolUse("u1", "weather", {"at": "sea"}))
    assert result.stop is StopReason.TOOL_USE


def test_only_the_first_tool_use_is_kept_where_one_is_wanted() -> None:
    request = ask(tools=(WEATHER,), tool_choice=ToolChoice(parallel=False))
    result = read_result(answer(USE, {**USE, "id": "u2"}, {"type": "text", "text": "so"}), request)
    assert result.content == (ToolUse("u1", "weather", {"at": "sea"}), Text("so"))


def test_tool_uses_can_be_told_apart() -> None:
    result = read_result(answer(USE, USE, USE), ask(tools=(WEATHER,)))
    assert len({block.id for block in result.content if isinstance(block, ToolUse)}) == 3


@pytest.mark.parametrize("request_", [ask(), ask(tools=(WEATHER,), tool_choice=ToolChoice(ToolMode.NONE))])
def test_a_tool_use_that_was_not_wanted_is_not_passed_on(request_: ChatRequest) -> None:
    failure(answer(USE), request_)


def test_an_answer_ends_before_the_first_stop_text() -> None:
    result = read_result(said("one END two STOP", stopReason="maxTokens"), ask(stop=("STOP", "END")))
    assert (result.text, result.stop, result.stop_sequence) == ("one ", StopReason.STOP_SEQUENCE, "END")


def test_a_stop_text_ends_the_tool_uses_behind_it_too() -> None:
    result = read_result(answer({"type": "text", "text": "one END"}, USE), ask(tools=(WEATHER,), stop=("END",)))
    assert (result.content, result.stop) == ((Text("one "),), StopReason.STOP_SEQUENCE)


def test_the_stop_text_that_a_client_cut_itself_is_known_where_there_is_one() -> None:
    cut = said("one", stopReason="stopSequence")
    assert read_result(cut, ask(stop=("END",))).stop_sequence == "END"
    assert read_result(cut, ask(stop=("END", "STOP"))).stop_sequence is None


@pytest.mark.parametrize(
    "counted",
    [{"inputTokens": 3, "outputTokens": 4}, {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}],
)
def test_what_the_client_counted_is_believed(counted: Any) -> None:
    assert read_result(said("hi", _meta={"usage": counted}), ask()).usage == Usage(3, 4, estimated=False)


@pytest.mark.parametrize("meta", [None, {}, {"usage": {"inputTokens": -1, "outputTokens": True}}])
def test_tokens_are_guessed_otherwise(meta: Any) -> None:
    request = ask(Message(Role.USER, (Text("x" * 80),)))
    assert read_result(said("x" * 40, _meta=meta), request).usage == Usage(20, 10, estimated=True)


def test_an_error_that_comes_as_an_answer_is_an_error() -> None:
    assert failure(said("out of quota", stopReason="error")) == "the client reports an error: out of quota"


@pytest.mark.parametrize("kind", ["image", "audio"])
def test_pictures_and_recordings_are_not_passed_over_in_silence(kind: str) -> None:
    assert kind in failure(answer({"type": "text", "text": "look"}, {"type": kind, "data": "", "mimeType": "x/y"}))


@pytest.mark.parametrize("result", [None, {}, answer("hi"), answer({"type": "text"}), answer({**USE, "input": 1})])
def test_what_is_no_answer_is_the_sources_fault(result: Any) -> None:
    failure(result, ask(tools=(WEATHER,)))


WORDS = "text tool_use image audio error toolUse content stopReason"
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(WORDS.split()),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "text", "id", "name", "input", "usage", "inputTokens"]), inner, max_size=4
        )
    ),
    max_leaves=10,
)
ANSWERS = st.dictionaries(st.sampled_from(["content", "stopReason", "model", "_meta", "role"]), VALUES)


@settings(max_examples=200, deadline=None)
@given(VALUES | ANSWERS)
def test_whatever_comes_is_an_answer_or_the_sources_fault(result: Any) -> None:
    problems = []
    try:
        read_result(result, ask(tools=(WEATHER,), stop=("e",)))
    except ChatError as error:
        problems.append(error.problem)
    assert problems in ([], [SOURCE_ERROR])
