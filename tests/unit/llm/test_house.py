from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mcp_proxy.base.errors import INVALID_ARGUMENTS, TOOL_NOT_FOUND, ProxyError
from mcp_proxy.base.json import decode_fields
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.bridge.chat import (
    ArgumentsDelta,
    ChatRequest,
    ChatResult,
    Delta,
    Ended,
    HouseCall,
    HouseResult,
    HouseUse,
    Message,
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
    gathered,
)
from mcp_proxy.bridge.completions import Completions, Course
from mcp_proxy.bridge.errors import BAD_REQUEST, BUDGET_SPENT, FORBIDDEN, SOURCE_ERROR, ChatError
from mcp_proxy.bridge.routes import Routes, Step
from mcp_proxy.core.auth.principal import Principal
from mcp_proxy.core.calls import CallPath, Outcome, Progress
from mcp_proxy.core.catalog.snapshot import Catalog
from mcp_proxy.core.routing import Call
from mcp_proxy.llm.house import AT_ONCE, ROUNDS, HouseTools
from tests.harness import eventually
from tests.unit.core.catalog.offers import catalogue, with_tools
from tests.unit.core.fakes import FakeClock, server

pytestmark = pytest.mark.anyio

ANYBODY = Principal("anybody")
CATALOG = catalogue(with_tools(server("calc"), "add", "slow"), with_tools(server("files"), "read"))
OWN = Tool("own", {"type": "object"})
PNG = {"type": "image", "mimeType": "image/png", "data": "iVBORw0KGgo="}
Answer = Callable[[Call], Awaitable[Any]]
Script = Sequence[Delta | Exception]


def use(id: str, name: str, arguments: str = "{}") -> list[Delta]:
    """In pieces, as models say it."""
    half = len(arguments) // 2
    return [ToolUseStarted(id, name), ArgumentsDelta(id, arguments[:half]), ArgumentsDelta(id, arguments[half:])]


def says(*content: Delta | list[Delta] | str, stop: StopReason | None = None, tokens: int = 10) -> list[Delta]:
    """One answer of a model, which ends as models end it."""
    deltas: list[Delta] = []
    for one in content:
        deltas += [TextDelta(one)] if isinstance(one, str) else one if isinstance(one, list) else [one]
    used = any(isinstance(delta, ToolUseStarted) for delta in deltas)
    stop = stop or (StopReason.TOOL_USE if used else StopReason.END)
    return [Started("clever-1", tokens), *deltas, Ended(stop, Usage(tokens, 2, estimated=False))]


class Model:
    """A source that says these answers, one after the other, and the last of them for ever."""

    def __init__(self, *answers: Script) -> None:
        self.answers = answers
        self.asked: list[ChatRequest] = []

    async def stream(
        self, ask: ChatRequest, model: str, *, max_tokens: int, tenant: str
    ) -> AsyncGenerator[Delta, None]:
        self.asked.append(ask)
        for one in self.answers[min(len(self.asked), len(self.answers)) - 1]:
            if isinstance(one, Exception):
                raise one
            yield one


class Manager:
    """Servers that have settled."""

    catalog: Catalog = CATALOG

    async def settled(self) -> None:
        return


class Calls:
    """The way of all calls, which ends here: ``answer`` gives the fields of the tool's result."""

    def __init__(self, answer: Answer | None = None) -> None:
        self.routing = SimpleNamespace(manager=Manager())
        self.calls: list[Call] = []
        self.running = self.most = self.cancelled = 0
        self._answer = answer or _sum

    async def call(self, call: Call, progress: Progress) -> Outcome:
        self.calls.append(call)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            fields = await self._answer(call)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        is_error = bool(fields.get("isError"))
        return Outcome(decode_fields(json.dumps(fields).encode()), call.server or "", is_error)


def result(*content: Any, **more: Any) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": one} if isinstance(one, str) else one for one in content], **more}


async def _sum(call: Call) -> Any:
    arguments = call.params["arguments"]
    return result(f"{call.name}: {json.dumps(arguments)}")


