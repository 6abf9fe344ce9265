"""Workers as processes: what they load, that they serve, and what happens when they cannot be started."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from mcp_proxy.serving.workers import crew
from tests.harness import eventually
from tests.unit.serving.raw import App, last, served, talk

pytestmark = pytest.mark.anyio

HEAVY = ("quart", "jwt", "pydantic", "structlog", "aiohttp", "mcp_proxy.core", "mcp_proxy.settings", "mcp_proxy.cli")


def test_a_worker_loads_nothing_of_the_application() -> None:
    asked = f"""if True:
        import sys
        import mcp_proxy.serving.workers.worker, mcp_proxy.serving.uvicorn_server, mcp_proxy.serving.hypercorn_http2
        print([name for name in {HEAVY} if name in sys.modules])"""
    found = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout == "[]\n"


async def test_what_a_worker_is_asked_is_answered_here() -> None:
    app = App()
    async with served(app, crew.serve_by(1, "hypercorn")) as house:
        (answer,) = await asyncio.wait_for(talk(house.port, last("/stream")), 60)
        assert (answer.status, b"one" in answer.body, b"two" in answer.body) == (200, True, True)
        await house.end()
        assert [event for event, _ in house.log.lines] == ["worker_started"]
    (scope,) = app.scopes
    assert (scope["server"], scope["client"][0], "state" in scope) == (("127.0.0.1", house.port), "127.0.0.1", False)


async def test_a_worker_that_hangs_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "_LOOK", 0.02)
    monkeypatch.setattr(crew, "_LOOKS", 10_000)
    async with served(App(), crew.serve_by(1, "hypercorn")) as house:
        await eventually(lambda: bool(house.log.lines), what="a worker was started")
        assert (await asyncio.wait_for(talk(house.port, last("/stream")), 60))[0].status == 200
        monkeypatch.setattr(crew, "_LOOKS", 20)
        os.kill(house.log.lines[0][1]["pid"], signal.SIGSTOP)
        await eventually(lambda: len(house.log.lines) >= 2, what="it was given up")
        monkeypatch.setattr(crew, "_LOOKS", 10_000)
        await eventually(lambda: len(house.log.lines) >= 3, what="another was started")
        assert (await asyncio.wait_for(talk(house.port, last("/stream")), 60))[0].status == 200
        await house.end()
    assert [event for event, _ in house.log.lines] == ["worker_started", "worker_lost", "worker_started"]
    assert house.log.lines[1][1]["reason"] == "it did not answer any more"


async def test_workers_that_cannot_be_started_are_said_and_do_not_hold_up_the_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crew.sys, "executable", "/nowhere/python")
    async with served(App(), crew.serve_by(2, "hypercorn")) as house:
        await eventually(lambda: len(house.log.lines) >= 2)
        await house.end()
    assert {event for event, _ in house.log.lines} == {"worker_lost"}
    assert all("could not be started" in fields["reason"] for _, fields in house.log.lines)
