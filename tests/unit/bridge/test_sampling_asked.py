from __future__ import annotations

import math
from dataclasses import replace
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
from mcp_proxy.bridge.errors import BAD_REQUEST, SOURCE_ERROR, UNSUPPORTED, ChatError, ChatProblem
from mcp_proxy.bridge.sampling import Priorities, read_result
from mcp_proxy.bridge.sampling import write as write_params
from mcp_proxy.bridge.sampling_asked import read, write

HELLO = {"role": "user", "content": {"type": "text", "text": "hello"}}
USE = {"type": "tool_use", "id": "u1", "name": "weather", "input": {"at": "sea"}}
RESULT = {"type": "tool_result", "toolUseId": "u1", "content": [{"type": "text", "text": "wet"}]}
ASKED = {"role": "assistant", "content": USE}
TOOL = {"name": "weather", "inputSchema": {"type": "object"}}
COUNTED = Usage(3, 4, estimated=False)


def params(*messages: Any, **more: Any) -> dict[str, Any]:
    return {"messages": list(messages or (HELLO,)), "maxTokens": 10, **more}


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(content)}


def refusal(given: Any) -> tuple[ChatProblem, str | None]:
    with pytest.raises(ChatError) as caught:
        read(given)
    return caught.value.problem, caught.value.param


def result(*content: Text | ToolUse, **more: Any) -> ChatResult:
    return ChatResult(content, more.pop("stop", StopReason.END), "clever-1", more.pop("usage", COUNTED), **more)


# Reading


def test_the_simplest_request_leaves_everything_open() -> None:
    assert read(params()) == ChatRequest("", (Message(Role.USER, (Text("hello"),)),), max_tokens=10)


def test_everything_that_can_be_asked_for_is_read() -> None:
    asked = read(
        params(
            systemPrompt="be kind",
            temperature=0,
            stopSequences=["END", "STOP"],
            modelPreferences={"hints": [{"name": "sonnet"}, {"name": "other"}], "costPriority": 0.3},
            tools=[{**TOOL, "description": "what it is like", "title": "Weather"}],
            toolChoice={"mode": "required"},
        )
    )
    assert (asked.model, asked.system, asked.temperature, asked.stop) == ("sonnet", "be kind", 0.0, ("END", "STOP"))
    assert asked.tools == (Tool("weather", {"type": "object"}, "what it is like"),)
    assert asked.tool_choice == ToolChoice(ToolMode.REQUIRED)


@pytest.mark.parametrize("preferences", [None, {}, {"hints": []}, {"hints": None}, {"hints": [{}]}])
def test_without_a_hint_no_model_is_named(preferences: Any) -> None:
    assert read(params(modelPreferences=preferences)).model == ""


def test_words_that_change_nothing_for_a_provider_are_named_as_ignored() -> None:
    assert read(params(includeContext="thisServer", metadata={"a": 1})).ignored == ("includeContext", "metadata")
    assert read(params(includeContext="none", metadata={}, somethingNew=[1])).ignored == ()


def test_each_kind_of_content_is_read_alone_or_in_a_row() -> None:
    image = {"type": "image", "data": "aW1n", "mimeType": "image/png"}
    audio = {"type": "audio", "data": "d2F2", "mimeType": "audio/wav"}
    asked = read(params({"role": "user", "content": image}, user(HELLO["content"], image, audio)))
    shown, heard = Image("image/png", "aW1n"), Audio("audio/wav", "d2F2")
    assert [message.content for message in asked.messages] == [(shown,), (Text("hello"), shown, heard)]


def test_a_round_of_tools_is_read() -> None:
    asked = read(params(HELLO, ASKED, user({**RESULT, "isError": True}), tools=[TOOL]))
    assert asked.messages[1:] == (
        Message(Role.ASSISTANT, (ToolUse("u1", "weather", {"at": "sea"}),)),
        Message(Role.USER, (ToolResult("u1", (Text("wet"),), is_error=True),)),
    )


