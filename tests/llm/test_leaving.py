"""Callers who leave, and many at once: the model stops working on what nobody waits for, and is used to its full width."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.harness import eventually
from tests.llm.callers import APIS, create, resource, text_of
from tests.llm.kinds import ALIAS, PATIENCE, Kind

pytestmark = pytest.mark.anyio

API = pytest.mark.parametrize("api", APIS)
STREAMED = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@STREAMED
@API
async def test_a_caller_who_leaves_takes_the_question_back(kind: Kind, api: str, stream: bool) -> None:
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(create(kind.clients, api, "wait", stream=stream))
        await kind.brain.is_at_work_on(1)
        asked.cancel()
    await eventually(lambda: kind.brain.cancelled == 1, what="the model has been told")
    assert kind.brain.in_flight == 0


@API
async def test_one_who_leaves_takes_nothing_from_the_others(fresh: Kind, api: str) -> None:
    async with asyncio.TaskGroup() as group:
        stays = [group.create_task(create(fresh.clients, api, f"wait\nsay: {n}")) for n in range(3)]
        leaves = [group.create_task(create(fresh.clients, api, "wait")) for _ in range(3)]
        await fresh.brain.is_at_work_on(6)
        for asked in leaves:
            asked.cancel()
        await eventually(lambda: fresh.brain.cancelled == 3, what="the model has been told of three")
        fresh.brain.let_go()
    assert [text_of(api, asked.result()) for asked in stays] == ["0", "1", "2"]


@API
async def test_a_stream_that_is_closed_midway_ends_the_providers_too(kind: Kind, api: str) -> None:
    stream = await create(kind.clients, api, "count to 100\nlinger", stream=True)
    async for _ in stream:
        break
    await stream.close()
    await eventually(lambda: kind.brain.cut == 1, what="the provider has been left")


@API
async def test_a_stream_helper_that_is_left_midway_ends_the_providers_too(kind: Kind, api: str) -> None:
    own: dict[str, Any] = {"model": ALIAS}
    said = [{"role": "user", "content": "count to 100\nlinger"}]
    own |= {"input": said} if api == "responses" else {"messages": said}
    own |= {"max_tokens": 1000} if api == "messages" else {}
    async with resource(kind.clients, api).stream(**own) as stream:
        async for _ in stream:
            break
    await eventually(lambda: kind.brain.cut == 1, what="the provider has been left")


@API
async def test_a_question_is_answered_after_another_was_left(kind: Kind, api: str) -> None:
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(create(kind.clients, api, "wait"))
        await kind.brain.is_at_work_on(1)
        asked.cancel()
    async with asyncio.timeout(PATIENCE):
        assert text_of(api, await create(kind.clients, api, "say: next")) == "next"
    kind.brain.let_go()


@STREAMED
async def test_thirty_two_questions_are_worked_on_at_once(fresh: Kind, stream: bool) -> None:
    async with asyncio.TaskGroup() as group:
        asked = [
            group.create_task(create(fresh.clients, APIS[n % 3], f"wait\nsay: {n}", stream=stream)) for n in range(32)
        ]
        await fresh.brain.is_at_work_on(32)
        assert not any(task.done() for task in asked)
        fresh.brain.let_go()
    assert fresh.brain.peak == 32
    if stream:
        for task in asked:
            assert [event async for event in task.result()]
    else:
        assert [text_of(APIS[n % 3], task.result()) for n, task in enumerate(asked)] == [str(n) for n in range(32)]


async def test_answers_reach_those_who_asked(kind: Kind) -> None:
    async def one(n: int) -> bool:
        text = text_of(APIS[n % 3], await create(kind.clients, APIS[n % 3], f"slow {(n * 7 % 5) / 50}\nsay: {n}"))
        return text == str(n)

    assert all(await asyncio.gather(*(one(n) for n in range(24))))
    assert len(kind.brain.asked) == 24
