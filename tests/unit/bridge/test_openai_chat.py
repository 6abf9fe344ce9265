from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
from mcp_proxy.bridge.errors import (
    BAD_REQUEST,
    BUDGET_SPENT,
    NO_ANSWER,
    QUEUE_FULL,
    UNAUTHORIZED,
    UNSUPPORTED,
    ChatError,
    ChatProblem,
)
from mcp_proxy.bridge.wire.openai_chat import error_body, read, whole

HELLO = {"role": "user", "content": "hello"}
PNG = "data:image/png;base64,iVBORw0KGgo="
WEATHER = {"type": "function", "function": {"name": "weather", "description": "what it is like"}}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"at": "sea"}'}}
ASKED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
TOLD = {"role": "tool", "tool_call_id": "c1", "content": "fine"}
FULL: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "be brief"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": PNG}}],
        },
        {
            "role": "assistant",
            "content": "well",
            "refusal": None,
            "tool_calls": [CALL, {**CALL, "id": "c2", "function": {"name": "weather", "arguments": ""}}],
        },
        {**TOLD, "tool_call_id": "c2"},
        {**TOLD, "content": [{"type": "text", "text": "fine"}]},
        {"role": "developer", "content": [{"type": "text", "text": "be kind"}]},
        {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}}]},
    ],
    "tools": [WEATHER],
    "tool_choice": {"type": "function", "function": {"name": "weather"}},
    "parallel_tool_calls": False,
    "max_completion_tokens": 9,
    "max_tokens": 5,
    "temperature": 1.5,
    "stop": ["END", "FIN"],
    "stream": True,
    "stream_options": {"include_usage": True},
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True},
    },
    "n": 1,
    "logprobs": False,
    "modalities": ["text"],
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def asked(*messages: dict[str, Any], **more: Any) -> ChatRequest:
    return read({"model": "m", "messages": list(messages or [HELLO]), **more})


def refusal(*messages: dict[str, Any], **more: Any) -> tuple[ChatProblem, str | None]:
    with pytest.raises(ChatError) as raised:
        asked(*messages, **more)
    return raised.value.problem, raised.value.param


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all that stands in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, one in inner for place in places(one, (*at, key)))]


def spoiled(body: dict[str, Any]) -> st.SearchStrategy[Any]:
    """The body with anything at all in one place of it."""

    def put(place: tuple[Any, ...], value: Any) -> Any:
        whole = {"": copy.deepcopy(body)}
        inner: Any = whole
        path = ("", *place)
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        return whole[""]

    return st.builds(put, st.sampled_from(places(body)), JSON)


def check_turns(messages: tuple[Message, ...]) -> None:
    """Asserts the rules of `ChatRequest.messages`."""
    uses: list[str] = []
    for message in messages:
        results = [block.tool_use_id for block in message.content if isinstance(block, ToolResult)]
        assert message.content
        assert sorted(results) == sorted(uses)
        assert len(results) in (0, len(message.content))
        uses = [block.id for block in message.content if isinstance(block, ToolUse)]
    assert not uses


def check_read(value: Any, read: Callable[[Any], ChatRequest]) -> None:
    """Asserts that this is read, under the rules, or refused with an error that can be told."""
    try:
        check_turns(read(value).messages)
    except ChatError as error:
        refused = error
    else:
        return
    assert refused.problem in (BAD_REQUEST, UNSUPPORTED)
    assert json.dumps(error_body(refused, "r"))


def test_everything_that_can_be_honoured_is_read() -> None:
    assert read(FULL) == ChatRequest(
        model="m",
        system="be brief\n\nbe kind",
        messages=(
            Message(Role.USER, (Text("see"), Image("image/png", "iVBORw0KGgo="))),
            Message(
                Role.ASSISTANT,
                (Text("well"), ToolUse("c1", "weather", {"at": "sea"}), ToolUse("c2", "weather", {})),
            ),
            Message(Role.USER, (ToolResult("c2", (Text("fine"),)), ToolResult("c1", (Text("fine"),)))),
            Message(Role.USER, (Audio("audio/mpeg", "AAAA"),)),
        ),
        tools=(Tool("weather", {"type": "object"}, "what it is like"),),
        tool_choice=ToolChoice(ToolMode.REQUIRED, "weather", parallel=False),
        max_tokens=9,
        temperature=1.5,
        stop=("END", "FIN"),
        output=OutputFormat({"type": "object"}, "n", strict=True),
        stream=True,
        stream_usage=True,
    )


