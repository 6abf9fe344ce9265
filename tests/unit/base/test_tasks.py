from __future__ import annotations

import asyncio

import pytest

from mcp_proxy.base.tasks import TaskSet

pytestmark = pytest.mark.anyio


class Failures:
    def __init__(self) -> None:
        self.seen: list[tuple[str, BaseException]] = []

    def __call__(self, name: str, error: BaseException) -> None:
        self.seen.append((name, error))


async def test_a_task_that_ends_is_forgotten() -> None:
    failures = Failures()
    tasks = TaskSet(failures)
    assert await tasks.spawn(asyncio.sleep(0, "done"), "one") == "done"
    assert len(tasks) == 0
    assert failures.seen == []


async def test_a_task_that_fails_is_reported_with_its_name() -> None:
    failures = Failures()
    tasks = TaskSet(failures)

    async def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await tasks.spawn(fail(), "the name")
    assert [(name, type(error)) for name, error in failures.seen] == [("the name", ValueError)]


async def test_close_cancels_what_is_left_and_waits_for_its_end() -> None:
    failures = Failures()
    tasks = TaskSet(failures)
    cleaned = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    task = tasks.spawn(work(), "work")
    await asyncio.sleep(0)
    await tasks.close()
    assert task.cancelled()
    assert cleaned == [True]
    assert (len(tasks), failures.seen) == (0, [])


async def test_close_also_ends_what_tasks_start_while_they_end() -> None:
    tasks = TaskSet(Failures())
    late: list[asyncio.Task[object]] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            late.append(tasks.spawn(asyncio.Event().wait(), "late"))

    tasks.spawn(work(), "work")
    await asyncio.sleep(0)
    await asyncio.wait_for(tasks.close(), 5)
    assert late[0].cancelled()
    assert len(tasks) == 0


async def test_closing_nothing_is_no_error() -> None:
    await TaskSet(Failures()).close()
