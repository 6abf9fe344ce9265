"""The harness can fail: a wait ends, what is left behind is found, a proxy that does not start is reported."""

from __future__ import annotations

import asyncio

import pytest

from tests.faults.harness import faulty_http, faulty_stdio
from tests.harness import ProxyProcess, alive, descendants, eventually, make_token

pytestmark = pytest.mark.anyio


async def test_a_wait_ends_with_the_last_answer_when_it_never_comes_true():
    with pytest.raises(AssertionError, match="the sun rises; the last answer was 0"):
        await eventually(lambda: 0, 0.05, what="the sun rises")


async def test_a_wait_returns_what_came_true():
    answers = iter([None, "", "yes"])
    assert await eventually(lambda: next(answers), 5) == "yes"


async def test_descendants_are_found_and_the_dead_are_not_alive():
    process = await asyncio.create_subprocess_exec("sh", "-c", "sleep 60 & wait")
    found = await eventually(lambda: len(tree := descendants(process.pid)) > 1 and tree)
    try:
        assert all(alive(pid) for pid in found)
    finally:
        for pid in found - {process.pid}:
            await (await asyncio.create_subprocess_exec("kill", "-9", str(pid))).wait()
        await process.wait()
    assert not any(alive(pid) for pid in found)


async def test_a_proxy_that_cannot_start_is_reported_with_what_it_said():
    with pytest.raises(RuntimeError, match=r"ended with 2:\n.*JWT_SECRET"):
        async with ProxyProcess(servers={}, env={"JWT_SECRET": "short"}):
            pass


async def test_a_proxy_serves_is_read_and_leaves_nothing_behind():
    async with faulty_stdio() as child, faulty_http() as upstream:
        async with ProxyProcess(servers={"child": child.entry, "web": {"url": upstream.url}}) as proxy:
            await proxy.connected("child", "web")
            reply = await proxy.call("add", {"a": 2, "b": 3}, server="child")
            assert (reply.status, reply.json["structuredContent"]) == (200, {"sum": 5})
            assert child.running() == child.pids()
            assert set(child.pids()) <= proxy.tree()
            (line,) = await eventually(lambda: proxy.log_lines(event="request", tool="add"))
            assert line["server"] == "child"
            expired = make_token(ttl=-600)
            assert (await proxy.call("add", token=expired)).status == 401
        assert child.running() == []


async def test_a_killed_proxy_leaves_no_children_and_starts_again():
    async with faulty_stdio() as child, ProxyProcess(servers={"child": child.entry}) as proxy:
        await proxy.connected("child")
        await proxy.kill()
        await eventually(lambda: not child.running())
        await proxy.start()
        await proxy.connected("child")
        assert len(child.pids()) == 2
