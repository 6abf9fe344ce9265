"""The running program with workers: it does what it does without them, whichever of them a client has come to."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mcp_proxy.base.tasks import TaskSet
from tests.faults.harness import FaultyCommand
from tests.flows.mcp_client import INFO, JSON, LEGACY, Modern, events, message_of, open_client, read_answer
from tests.flows.test_both_servers import exchange
from tests.flows.test_cli import run
from tests.harness import ProxyProcess, alive, command_line, descendants, eventually, make_token

pytestmark = pytest.mark.anyio

PATIENCE = 20.0
COUNT = 2


@asynccontextmanager
async def manned(server: str, child: FaultyCommand) -> AsyncIterator[ProxyProcess]:
    """The program with its workers, all of them at work."""
    env = {"MCP_PROXY_SERVER": server, "MCP_PROXY_WORKERS": str(COUNT)}
    async with ProxyProcess(servers={"calc": child.entry}, env=env, stop_timeout=30) as one:
        await one.connected("calc", timeout=30)
        await crew(one)
        yield one


@pytest.fixture(scope="module")
async def proxy(server: str, child: FaultyCommand) -> AsyncIterator[ProxyProcess]:
    async with manned(server, child) as one:
        yield one
        assert await one.terminate() == 0
        assert not one.log_lines(level="error")
        assert len(one.log_lines(event="worker_started")) == COUNT
        assert one.stdout() == ""


def workers(proxy: ProxyProcess) -> list[int]:
    """Those that run."""
    return sorted(pid for pid in descendants(proxy.pid) if "mcp_proxy.serving.workers" in command_line(pid))


async def crew(proxy: ProxyProcess) -> list[int]:
    """All workers, once there are as many as there should be, and each of them listens: it ignores the owner's signals."""

    def ready() -> list[int]:
        found = workers(proxy)
        return found if len(found) == COUNT and all(map(ignores_hangup, found)) else []

    return await eventually(ready, 60, what="as many workers as there should be")


def ignores_hangup(pid: int) -> bool:
    with suppress(OSError), open(f"/proc/{pid}/status") as status:
        for line in status:
            if line.startswith("SigIgn:"):
                return bool(int(line.split()[1], 16) & 1 << signal.SIGHUP - 1)
    return False


@contextmanager
def alone(proxy: ProxyProcess, worker: int) -> Iterator[None]:
    """New connections come to this worker: the others are held."""
    others = [pid for pid in workers(proxy) if pid != worker]
    for pid in others:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in others:
            os.kill(pid, signal.SIGCONT)


class Way:
    """One kept connection, to one worker."""

    def __init__(self, proxy: ProxyProcess, session: aiohttp.ClientSession, token: str) -> None:
        self.proxy, self.session = proxy, session
        self._headers = {"Authorization": f"Bearer {token}"}

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None, **more: Any) -> Any:
        """An answer, as a context."""
        return self.session.request(method, self.proxy.base_url + path, headers=self._headers | (headers or {}), **more)

    async def status(self, method: str, path: str, **more: Any) -> int:
        async with self.ask(method, path, **more) as answer:
            await answer.read()
            return int(answer.status)

    async def echo(self, text: str) -> int:
        """The status of a call."""
        return await self.status("POST", "/tools", json={"method": "echo", "args": {"text": text}})

    async def rpc(self, method: str, params: Any = None, *, id: Any = 1, **headers: str) -> Any:
        """A message to the MCP door, and its `Answer`."""
        async with self.ask("POST", "/mcp", {**JSON, **headers}, json=message_of(id, method, params)) as answer:
            return await read_answer(answer)


@asynccontextmanager
async def ways(proxy: ProxyProcess, token: str = "") -> AsyncIterator[list[Way]]:
    """One by each worker."""
    async with asyncio.timeout(PATIENCE * 3):
        found = []
        for worker in await crew(proxy):
            connector = aiohttp.TCPConnector(limit=1)
            session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=PATIENCE))
            found.append(Way(proxy, session, token or make_token()))
            with alone(proxy, worker):
                assert await found[-1].status("GET", "/health/live") == 200
        try:
            yield found
        finally:
            for way in found:
                await way.session.close()


async def test_a_call_through_any_worker_is_answered_and_logged_once(proxy: ProxyProcess):
    def lines() -> list[dict[str, Any]]:
        return proxy.log_lines(event="request", principal="once")

    async with ways(proxy, make_token(sub="once")) as found:
        for way in found:
            assert await way.echo("é") == 200
            assert await way.status("GET", "/tools") == 200
    await eventually(lambda: len(lines()) >= 3 * COUNT, what="the lines are written")
    paths = [line["path"] for line in lines()]
    assert paths == ["/health/live"] * COUNT + ["/tools"] * 2 * COUNT
    assert {(line["remote_addr"], line["status_code"]) for line in lines()} == {("127.0.0.1", 200)}