async def never(call: Call) -> Any:
    await asyncio.Event().wait()


class House:
    """All of it with a scripted model and scripted tools."""

    def __init__(
        self, *answers: Script, answer: Answer | None = None, allowed: int | None = None, **options: Any
    ) -> None:
        self.model = Model(*answers)
        self.allowed = allowed
        self.calls = Calls(answer)
        self.clock = FakeClock()
        self.course = Course()
        self.failures: list[BaseException] = []
        completions = Completions(Routes({"m": [Step("model", "x")]}, ["model"]), {"model": self.model}, 1000)
        tasks = TaskSet(lambda _, error: self.failures.append(error))
        self.tools = HouseTools(completions, cast("CallPath", self.calls), tasks=tasks, clock=self.clock, **options)
        self.tasks = tasks

    def stream(self, ask: ChatRequest, principal: Principal = ANYBODY) -> AsyncGenerator[Delta, None]:
        return self.tools.stream(ask, principal, tenant="t", request_id="r1", course=self.course, again=self.again)

    def again(self, ask: ChatRequest, used: Usage | None) -> ChatRequest:
        """What the caller may still ask: everything, as long as it has taken no more than ``allowed`` tokens."""
        if self.allowed is not None and used is not None and used.input_tokens + used.output_tokens > self.allowed:
            raise ChatError(BUDGET_SPENT, "spent")
        return replace(ask, max_tokens=7) if self.allowed is not None else ask

    async def deltas(self, ask: ChatRequest, principal: Principal = ANYBODY) -> list[Delta]:
        async with asyncio.timeout(5), aclosing(self.stream(ask, principal)) as deltas:
            return [delta async for delta in deltas]

    async def answer(self, ask: ChatRequest | None = None) -> ChatResult:
        return gathered(await self.deltas(ask or asking()))

    async def refusal(self, ask: ChatRequest, principal: Principal = ANYBODY) -> ChatError:
        with pytest.raises(ChatError) as refused:
            await self.deltas(ask, principal)
        return refused.value

    def told(self, number: int = -1) -> list[tuple[str, str, bool]]:
        """The results that the model was given when it was asked again: ids, words, failures."""
        return [
            (block.tool_use_id, "".join(part.text for part in block.content if isinstance(part, Text)), block.is_error)
            for block in self.model.asked[number].messages[-1].content
            if isinstance(block, ToolResult)
        ]


def asking(*messages: Message, **more: Any) -> ChatRequest:
    return ChatRequest(
        "m", messages or (Message(Role.USER, (Text("hello"),)),), **{"house_tools": ("*",), "tools": (OWN,), **more}
    )


# The loop


async def test_what_the_model_wants_is_used_until_it_has_said_all() -> None:
    house = House(
        says("Let me see. ", use("u1", "calc__add", '{"a": 1}'), tokens=10),
        says("It is ", "2.", tokens=20),
    )
    assert await house.deltas(asking()) == [
        Started("clever-1", 10),
        TextDelta("Let me see. "),
        HouseUse("u1", "calc", "add", '{"a":1}'),
        HouseResult("u1", 'add: {"a": 1}'),
        TextDelta("It is "),
        TextDelta("2."),
        Ended(StopReason.END, Usage(30, 4, estimated=False)),
    ]
    first, second = house.model.asked
    assert second.messages == (
        *first.messages,
        Message(Role.ASSISTANT, (Text("Let me see. "), ToolUse("u1", "calc__add", {"a": 1}))),
        Message(Role.USER, (ToolResult("u1", (Text('add: {"a": 1}'),)),)),
    )
    assert [tool.name for tool in first.tools] == ["own", "calc__add", "calc__slow", "files__read"]
    assert first.tools == second.tools
    assert not first.house_tools
    assert house.failures == []


