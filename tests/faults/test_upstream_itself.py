"""The misbehaving upstream really misbehaves: each fault is seen with a plain client before a proxy is judged by it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from tests.faults.faulty.faults import FAULTS
from tests.faults.faulty.server import MODERN, VERSION_KEY
from tests.faults.harness import FaultyCommand, FaultyUpstream, faulty_http, faulty_stdio, stop_grandchildren
from tests.harness import alive, eventually

pytestmark = pytest.mark.anyio
META = {VERSION_KEY: MODERN, "io.modelcontextprotocol/clientCapabilities": {}}
QUICK = aiohttp.ClientTimeout(total=0.5)


def rpc(method: str, rid: int = 1, *, modern: bool = True, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": rid, "method": method, "params": params | ({"_meta": META} if modern else {})}


def tool(name: str, rid: int = 1, *, modern: bool = True, **arguments: Any) -> dict[str, Any]:
    return rpc("tools/call", rid, modern=modern, name=name, arguments=arguments)


START = rpc("initialize", modern=False, protocolVersion="2025-11-25")


async def post(upstream: FaultyUpstream, message: dict[str, Any], **more: Any) -> tuple[int, dict[str, str], bytes]:
    headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": message["method"]}
    async with (
        aiohttp.ClientSession() as session,
        session.post(upstream.url, json=message, headers=headers, allow_redirects=False, **more) as reply,
    ):
        return reply.status, dict(reply.headers), await reply.read()


async def ask(upstream: FaultyUpstream, message: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((await post(upstream, message))[2])
    return found


class Child:
    """The upstream over stdio, with a client's side of its pipes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process, self.stdin, self._stdout = process, process.stdin, process.stdout

    async def say(self, message: dict[str, Any]) -> bytes:
        """The first line that comes back; b"" when its stdout ended."""
        self.stdin.write(json.dumps(message).encode() + b"\n")
        return await self.line()

    async def line(self) -> bytes:
        return await asyncio.wait_for(self._stdout.readline(), 10)

    async def ended(self) -> int:
        return await asyncio.wait_for(self.process.wait(), 10)


