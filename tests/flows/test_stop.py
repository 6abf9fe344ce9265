"""The end: asked for, it is orderly; by force, it leaves nothing behind. And what must take effect on a running service."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from mcp_proxy.base.tasks import TaskSet
from tests.faults.harness import FaultyCommand, faulty_stdio
from tests.flows.inside import refusal
from tests.harness import ProxyProcess, Reply, eventually, make_token

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def stopping(ms: int, **env: str) -> AsyncIterator[tuple[ProxyProcess, FaultyCommand, asyncio.Task[Reply]]]:
    """A proxy that has been told to stop, while a call of so many milliseconds is in flight."""
    tasks = TaskSet(lambda name, error: None)
    async with faulty_stdio() as child, ProxyProcess(servers={"calc": child.entry}, env=env) as proxy:
        await proxy.connected("calc")
        slow = tasks.spawn(proxy.call("count", {"fault": "slow", "ms": ms}), "a slow call")
        await eventually(lambda: child.ledger.count() == 1, what="the slow call has arrived")
        proxy.process.terminate()
        await eventually(lambda: proxy.log_lines(event="stopping"), what="it heard the signal")
        try:
            yield proxy, child, slow
        finally:
            await tasks.close()


async def test_a_call_in_flight_is_answered_while_nothing_new_is_taken():
    async with stopping(3000) as (proxy, child, slow):
        ready = await proxy.get("/health/ready", token=None)
        live = await proxy.get("/health/live", token=None)
        refused = await proxy.call("count")
        assert not slow.done(), "all of this was asked during the slow call"
        assert (ready.status, live.status) == (503, 200)
        assert refusal(refused) == (503, "draining")
        assert int(refused.headers["retry-after"]) >= 1
        assert (await proxy.get("/health", token=None)).json["status"] == "draining"
        answer = await asyncio.wait_for(slow, 15)
        assert (answer.status, answer.json["content"][0]["text"]) == (200, "1")
        assert await asyncio.wait_for(proxy.process.wait(), 15) == 0
        assert child.running() == []
        assert child.ledger.count() == 1


async def test_a_call_that_takes_longer_than_the_drain_does_not_hold_the_stop_up():
    async with stopping(60_000, MCP_PROXY_DRAIN_TIMEOUT="0.3") as (proxy, child, slow):
        assert await asyncio.wait_for(proxy.process.wait(), 15) == 0
        assert proxy.log_lines(event="drain_timeout", calls_in_flight=1)
        assert child.running() == []
        answer = await slow
        assert refusal(answer) == (502, "outcome_unknown"), "its caller is told that nobody knows"


async def test_a_client_that_does_not_read_its_answer_does_not_hold_the_stop_up():
    async with faulty_stdio() as child, ProxyProcess(servers={"calc": child.entry}) as proxy:
        await proxy.connected("calc")
        body = json.dumps({"method": "echo", "args": {"text": "x" * 3_500_000}}).encode()
        head = [
            "POST /tools HTTP/1.1",
            "Host: localhost",
            f"Authorization: Bearer {make_token()}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        ]
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect(("127.0.0.1", proxy.port))
            await asyncio.to_thread(deaf.sendall, "\r\n".join([*head, "", ""]).encode() + body)
            await eventually(lambda: child.ledger.count() == 1, what="the call was executed")
            proxy.process.terminate()
            assert await asyncio.wait_for(proxy.process.wait(), 20) == 0
        assert not proxy.log_lines(event="task_failed")
        assert proxy.log_lines(event="stopped")
        assert child.running() == []


async def test_a_second_signal_ends_the_waiting():
    async with stopping(60_000) as (proxy, child, _):
        proxy.process.terminate()
        assert await asyncio.wait_for(proxy.process.wait(), 15) == 0
        assert child.running() == []


async def test_a_child_that_ignores_its_orders_is_gone_as_well():
    async with faulty_stdio("ignore-sigterm") as child, ProxyProcess(servers={"calc": child.entry}) as proxy:
        await proxy.connected("calc")
        assert len(child.running()) == 1
        assert await proxy.terminate() == 0
        assert child.running() == []


async def test_a_proxy_that_is_killed_leaves_no_child():
    async with faulty_stdio() as child, ProxyProcess(servers={"calc": child.entry}) as proxy:
        await proxy.connected("calc")
        assert len(child.running()) == 1
        await proxy.kill()
        await eventually(lambda: not child.running(), what="the child is gone")


async def test_a_token_is_refused_once_the_command_has_revoked_it():
    async with ProxyProcess(servers={}) as proxy:
        token = make_token(jti="doomed")
        assert (await proxy.get("/tools", token=token)).status == 200
        revoked = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "mcp_proxy", "token", "revoke", "doomed", cwd=proxy.directory,
            env=proxy._environment(), stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, said = await revoked.communicate()
        assert (revoked.returncode, b"doomed is now revoked" in said) == (0, True)

        async def refused() -> bool:
            return (await proxy.get("/tools", token=token)).status == 401

        await eventually(refused, 3, what="the revocation is in force")
        assert (await proxy.get("/tools", token=make_token(jti="other"))).status == 200