async def test_a_call_goes_the_way_of_all_calls() -> None:
    house = House(says(use("u1", "calc__add", '{"a": 1}')), says("so"))
    await house.deltas(asking())
    assert house.calls.calls == [
        Call("add", {"name": "add", "arguments": {"a": 1}}, ANYBODY, "r1", "llm", server="calc")
    ]


async def test_an_answer_without_tools_is_as_it_is() -> None:
    script = says("hello")
    assert await House(script).deltas(asking()) == script


async def test_the_course_is_that_of_all_rounds() -> None:
    house = House(says(use("u1", "calc__add")), says(use("u2", "calc__add")), says("so"))
    await house.deltas(asking())
    assert house.course == Course("model", "clever-1", 3, Usage(30, 6, estimated=False))


async def test_a_round_that_fails_fails_the_answer_and_what_was_used_counts() -> None:
    broken: Script = [Started("clever-1", 40), TextDelta("12345678"), ChatError(SOURCE_ERROR, "broke")]
    house = House(says(use("u1", "calc__add")), broken)
    error = await house.refusal(asking())
    assert error.problem is SOURCE_ERROR
    assert house.course.usage == Usage(50, 4, estimated=True)


async def test_each_further_round_is_asked_as_it_is_let() -> None:
    house = House(says(use("u1", "calc__add")), says(use("u2", "calc__add")), says("so"), allowed=24)
    await house.deltas(asking())
    assert [ask.max_tokens for ask in house.model.asked] == [None, 7, 7]


async def test_where_no_further_round_is_let_nothing_is_used_for_it() -> None:
    house = House(says(use("u1", "calc__add")), says("a", use("u2", "calc__add")), says("so"), allowed=23)
    error = await house.refusal(asking())
    assert error.problem is BUDGET_SPENT
    assert (len(house.model.asked), len(house.calls.calls)) == (2, 1)
    assert house.course.usage == Usage(20, 4, estimated=False)


@pytest.mark.parametrize("stop", [StopReason.MAX_TOKENS, StopReason.STOP_SEQUENCE, StopReason.REFUSAL])
async def test_what_is_cut_short_is_not_used(stop: StopReason) -> None:
    house = House(says("a", use("u1", "calc__add"), stop=stop))
    assert (await house.answer()).content == (Text("a"),)
    assert (await house.answer()).stop is stop
    assert house.calls.calls == []


async def test_models_that_say_they_are_done_though_they_want_a_tool_get_it() -> None:
    house = House(says(use("u1", "calc__add"), stop=StopReason.END), says("so"))
    await house.deltas(asking())
    assert len(house.calls.calls) == 1


async def test_blank_words_are_not_told_back() -> None:
    house = House(says("\n", use("u1", "calc__add"), " "), says("so"))
    await house.deltas(asking())
    assert house.model.asked[1].messages[1].content == (ToolUse("u1", "calc__add", {}),)


async def test_an_answer_that_the_caller_began_goes_on() -> None:
    begun = Message(Role.ASSISTANT, (Text("It is"),))
    house = House(says(" so", use("u1", "calc__add")), says("2"))
    await house.deltas(asking(Message(Role.USER, (Text("hello"),)), begun))
    said = house.model.asked[1].messages
    assert said[1] == Message(Role.ASSISTANT, (Text("It is"), Text(" so"), ToolUse("u1", "calc__add", {})))
    assert len(said) == 3


# Whose tools


async def test_uses_of_the_callers_tools_go_out_as_they_come_and_end_the_answer() -> None:
    house = House(says("a", use("u1", "own", '{"b": 2}')))
    deltas = await house.deltas(asking())
    assert deltas[2:-1] == use("u1", "own", '{"b": 2}')
    assert deltas[-1] == Ended(StopReason.TOOL_USE, Usage(10, 2, estimated=False))


async def test_beside_the_callers_tools_those_of_the_house_are_dropped() -> None:
    house = House(says(use("u1", "calc__add"), use("u2", "own"), use("u3", "nothing")))
    answer = await house.answer()
    assert answer.content == (ToolUse("u2", "own", {}),)
    assert answer.stop is StopReason.TOOL_USE
    assert house.calls.calls == []