@asynccontextmanager
async def child(upstream: FaultyCommand) -> AsyncIterator[Child]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*upstream.argv, stdin=pipe, stdout=pipe, limit=2**27)
    try:
        yield Child(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_a_call_without_faults_is_answered_and_stands_in_the_ledger():
    async with faulty_http() as upstream:
        assert (await ask(upstream, tool("add", a=2, b=3)))["result"]["structuredContent"] == {"sum": 5}
        assert upstream.ledger.count("add", a=2) == 1


async def test_the_ledger_counts_what_the_table_says_is_executed():
    executed = 0
    async with faulty_http() as upstream:
        for number, fault in enumerate(FAULTS.values(), start=1):
            with contextlib.suppress(TimeoutError, aiohttp.ClientError):
                await post(upstream, tool("echo", text="x", fault=fault.name, size=1000, ms=50), timeout=QUICK)
            executed += fault.executes
            assert (len(upstream.ledger.events("received")), upstream.ledger.count("echo")) == (number, executed), fault
            if fault.name.startswith("die"):
                await upstream.kill()
                await upstream.start()


@pytest.mark.parametrize(
    "fault", ["close", "close-before", "die", "die-before", "truncate-json", "truncate-sse", "progress-then-close"]
)
async def test_a_broken_connection_breaks(fault: str):
    async with faulty_http() as upstream:
        with pytest.raises((aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError, aiohttp.ClientOSError)):
            await post(upstream, tool("echo", fault=fault))


@pytest.mark.parametrize("fault", ["hang", "hang-before", "drip", "slow"])
async def test_a_hanging_call_gives_no_answer_in_time_and_others_are_answered(fault: str):
    async with faulty_http() as upstream:
        with pytest.raises(TimeoutError):
            await post(upstream, tool("echo", fault=fault), timeout=QUICK)
        assert "result" in await ask(upstream, tool("count"))


@pytest.mark.parametrize("status", [401, 429, 500, 503])
async def test_a_status_is_that_status(status: int):
    async with faulty_http() as upstream:
        got, headers, _ = await post(upstream, tool("echo", fault=f"status-{status}"))
        assert got == status
        assert headers.get("Retry-After") == ("1" if status in (429, 503) else None)


async def test_ids_are_wrong_in_the_way_asked_for():
    async with faulty_http() as upstream:
        assert (await ask(upstream, tool("echo", 5, fault="wrong-id", id=4)))["id"] == 4
        assert (await ask(upstream, tool("echo", 5, fault="string-id")))["id"] == "5"
        assert (await ask(upstream, tool("echo", 5, fault="null-id")))["id"] is None
        assert "id" not in await ask(upstream, tool("echo", 5, fault="notification"))


async def test_bodies_are_bad_in_the_way_asked_for():
    async with faulty_http() as upstream:

        async def body(fault: str, **more: Any) -> bytes:
            return (await post(upstream, tool("echo", fault=fault, **more)))[2]

        for fault in ("garbage", "html", "empty"):
            with pytest.raises(ValueError, match=r"."):
                json.loads(await body(fault))
        assert math.isnan(json.loads(await body("nan"))["result"]["structuredContent"]["value"])
        assert b"[" * 300 + b"]" * 300 in await body("deep", depth=300)
        with pytest.raises(UnicodeDecodeError):
            (await body("invalid-utf8")).decode()
        assert len(await body("huge", size=3_000_000)) > 3_000_000


async def test_events_are_long_odd_and_preceded_by_others_when_asked_for():
    async with faulty_http() as upstream:
        status, headers, body = await post(upstream, tool("echo", fault="big-event"))
        assert (status, headers["Content-Type"]) == (200, "text/event-stream")
        assert body.startswith(b"event: message\ndata: ")
        assert len(body) > 2**21
        odd = (await post(upstream, tool("echo", text="x", fault="odd-sse")))[2]
        data = b"\n".join(line[5:] for line in odd.split(b"event: message")[1].split(b"\r\n") if line[:5] == b"data:")
        assert json.loads(data)["result"]["content"] == [{"type": "text", "text": "x"}]
        told = (await post(upstream, tool("echo", fault="progress")))[2]
        assert told.count(b"notifications/progress") == 3


async def test_errors_failures_and_questions_are_answers():
    async with faulty_http() as upstream:
        for code in (-32602, -32603, -32021):
            assert (await ask(upstream, tool("echo", fault="error", code=code)))["error"]["code"] == code
        assert (await ask(upstream, tool("echo", fault="is-error")))["result"]["isError"] is True
        assert (await ask(upstream, tool("echo", fault="input-required")))["result"]["resultType"] == "input_required"


async def test_lists_are_paged_looped_and_large():
    async with faulty_http() as upstream:
        await upstream.order("paged-tools")
        page = (await ask(upstream, rpc("tools/list")))["result"]
        assert ([t["name"] for t in page["tools"]], page["nextCursor"]) == (["echo"], "1")
        await upstream.order("cursor-loop")
        assert (await ask(upstream, rpc("tools/list", cursor="again")))["result"]["nextCursor"] == "again"
        await upstream.order("many-tools")
        assert len((await ask(upstream, rpc("tools/list")))["result"]["tools"]) == 10_003


async def test_connections_are_refused_or_ignored_until_ordered_otherwise():
    async with faulty_http("refuse") as upstream:
        with pytest.raises(aiohttp.ClientConnectorError):
            await post(upstream, tool("echo"))
        for silence in ("hang-on-connect", "blackhole", "hang-on-connect"):
            await upstream.order(silence)
            with pytest.raises(TimeoutError):
                await post(upstream, tool("echo"), timeout=QUICK)
        await upstream.order("close", times=1)
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await post(upstream, tool("echo"))
        assert "result" in await ask(upstream, tool("echo"))


async def test_eras_can_be_missing():
    async with faulty_http("legacy-only") as upstream:
        assert (await post(upstream, rpc("tools/list")))[0] == 400
        await upstream.order("modern-only")
        async with aiohttp.ClientSession() as session, session.post(upstream.url, json=START) as reply:
            assert b"-32022" in await reply.read()
        await upstream.order("discover-silent")
        with pytest.raises(TimeoutError):
            await post(upstream, rpc("server/discover"), timeout=QUICK)


async def test_a_legacy_session_is_lost_once():
    async with faulty_http() as upstream, aiohttp.ClientSession() as session:

        async def send(message: dict[str, Any], name: str | None) -> aiohttp.ClientResponse:
            headers = {"Mcp-Session-Id": name} if name else {}
            async with session.post(upstream.url, json=message, headers=headers) as reply:
                return reply

        name = (await send(START, None)).headers["Mcp-Session-Id"]
        call = tool("echo", modern=False)
        assert (await send(call, None)).status == 400
        assert (await send(call, name)).status == 200
        await upstream.order("lose-session", times=1)
        assert (await send(call, name)).status == 404
        again = (await send(START, None)).headers["Mcp-Session-Id"]
        assert (await send(call, again)).status == 200


async def test_http_with_sse_answers_on_the_stream():
    async with (
        faulty_http() as upstream,
        aiohttp.ClientSession() as session,
        session.get(upstream.sse_url) as stream,
    ):

        async def line() -> bytes:
            return await asyncio.wait_for(stream.content.readline(), 10)

        async def send(message: dict[str, Any]) -> int:
            async with session.post(endpoint, json=message) as reply:
                return reply.status

        assert await line() == b"event: endpoint\n"
        endpoint = upstream.sse_url.removesuffix("/sse") + (await line()).removeprefix(b"data: ").decode().strip()
        assert await line() == b"\n"
        assert await send(tool("echo", modern=False, text="hello")) == 202
        assert await line() == b"event: message\n"
        assert b"hello" in await line()
        assert await send(tool("echo", modern=False, fault="status-500")) == 500


async def test_a_child_answers_a_line_and_ends_with_its_input():
    async with faulty_stdio() as command, child(command) as server:
        assert json.loads(await server.say(tool("count")))["result"]["content"][0]["text"] == "1"
        server.stdin.close()
        assert await server.ended() == 0


async def test_a_child_crashes_at_once_until_ordered_otherwise():
    async with faulty_stdio("exit-at-start") as command:
        async with child(command) as server:
            assert await server.ended() == 1
        command.order()
        async with child(command) as server:
            assert b"result" in await server.say(tool("echo"))
        assert len(command.pids()) == 2


async def test_a_child_dies_closes_and_cuts_in_mid_call():
    for fault in ("die", "close", "truncate-json"):
        async with faulty_stdio() as command, child(command) as server:
            assert not (await server.say(tool("echo", fault=fault))).endswith(b"\n")
            assert command.ledger.count("echo") == 1


async def test_a_child_makes_noise_and_overlong_lines():
    async with faulty_stdio("noise") as command, child(command) as server:
        with pytest.raises(ValueError, match="Expecting value"):
            json.loads(await server.line())
    async with faulty_stdio() as command, child(command) as server:
        assert len(await server.say(tool("echo", fault="overlong-line"))) > 40 * 2**20


async def test_a_child_ignores_sigterm_and_the_end_of_its_input():
    async with faulty_stdio("ignore-sigterm") as command, child(command) as server:
        await server.say(tool("echo"))
        server.process.terminate()
        server.stdin.close()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(server.process.wait(), 0.5)
        assert command.running() == [server.process.pid]


async def test_a_grandchild_outlives_the_child():
    async with faulty_stdio("grandchild") as command:
        async with child(command) as server:
            await server.say(tool("echo"))
            os.kill(server.process.pid, signal.SIGTERM)
            await server.ended()
        (born,) = command.ledger.events("grandchild")
        assert alive(born["child"])
        assert stop_grandchildren(command.ledger) == [born["child"]]
        await eventually(lambda: not alive(born["child"]))


async def test_a_fault_that_nobody_knows_is_refused():
    async with faulty_http() as upstream:
        assert (await ask(upstream, tool("echo", fault="no-such-fault")))["error"]["code"] == -32602
        assert upstream.ledger.count() == 0
