"""Every kind of MCP client with every kind of server: what each can do directly, it can do through the proxy.

The clients are by hand in each era and transport, and the 2.x SDK's in both its modes. The servers are one on the 1.x SDK
(`era_server`) over HTTP and stdio, and `flows.mcp_upstream` with the modern era alone and with both.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx2
import mcp_types as types
import pytest
from mcp import Client as SdkClient
from mcp.client.streamable_http import streamable_http_client

from mcp_proxy.base.tasks import TaskSet
from tests.flows.mcp_client import Client, House, answer_all, reachable
from tests.flows.mcp_upstream import Upstream, upstream
from tests.harness import eventually, make_token
from tests.servers.known import INSTALLED, _installed, serving

pytestmark = [pytest.mark.anyio, pytest.mark.live, pytest.mark.filterwarnings("ignore::UserWarning")]
FRONTS = ("modern", "legacy", "sse", "sdk-modern", "sdk-legacy")
SERVERS = ("v1-http", "v1-stdio", "modern-only", "dual")
LONG = 20.0


class ByHand:
    """A client of `flows.mcp_client`, in the words of this matrix."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.asked = client.asked
        self.name = ""

    async def call(self, tool: str, arguments: dict[str, Any] | None = None, **more: Any) -> str:
        return (await self.client.call(tool, arguments, **more)).text

    async def steps(self, tool: str) -> list[float]:
        before = len(self.client.notes)
        params = {"name": tool, "arguments": {}, "_meta": {"progressToken": "steps"}}
        assert (await self.client.use("tools/call", params)).text == "progress"
        if self.client.kind == "sse":
            await self.client.hears("notifications/progress", 3)
        notes = [note["params"] for note in self.client.notes[before:] if note["method"] == "notifications/progress"]
        assert {note["progressToken"] for note in notes} == {"steps"}
        return [note["progress"] for note in notes]

    async def logged(self, tool: str) -> list[str]:
        if self.client.kind == "modern":
            self.client.log_level = "info"  # type: ignore[attr-defined]
        else:
            assert (await self.client.request("logging/setLevel", {"level": "info"})).result == {}
        assert await self.call(tool) == "log"
        notes = await self.client.hears("notifications/message", 3)
        return [note["params"]["data"] for note in notes[-3:]]

    async def begin(self, tool: str) -> None:
        self.hanging = self.client.tasks.spawn(self.client.call(tool, id="hanging"), "hanging call")

    async def cancel(self) -> None:
        if self.client.kind == "modern":
            self.hanging.cancel()
        else:
            await self.client.cancel("hanging")


class OfTheSdk:
    """The 2.x SDK's client, in the words of this matrix."""

    def __init__(self, client: SdkClient, asked: list[Any], logs: list[str]) -> None:
        self.client, self.asked, self.logs = client, asked, logs
        self.tasks = TaskSet(lambda *_: None)

    async def call(self, tool: str, arguments: dict[str, Any] | None = None) -> str:
        result = await asyncio.wait_for(self.client.call_tool(tool, arguments or {}), LONG)
        (content,) = result.content
        assert isinstance(content, types.TextContent)
        assert not result.is_error, content.text
        return content.text

    async def steps(self, tool: str) -> list[float]:
        found: list[float] = []

        async def progress(done: float, total: float | None, message: str | None) -> None:
            found.append(done)

        await asyncio.wait_for(self.client.call_tool(tool, {}, progress_callback=progress), LONG)
        return found

    async def logged(self, tool: str) -> list[str]:
        if self.client.protocol_version != "2026-07-28":
            await self.client.set_logging_level("info")
        assert await self.call(tool) == "log"
        await eventually(lambda: len(self.logs) >= 3, what="three messages")
        return self.logs[-3:]

    async def begin(self, tool: str) -> None:
        self.hanging = self.tasks.spawn(self.call(tool), "hanging call")

    async def cancel(self) -> None:
        self.hanging.cancel()


