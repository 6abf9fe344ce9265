from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator

import pytest

from mcp_proxy.core.upstream import child as child_module
from mcp_proxy.core.upstream.child import INHERITED, Child, child_environment, start
from mcp_proxy.core.upstream.failures import Failure, Phase, WireError
from mcp_proxy.core.upstream.guardian import Guardian
from tests.unit.core.upstream.processes import gone, group_gone

pytestmark = pytest.mark.anyio

ECHO = "import sys\nfor line in sys.stdin: print(line, end='', flush=True)"
STUBBORN = (
    "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(600)"
)
HELPER = (
    "import subprocess, sys\n"
    "helper = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], stdin=subprocess.DEVNULL)\n"
    "print(helper.pid, flush=True)\n"
    "sys.stdin.read()"
)

STUBBORN_HELPER = (
    "import os, signal, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "if os.fork() == 0: [os.close(number) for number in (0, 1, 2)] + [time.sleep(600)]\n"
    "print('up', flush=True)\n"
    "sys.stdin.read()"
)


class Started:
    """A child with what it has said; bytes arrive in a queue."""

    def __init__(self, guardian: Guardian) -> None:
        self.guardian = guardian
        self.out: asyncio.Queue[bytes] = asyncio.Queue()
        self.err: asyncio.Queue[str] = asyncio.Queue()
        self.children: list[Child] = []

    async def python(self, code: str, **env: str) -> Child:
        return await self.command(sys.executable, "-c", code, **env)

    async def command(self, *command: str, cwd: str | None = None, **env: str) -> Child:
        child = await start(
            command, env=env, cwd=cwd, guardian=self.guardian,
            on_stdout=self.out.put_nowait, on_stderr=self.err.put_nowait,
        )  # fmt: skip
        self.children.append(child)
        return child

    async def said(self) -> bytes:
        async with asyncio.timeout(10):
            return await self.out.get()


@pytest.fixture
async def started(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Started]:
    monkeypatch.setattr(child_module, "_GRACE", 0.5)
    guardian = Guardian()
    started = Started(guardian)
    yield started
    for child in started.children:
        await child.stop()
    await guardian.close()


async def ended(child: Child) -> str:
    async with asyncio.timeout(10):
        return await asyncio.shield(child.exited)


async def test_what_is_written_arrives_and_what_it_says_comes_back(started: Started) -> None:
    child = await started.python(ECHO)
    assert child.write(b"hello\n")
    assert await started.said() == b"hello\n"


async def test_lines_on_stderr_are_handed_on_cut_to_a_length(started: Started) -> None:
    await started.python(
        "import sys; sys.stderr.buffer.write(b'one\\n\\xff\\n' + b'x' * 9000 + b'\\n'); sys.stdin.read()"
    )
    async with asyncio.timeout(10):
        lines = [await started.err.get() for _ in range(3)]
    assert lines[:2] == ["one", "\ufffd"]
    assert len(lines[2]) < 200


@pytest.mark.parametrize(
    ("code", "how"),
    [("raise SystemExit(3)", "it exited with code 3"), ("import os; os.kill(os.getpid(), 9)", "it ended by signal 9")],
)
async def test_a_child_that_ends_says_how(started: Started, code: str, how: str) -> None:
    # On a busy machine the end of its output can be noticed well before the end of the process.
    assert await ended(await started.python(code)) in (how, "it closed its stdout")


async def test_what_it_says_last_arrives_before_its_end(started: Started) -> None:
    child = await started.python("print('last words', flush=True)")
    await ended(child)
    assert await started.said() == b"last words\n"


async def test_after_its_end_nothing_can_be_written(started: Started) -> None:
    child = await started.python("pass")
    await ended(child)
    assert not child.write(b"x\n")


async def test_a_child_that_closes_its_stdout_is_as_good_as_gone(started: Started) -> None:
    child = await started.python("import os, time; os.close(1); time.sleep(600)")
    assert await ended(child) == "it closed its stdout"


async def test_a_child_that_does_not_read_stops_the_writing(started: Started) -> None:
    child = await started.python("import time; print('up', flush=True); time.sleep(600)")
    await started.said()
    assert child.writable
    child.write(b"x" * 4 * 1024 * 1024)
    assert not child.writable


async def test_stopping_takes_every_process_of_the_group(started: Started) -> None:
    child = await started.python(HELPER)
    helper = int(await started.said())
    await child.stop()
    await gone(child.pid)
    await gone(helper)
    await group_gone(child.pid)


async def test_a_helper_that_is_left_behind_is_stopped_as_well(started: Started) -> None:
    child = await started.python(HELPER + "\nimport os; os._exit(0)")
    helper = int(await started.said())
    child.write(b"")
    os.kill(child.pid, 9)
    await ended(child)
    os.kill(helper, 0)
    await child.stop()
    await gone(helper)


async def test_what_ignores_sigterm_is_killed(started: Started) -> None:
    child = await started.python(STUBBORN)
    await started.said()
    await child.stop()
    await gone(child.pid)


async def test_a_stop_that_is_cut_short_leaves_no_transport_open_of_a_child_that_has_ended(started: Started) -> None:
    child = await started.python(STUBBORN_HELPER)
    await started.said()
    stopping = asyncio.gather(child.stop())
    await ended(child)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert child._transport is not None
    assert child._transport.is_closing()


async def test_stopping_twice_is_no_error(started: Started) -> None:
    child = await started.python(ECHO)
    await child.stop()
    await child.stop()
    assert child.exited.done()


async def test_a_child_sees_its_own_environment_and_nothing_else(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JWT_SECRET", "ours")
    await started.python("import os; print(sorted(os.environ), flush=True)", OWN="1")
    names = (await started.said()).decode()
    assert "OWN" in names
    assert "JWT_SECRET" not in names


def test_the_environment_is_a_short_list_and_what_was_configured() -> None:
    own = {"PATH": "/bin", "HOME": "/root", "JWT_SECRET": "s", "LD_PRELOAD": "x", "PYTHONPATH": "y"}
    assert child_environment(own, {"HOME": "/srv", "KEY": "v"}) == {"PATH": "/bin", "HOME": "/srv", "KEY": "v"}
    assert not {"JWT_SECRET", "MCP_PROXY_API_TOKENS"} & set(INHERITED)


@pytest.mark.parametrize(
    ("command", "cwd", "words"),
    [
        ("/no/such/program", None, "the command '/no/such/program' does not exist"),
        ("/", None, "cannot start '/'"),
        (sys.executable, "/no/such/directory", "the working directory does not exist"),
    ],
)
async def test_a_command_that_cannot_be_started_says_why(
    started: Started, command: str, cwd: str | None, words: str
) -> None:
    with pytest.raises(WireError) as raised:
        await started.command(command, cwd=cwd)
    assert words in raised.value.message
    assert (raised.value.failure, raised.value.phase) == (Failure.UNREACHABLE, Phase.NOT_SENT)
