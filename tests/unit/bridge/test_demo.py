from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mcp_proxy.bridge.chat import (
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
    gathered,
    question_tokens,
)
from mcp_proxy.bridge.completions import Completions, Course
from mcp_proxy.bridge.demo import MODEL, PAUSE, Demo, answer
from mcp_proxy.bridge.errors import BAD_REQUEST, ChatError
from mcp_proxy.bridge.routes import Routes, Step

pytestmark = pytest.mark.anyio

NUMBERS = {
    "type": "object",
    "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
    "required": ["a", "b"],
}
PLACE = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
ADD, MULTIPLY, WEATHER = Tool("add", NUMBERS), Tool("calc__multiply", NUMBERS), Tool("get_weather", PLACE)
TOOLS = (ADD, MULTIPLY, WEATHER)


def said(text: str, *before: Message, **more: Any) -> ChatRequest:
    return ChatRequest(MODEL, (*before, Message(Role.USER, (Text(text),))), **more)


def uses(ask: ChatRequest, max_tokens: int = 1000) -> list[tuple[str, dict[str, Any]]]:
    """The tools that are used, with their arguments."""
    result = answer(ask, max_tokens)
    found = [block for block in result.content if isinstance(block, ToolUse)]
    assert result.stop is (StopReason.TOOL_USE if found else StopReason.END)
    assert len({use.id for use in found}) == len(found)
    return [(use.name, dict(use.arguments)) for use in found]


def noting(paused: list[float]) -> Callable[[float], Awaitable[None]]:
    async def pause(seconds: float) -> None:
        paused.append(seconds)

    return pause


async def streamed(ask: ChatRequest, paused: list[float], max_tokens: int = 1000) -> list[Delta]:
    demo = Demo(noting(paused))
    return [delta async for delta in demo.stream(ask, "", max_tokens=max_tokens, tenant="ada")]


# Words


async def test_it_says_what_it_is_and_what_it_saw() -> None:
    result = answer(said("How  are\nyou today?", system="Be brief.", tools=(ADD, WEATHER)), 1000)
    assert (result.model, result.stop) == (MODEL, StopReason.END)
    assert "demo model" in result.text
    assert "“How are you today?”" in result.text
    assert "6 words" in result.text
    assert "2 tools (add, get_weather)" in result.text


async def test_a_long_question_is_repeated_in_its_beginning_only() -> None:
    result = answer(said("word " * 5000), 1000)
    assert "5000 words" in result.text
    assert len(result.text) < 500


async def test_the_same_question_has_the_same_answer() -> None:
    for ask in (said("Hello"), said("add 2 and 3", tools=TOOLS), said("Hi", output=OutputFormat(NUMBERS))):
        assert answer(ask, 1000) == answer(ask, 1000)


async def test_tokens_are_estimated() -> None:
    ask = said("Hello")
    usage = answer(ask, 1000).usage
    assert (usage.input_tokens, usage.estimated) == (question_tokens(ask), True)
    assert usage.output_tokens > 10


async def test_a_stream_comes_word_by_word_with_a_pause_between() -> None:
    paused: list[float] = []
    deltas = await streamed(said("Hello", stream=True), paused)
    words = [delta for delta in deltas if isinstance(delta, TextDelta)]
    assert isinstance(deltas[0], Started)
    assert isinstance(deltas[-1], Ended)
    assert max(len(word.text.split()) for word in words) == 1
    assert paused == [PAUSE] * len(words)
    assert gathered(deltas) == answer(said("Hello"), 1000)


async def test_an_answer_that_is_not_streamed_does_not_pause() -> None:
    paused: list[float] = []
    await streamed(said("Hello"), paused)
    assert paused == []


async def test_an_answer_ends_at_the_tokens_that_are_allowed() -> None:
    whole, short = answer(said("Hello"), 1000), answer(said("Hello"), 3)
    assert short.text == whole.text[:12]
    assert (short.stop, short.usage.output_tokens) == (StopReason.MAX_TOKENS, 3)


@pytest.mark.parametrize(
    ("stops", "sequence"), [(["model"], "model"), (["script", "demo"], "demo"), (["", "am "], "am ")]
)
async def test_an_answer_ends_before_the_first_stop_text(stops: list[str], sequence: str) -> None:
    result = answer(said("Hello", stop=tuple(stops)), 1000)
    assert (result.stop, result.stop_sequence) == (StopReason.STOP_SEQUENCE, sequence)
    assert sequence not in result.text
    assert answer(said("Hello"), 1000).text.startswith(result.text + sequence)


async def test_a_stop_text_beyond_the_allowed_tokens_is_not_met() -> None:
    assert answer(said("Hello", stop=("tokens",)), 3).stop is StopReason.MAX_TOKENS


# Tools


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("add 2 and 3.", [("add", {"a": 2, "b": 3})]),
        ("ADD -2.5 and 3", [("add", {"a": -2.5, "b": 3})]),
        ("multiply 4 with 5", [("calc__multiply", {"a": 4, "b": 5})]),
        ("use calc__multiply on 4 and 5", [("calc__multiply", {"a": 4, "b": 5})]),
        ('Get me the weather in "Oslo"', [("get_weather", {"city": "Oslo"})]),
        ('get_weather {"city": "Oslo"}', [("get_weather", {"city": "Oslo"})]),
        (
            "add 2 and 3, then multiply 4 with 5",
            [("add", {"a": 2, "b": 3}), ("calc__multiply", {"a": 4, "b": 5})],
        ),
        (
            "multiply and add 4 and 5",
            [("calc__multiply", {"a": 4, "b": 5}), ("add", {"a": 4, "b": 5})],
        ),
        ("an address, and the weather", []),
        ("Hello", []),
    ],
)
async def test_tools_that_the_question_names_are_used(text: str, expected: list[Any]) -> None:
    assert uses(said(text, tools=TOOLS)) == expected