async def test_a_session_is_the_same_at_every_worker(proxy: ProxyProcess):
    params = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": INFO}
    async with ways(proxy) as (one, other):
        opened = await one.rpc("initialize", params)
        known = {"Mcp-Session-Id": opened.headers["Mcp-Session-Id"], "MCP-Protocol-Version": LEGACY}
        assert (await other.rpc("notifications/initialized", id=None, **known)).status == 202
        for way in (other, one, other):
            answer = await way.rpc("tools/call", {"name": "echo", "arguments": {"text": "hi"}}, **known)
            assert answer.text == "hi"
        async with ways(proxy) as streams:
            for way in (*streams, streams[0]):  # each takes over from the one before it
                async with way.ask("GET", "/mcp", {"Accept": "text/event-stream", **known}) as stream:
                    assert stream.status == 200
        assert await other.status("DELETE", "/mcp", headers=known) in (200, 204)
        assert (await one.rpc("tools/list", **known)).status == 404


async def test_what_is_posted_at_one_worker_is_answered_on_the_stream_at_another(proxy: ProxyProcess):
    params = {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": INFO}
    async with (
        ways(proxy) as (one, other),
        asyncio.timeout(PATIENCE),
        one.ask("GET", "/sse", {"Accept": "text/event-stream"}) as stream,
    ):
        found = events(stream)
        _, endpoint = await anext(found)
        assert await other.status("POST", endpoint, headers=JSON, json=message_of(7, "initialize", params)) == 202
        _, answer = await anext(found)
        assert (answer["id"], answer["result"]["protocolVersion"]) == (7, "2024-11-05")


async def test_modern_clients_are_served_and_hear_of_changes_made_elsewhere(proxy: ProxyProcess):
    async with ways(proxy, make_token(scope="admin")) as (one, _), open_client("modern", proxy.base_url) as client:
        assert isinstance(client, Modern)
        assert (await client.call("echo", {"text": "hi"})).text == "hi"
        await client.listen()
        assert await one.status("POST", "/api/instances/calc/disable") == 200
        await client.hears("notifications/tools/list_changed")
        assert await one.status("POST", "/api/instances/calc/enable") == 200
        await proxy.connected("calc")


async def test_the_live_log_shows_what_happens_at_all_workers(proxy: ProxyProcess):
    async with ways(proxy) as found:
        headers = {"Authorization": f"Bearer {make_token(scope='logs:read', sub='watcher')}"}
        address = f"{proxy.base_url}/ws?event=request&principal=tester&last=0"
        async with asyncio.timeout(PATIENCE), proxy.session.ws_connect(address, headers=headers) as log:
            for way in found:
                assert await way.echo("hi") == 200
                while (line := json.loads((await log.receive()).data))["path"] != "/tools":
                    pass  # of another test's last request, which is logged when it has ended
                assert line["tool"] == "echo"


async def test_rates_count_at_all_workers_together(proxy: ProxyProcess):
    async with ways(proxy, make_token(sub="hasty", rate=3)) as (one, other):
        assert [await way.echo("hi") for way in (one, other, one, other, one)] == [200, 200, 200, 429, 429]


async def test_a_body_that_is_too_large_is_refused_and_a_large_one_is_not(proxy: ProxyProcess):
    async def endless() -> AsyncIterator[bytes]:
        with suppress(asyncio.CancelledError):
            for _ in range(80):
                yield b" " * 65_536

    large = json.dumps({"method": "echo", "args": {"text": "x" * 3_500_000}}).encode()
    kind = {"Content-Type": "application/json"}
    async with ways(proxy) as found:
        for way in found:
            assert await way.status("POST", "/tools", data=io.BytesIO(large), headers=kind) == 200
    length = str(5 * 1024 * 1024)
    head = f"POST /tools HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n".encode()
    answer = await asyncio.to_thread(exchange, proxy.port, head, b"x" * 1000)
    assert answer.startswith(b"HTTP/1.1 413 ")
    with suppress(aiohttp.ClientConnectionError):  # it may be closed before all was sent
        reply = await proxy.request("POST", "/tools", data=endless(), headers={"Content-Type": "application/json"})
        assert reply.status == 413


async def test_a_client_that_leaves_ends_its_call(proxy: ProxyProcess, child: FaultyCommand):
    before = len(child.ledger.events("cancelled"))
    with pytest.raises(TimeoutError):
        await proxy.call(
            "echo", {"text": "left", "fault": "slow", "ms": 60_000}, timeout=aiohttp.ClientTimeout(total=1)
        )
    await eventually(lambda: len(child.ledger.events("cancelled")) > before, what="the call is cancelled")
    await eventually(lambda: proxy.log_lines(event="request", status_code=499), what="its line")


async def test_signals_for_all_processes_are_the_owners(proxy: ProxyProcess):
    before = await crew(proxy)
    for pid in before:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pid, number)
    async with ways(proxy) as found:
        assert [await way.echo("hi") for way in found] == [200, 200]
    assert await crew(proxy) == before