async def sdk_client(stack: AsyncExitStack, house: House, mode: str, name: str = "") -> OfTheSdk:
    asked: list[Any] = []
    logs: list[str] = []

    async def elicit(_: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        asked.append(("elicitation/create", {"message": params.message}))
        await asyncio.sleep(0.01)
        return types.ElicitResult(action="accept", content={"name": f"{name}answer to {params.message}"})

    async def sample(_: Any, params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
        asked.append(("sampling/createMessage", {}))
        said = params.messages[0].content
        assert isinstance(said, types.TextContent)
        content = types.TextContent(type="text", text=f"model on {said.text}")
        return types.CreateMessageResult(role="assistant", content=content, model="m")

    async def roots(_: Any) -> types.ListRootsResult:
        asked.append(("roots/list", {}))
        return types.ListRootsResult(roots=[types.Root(uri="file:///root")])

    async def log(params: types.LoggingMessageNotificationParams) -> None:
        logs.append(str(params.data))

    headers = {"Authorization": f"Bearer {make_token()}"}
    http = await stack.enter_async_context(httpx2.AsyncClient(headers=headers, timeout=LONG))
    client = SdkClient(
        streamable_http_client(f"{house.base}/mcp", http_client=http), mode=mode, cache=None,
        elicitation_callback=elicit, sampling_callback=sample, list_roots_callback=roots, logging_callback=log,
    )  # fmt: skip
    return OfTheSdk(await stack.enter_async_context(client), asked, logs)


async def front(stack: AsyncExitStack, house: House, kind: str, name: str = "") -> Any:
    """A client of one of `FRONTS`; ``name`` stands in what it answers."""
    if kind.startswith("sdk-"):
        return await sdk_client(stack, house, {"sdk-modern": "2026-07-28", "sdk-legacy": "legacy"}[kind], name)

    async def answer(method: str, params: Any) -> Any:
        await asyncio.sleep(0.01)
        if method == "elicitation/create":
            return {"action": "accept", "content": {"name": f"{name}answer to {params['message']}"}}
        return answer_all(method, params)

    return ByHand(await stack.enter_async_context(house.client(kind, on_ask=answer)))


# The servers


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("era") / "ledger"
    file.touch()
    return file


@pytest.fixture(scope="module")
async def upstreams() -> AsyncIterator[dict[str, Upstream]]:
    async with upstream(era="modern", name="era") as modern, upstream(era="both", name="era") as dual:
        yield {"modern-only": modern, "dual": dual}


@pytest.fixture(scope="module")
async def house(ledger: Path, upstreams: dict[str, Upstream]) -> AsyncIterator[House]:
    env = {"ERA_LEDGER": str(ledger)}
    command = _installed(INSTALLED / "legacy/bin/python", Path(__file__).with_name("era_server.py"))
    async with serving([*command, "streamable-http"], env) as url:
        servers: dict[str, Any] = {
            "v1-http": {"url": url},
            "v1-stdio": {"command": command[0], "args": [*command[1:], "stdio"], "env": env},
            **{name: {"url": one.url} for name, one in upstreams.items()},
        }
        async with reachable(servers) as one:
            await one.inside.in_state(**dict.fromkeys(SERVERS, "connected"))
            yield one


@pytest.fixture(scope="module", params=FRONTS)
async def client(request: Any, house: House) -> AsyncIterator[Any]:
    async with AsyncExitStack() as stack:
        yield await front(stack, house, request.param)


@pytest.fixture(params=SERVERS)
def server(request: Any) -> str:
    return str(request.param)


# What each pair can do


async def test_a_call_is_answered(client: Any, server: str):
    assert await client.call(f"{server}.echo", {"text": "grüß"}) == "era echo grüß"


async def test_the_user_is_asked(client: Any, server: str):
    before = len(client.asked)
    assert "answer to who is Ada?" in await client.call(f"{server}.ask", {"who": "Ada"})
    assert [method for method, _ in client.asked[before:]] == ["elicitation/create"]


async def test_the_user_is_asked_twice_in_order(client: Any, server: str):
    before = len(client.asked)
    said = await client.call(f"{server}.ask_twice", {"who": "Ada"})
    assert "answer to first, Ada" in said
    assert "answer to second, Ada" in said
    assert [params["message"] for _, params in client.asked[before:]] == ["first, Ada", "second, Ada"]


async def test_the_clients_model_is_asked(client: Any, server: str):
    assert await client.call(f"{server}.sample", {"text": "a poem"}) == "model on a poem"


async def test_the_client_is_asked_for_its_roots(client: Any, server: str):
    assert (await client.call(f"{server}.roots")).rstrip("/") == "file:///root"


async def test_progress_is_reported(client: Any, server: str):
    assert await client.steps(f"{server}.progress") == [1, 2, 3]


async def test_log_messages_come(client: Any, server: str):
    if isinstance(client, OfTheSdk) and client.client.protocol_version == "2026-07-28":
        # This client does not say in its requests that it wants any, and so gets none.
        assert await client.call(f"{server}.log") == "log"
        assert client.logs == []
        return
    assert await client.logged(f"{server}.log") == ["step 1", "step 2", "step 3"]


async def test_a_cancellation_reaches_the_server(
    client: Any, server: str, ledger: Path, upstreams: dict[str, Upstream]
):
    known = upstreams.get(server)

    def begun() -> int:
        return known.called("hang") if known else ledger.read_text().split().count("begun")

    def cancelled() -> int:
        return known.cancelled.count("hang") if known else ledger.read_text().split().count("cancelled")

    before = begun(), cancelled()
    await client.begin(f"{server}.hang")
    await eventually(lambda: begun() == before[0] + 1, LONG, what="the call has arrived")
    await client.cancel()
    await eventually(lambda: cancelled() == before[1] + 1, what="the server is told")
    assert await client.call(f"{server}.echo", {"text": "next"}) == "era echo next"


@pytest.mark.parametrize("kind", FRONTS)
async def test_clients_at_the_same_time_are_each_asked_their_own_questions(house: House, kind: str, server: str):
    async with AsyncExitStack() as stack:
        pair = [await front(stack, house, kind, f"{name} gives ") for name in ("Ada", "Bob")]

        async def ask(client: Any, name: str, number: int) -> None:
            said = await client.call(f"{server}.ask_twice", {"who": f"{name}-{number}"})
            assert said.count(f"{name} gives answer to ") == 2
            assert said.count(f"{name}-{number}") == 2

        everybody = [ask(client, name, n) for client, name in zip(pair, ("Ada", "Bob"), strict=True) for n in range(4)]
        await asyncio.wait_for(asyncio.gather(*everybody), 2 * LONG)
        for client, name in zip(pair, ("Ada", "Bob"), strict=True):
            assert len(client.asked) == 8
            assert all(name in params["message"] for _, params in client.asked)