def test_a_result_that_is_structured_only_is_told_as_json() -> None:
    structured = {"type": "tool_result", "toolUseId": "u1", "content": [], "structuredContent": {"ö": 10**30}}
    asked = read(params(HELLO, ASKED, user(structured)))
    assert asked.messages[-1].content == (ToolResult("u1", (Text('{"ö": 1000000000000000000000000000000}'),)),)


@pytest.mark.parametrize("kind", ["resource", "resource_link", "hologram"])
def test_content_that_no_model_is_given_is_not_supported(kind: str) -> None:
    other = {"type": kind, "uri": "file:///x"}
    assert refusal(params(HELLO, user(HELLO["content"], other))) == (UNSUPPORTED, "messages[1].content[1]")
    assert refusal(params({"role": "user", "content": other})) == (UNSUPPORTED, "messages[0].content")
    nested = params(HELLO, ASKED, user({**RESULT, "content": [other]}))
    assert refusal(nested) == (UNSUPPORTED, "messages[2].content[0].content[0]")


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({}, "messages"),
        ({"messages": [HELLO]}, "maxTokens"),
        ({"messages": [], "maxTokens": 1}, "messages"),
        (params(maxTokens=True), "maxTokens"),
        (params(maxTokens=1.5), "maxTokens"),
        (params(maxTokens=0), "maxTokens"),
        (params("hello"), "messages[0]"),
        (params({"role": "system", "content": HELLO["content"]}), "messages[0].role"),
        (params({"role": [], "content": HELLO["content"]}), "messages[0].role"),
        (params({"role": "user", "content": "hello"}), "messages[0].content"),
        (params(user()), "messages[0].content"),
        (params(user({"type": "text", "text": 1})), "messages[0].content[0].text"),
        (params(user({"type": {}})), "messages[0].content[0].type"),
        (params(user({"type": "image", "data": "!", "mimeType": "image/png"})), "messages[0].content[0].data"),
        (params(user({"type": "image", "data": "aW1n"})), "messages[0].content[0].mimeType"),
        (params(user(USE)), "messages[0].content[0].type"),
        (params(HELLO, {"role": "assistant", "content": RESULT}), "messages[1].content.type"),
        (params(systemPrompt=[]), "systemPrompt"),
        (params(temperature=True), "temperature"),
        (params(temperature=math.nan), "temperature"),
        (params(temperature=-1), "temperature"),
        (params(stopSequences="END"), "stopSequences"),
        (params(stopSequences=["END", ""]), "stopSequences[1]"),
        (params(modelPreferences="sonnet"), "modelPreferences"),
        (params(modelPreferences={"hints": {}}), "modelPreferences.hints"),
        (params(modelPreferences={"hints": ["sonnet"]}), "modelPreferences.hints[0]"),
        (params(modelPreferences={"hints": [{"name": 1}]}), "modelPreferences.hints[0].name"),
        (params(tools={}), "tools"),
        (params(tools=[{"inputSchema": {}}]), "tools[0].name"),
        (params(tools=[{"name": "a"}]), "tools[0].inputSchema"),
        (params(tools=[TOOL, TOOL]), "tools[1].name"),
        (params(tools=[TOOL], toolChoice="auto"), "toolChoice"),
        (params(tools=[TOOL], toolChoice={"mode": "weather"}), "toolChoice.mode"),
        (params(toolChoice={"mode": "required"}), "toolChoice"),
    ],
)
def test_what_is_not_of_the_protocol_is_refused_by_its_path(given: Any, param: str) -> None:
    assert refusal(given) == (BAD_REQUEST, param)