async def test_a_tool_of_the_callers_keeps_its_name() -> None:
    house = House(says(use("u1", "calc__add")))
    answer = await house.answer(asking(tools=(Tool("calc__add", {"type": "object"}),)))
    assert answer.content == (ToolUse("u1", "calc__add", {}),)
    assert len({tool.name for tool in house.model.asked[0].tools}) == 4


async def test_ids_that_come_again_are_told_apart() -> None:
    past = (
        Message(Role.USER, (Text("hello"),)),
        Message(Role.ASSISTANT, (ToolUse("1", "own", {}),)),
        Message(Role.USER, (ToolResult("1", ()),)),
    )
    house = House(says(use("1", "calc__add")), says(use("1", "calc__add")), says(use("1", "own", '{"b": 2}')))
    answer = await house.answer(asking(*past))
    assert [block.id for block in answer.content if not isinstance(block, Text)] == ["1_", "1__", "1___"]
    assert answer.content[-1] == ToolUse("1___", "own", {"b": 2})


# How tools are to be used


async def test_a_choice_counts_once() -> None:
    house = House(says(use("u1", "calc__add")), says(use("u2", "calc__add")), says("so"))
    await house.deltas(asking(tool_choice=ToolChoice(ToolMode.REQUIRED, "calc__add", parallel=False)))
    assert [ask.tool_choice for ask in house.model.asked] == [
        ToolChoice(ToolMode.REQUIRED, "calc__add", parallel=False),
        ToolChoice(parallel=False),
        ToolChoice(parallel=False),
    ]


@pytest.mark.parametrize(("mode", "then"), [("auto", "auto"), ("none", "none"), ("required", "auto")])
async def test_whether_tools_have_to_be_used_is_seen_to_once(mode: str, then: str) -> None:
    house = House(says(use("u1", "calc__add")), says("so"))
    await house.deltas(asking(tool_choice=ToolChoice(ToolMode(mode))))
    assert [ask.tool_choice.mode.value for ask in house.model.asked] == [mode, then]


@pytest.mark.parametrize(("name", "meant"), [("own", "own"), ("calc/add", "calc__add")])
async def test_either_side_s_tools_can_be_chosen(name: str, meant: str) -> None:
    house = House(says("so"))
    await house.deltas(asking(tool_choice=ToolChoice(ToolMode.REQUIRED, name)))
    assert house.model.asked[0].tool_choice.name == meant


async def test_what_is_not_there_cannot_be_chosen() -> None:
    house = House(says("so"))
    unknown = await house.refusal(asking(tool_choice=ToolChoice(ToolMode.REQUIRED, "nothing")))
    empty = await house.refusal(
        asking(tools=(), tool_choice=ToolChoice(ToolMode.REQUIRED)), Principal("narrow", servers=())
    )
    assert [(error.problem, error.param) for error in (unknown, empty)] == [(BAD_REQUEST, "tool_choice")] * 2
    assert house.model.asked == []


async def test_who_may_not_call_tools_is_refused_before_the_model_is_asked() -> None:
    house = House(says("so"))
    error = await house.refusal(asking(), Principal("narrow", frozenset({"llm:call", "tools:read"})))
    assert error.problem is FORBIDDEN
    assert "tools:call" in error.message
    assert house.model.asked == []


async def test_only_what_was_asked_for_is_offered() -> None:
    house = House(says("so"))
    await house.deltas(asking(house_tools=("files",)))
    assert [tool.name for tool in house.model.asked[0].tools] == ["own", "files__read"]


# Results


