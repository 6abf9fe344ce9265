from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

from mcp_proxy.bridge.chat import ChatRequest, Delta, Ended, Message, Role, Started, StopReason, Text, TextDelta, Usage
from mcp_proxy.bridge.completions import Completions, Course
from mcp_proxy.bridge.errors import MODEL_NOT_FOUND, NOT_READY, SOURCE_ERROR, ChatError
from mcp_proxy.bridge.provider import SourceDown
from mcp_proxy.bridge.routes import Routes, Step

pytestmark = pytest.mark.anyio

USAGE = Usage(3, 2, estimated=False)
END = Ended(StopReason.END, USAGE)


def down(text: str) -> SourceDown:
    return SourceDown(ChatError(NOT_READY, text, retry_after=2))


class Scripted:
    """A source that gives these deltas, or raises what is among them."""

    def __init__(self, *script: Delta | Exception) -> None:
        self._script = script
        self.asked: list[tuple[str, int, str]] = []
        self.closed = False

    async def stream(
        self, ask: ChatRequest, model: str, *, max_tokens: int, tenant: str
    ) -> AsyncGenerator[Delta, None]:
        self.asked.append((model, max_tokens, tenant))
        try:
            for one in self._script:
                if isinstance(one, Exception):
                    raise one
                yield one
        finally:
            self.closed = True


def ask(**more: Any) -> ChatRequest:
    return ChatRequest(more.pop("model", "m"), (Message(Role.USER, (Text("hello"),)),), **more)


def completions(**sources: Scripted) -> Completions:
    steps = [Step(name, f"{name}-model") for name in sources]
    return Completions(Routes({"m": steps}, sources, sampling=False), sources, most_tokens=100)


async def told(service: Completions, request: ChatRequest, course: Course | None = None) -> list[Delta]:
    async with aclosing(service.stream(request, tenant="t", course=course or Course())) as deltas:
        return [delta async for delta in deltas]


def words(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))


async def test_the_first_source_answers_and_no_other_is_asked() -> None:
    first, second = Scripted(Started("gpt", 3), TextDelta("hi"), END), Scripted()
    course = Course()
    assert await told(completions(first=first, second=second), ask(), course) == [
        Started("gpt", 3),
        TextDelta("hi"),
        END,
    ]
    assert (first.asked, second.asked) == ([("first-model", 100, "t")], [])
    assert (course.source, course.model, course.attempts, course.usage) == ("first", "gpt", 1, USAGE)


async def test_a_source_that_is_down_is_passed_over() -> None:
    first, second = Scripted(down("1")), Scripted(Started("b", 1), END)
    course = Course()
    assert await told(completions(first=first, second=second), ask(), course) == [Started("b", 1), END]
    assert (course.source, course.attempts) == ("second", 2)


async def test_when_all_are_down_the_last_ones_error_is_told() -> None:
    with pytest.raises(ChatError, match="2") as raised:
        await told(completions(first=Scripted(down("1")), second=Scripted(down("2"))), ask())
    assert (raised.value.problem, raised.value.retry_after) == (NOT_READY, 2)


async def test_what_fails_for_good_is_not_tried_elsewhere() -> None:
    second = Scripted()
    with pytest.raises(ChatError, match="bad"):
        await told(completions(first=Scripted(ChatError(SOURCE_ERROR, "bad")), second=second), ask())
    assert second.asked == []


async def test_once_something_was_said_nobody_else_is_asked() -> None:
    second = Scripted()
    first = Scripted(Started("a", 1), TextDelta("x"), ChatError(SOURCE_ERROR, "broke"))
    with pytest.raises(ChatError, match="broke"):
        await told(completions(first=first, second=second), ask())
    assert second.asked == []


@pytest.mark.parametrize("script", [[], [Started("a", 1)], [Started("a", 1), TextDelta("x")]])
async def test_an_answer_without_an_end_is_an_error(script: list[Delta]) -> None:
    with pytest.raises(ChatError, match="broke off"):
        await told(completions(only=Scripted(*script)), ask())


@pytest.mark.parametrize(("wanted", "given"), [(None, 100), (7, 7), (100_000, 100)])
async def test_so_many_tokens_are_asked_for(wanted: int | None, given: int) -> None:
    source = Scripted(Started("a", 1), END)
    await told(completions(only=source), ask(max_tokens=wanted))
    assert source.asked[0][1] == given


async def test_an_answer_ends_at_a_stop_text_and_the_source_is_not_read_on() -> None:
    source = Scripted(Started("a", 1), TextDelta("one, two, "), TextDelta("three"), ChatError(SOURCE_ERROR, "too far"))
    deltas = await told(completions(only=source), ask(stop=("two",)))
    assert words(deltas) == "one, "
    assert isinstance(deltas[-1], Ended)
    assert (deltas[-1].stop, deltas[-1].stop_sequence) == (StopReason.STOP_SEQUENCE, "two")
    assert deltas[-1].usage.estimated
    assert source.closed


async def test_who_leaves_closes_the_source() -> None:
    source = Scripted(Started("a", 1), TextDelta("x"), END)
    async with aclosing(completions(only=source).stream(ask(), tenant="t", course=Course())) as deltas:
        await anext(deltas)
    assert source.closed


async def test_an_unknown_model_and_a_source_that_is_not_there_are_not_found() -> None:
    service = completions(only=Scripted())
    with pytest.raises(ChatError) as unknown:
        await told(service, ask(model="other"))
    lacking = Completions(Routes({"m": [Step("gone", "x")]}, []), {}, most_tokens=1)
    with pytest.raises(ChatError, match="gone") as absent:
        await told(lacking, ask())
    assert unknown.value.problem is absent.value.problem is MODEL_NOT_FOUND
