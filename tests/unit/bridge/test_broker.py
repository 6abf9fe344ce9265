from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mcp_proxy.base.clock import SystemClock
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.bridge.broker import Broker, LaneLost, LaneRefused, NotSent
from mcp_proxy.bridge.errors import (
    NO_ANSWER,
    NOT_READY,
    QUEUE_FULL,
    REFUSED,
    SOURCE_ERROR,
    TOOLS_NOT_SUPPORTED,
    ChatError,
    ChatProblem,
)
from mcp_proxy.bridge.window import Window
from tests.harness import eventually

pytestmark = pytest.mark.anyio


class Model:
    """A lane whose answers come when they are let."""

    def __init__(self, key: str = "lane", *, tools: bool = False, room: int = 1000) -> None:
        self.key, self.tools, self.room = key, tools, room
        self.asked: list[Any] = []
        self.cancelled: list[Any] = []
        self.most = 0
        self.go = asyncio.Event()
        self.fails: Callable[[], Exception] | None = None
        self._busy = 0

    async def sample(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        self.asked.append(params["n"])
        self._busy += 1
        self.most = max(self.most, self._busy)
        try:
            if self.fails is not None:
                raise self.fails()
            await self.go.wait()
            return {"answer": params["n"], "by": self.key}
        except asyncio.CancelledError:
            self.cancelled.append(params["n"])
            raise
        finally:
            self._busy -= 1


def asking(params: Mapping[str, Any]) -> Callable[[bool], Mapping[str, Any]]:
    return lambda tools: {**params, "tools": tools}


@asynccontextmanager
async def brokering(*lanes: Model, **more: Any) -> AsyncIterator[Broker]:
    failed: list[str] = []
    tasks = TaskSet(lambda name, error: failed.append(f"{name}: {error!r}"))
    broker = Broker(clock=SystemClock(), tasks=tasks, **more)
    for lane in lanes:
        broker.add(lane)
    yield broker
    await tasks.close()
    assert failed == []


async def refused(problem: ChatProblem, work: Any) -> ChatError:
    with pytest.raises(ChatError) as raised:
        await asyncio.wait_for(work, 5)
    assert raised.value.problem is problem
    return raised.value


async def test_what_is_asked_is_answered() -> None:
    lane = Model()
    lane.go.set()
    async with brokering(lane) as broker:
        assert await broker.complete("t", asking({"n": 1})) == {"answer": 1, "by": "lane"}


async def test_many_are_at_work_at_the_same_time() -> None:
    lane = Model()
    async with brokering(lane) as broker, asyncio.TaskGroup() as group:
        asked = [group.create_task(broker.complete("t", asking({"n": n}))) for n in range(32)]
        await eventually(lambda: lane.most == 32, what="all are at work")
        lane.go.set()
    assert [task.result()["answer"] for task in asked] == list(range(32))


async def test_no_more_than_a_lane_stands_are_handed_to_it() -> None:
    lane = Model(room=1000)
    async with brokering() as broker, asyncio.TaskGroup() as group:
        broker.add(lane, Window(start=3))
        for n in range(10):
            group.create_task(broker.complete("t", asking({"n": n})))
        await eventually(lambda: broker.waiting == 7, what="seven wait")
        lane.go.set()
    assert (len(lane.asked), broker.waiting) == (10, 0)


async def test_without_a_lane_nothing_waits() -> None:
    async with brokering() as broker:
        error = await refused(NOT_READY, broker.complete("t", asking({"n": 1})))
        assert error.retry_after


async def test_what_waits_is_handed_out_when_a_lane_comes() -> None:
    full, fresh = Model("full", room=0), Model("fresh")
    fresh.go.set()
    async with brokering(full) as broker, asyncio.TaskGroup() as group:
        answer = group.create_task(broker.complete("t", asking({"n": 1})))
        await eventually(lambda: broker.waiting == 1, what="it waits")
        broker.add(fresh)
    assert answer.result()["by"] == "fresh"


async def test_what_waits_too_long_is_told_so() -> None:
    async with brokering(Model(room=0), patience=0.05) as broker:
        await refused(NOT_READY, broker.complete("t", asking({"n": 1})))
        assert broker.waiting == 0


async def test_too_many_are_refused_for_the_tenant_that_sends_them() -> None:
    lane = Model(room=0)
    async with brokering(lane, limit=10, share=2) as broker, asyncio.TaskGroup() as group:
        waiting = [group.create_task(broker.complete("a", asking({"n": n}))) for n in range(2)]
        await eventually(lambda: broker.waiting == 2, what="two wait")
        assert (await refused(QUEUE_FULL, broker.complete("a", asking({"n": 3})))).retry_after
        waiting.append(group.create_task(broker.complete("b", asking({"n": 4}))))
        await eventually(lambda: broker.waiting == 3, what="three wait")
        lane.go.set()
        lane.room = 10
        broker.look_again()


async def test_a_tenant_with_one_question_does_not_wait_behind_another_with_many() -> None:
    lane = Model()
    async with brokering() as broker, asyncio.TaskGroup() as group:
        broker.add(lane, Window(start=1, most=1))
        for n in range(50):
            group.create_task(broker.complete("a", asking({"n": n})))
        await eventually(lambda: broker.waiting == 49, what="they wait")
        group.create_task(broker.complete("b", asking({"n": "b"})))
        await eventually(lambda: broker.waiting == 50, what="b waits")
        lane.go.set()
    assert lane.asked.index("b") <= 2


async def test_tools_go_to_a_lane_that_takes_them_and_never_wait_in_vain() -> None:
    plain, able = Model("plain"), Model("able", tools=True)
    able.go.set()
    async with brokering(plain) as broker:
        error = await refused(TOOLS_NOT_SUPPORTED, broker.complete("t", asking({"n": 1}), tools=True))
        assert error.param == "tools"
        broker.add(able)
        assert (await broker.complete("t", asking({"n": 2}), tools=True))["by"] == "able"


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (lambda: LaneRefused("no", rejected=True), REFUSED),
        (lambda: LaneRefused("broken", rejected=False), SOURCE_ERROR),
        (lambda: LaneLost(), NO_ANSWER),
    ],
)
async def test_one_that_fails_fails_alone_and_is_asked_once(error: Any, problem: ChatProblem) -> None:
    lane, other = Model("lane"), Model("other", room=0)
    async with brokering(lane, other) as broker, asyncio.TaskGroup() as group:
        good = group.create_task(broker.complete("t", asking({"n": "good"})))
        await eventually(lambda: lane.asked, what="the first is at work")
        lane.fails = error
        await refused(problem, broker.complete("t", asking({"n": "bad"})))
        lane.fails = None
        lane.go.set()
    assert good.result()["answer"] == "good"
    assert (lane.asked, other.asked) == (["good", "bad"], [])