async def test_a_name_within_a_longer_one_is_not_named_by_that() -> None:
    tools = (Tool("get", PLACE), Tool("get-all", PLACE))
    assert [name for name, _ in uses(said('get-all "x"', tools=tools))] == ["get-all"]


async def test_words_of_a_name_may_be_written_in_any_way() -> None:
    for name in ("getWeather", "get-weather", "GetWeather", "place.get_weather", "get weather"):
        assert uses(said('weather? get it for "Oslo"', tools=(Tool(name, PLACE),))) == [(name, {"city": "Oslo"})]


async def test_one_at_a_time_where_the_caller_wants_it_so() -> None:
    ask = said("add 2 and 3, then multiply 4 with 5", tools=TOOLS, tool_choice=ToolChoice(parallel=False))
    assert [name for name, _ in uses(ask)] == ["add"]


async def test_no_tool_is_used_where_none_is_to_be() -> None:
    assert uses(said("add 2 and 3", tools=TOOLS, tool_choice=ToolChoice(ToolMode.NONE))) == []


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        (ToolChoice(ToolMode.REQUIRED), ["add"]),
        (ToolChoice(ToolMode.REQUIRED, "get_weather"), ["get_weather"]),
        (ToolChoice(ToolMode.REQUIRED, parallel=False), ["add"]),
    ],
)
async def test_a_tool_that_has_to_be_used_is(choice: ToolChoice, names: list[str]) -> None:
    assert [name for name, _ in uses(said("Hello", tools=TOOLS, tool_choice=choice))] == names


async def test_of_required_tools_those_that_are_named_are_used() -> None:
    ask = said("weather: get it", tools=TOOLS, tool_choice=ToolChoice(ToolMode.REQUIRED))
    assert [name for name, _ in uses(ask)] == ["get_weather"]


async def test_half_a_tool_use_is_none() -> None:
    ask = said("add 2 and 3, then multiply 4 with 5", tools=TOOLS)
    first = answer(ask, 7)
    assert [block.name for block in first.content if isinstance(block, ToolUse)] == ["add"]
    assert first.stop is StopReason.MAX_TOKENS
    assert answer(ask, 2).content == ()


def after_tools(*results: ToolResult, then: str | None = None, **more: Any) -> ChatRequest:
    question = said("add 2 and 3, and get the weather", tools=TOOLS, **more)
    first = answer(question, 1000)
    assert isinstance(first, ChatResult)
    messages = (*question.messages, Message(Role.ASSISTANT, first.content), Message(Role.USER, results))
    if then is not None:
        messages = (*messages, Message(Role.USER, (Text(then),)))
    return ChatRequest(MODEL, messages, tools=TOOLS, **more)


async def test_what_tools_answered_is_said_in_a_sentence_each() -> None:
    ask = after_tools(
        ToolResult("call_demo_1", (Text("5"),)),
        ToolResult("call_demo_2", (Text("no\nsuch  place"), Image("image/png", "AA==")), is_error=True),
        ToolResult("call_other", ()),
    )
    result = answer(ask, 1000)
    assert result.stop is StopReason.END
    assert result.text == (
        "The tool add answered: 5. The tool get_weather failed and said: no such place (image/png)."
        " The tool call_other answered: nothing."
    )


async def test_words_beside_what_tools_answered_do_not_start_them_again() -> None:
    ask = after_tools(ToolResult("call_demo_1", (Text("5"),)), then="You may add more.")
    assert answer(ask, 1000).text == "The tool add answered: 5."


async def test_later_questions_use_tools_again_under_other_ids() -> None:
    ask = after_tools(ToolResult("call_demo_1", (Text("5"),)))
    again = (*ask.messages, Message(Role.ASSISTANT, (Text("5"),)), Message(Role.USER, (Text("add 7 and 8"),)))
    result = answer(ChatRequest(MODEL, again, tools=TOOLS), 1000)
    assert result.content == (ToolUse("call_demo_3", "add", {"a": 7, "b": 8}),)


# Forms


async def test_an_answer_in_a_form_is_json_of_it() -> None:
    assert answer(said("2 and 3", output=OutputFormat(NUMBERS)), 1000).text == '{"a":2,"b":3}'


async def test_an_answer_in_a_form_comes_after_the_tools() -> None:
    output = OutputFormat(PLACE)
    assert [name for name, _ in uses(said("add 2 and 3", tools=TOOLS, output=output))] == ["add"]
    ask = after_tools(ToolResult("call_demo_1", (Text("5"),)), output=output)
    assert answer(ask, 1000).text == '{"city":"demo"}'


async def test_a_form_that_cannot_be_used_is_refused() -> None:
    with pytest.raises(ChatError) as refused:
        answer(said("Hi", output=OutputFormat({"type": "nonsense"})), 1000)
    assert refused.value.problem is BAD_REQUEST


async def test_it_is_a_source_of_completions() -> None:
    routes = Routes({"demo": [Step("demo", "")]}, [], sampling=False)
    course = Course()
    stream = Completions(routes, {"demo": Demo(noting([]))}, 100).stream(said("Hello"), tenant="ada", course=course)
    assert "“Hello”" in gathered([delta async for delta in stream]).text
    assert (course.source, course.model) == ("demo", MODEL)