@pytest.mark.parametrize(
    "messages",
    [
        (HELLO, ASKED),
        (HELLO, ASKED, HELLO),
        (HELLO, user(RESULT)),
        (HELLO, ASKED, user(RESULT, HELLO["content"])),
        (HELLO, ASKED, user(RESULT, RESULT)),
        (HELLO, ASKED, user({**RESULT, "toolUseId": "u2"})),
        (HELLO, {"role": "assistant", "content": [USE, USE]}, user(RESULT)),
    ],
)
def test_results_that_do_not_fit_their_uses_are_refused(messages: tuple[Any, ...]) -> None:
    assert refusal(params(*messages))[0] is BAD_REQUEST


# Writing


def test_an_answer_without_tools_is_one_block() -> None:
    assert write(result(Text("so "), Text("be it")), tools=False) == {
        "role": "assistant",
        "content": {"type": "text", "text": "so be it"},
        "model": "clever-1",
        "stopReason": "endTurn",
        "_meta": {"usage": {"inputTokens": 3, "outputTokens": 4}},
    }


def test_an_answer_with_tools_is_a_row_of_blocks() -> None:
    written = write(result(Text("so"), ToolUse("u1", "weather", {"at": "sea"}), stop=StopReason.TOOL_USE), tools=True)
    assert (written["content"], written["stopReason"]) == ([{"type": "text", "text": "so"}, USE], "toolUse")


@pytest.mark.parametrize("tools", [False, True])
def test_an_answer_without_words_has_an_empty_one(tools: bool) -> None:
    nothing = {"type": "text", "text": ""}
    assert write(result(), tools=tools)["content"] == ([nothing] if tools else nothing)


def test_tokens_that_were_only_guessed_are_not_told() -> None:
    assert "_meta" not in write(result(Text("so"), usage=Usage(1, 1)), tools=False)


def test_a_tool_that_nobody_gave_is_not_used() -> None:
    with pytest.raises(ChatError) as caught:
        write(result(ToolUse("u", "weather", {})), tools=False)
    assert caught.value.problem is SOURCE_ERROR


# There and back

NAMES = st.text("abc_", min_size=1, max_size=6)
WORDS = st.text(max_size=12).map(Text)
SHOWN = WORDS | st.just(Image("image/png", "aW1n"))
SAID = SHOWN | st.just(Audio("audio/wav", "d2F2"))
ARGUMENTS = st.dictionaries(NAMES, st.integers() | st.text(max_size=5) | st.none(), max_size=2)


@st.composite
def turns(draw: st.DrawFn) -> tuple[Message, ...]:
    """A conversation by the rules: each use of a tool has its result."""
    messages = [Message(Role.USER, tuple(draw(st.lists(SAID, min_size=1, max_size=3))))]
    for names in draw(st.lists(st.lists(NAMES, max_size=3), max_size=3)):
        uses = [ToolUse(f"u{index}", name, draw(ARGUMENTS)) for index, name in enumerate(names)]
        messages.append(Message(Role.ASSISTANT, (draw(WORDS), *uses)))
        if uses:
            results = (
                ToolResult(use.id, tuple(draw(st.lists(SHOWN, max_size=2))), draw(st.booleans())) for use in uses
            )
            messages.append(Message(Role.USER, tuple(results)))
    return tuple(messages)


@st.composite
def requests(draw: st.DrawFn) -> ChatRequest:
    tools = tuple(Tool(name, {"type": "object"}, "x") for name in draw(st.sets(NAMES, max_size=2)))
    modes = [ToolMode.AUTO, ToolMode.NONE, ToolMode.REQUIRED] if tools else [ToolMode.AUTO]
    return ChatRequest(
        model=draw(st.sampled_from(["", "sonnet", "a/b"])),
        messages=draw(turns()),
        system=draw(st.none() | st.text(min_size=1, max_size=9)),
        tools=tools,
        tool_choice=ToolChoice(draw(st.sampled_from(modes))),
        max_tokens=draw(st.integers(1, 2**31 - 1)),
        temperature=draw(st.none() | st.floats(0, 2)),
        stop=tuple(draw(st.lists(st.text(min_size=1, max_size=3), max_size=2))),
    )


