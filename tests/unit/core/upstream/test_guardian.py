from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mcp_proxy.core.upstream.guardian import Guardian
from tests.unit.core.upstream.processes import gone

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[4]

PROXY = """
import asyncio, sys
from mcp_proxy.core.upstream.child import start
from mcp_proxy.core.upstream.guardian import Guardian

CHILD = '''
import os, signal, subprocess, sys, time
if sys.argv[1] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdin=subprocess.DEVNULL)
print(os.getpid(), helper.pid, flush=True)
time.sleep(600)
'''

async def main():
    guardian = Guardian()
    say = lambda data: print(data.decode().strip(), flush=True)
    for kind in ("meek", "stubborn"):
        await start((sys.executable, "-c", CHILD, kind), env={}, cwd=None, guardian=guardian, on_stdout=say, on_stderr=say)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_no_child_and_no_grandchild_outlives_a_proxy_that_is_killed(number: signal.Signals) -> None:
    proxy = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROXY, stdout=asyncio.subprocess.PIPE, cwd=ROOT, start_new_session=True
    )
    assert proxy.stdout is not None
    async with asyncio.timeout(30):
        lines = [await proxy.stdout.readline() for _ in range(2)]
    processes = [int(word) for line in lines for word in line.split()]
    assert len(processes) == 4
    for pid in processes:
        os.kill(pid, 0)
    proxy.send_signal(number)
    await proxy.wait()
    for pid in processes:
        await gone(pid)


async def test_closing_ends_the_groups_that_are_still_watched_and_no_others() -> None:
    guardian = Guardian()
    await guardian.start()
    watched, forgotten = sleeper(), sleeper()
    try:
        for one in (watched, forgotten):
            guardian.watch(one.pid)
        guardian.forget(forgotten.pid)
        await guardian.close()
        await gone(watched.pid)
        assert watched.wait(10) == -signal.SIGTERM
        assert forgotten.poll() is None
    finally:
        for one in (watched, forgotten):
            one.kill()
            one.wait()


async def test_a_guardian_that_was_killed_is_replaced_and_the_new_one_knows_all_groups() -> None:
    guardian = Guardian()
    await guardian.start()
    watched = sleeper()
    try:
        guardian.watch(watched.pid)
        process = guardian._process
        assert process is not None
        process.kill()
        await process.wait()
        await guardian.start()
        assert guardian._process is not process
        await guardian.close()
        assert watched.wait(10) == -signal.SIGTERM
    finally:
        watched.kill()
        watched.wait()


async def test_one_process_serves_all_children() -> None:
    guardian = Guardian()
    await asyncio.gather(guardian.start(), guardian.start())
    first = guardian._process
    await guardian.start()
    assert guardian._process is first
    await guardian.close()


async def test_a_guardian_that_was_never_started_closes_silently() -> None:
    guardian = Guardian()
    guardian.watch(1 << 30)
    await guardian.close()