@pytest.fixture(scope="module")
async def another(server: str, child: FaultyCommand) -> AsyncIterator[ProxyProcess]:
    """For what leaves traces. Started again by each test that ends it."""
    async with manned(server, child) as one:
        yield one


async def test_a_worker_that_is_killed_takes_its_connections_with_it_and_is_replaced(
    another: ProxyProcess, child: FaultyCommand
):
    proxy, tasks = another, TaskSet(lambda name, error: None)
    cancelled, doomed_before = len(child.ledger.events("cancelled")), child.ledger.count(text="doomed")
    async with ways(proxy) as (one, other):
        doomed = (await crew(proxy))[0]
        body = {"method": "echo", "args": {"text": "doomed", "fault": "slow", "ms": 60_000}}
        calling = tasks.spawn(one.status("POST", "/tools", json=body), "call")
        await eventually(lambda: child.ledger.count(text="doomed") > doomed_before, what="the call is in flight")
        os.kill(doomed, signal.SIGKILL)
        with pytest.raises(aiohttp.ClientConnectionError):
            await asyncio.wait_for(calling, PATIENCE)
        assert await other.echo("hi") == 200
        assert (await proxy.call("echo", {"text": "hi"})).status == 200
    await eventually(lambda: len(child.ledger.events("cancelled")) > cancelled, what="the call is cancelled")
    replaced = await crew(proxy)
    assert doomed not in replaced
    async with ways(proxy) as found:
        assert [await way.echo("hi") for way in found] == [200, 200]
    (lost,) = proxy.log_lines(event="worker_lost")
    assert (lost["level"], lost["worker"], lost["reason"]) == ("error", 1, "it ended with -9")
    assert len(proxy.log_lines(event="worker_started")) == COUNT + 1


async def test_a_stop_lets_a_call_in_flight_be_answered_and_ends_all_processes(
    another: ProxyProcess, child: FaultyCommand
):
    proxy, tasks, before = another, TaskSet(lambda name, error: None), child.ledger.count()
    tree = proxy.tree()
    calling = tasks.spawn(proxy.call("count", {"fault": "slow", "ms": 3000}), "a slow call")
    async with open_client("legacy", proxy.base_url) as client:
        await client.listen()
        await eventually(lambda: child.ledger.count() > before, what="the slow call has arrived")
        proxy.process.terminate()
        await eventually(lambda: proxy.log_lines(event="stopping"), what="it heard the signal")
        assert (await proxy.get("/health/ready", token=None)).status == 503
        assert (await asyncio.wait_for(calling, PATIENCE)).status == 200
        assert await asyncio.wait_for(proxy.process.wait(), PATIENCE) == 0
    assert not any(map(alive, tree))
    assert [line["event"] for line in proxy.log_lines(level="error")] in (
        [],
        ["worker_lost"],
    )  # that of the test before
    await proxy.start()


async def test_nothing_is_left_of_an_owner_that_is_killed(another: ProxyProcess):
    await crew(another)
    tree = another.tree()
    await another.kill()
    await eventually(lambda: not any(map(alive, tree)), 20, what="all of its processes are gone")
    await another.start()  # The port is free at once.


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("serve", "--workers", "0"), "--workers is '0'; accepted: "),
        (("serve", "--workers", "5000"), "--workers is '5000'; accepted: 1 to "),
        (("stdio", "--workers", "2"), "--workers is for serve: "),
    ],
)
async def test_where_workers_cannot_be_had_one_line_says_why(command: tuple[str, ...], reason: str, tmp_path: Path):
    ended = await run(*command, cwd=tmp_path)
    assert ended.code == 2
    (line,) = ended.err.splitlines()
    assert line.startswith(f"mcp-proxy-api: {reason}")