@settings(max_examples=200, deadline=None)
@given(requests())
def test_what_one_side_asks_is_what_the_other_reads(ask: ChatRequest) -> None:
    assert ask.max_tokens is not None
    assert read(write_params(ask, ask.model, max_tokens=ask.max_tokens, priorities=Priorities(), tools=True)) == ask


@settings(max_examples=100, deadline=None)
@given(st.lists(SAID, min_size=1, max_size=4))
def test_content_that_was_told_block_by_block_is_all_there(blocks: list[Any]) -> None:
    ask = ChatRequest("m", (Message(Role.USER, tuple(blocks)),))
    asked = read(write_params(ask, "m", max_tokens=1, priorities=Priorities()))
    assert [block for message in asked.messages for block in message.content] == blocks


@settings(max_examples=200, deadline=None)
@given(
    st.lists(WORDS | st.builds(ToolUse, NAMES, NAMES, ARGUMENTS), min_size=1, max_size=4, unique_by=str),
    st.sampled_from(StopReason),
    st.builds(Usage, st.integers(0, 10**9), st.integers(0, 10**9), st.just(False)),
)
def test_what_one_side_answers_is_what_the_other_hears(content: list[Any], stop: StopReason, usage: Usage) -> None:
    uses = [block for block in content if isinstance(block, ToolUse)]
    content = [replace(block, id=f"u{at}") if isinstance(block, ToolUse) else block for at, block in enumerate(content)]
    stop = StopReason.TOOL_USE if uses else stop if stop is not StopReason.TOOL_USE else StopReason.END
    answered = ChatResult(tuple(content), stop, "clever-1", usage)
    ask = ChatRequest("m", (Message(Role.USER, (Text("hi"),)),), tools=(Tool("weather", {}),))
    assert read_result(write(answered, tools=True), ask) == answered
    if not uses:
        plain = replace(answered, content=(Text(answered.text),))
        assert read_result(write(answered, tools=False), replace(ask, tools=())) == plain


# Whatever comes

FIELDS = [
    "messages",
    "maxTokens",
    "systemPrompt",
    "temperature",
    "stopSequences",
    "modelPreferences",
    "tools",
    "toolChoice",
    "includeContext",
    "metadata",
    "role",
    "content",
    "type",
    "text",
    "data",
    "mimeType",
    "id",
    "name",
    "input",
    "toolUseId",
    "isError",
    "structuredContent",
    "hints",
    "mode",
    "inputSchema",
]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([*FIELDS, "user", "assistant", "text", "tool_use", "tool_result", "image", "aW1n", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=12,
)
BLOCKS = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image", "audio", "tool_use", "tool_result"])},
    optional=dict.fromkeys(("text", "data", "mimeType", "id", "name", "input", "toolUseId", "content"), VALUES),
)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": BLOCKS | st.lists(BLOCKS)})
    | VALUES,
    max_size=3,
)
PARAMS = st.fixed_dictionaries(
    {"messages": MESSAGES, "maxTokens": st.integers(1, 9) | VALUES}, optional=dict.fromkeys(FIELDS[2:10], VALUES)
)


@settings(max_examples=300, deadline=None)
@given(PARAMS | st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=6))
def test_whatever_is_asked_is_understood_or_refused(given_: Any) -> None:
    problems = []
    try:
        read(given_)
    except ChatError as error:
        problems.append(error.problem)
    assert problems in ([], [BAD_REQUEST], [UNSUPPORTED])


def test_a_structured_result_that_is_nested_too_deep_is_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"a": deep}
    asked = params(HELLO, ASKED, user({**RESULT, "content": [], "structuredContent": deep}))
    problem = refusal(asked)
    while deep:  # taken apart by hand: the interpreter would go as deep
        deep = deep.pop("a")
    assert problem == (BAD_REQUEST, "messages[2].content[0].structuredContent")