def test_a_request_can_be_as_short_as_its_words() -> None:
    assert read({"messages": [HELLO]}) == ChatRequest("", (Message(Role.USER, (Text("hello"),)),))
    nothing = dict.fromkeys(["tools", "stop", "temperature", "n", "response_format", "stream_options", "audio", "user"])
    assert asked(**nothing) == asked()


def test_the_older_name_of_the_limit_counts_where_the_newer_is_absent() -> None:
    assert asked(max_tokens=5).max_tokens == 5


def test_one_stop_text_can_stand_alone() -> None:
    assert asked(stop="END").stop == ("END",)


@pytest.mark.parametrize(
    ("given", "mode"), [("auto", ToolMode.AUTO), ("none", ToolMode.NONE), ("required", ToolMode.REQUIRED)]
)
def test_whether_tools_are_to_be_used_is_read(given: str, mode: ToolMode) -> None:
    assert asked(tools=[WEATHER], tool_choice=given).tool_choice == ToolChoice(mode)


@pytest.mark.parametrize(
    ("given", "output"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, OutputFormat()),
        ({"type": "json_schema", "json_schema": {"name": "n"}}, OutputFormat(None, "n")),
    ],
)
def test_formats_of_the_answer_are_read(given: Any, output: OutputFormat | None) -> None:
    assert asked(response_format=given).output == output


def test_what_only_changes_the_manner_is_named() -> None:
    strict = {"type": "function", "function": {"name": "f", "strict": True}}
    named = {"role": "user", "name": "Ann", "content": "hello"}
    shown = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": PNG, "detail": "high"}}]}
    manner = {"top_p": 0.5, "seed": 7, "user": "u", "metadata": {"a": "b"}, "store": True, "presence_penalty": 1}
    ask = asked(named, shown, tools=[strict], prompt_cache_key="k", service_tier=None, **manner)
    assert ask.ignored == (*manner, "tools.strict", "messages.name", "image_url.detail")
    assert asked(store=False).ignored == ()


def test_the_tools_of_this_service_can_be_wanted_in_two_ways() -> None:
    assert asked(mcp_tools=True).house_tools
    assert asked(tools=[{"type": "mcp", "server_label": "x", "require_approval": "never"}]).house_tools
    assert not asked(tools=[WEATHER]).house_tools


def test_words_of_the_assistant_and_its_calls_can_come_apart() -> None:
    ask = asked(HELLO, {"role": "assistant", "content": "let me see"}, ASKED, TOLD)
    assert ask.messages[1] == Message(Role.ASSISTANT, (Text("let me see"), ToolUse("c1", "weather", {"at": "sea"})))


def test_a_refusal_is_words_of_the_assistant() -> None:
    parts = [{"type": "text", "text": "no"}, {"type": "refusal", "refusal": "never"}]
    ask = asked(HELLO, {"role": "assistant", "content": parts}, HELLO, {"role": "assistant", "refusal": "I will not"})
    assert [message.content for message in ask.messages[1::2]] == [(Text("no"), Text("never")), (Text("I will not"),)]


def test_a_tool_can_show_pictures_and_nothing_else_beside_words() -> None:
    ask = asked(HELLO, ASKED, {**TOLD, "content": [{"type": "image_url", "image_url": {"url": PNG}}]})
    assert ask.messages[-1].content == (ToolResult("c1", (Image("image/png", "iVBORw0KGgo="),)),)
    sound = {**TOLD, "content": [{"type": "input_audio"}]}
    assert refusal(HELLO, ASKED, sound) == (UNSUPPORTED, "messages[2].content[0]")


def test_instructions_alone_are_put_as_the_users_words() -> None:
    ask = asked({"role": "system", "content": "say hello"})
    assert (ask.system, ask.messages) == (None, (Message(Role.USER, (Text("say hello"),)),))


