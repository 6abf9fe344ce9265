"""``--llm-ambient``: legacy clients that offer sampling answer completions without a call of ``hook``, over every transport."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.flows.mcp_client import House, reachable
from tests.harness import Reply, eventually, make_token

pytestmark = pytest.mark.anyio

SERVE = "llm:serve tools:read tools:call"


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with reachable({}, llm=True, llm_ambient=True) as house:
        yield house


def serving_client(house: House, kind: str, **more: Any) -> Any:
    return house.client(kind, token=make_token(sub="model", scope=SERVE), **more)


async def ask(house: House, text: str = "hi") -> Reply:
    body = {"model": "auto", "messages": [{"role": "user", "content": text}]}
    return await house.inside.post("/v1/chat/completions", body)


def said(reply: Reply) -> str:
    assert reply.status == 200, reply
    text: str = reply.json["choices"][0]["message"]["content"]
    return text


def is_lane(house: House) -> Any:
    return eventually(lambda: house.runtime.llm.ready(), what="the client is a lane")


def is_none(house: House) -> Any:
    return eventually(lambda: not house.runtime.llm.ready(), what="nobody is a lane")


async def test_a_client_with_an_event_stream_is_asked(house: House) -> None:
    async with serving_client(house, "sse"):
        await is_lane(house)
        assert said(await ask(house)) == "model on hi"
    await is_none(house)
    assert (await ask(house)).status == 503


async def test_a_client_of_streamable_http_is_asked_once_its_stream_is_open(house: House) -> None:
    async with serving_client(house, "legacy") as client:
        await client.listen()
        await is_lane(house)
        assert said(await ask(house)) == "model on hi"
    await is_none(house)


async def test_without_the_setting_nobody_is_asked() -> None:
    async with reachable({}, llm=True) as house, serving_client(house, "sse") as client:
        assert (await client.use("tools/list")).result["tools"][0]["name"] == "hook"
        assert (await ask(house)).status == 503
        assert not house.runtime.llm.ready()


async def test_a_client_that_may_not_serve_is_not_asked(house: House) -> None:
    async with house.client("sse", token=make_token()) as client, serving_client(house, "sse"):
        await is_lane(house)
        assert said(await ask(house)) == "model on hi"
        assert len(house.runtime.door.sessions) == 2
        assert not client.asked


async def test_a_client_that_calls_hook_too_is_asked_in_that_call(house: House) -> None:
    async with serving_client(house, "legacy") as client:
        await client.listen()
        await is_lane(house)
        call = client.tasks.spawn(client.request("tools/call", {"name": "hook"}), "hook")
        await eventually(lambda: any(not lane.room for lane in house.runtime.llm._broker.lanes), what="hook is called")
        assert said(await ask(house)) == "model on hi"
        assert [lane.room > 0 for lane in house.runtime.llm._broker.lanes] == [False, True]
        call.cancel()
