"""``mcp-proxy-api stdio`` as MCP clients use it: a program with three streams, which ends when its client does."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.faults.harness import FaultyCommand, faulty_stdio
from tests.harness import CLEAN, ROOT, SECRET, SERVER, alive, descendants, eventually, free_port, make_token

pytestmark = pytest.mark.anyio

INITIALIZE = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
PIPE = asyncio.subprocess.PIPE


class Program:
    """The running program, and the client's ends of its streams."""

    def __init__(self, process: asyncio.subprocess.Process, directory: Path) -> None:
        self.process, self.directory = process, directory
        self.received: list[Any] = []

    def send(self, *messages: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        for message in messages:
            self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    async def receive(self) -> Any:
        """The next message; None at the end."""
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), 30)
        if not line:
            return None
        self.received.append(json.loads(line))
        return self.received[-1]

    async def ask(self, id: int | str, method: str, **params: Any) -> Any:
        """The answer to a request; what comes before it is only kept."""
        self.send({"id": id, "method": method, "params": params})
        while (message := await self.receive()).get("id") != id:
            pass
        return message

    async def call(self, id: int | str, tool: str, arguments: Mapping[str, Any] | None = None, **more: Any) -> Any:
        return await self.ask(id, "tools/call", name=tool, arguments=dict(arguments or {}), **more)

    async def end(self) -> int:
        """Close stdin and wait for the end; returns the exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return await self.exit_code()

    async def exit_code(self) -> int:
        return await asyncio.wait_for(self.process.wait(), 20)

    def log(self, **fields: Any) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in (self.directory / "stderr").read_text().splitlines()]
        return [line for line in found if all(line.get(name) == value for name, value in fields.items())]

    async def connected(self, server: str) -> None:
        await eventually(lambda: self.log(event="upstream_connected", server=server), 20)


def environment(**more: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(CLEAN)}
    return inherited | {"PYTHONPATH": str(ROOT), "MCP_PROXY_SERVER": SERVER} | more


@asynccontextmanager
async def program(
    directory: Path, *args: str, servers: Mapping[str, Any] | None = None, **env: str
) -> AsyncIterator[Program]:
    """The program with these servers, killed if it still runs at the end of the block; its children must be gone."""
    argv = [sys.executable, "-m", "mcp_proxy", "stdio", *args]
    if servers is not None:
        (directory / "servers.json").write_text(json.dumps({"mcpServers": servers}))
        argv += ["--config", "servers.json"]
    with (directory / "stderr").open("wb") as err:
        process = await asyncio.create_subprocess_exec(
            *argv, cwd=directory, env=environment(**env), stdin=PIPE, stdout=PIPE, stderr=err, limit=2**26
        )
    one = Program(process, directory)
    tree: set[int] = set()
    try:
        yield one
        if process.returncode is None:
            tree = descendants(process.pid)
            await one.end()
        await eventually(lambda: not any(alive(pid) for pid in tree), 5, what="its children are gone")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
async def child() -> AsyncIterator[FaultyCommand]:
    async with faulty_stdio() as one:
        yield one


async def test_both_eras_are_spoken_on_one_stream_without_any_secret(tmp_path: Path) -> None:
    async with program(tmp_path) as one:  # with no server configured: the demo server
        hello = await one.ask(1, "initialize", **INITIALIZE)
        one.send({"method": "notifications/initialized"})
        await one.connected("demo")
        tools = await one.ask(2, "tools/list")
        legacy = await one.call(3, "add", {"a": 2, "b": 3})
        modern = await one.call("four", "add", {"a": 2, "b": 3}, _meta=ENVELOPE)
        unknown = await one.ask("five", "initialize", _meta=ENVELOPE)
        assert await one.end() == 0
        assert await one.receive() is None

    assert hello["result"]["protocolVersion"] == "2025-06-18"
    assert "add" in {tool["name"] for tool in tools["result"]["tools"]}
    assert legacy["result"]["structuredContent"] == modern["result"]["structuredContent"] == {"result": 5}
    assert "resultType" not in legacy["result"]
    assert modern["result"]["resultType"] == "complete"
    assert unknown["error"]["code"] == -32601
    assert all(message["jsonrpc"] == "2.0" for message in one.received), "and nothing else was on stdout"


async def test_every_request_is_one_line_in_the_log(tmp_path: Path, child: FaultyCommand) -> None:
    async with program(tmp_path, servers={"calc": child.entry}) as one:
        await one.connected("calc")
        await one.call(1, "add", {"a": 2, "b": 3})
        await one.call(2, "nonesuch")

    good, bad = one.log(event="request")
    assert good | {
        "method": "tools/call", "path": "stdio", "door": "stdio", "principal": "local", "status_code": 200,
        "tool": "add", "server": "calc", "error": None,
    } == good  # fmt: skip
    assert bad["error"] == "tool_not_found"


async def test_a_file_on_stdin_is_answered_to_its_end(tmp_path: Path, child: FaultyCommand) -> None:
    (tmp_path / "servers.json").write_text(json.dumps({"mcpServers": {"calc": child.entry}}))
    call = {"name": "count", "arguments": {"fault": "slow", "ms": 500}}
    lines = [
        {"id": 1, "method": "initialize", "params": INITIALIZE},
        {"id": 2, "method": "tools/list"},
        {"id": 3, "method": "tools/call", "params": call},
        {"id": 4, "method": "tools/call", "params": {**call, "_meta": ENVELOPE}},
    ]
    (tmp_path / "in").write_text("\n".join(json.dumps({"jsonrpc": "2.0", **line}) for line in lines))
    with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("wb") as target:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "mcp_proxy", "stdio", "--config", "servers.json",
            cwd=tmp_path, env=environment(LOG_LEVEL="OFF"), stdin=source, stdout=target, stderr=PIPE,
        )  # fmt: skip
    _, err = await asyncio.wait_for(process.communicate(), 60)
    messages = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    answers = {message["id"]: message for message in messages if "id" in message}

    assert (process.returncode, err) == (0, b"")
    assert set(answers) == {1, 2, 3, 4}
    assert {answers[number]["result"]["content"][0]["text"] for number in (3, 4)} == {"1", "2"}
    assert child.running() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_call_in_flight_is_answered_before_a_signal_ends_the_program(
    tmp_path: Path, child: FaultyCommand, number: signal.Signals
) -> None:
    async with program(tmp_path, servers={"calc": child.entry}) as one:
        await one.connected("calc")
        one.send({"id": 1, "method": "tools/call", "params": slow(1500)})
        await eventually(lambda: child.ledger.count() == 1)
        one.process.send_signal(number)
        answer = await one.receive()
        assert await one.exit_code() == 0

    assert (answer["id"], answer["result"]["content"][0]["text"]) == (1, "1")
    assert child.running() == []


async def test_a_second_signal_ends_the_waiting(tmp_path: Path, child: FaultyCommand) -> None:
    async with program(tmp_path, servers={"calc": child.entry}) as one:
        await one.connected("calc")
        one.send({"id": 1, "method": "tools/call", "params": slow(60_000)})
        await eventually(lambda: child.ledger.count() == 1)
        one.process.terminate()
        await eventually(lambda: one.log(event="stopping"))
        one.process.terminate()
        assert await one.exit_code() == 0
    assert child.running() == []


async def test_a_call_that_outlasts_its_client_by_too_much_is_given_up(tmp_path: Path, child: FaultyCommand) -> None:
    async with program(tmp_path, "--drain-timeout", "0.3", servers={"calc": child.entry}) as one:
        await one.connected("calc")
        one.send({"id": 1, "method": "tools/call", "params": {**slow(60_000), "_meta": ENVELOPE}})
        await eventually(lambda: child.ledger.count() == 1)
        assert await one.end() == 0
        answer = await one.receive()

    assert answer["error"]["data"]["type"] == "outcome_unknown"
    assert child.running() == []


async def test_a_stream_of_notifications_ends_with_the_program(tmp_path: Path, child: FaultyCommand) -> None:
    async with program(tmp_path, servers={"calc": child.entry}) as one:
        listen = {"notifications": {"toolsListChanged": True}, "_meta": ENVELOPE}
        one.send({"id": "l", "method": "subscriptions/listen", "params": listen})
        acknowledged = await one.receive()
        assert await one.end() == 0
        told = [await one.receive()]
        while told[-1] is not None:
            told.append(await one.receive())

    assert acknowledged["method"] == "notifications/subscriptions/acknowledged"
    assert told[-2]["id"] == "l", "it is told that the stream is over"


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_cancelling_a_request_reaches_the_upstream_and_gives_no_answer(
    tmp_path: Path, child: FaultyCommand, era: str
) -> None:
    async with program(tmp_path, servers={"calc": child.entry}) as one:
        more = {"_meta": ENVELOPE} if era == "modern" else {}
        if era == "legacy":
            await one.ask(0, "initialize", **INITIALIZE)
        await one.connected("calc")
        one.send({"id": 1, "method": "tools/call", "params": {**slow(60_000), **more}})
        await eventually(lambda: child.ledger.count() == 1)
        one.send({"method": "notifications/cancelled", "params": {"requestId": 1}})
        await eventually(lambda: child.ledger.events("cancelled"), what="the upstream is told")
        await one.ask(2, "tools/list", **more)
        await eventually(lambda: one.log(event="request", error="cancelled", status_code=499))

    assert 1 not in {message.get("id") for message in one.received}


async def test_a_client_that_no_longer_reads_ends_the_program(tmp_path: Path, child: FaultyCommand) -> None:
    source, target = os.pipe()
    (tmp_path / "servers.json").write_text(json.dumps({"mcpServers": {"calc": child.entry}}))
    with (tmp_path / "stderr").open("wb") as err:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "mcp_proxy", "stdio", "--config", "servers.json",
            cwd=tmp_path, env=environment(), stdin=PIPE, stdout=target, stderr=err,
        )  # fmt: skip
    os.close(target)
    os.close(source)
    one = Program(process, tmp_path)
    await one.connected("calc")
    one.send({"id": 1, "method": "tools/list", "params": {}})

    assert await one.exit_code() == 0
    assert one.log(event="client_gone")
    assert not one.log(level="error")
    assert child.running() == []


async def test_nothing_listens_unless_the_flag_says_so(tmp_path: Path) -> None:
    port = free_port()
    async with program(tmp_path, servers={}, PORT=str(port)) as one:
        await one.ask(1, "ping")
        with pytest.raises(OSError):  # noqa: PT011 - whatever says that nobody is there
            await asyncio.open_connection("127.0.0.1", port)


async def test_flags_about_listening_are_ignored_without_a_port_and_one_line_says_so(tmp_path: Path) -> None:
    args = ("--auto-port", "--doors", "rest", "--allow-host", "a.example", "--separator", "__")
    async with program(tmp_path, *args, servers={}, HOST="127.0.0.2", MCP_PROXY_ADMIN_PORT="auto") as one:
        await one.ask(1, "ping")
        assert await one.end() == 0
    assert [line["reason"] for line in one.log(event="setting_ignored", level="warning")] == [
        "--auto-port, --doors, --allow-host are ignored: without --port nothing listens"
    ]


async def test_flags_about_listening_count_with_a_port(tmp_path: Path) -> None:
    args = ("--port", "auto", "--doors", "rest,mcp")
    async with program(tmp_path, *args, servers={}, JWT_SECRET=SECRET) as one:
        [serving] = await eventually(lambda: one.log(event="serving"))
        assert await one.end() == 0
    assert serving["doors"] == ["stdio", "rest", "mcp"]
    assert not one.log(event="setting_ignored")


async def test_over_http_the_ordinary_rules_hold(tmp_path: Path) -> None:
    async with program(tmp_path, "--port", "0", servers={}) as one:
        assert await one.exit_code() == 2
    assert "JWT_SECRET is not set" in (tmp_path / "stderr").read_text()


async def test_with_a_port_the_http_doors_stand_beside_it_until_the_client_leaves(
    tmp_path: Path, child: FaultyCommand
) -> None:
    args = ("--port", "0")
    async with program(tmp_path, *args, servers={"calc": child.entry}, JWT_SECRET=SECRET) as one:
        await one.connected("calc")
        [serving] = await eventually(lambda: one.log(event="serving"))
        token = {"Authorization": f"Bearer {make_token()}"}
        async with aiohttp.ClientSession(serving["url"]) as session:
            for headers, status in ((token, 200), ({}, 401)):
                body = {"method": "count", "args": {}}
                async with session.post("/tools", json=body, headers=headers) as answer:
                    assert answer.status == status
        assert (await one.call(1, "count"))["result"]["content"][0]["text"] == "2", "it is the same server"
        assert await one.end() == 0
        async with aiohttp.ClientSession(serving["url"]) as session:
            with pytest.raises(aiohttp.ClientConnectionError):
                await session.get("/health")
    assert {line["door"] for line in one.log(event="request")} == {"rest", "stdio"}


async def test_a_large_message_passes_in_both_directions_and_too_large_a_one_is_refused(
    tmp_path: Path, child: FaultyCommand
) -> None:
    async with program(tmp_path, servers={"calc": child.entry}) as one:
        await one.connected("calc")
        text = "ü" * 600_000  # 3.6 MB as it is sent
        answer = await one.call(1, "echo", {"text": text})
        one.send({"id": 2, "method": "ping", "params": {"text": "x" * 5_000_000}})
        refused = await one.receive()
        assert (await one.ask(3, "ping"))["result"] == {}

    assert answer["result"]["content"][0]["text"] == text
    assert (refused["id"], refused["error"]["code"]) == (None, -32600)


@pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning")
@pytest.mark.parametrize("mode", ["legacy", "2026-07-28", "auto"])
async def test_the_official_client_is_served(tmp_path: Path, child: FaultyCommand, mode: str) -> None:
    from mcp import Client, StdioServerParameters

    (tmp_path / "servers.json").write_text(json.dumps({"mcpServers": {"calc": child.entry}}))
    parameters = StdioServerParameters(
        command=sys.executable,
        args=["-m", "mcp_proxy", "stdio", "--config", "servers.json"],
        env=environment(LOG_LEVEL="OFF"),
        cwd=tmp_path,
    )
    async with asyncio.timeout(60), Client(parameters, mode=mode) as client:
        tools = await client.list_tools()
        result = await client.call_tool("add", {"a": 2, "b": 3})

    assert "add" in {tool.name for tool in tools.tools}
    assert result.structured_content == {"sum": 5}
    await eventually(lambda: child.running() == [])


def slow(ms: int) -> dict[str, Any]:
    """The parameters of a call that takes so long."""
    return {"name": "count", "arguments": {"fault": "slow", "ms": ms}}