def test_messages_that_say_nothing_are_left_out() -> None:
    ask = asked({"role": "user", "content": ""}, {"role": "assistant", "content": ""}, HELLO)
    assert ask.messages == (Message(Role.USER, (Text("hello"),)),)
    assert refusal({"role": "user", "content": ""}) == (BAD_REQUEST, "messages")


def part(**fields: Any) -> dict[str, Any]:
    return {"role": "user", "content": [fields]}


@pytest.mark.parametrize(
    ("message", "param"),
    [
        (part(type="image_url", image_url={"url": "https://a.b/c.png"}), "messages[0].content[0].image_url.url"),
        (part(type="file", file={"file_id": "f"}), "messages[0].content[0]"),
        (part(type="hologram"), "messages[0].content[0]"),
        ({"role": "system", "content": [{"type": "image_url"}]}, "messages[0].content[0]"),
        ({"role": "assistant", "content": [{"type": "image_url"}]}, "messages[0].content[0]"),
        ({"role": "assistant", "audio": {"id": "a"}}, "messages[0].audio"),
        ({"role": "assistant", "function_call": {"name": "f"}}, "messages[0].function_call"),
        ({"role": "assistant", "tool_calls": [{"type": "custom", "id": "c"}]}, "messages[0].tool_calls[0]"),
        ({"role": "function", "name": "f", "content": "x"}, "messages[0].role"),
    ],
)
def test_content_that_cannot_be_passed_on_is_refused_by_its_path(message: dict[str, Any], param: str) -> None:
    assert refusal(message) == (UNSUPPORTED, param)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"modalities": ["text", "audio"]}, "modalities[1]"),
        ({"audio": {"voice": "ash"}}, "audio"),
        ({"functions": [{}]}, "functions"),
        ({"function_call": "auto"}, "function_call"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"response_format": {"type": "grammar"}}, "response_format"),
        ({"tools": [{"type": "custom", "custom": {"name": "c"}}]}, "tools[0]"),
        ({"tools": [{"type": "mcp", "server_url": "https://a.b"}]}, "tools[0].server_url"),
        ({"tools": [{"type": "mcp", "connector_id": "c"}]}, "tools[0].connector_id"),
        ({"tools": [{"type": "mcp", "allowed_tools": ["a"]}]}, "tools[0].allowed_tools"),
        ({"tools": [{"type": "mcp", "require_approval": "always"}]}, "tools[0].require_approval"),
        ({"tools": [WEATHER], "tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
    ],
)
def test_what_would_make_it_another_answer_is_refused(fields: dict[str, Any], param: str) -> None:
    assert refusal(**fields) == (UNSUPPORTED, param)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": 5}, "model"),
        ({"messages": "hello"}, "messages"),
        ({"messages": ["hello"]}, "messages[0]"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [part(type="text", text=5)]}, "messages[0].content[0].text"),
        (
            {"messages": [part(type="image_url", image_url={"url": "data:image/png;base64,?"})]},
            "messages[0].content[0].image_url.url",
        ),
        (
            {"messages": [part(type="image_url", image_url={"url": "data:text/html;base64,AAAA"})]},
            "messages[0].content[0].image_url.url",
        ),
        (
            {"messages": [part(type="input_audio", input_audio={"data": "AAAA", "format": "ogg"})]},
            "messages[0].content[0].input_audio.format",
        ),
        ({"temperature": 2.5}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": "9"}, "max_completion_tokens"),
        ({"stop": ["a", ""]}, "stop[1]"),
        ({"stop": 5}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"n": 0}, "n"),
        ({"tools": [WEATHER, WEATHER]}, "tools[1].function.name"),
        ({"tools": [{"type": "function", "name": "flat"}]}, "tools[0].function"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "array"}}}]},
            "tools[0].function.parameters.type",
        ),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "maybe"}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
        ({"parallel_tool_calls": 1}, "parallel_tool_calls"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": []}}},
            "response_format.json_schema.schema",
        ),
        ({"mcp_tools": "all"}, "mcp_tools"),
    ],
)
def test_a_value_that_is_wrong_is_named_by_its_path(fields: dict[str, Any], param: str) -> None:
    assert refusal(**fields) == (BAD_REQUEST, param)