async def test_tools_are_used_at_the_same_time_up_to_a_bound_and_told_as_they_come() -> None:
    gate = asyncio.Event()

    async def answer(call: Call) -> Any:
        if call.params["arguments"]["n"] < AT_ONCE:
            await gate.wait()
        return result(str(call.params["arguments"]["n"]))

    wanted = [use(f"u{number}", "calc__add", json.dumps({"n": number})) for number in range(AT_ONCE + 4)]
    house = House(says(*wanted), says("so"), answer=answer)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(house.deltas(asking()))
        await eventually(lambda: house.calls.running == AT_ONCE)
        gate.set()
    assert house.calls.most == AT_ONCE
    results = [delta for delta in running.result() if isinstance(delta, HouseResult)]
    assert sorted(results, key=lambda one: int(one.id[1:])) == [
        HouseResult(f"u{n}", str(n)) for n in range(AT_ONCE + 4)
    ]
    assert [id for id, _, _ in house.told()] == [f"u{n}" for n in range(AT_ONCE + 4)]


async def test_who_is_first_is_told_first() -> None:
    first_told = asyncio.Event()

    async def answer(call: Call) -> Any:
        if call.name == "slow":
            await first_told.wait()
        return result("done")

    house = House(says(use("u1", "calc__slow"), use("u2", "calc__add")), says("so"), answer=answer)
    seen: list[str] = []
    async with asyncio.timeout(5), aclosing(house.stream(asking())) as deltas:
        async for delta in deltas:
            if isinstance(delta, HouseResult):
                seen.append(delta.id)
                first_told.set()
    assert seen == ["u2", "u1"]
    assert [id for id, _, _ in house.told()] == ["u1", "u2"]


async def test_pictures_and_structure_reach_the_model() -> None:
    async def answer(call: Call) -> Any:
        return result(PNG, structuredContent={"sum": 2})

    house = House(says(use("u1", "calc__add")), says("so"), answer=answer)
    call = next(block for block in (await house.answer()).content if isinstance(block, HouseCall))
    assert call.text == '[image/png]\n{"sum": 2}'
    (told,) = house.model.asked[1].messages[-1].content
    assert isinstance(told, ToolResult)
    assert len(told.content) == 2


async def test_a_tool_that_fails_is_told_as_failed() -> None:
    async def answer(call: Call) -> Any:
        return result("no", isError=True)

    house = House(says(use("u1", "calc__add")), says("so"), answer=answer)
    assert (await house.answer()).content[0] == HouseCall("u1", "calc", "add", "{}", "no", is_error=True)
    assert house.told() == [("u1", "no", True)]


@pytest.mark.parametrize("kind", [INVALID_ARGUMENTS, TOOL_NOT_FOUND])
async def test_a_call_that_is_refused_is_told_so_that_the_model_can_do_better(kind: Any) -> None:
    async def answer(call: Call) -> Any:
        raise ProxyError(kind, "not like this")

    house = House(says(use("u1", "calc__add")), says("so"), answer=answer)
    assert (await house.answer()).text == "so"
    assert house.told() == [("u1", "not like this", True)]


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("nothing.here", "{}", "there is no tool of this name"),
        ("calc__add", "[1]", "no JSON object"),
        ("calc__add", '{"a": ', "not acceptable JSON"),
        ("calc__add", '{"a": 1, "a": 2}', "not acceptable JSON"),
        ("calc__add", '{"a": "\\ud800"}', "not acceptable JSON"),
        ("calc__add", '"\ud800"', "not acceptable JSON"),
    ],
)
async def test_what_cannot_be_used_is_told_the_model_and_used_nowhere(name: str, arguments: str, reason: str) -> None:
    house = House(says(use("u1", name, arguments)), says("so"))
    await house.answer()
    ((_, told, failed),) = house.told()
    assert failed
    assert reason in told
    assert house.calls.calls == []
    (said,) = house.model.asked[1].messages[1].content
    assert said == ToolUse("u1", name.replace(".", "_"), {})


@pytest.mark.parametrize("arguments", ["", " "])
async def test_no_arguments_are_none(arguments: str) -> None:
    house = House(says(use("u1", "calc__add", arguments)), says("so"))
    await house.answer()
    assert house.calls.calls[0].params["arguments"] == {}


