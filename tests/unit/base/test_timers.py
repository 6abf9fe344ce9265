from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

import pytest

from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.base.timers import TimeLimit, running_timers

pytestmark = pytest.mark.anyio


def at(seconds: float, call: Callable[[], object]) -> object:
    loop = asyncio.get_running_loop()
    return running_timers().at(loop.time() + seconds, call)


async def test_timers_fire_in_their_order_whatever_the_order_they_were_set_in() -> None:
    fired: list[str] = []
    done = asyncio.Event()
    at(0.06, done.set)
    for name, seconds in (("third", 0.045), ("first", 0.0), ("second", 0.02)):
        at(seconds, lambda name=name: fired.append(name))  # type: ignore[misc]
    async with asyncio.timeout(5):
        await done.wait()
    assert fired == ["first", "second", "third"]


def test_each_loop_has_timers_of_its_own_and_where_none_runs_there_are_none() -> None:
    async def timers() -> object:
        assert running_timers() is running_timers()
        assert running_timers().loop is asyncio.get_running_loop()
        return running_timers()

    assert asyncio.run(timers()) is not asyncio.run(timers())
    with pytest.raises(RuntimeError):
        running_timers()


async def test_no_timer_fires_before_its_time() -> None:
    loop = asyncio.get_running_loop()
    due = loop.time() + 0.03
    fired: asyncio.Future[float] = loop.create_future()
    running_timers().at(due, lambda: fired.set_result(loop.time()))
    assert await asyncio.wait_for(fired, 5) >= due


async def test_a_timer_that_was_cancelled_does_not_fire_and_its_neighbours_do() -> None:
    loop = asyncio.get_running_loop()
    when, fired, done = loop.time() + 0.02, list[str](), asyncio.Event()
    timers = running_timers()
    cancelled = timers.at(when, lambda: fired.append("cancelled"))
    timers.at(when, lambda: fired.append("kept"))
    timers.at(when + 0.03, done.set)
    cancelled.cancel()
    cancelled.cancel()
    async with asyncio.timeout(5):
        await done.wait()
    assert fired == ["kept"]


async def test_a_timer_can_be_cancelled_by_one_that_fires_at_the_same_time() -> None:
    loop = asyncio.get_running_loop()
    when, fired, done = loop.time() + 0.02, list[str](), asyncio.Event()
    timers = running_timers()
    timers.at(when, lambda: (fired.append("first"), second.cancel()))
    second = timers.at(when, lambda: fired.append("second"))
    timers.at(when + 0.03, done.set)
    async with asyncio.timeout(5):
        await done.wait()
    assert fired == ["first"]


async def test_what_was_cancelled_takes_no_memory_until_it_would_have_fired() -> None:
    loop = asyncio.get_running_loop()
    timers = [running_timers().at(loop.time() + 3600 + number / 10_000, print) for number in range(10_000)]
    for one in timers:
        one.cancel()
    del timers
    slots = running_timers()._slots
    assert sum(map(sys.getsizeof, slots.values())) <= len(slots) * sys.getsizeof({})


async def test_a_timer_that_fails_keeps_none_from_firing() -> None:
    loop = asyncio.get_running_loop()
    reported: list[object] = []
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
    done, failure, when = asyncio.Event(), ZeroDivisionError(), loop.time() + 0.01

    def fails() -> None:
        raise failure

    running_timers().at(when, fails)
    running_timers().at(when, done.set)
    async with asyncio.timeout(5):
        await done.wait()
    loop.set_exception_handler(None)
    assert reported == [failure]


async def test_what_takes_no_longer_than_its_limit_is_not_disturbed() -> None:
    with TimeLimit(5):
        assert await asyncio.sleep(0, "done") == "done"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_what_takes_longer_is_cancelled_and_ends_as_timed_out() -> None:
    task = asyncio.current_task()
    assert task is not None
    with pytest.raises(TimeoutError), TimeLimit(0.01):
        await asyncio.wait_for(asyncio.Event().wait(), 5)
    assert task.cancelling() == 0


async def test_what_fails_by_itself_fails_as_it_does_without_a_limit() -> None:
    async def fails() -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), TimeLimit(5):
        await fails()


async def test_who_cancels_it_from_outside_sees_it_cancelled_and_not_timed_out() -> None:
    tasks = TaskSet(lambda *_: None)

    async def work() -> None:
        with TimeLimit(0.01):
            try:
                await asyncio.wait_for(asyncio.Event().wait(), 5)
            finally:
                # Both want its end now.
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                await asyncio.sleep(0)

    task = tasks.spawn(work(), "work")
    await asyncio.wait([task], timeout=5)
    assert task.cancelled()


async def test_limits_within_limits_end_the_inner_one_only() -> None:
    outcome = []
    with TimeLimit(5):
        try:
            with TimeLimit(0.01):
                await asyncio.wait_for(asyncio.Event().wait(), 4)
        except TimeoutError:
            outcome.append("inner")
        await asyncio.sleep(0)
        outcome.append("went on")
    assert outcome == ["inner", "went on"]


async def test_a_limit_that_is_over_before_it_is_entered_ends_what_waits_in_it() -> None:
    limit = TimeLimit(-1)
    with pytest.raises(TimeoutError), limit:
        await asyncio.wait_for(asyncio.Event().wait(), 5)


async def test_who_is_inside_can_be_given_more_time() -> None:
    limit = TimeLimit(0.02)
    first = limit.at
    loop = asyncio.get_running_loop()
    with limit:
        limit.reschedule(loop.time() + 30)
        while loop.time() < first + 0.03:  # noqa: ASYNC110 - real time must pass
            await asyncio.sleep(0.01)
    assert limit.until > first