@pytest.mark.parametrize("text", ["[1]", "{", "NaN", '{"a": 1, "a": 2}'])
def test_arguments_that_are_no_json_object_are_refused(text: str) -> None:
    call = {**CALL, "function": {"name": "weather", "arguments": text}}
    assert refusal({"role": "assistant", "tool_calls": [call]}) == (
        BAD_REQUEST,
        "messages[0].tool_calls[0].function.arguments",
    )


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([HELLO, ASKED], "messages[1]"),
        ([HELLO, ASKED, HELLO], "messages[2]"),
        ([HELLO, TOLD], "messages[1].tool_call_id"),
        ([HELLO, ASKED, TOLD, TOLD], "messages[3].tool_call_id"),
        ([HELLO, {"role": "assistant", "tool_calls": [CALL, CALL]}, TOLD], "messages[1]"),
        ([HELLO, {"role": "assistant", "tool_calls": [CALL, {**CALL, "id": "c2"}]}, TOLD, ASKED], "messages[3]"),
    ],
)
def test_calls_and_results_must_fit(messages: list[dict[str, Any]], param: str) -> None:
    assert refusal(*messages) == (BAD_REQUEST, param)


@settings(deadline=None)
@given(JSON | spoiled(FULL))
def test_any_json_is_read_or_refused_in_our_words(value: Any) -> None:
    check_read(value, read)


RESULT = ChatResult(
    (Text("let "), ToolUse("c1", "f", {"ü": [1]}), Text("see")), StopReason.TOOL_USE, "clever-1", Usage(3, 4)
)


def test_an_answer_is_a_completion_with_the_fields_that_old_clients_read() -> None:
    told = whole(RESULT, asked(), id="chatcmpl-1", created=5)
    (choice,) = told.pop("choices")
    assert choice == {
        "index": 0,
        "message": {
            "role": "assistant",
            "content": "let see",
            "refusal": None,
            "annotations": [],
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"ü": [1]}'}}],
        },
        "logprobs": None,
        "finish_reason": "tool_calls",
    }
    usage = told.pop("usage")
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (3, 4, 7)
    assert told == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 5,
        "model": "clever-1",
        "text": "let see",
        "request_id": "chatcmpl-1",
    }


@pytest.mark.parametrize(
    ("stop", "content", "finish"),
    [
        (StopReason.END, (Text("a"),), "stop"),
        (StopReason.STOP_SEQUENCE, (Text("a"),), "stop"),
        (StopReason.MAX_TOKENS, (Text("a"),), "length"),
        (StopReason.REFUSAL, (Text("a"),), "content_filter"),
        (StopReason.END, (ToolUse("c", "f", {}),), "tool_calls"),
        (StopReason.MAX_TOKENS, (ToolUse("c", "f", {}),), "length"),
        (StopReason.TOOL_USE, (), "stop"),
    ],
)
def test_why_it_ends_is_said_as_agents_go_by_it(stop: StopReason, content: Any, finish: str) -> None:
    told = whole(ChatResult(content, stop, "m", Usage(1, 1)), asked(), id="i", created=0)
    assert told["choices"][0]["finish_reason"] == finish


def test_content_is_null_only_beside_tool_calls() -> None:
    def content(*blocks: Any) -> Any:
        told = whole(ChatResult(blocks, StopReason.END, "m", Usage(1, 1)), asked(), id="i", created=0)
        return told["choices"][0]["message"]["content"]

    assert (content(), content(ToolUse("c", "f", {}))) == ("", None)


@pytest.mark.parametrize(
    ("problem", "kind", "code"),
    [
        (BAD_REQUEST, "invalid_request_error", "invalid_request"),
        (UNAUTHORIZED, "authentication_error", "invalid_api_key"),
        (BUDGET_SPENT, "insufficient_quota", "insufficient_quota"),
        (QUEUE_FULL, "rate_limit_error", "queue_full"),
        (NO_ANSWER, "server_error", "no_answer"),
    ],
)
def test_errors_have_the_envelope_that_clients_read(problem: ChatProblem, kind: str, code: str) -> None:
    assert error_body(ChatError(problem, "so it is", param="n"), "req-1") == {
        "error": {"message": "so it is", "type": kind, "param": "n", "code": code},
        "request_id": "req-1",
    }
