"""Tools of the house: a completion for which the tools of this service are used here, round by round, until the model has
said all.

Every use goes the way of all calls (`core.calls`). Which tools there are is `house_offer`, what one round says
`house_round`, what tools say `bridge.tool_results`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from mcp_proxy.base.clock import Clock
from mcp_proxy.base.errors import ProxyError
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.bridge.chat import (
    ChatRequest,
    Delta,
    Ended,
    HouseResult,
    Message,
    Role,
    StopReason,
    ToolChoice,
    ToolMode,
    ToolResult,
    Usage,
)
from mcp_proxy.bridge.completions import Completions, Course
from mcp_proxy.bridge.errors import BAD_REQUEST, ChatError
from mcp_proxy.bridge.tool_results import failed, read_result, words
from mcp_proxy.core.auth.principal import Principal
from mcp_proxy.core.calls import CallPath, Progress
from mcp_proxy.core.routing import Call
from mcp_proxy.llm.house_offer import Offer, check_rights, offer
from mcp_proxy.llm.house_round import Round, Use, Uses
from mcp_proxy.llm.tenancy import Again

ROUNDS = 10
"""Times that the model is asked for one answer; the last time it is not to use tools."""
SECONDS = 300.0
"""After which no tool is used any more for an answer, and the model is asked for the last time."""
AT_ONCE = 8
"""Tools that are used at the same time for one answer."""
_TOO_LATE = "there was no time left to use the tool; it was not"
_LATE = "there was no time left to wait for the tool's answer; it may have been executed"


class HouseTools:
    """Answers with the tools of this service. ``calls`` is the way that every call goes."""

    def __init__(
        self,
        completions: Completions,
        calls: CallPath,
        *,
        tasks: TaskSet,
        clock: Clock,
        rounds: int = ROUNDS,
        seconds: float = SECONDS,
    ) -> None:
        self._completions = completions
        self._calls = calls
        self._tasks = tasks
        self._clock = clock
        self._rounds = rounds
        self._seconds = seconds

    async def stream(
        self, ask: ChatRequest, principal: Principal, *, tenant: str, request_id: str, course: Course, again: Again
    ) -> AsyncGenerator[Delta, None]:
        """The answer, with what is used for it; uses of the caller's own tools end it. Raises `ChatError`, at any time.

        ``course`` is that of all rounds together; ``again`` lets each but the first go on. Closing it ends what is being
        done, tools included.
        """
        check_rights(principal)
        await self._calls.routing.manager.settled()
        offered = offer(self._calls.routing.manager.catalog, principal, ask)
        ends = self._clock.monotonic() + self._seconds
        asking, uses, whose = _first(ask, offered), Uses(ask, offered.own_names), _Whose(principal, request_id)
        for left in reversed(range(self._rounds)):
            last = not left or self._clock.monotonic() >= ends
            now = Round(uses)
            async with aclosing(self._said(_without_tools(asking) if last else asking, now, tenant, course)) as deltas:
                async for delta in deltas:
                    yield delta
            if last or not now.goes_on:
                yield _end(now, course)
                return
            again(asking, course.usage)  # nothing is used for an answer that cannot be
            for use in now.house:
                yield use.delta
            results: dict[str, ToolResult] = {}
            async with aclosing(self._results(now.house, whose, ends)) as answers:
                async for result in answers:
                    results[result.tool_use_id] = result
                    yield HouseResult(result.tool_use_id, words(result), result.is_error)
            asking = again(_next(asking, now, [results[use.id] for use in now.house]), course.usage)

    async def _said(self, ask: ChatRequest, now: Round, tenant: str, course: Course) -> AsyncGenerator[Delta, None]:
        """What the model says in one round, without what is not for the caller."""
        own = Course()
        try:
            async with aclosing(self._completions.stream(ask, tenant=tenant, course=own)) as deltas:
                async for delta in deltas:
                    for passed in now.feed(delta):
                        yield passed
        finally:
            course.source, course.model = own.source, own.model or course.model
            course.attempts += own.attempts
            course.usage = _sum(course.usage, own.usage or now.guess)

    async def _results(self, uses: Sequence[Use], whose: _Whose, ends: float) -> AsyncGenerator[ToolResult, None]:
        """One for each use, in the order they come."""
        if self._clock.monotonic() >= ends:
            for use in uses:
                yield failed(use.id, _TOO_LATE)
            return
        slots = asyncio.Semaphore(AT_ONCE)
        tasks = {self._tasks.spawn(self._result(use, whose, slots), "a tool for a completion"): use for use in uses}
        pending = set(tasks)
        try:
            while pending:
                left = max(0.0, ends - self._clock.monotonic())
                done, pending = await asyncio.wait(pending, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    break
                for task in [task for task in tasks if task in done]:
                    yield task.result()
            for late in [task for task in tasks if task in pending]:
                yield failed(tasks[late].id, _LATE)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _result(self, use: Use, whose: _Whose, slots: asyncio.Semaphore) -> ToolResult:
        """What comes of one use. Failures are told to the model, which can do better."""
        if use.fault is not None:
            return failed(use.id, use.fault)
        call = Call(
            name=use.tool,
            params={"name": use.tool, "arguments": use.arguments},
            principal=whose.principal,
            request_id=whose.request_id,
            door="llm",
            server=use.server,
        )
        async with slots:
            try:
                outcome = await self._calls.call(call, Progress(use.tool))
            except ProxyError as error:
                return failed(use.id, error.message)
        return read_result(use.id, outcome.fields, is_error=outcome.is_error)


@dataclass(frozen=True, slots=True)
class _Whose:
    """Who is behind the calls, and which request."""

    principal: Principal
    request_id: str


def _first(ask: ChatRequest, offered: Offer) -> ChatRequest:
    """What the model is asked first. Raises `ChatError` for a choice of tools that are not there."""
    choice = ask.tool_choice
    if choice.name is not None and all(tool.name != choice.name for tool in ask.tools):
        if (name := offered.meant(choice.name)) is None:
            raise ChatError(BAD_REQUEST, "names none of the tools", param="tool_choice")
        choice = replace(choice, name=name)
    if choice.mode is ToolMode.REQUIRED and not ask.tools and not offered.tools:
        raise ChatError(BAD_REQUEST, "there are no tools to choose from", param="tool_choice")
    return replace(ask, tools=(*ask.tools, *offered.tools), tool_choice=choice, house_tools=())


def _next(ask: ChatRequest, said: Round, results: Sequence[ToolResult]) -> ChatRequest:
    """What it is asked then. That a tool is used was seen to, if it had to be: else there would be no end of it."""
    *before, latest = ask.messages
    content = said.content
    if latest.role is Role.ASSISTANT:  # whose beginning the caller wrote
        content = (*latest.content, *content)
    else:
        before.append(latest)
    messages = (*before, Message(Role.ASSISTANT, content), Message(Role.USER, tuple(results)))
    mode = ToolMode.AUTO if ask.tool_choice.mode is ToolMode.REQUIRED else ask.tool_choice.mode
    return replace(ask, messages=messages, tool_choice=ToolChoice(mode, parallel=ask.tool_choice.parallel))


def _without_tools(ask: ChatRequest) -> ChatRequest:
    """The same, with nothing to be used any more. The tools stay: what was said speaks of them."""
    return replace(ask, tool_choice=ToolChoice(ToolMode.NONE, parallel=ask.tool_choice.parallel))


def _end(said: Round, course: Course) -> Ended:
    """The end of the last round as that of all. What the model wanted to use here then is not the caller's to know."""
    ended = said.ended
    assert ended is not None, "a round that does not end raises"
    stop = StopReason.END if ended.stop is StopReason.TOOL_USE and not said.wants_callers else ended.stop
    return Ended(stop, course.usage or ended.usage, ended.stop_sequence)


def _sum(one: Usage | None, other: Usage | None) -> Usage | None:
    if one is None or other is None:
        return one or other
    return Usage(
        one.input_tokens + other.input_tokens,
        one.output_tokens + other.output_tokens,
        one.estimated or other.estimated,
    )
