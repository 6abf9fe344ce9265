"""The MCP endpoint without the modern half, as the official client sees it: one that speaks both eras gets a session."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import mcp_types as types
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from mcp_proxy.base.tasks import TaskSet
from tests.flows.mcp_client import House, reachable
from tests.harness import eventually, make_token

pytestmark = pytest.mark.anyio

PATH = "/hook/mcp"


@pytest.fixture(scope="module")
async def house() -> AsyncIterator[House]:
    async with reachable({}, llm=True) as house:
        yield house


@asynccontextmanager
async def connected(house: House, mode: str, path: str = PATH) -> AsyncIterator[Client]:
    """The official client, whose model repeats what it is asked."""

    async def sample(context: Any, params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
        said: Any = params.messages[-1].content
        content = types.TextContent(type="text", text=f"again: {said.text}")
        return types.CreateMessageResult(role="assistant", model="echo", content=content)

    headers = {"Authorization": f"Bearer {make_token(scope='llm:serve tools:read')}"}
    async with httpx2.AsyncClient(headers=headers, timeout=httpx2.Timeout(20), trust_env=False) as http:
        transport = streamable_http_client(house.base + path, http_client=http)
        async with Client(transport, mode=mode, sampling_callback=sample) as client:
            yield client


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_client_of_both_eras_gets_a_session(mode: str, house: House) -> None:
    async with connected(house, mode) as client:
        assert client.protocol_version == "2025-11-25"
        assert "hook" in [tool.name for tool in (await client.list_tools()).tools]


async def test_beside_it_the_same_client_is_modern(house: House) -> None:
    async with connected(house, "auto", "/mcp") as client:
        assert client.protocol_version == "2026-07-28"


async def test_a_client_that_insists_on_the_modern_era_is_told_what_there_is(house: House) -> None:
    async with connected(house, "2026-07-28") as client:
        with pytest.raises(MCPError) as refused:
            await client.list_tools()
    assert refused.value.error.code == -32022
    assert "2025-11-25" in refused.value.error.data["supported"]


async def test_there_a_client_is_asked_many_things_within_one_call(house: House) -> None:
    tasks = TaskSet(lambda name, error: None)
    async with connected(house, "auto") as client:
        tasks.spawn(client.call_tool("hook"), "hook")
        await eventually(lambda: house.runtime.llm.ready(), what="the client is a lane")
        for number in range(12):  # a modern call would have ended by then
            body = {"model": "auto", "messages": [{"role": "user", "content": f"n{number}"}]}
            reply = await house.inside.post("/v1/chat/completions", body)
            assert reply.json["choices"][0]["message"]["content"] == f"again: n{number}"
        await tasks.close()


async def test_a_caller_without_a_token_is_told_where_to_get_one(house: House) -> None:
    reply = await house.inside.post(PATH, {"jsonrpc": "2.0", "id": 1, "method": "ping"}, token=None)
    assert reply.status == 401
    assert "/.well-known/oauth-protected-resource/hook/mcp" in reply.headers["www-authenticate"]


async def test_a_token_in_the_address_is_not_taken(house: House) -> None:
    place = f"{PATH}?token={make_token()}"
    assert (await house.inside.post(place, {"jsonrpc": "2.0", "id": 1, "method": "ping"}, token=None)).status == 401


async def test_it_belongs_to_the_mcp_door() -> None:
    async with reachable({}, llm=True, doors=("rest", "llm")) as house:
        assert (await house.inside.post(PATH, {"jsonrpc": "2.0", "id": 1, "method": "ping"})).status == 404