async def test_what_was_never_sent_goes_to_another_lane_once() -> None:
    deaf, other = Model("deaf", room=1000), Model("other", room=1)
    deaf.fails = NotSent
    other.go.set()
    async with brokering(deaf, other) as broker:
        assert (await broker.complete("t", asking({"n": 1})))["by"] == "other"
        assert deaf.asked == [1]
        other.fails = NotSent
        await refused(NOT_READY, broker.complete("t", asking({"n": 2})))


async def test_a_lane_that_leaves_takes_what_it_is_at_work_on_with_it() -> None:
    lane, other = Model("lane"), Model("other", room=0)
    async with brokering(lane, other) as broker:
        work = refused(NO_ANSWER, broker.complete("t", asking({"n": 1})))
        async with asyncio.TaskGroup() as group:
            group.create_task(work)
            await eventually(lambda: lane.asked == [1], what="it is at work")
            broker.remove(lane)
        await eventually(lambda: lane.cancelled == [1], what="the lane is told")
        assert other.asked == []


async def test_a_model_that_takes_too_long_is_not_waited_for_and_not_asked_again() -> None:
    lane = Model()
    async with brokering(lane) as broker:
        await refused(NO_ANSWER, broker.complete("t", asking({"n": 1}), seconds=0.05))
        assert (lane.asked, lane.cancelled) == ([1], [1])


async def test_who_leaves_takes_the_question_back_wherever_it_is() -> None:
    lane = Model()
    async with brokering() as broker, asyncio.TaskGroup() as group:
        broker.add(lane, Window(start=1, most=1))
        working, waiting = (group.create_task(broker.complete("t", asking({"n": n}))) for n in (1, 2))
        await eventually(lambda: lane.asked == [1] and broker.waiting == 1, what="one is at work, one waits")
        waiting.cancel()
        await eventually(lambda: broker.waiting == 0, what="nothing waits")
        working.cancel()
        await eventually(lambda: lane.cancelled == [1], what="the client is told")
    assert lane.asked == [1]