# Bounds


async def test_the_model_is_asked_only_so_often_and_is_to_come_to_an_end_then() -> None:
    house = House(says("x", use("u", "calc__add")))
    answer = await house.answer()
    assert len(house.model.asked) == ROUNDS
    assert [ask.tool_choice.mode for ask in house.model.asked] == [ToolMode.AUTO] * (ROUNDS - 1) + [ToolMode.NONE]
    assert house.model.asked[-1].tools == house.model.asked[0].tools
    assert (answer.text, answer.stop) == ("x" * ROUNDS, StopReason.END)
    assert len(house.calls.calls) == ROUNDS - 1


async def test_when_the_time_is_over_the_model_is_told_and_asked_for_the_last_time() -> None:
    house = House(says(use("u1", "calc__slow"), use("u2", "files__read")), says("so"), answer=never, seconds=0.05)
    answer = await house.answer()
    assert answer.text == "so"
    assert [(id, failed) for id, _, failed in house.told()] == [("u1", True), ("u2", True)]
    assert "may have been executed" in house.told()[0][1]
    assert house.calls.cancelled == 2


async def test_after_its_time_nothing_is_used_and_the_model_is_asked_for_the_last_time() -> None:
    house = House(says(use("u1", "calc__add")), says(use("u2", "calc__add")), says("so"), seconds=10)

    async def answer(call: Call) -> Any:
        house.clock.advance(11)
        return result("late")

    house.calls._answer = answer
    assert (await house.answer()).content == (HouseCall("u1", "calc", "add", "{}", "late"),)
    assert [ask.tool_choice.mode for ask in house.model.asked] == [ToolMode.AUTO, ToolMode.NONE]
    assert len(house.calls.calls) == 1


async def test_a_model_that_took_all_the_time_is_not_given_tools_any_more() -> None:
    house = House(says(use("u1", "calc__add")), says("so"), seconds=10)
    async with aclosing(house.stream(asking())) as deltas:
        first = await anext(deltas)
        house.clock.advance(11)
        rest = [delta async for delta in deltas]
    assert isinstance(first, Started)
    assert rest[1] == HouseResult("u1", "there was no time left to use the tool; it was not", is_error=True)
    assert house.model.asked[1].tool_choice.mode is ToolMode.NONE
    assert house.calls.calls == []


@pytest.mark.parametrize("how", ["left", "cancelled"])
async def test_when_nobody_waits_any_more_the_tools_are_cancelled(how: str) -> None:
    house = House(says(use("u1", "calc__slow"), use("u2", "calc__slow")), answer=never)
    if how == "cancelled":
        async with asyncio.TaskGroup() as group:
            running = group.create_task(house.deltas(asking()))
            await eventually(lambda: house.calls.running == 2)
            running.cancel()
    else:

        async def one_of_two(call: Call) -> Any:
            return result("done") if len(house.calls.calls) == 1 else await never(call)

        house.calls._answer = one_of_two
        async with asyncio.timeout(5), aclosing(house.stream(asking())) as deltas:
            async for delta in deltas:
                if isinstance(delta, HouseResult):
                    break
    assert house.calls.running == 0
    assert house.calls.cancelled == (2 if how == "cancelled" else 1)
    assert len(house.tasks) == 0


async def test_a_defect_is_not_taken_for_a_tool_that_fails() -> None:
    async def answer(call: Call) -> Any:
        raise ZeroDivisionError

    house = House(says(use("u1", "calc__add")), answer=answer)
    with pytest.raises(ZeroDivisionError):
        await house.deltas(asking())
    assert len(house.failures) == 1


async def test_the_callers_request_is_as_it_was_but_for_the_tools() -> None:
    ask = asking(max_tokens=7, temperature=0.5, stop=("END",), system="be kind")
    house = House(says("so"))
    await house.deltas(ask)
    (asked,) = house.model.asked
    assert replace(asked, tools=ask.tools, house_tools=ask.house_tools) == ask
