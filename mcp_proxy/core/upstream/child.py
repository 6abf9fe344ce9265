"""A child process with pipes, in a process group of its own, and its orderly end.

Knows nothing of MCP: bytes from stdout and lines from stderr go to callbacks. See `stdio` for the protocol on top.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from mcp_proxy.core.upstream.failures import Failure, Phase, WireError
from mcp_proxy.core.upstream.framing import LineFramer
from mcp_proxy.core.upstream.guardian import Guardian

INHERITED = ("HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER")
"""All that a child sees of our environment; secrets of ours are not among them."""

_STDERR_LINE = 8 * 1024
_GRACE = 2.0
"""Seconds between closing stdin, SIGTERM and SIGKILL."""


class Child(asyncio.SubprocessProtocol):
    """One running process. Made by `start`."""

    def __init__(self, on_stdout: Callable[[bytes], None], on_stderr: Callable[[str], None]) -> None:
        loop = asyncio.get_running_loop()
        self._on_stdout = on_stdout
        self._on_stderr = on_stderr
        self._stderr = LineFramer(_STDERR_LINE)
        self._writable = asyncio.Event()
        self._writable.set()
        self._transport: asyncio.SubprocessTransport | None = None
        self._stdin: asyncio.WriteTransport | None = None
        self.pid = 0
        self.exited: asyncio.Future[str] = loop.create_future()
        """Resolves with a description of the exit."""

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.SubprocessTransport, transport)
        self._stdin = cast(asyncio.WriteTransport, self._transport.get_pipe_transport(0))
        self.pid = self._transport.get_pid()

    def pipe_data_received(self, fd: int, data: bytes | str) -> None:
        assert isinstance(data, bytes)
        if fd == 1:
            self._on_stdout(data)
            return
        for line in self._stderr.feed(data):
            text = line if isinstance(line, bytes) else line.head + b"..."
            self._on_stderr(text.decode(errors="replace"))

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 0:
            self._writable.set()
        elif fd == 1:
            # Without stdout it can answer nobody. The exit code, if it has ended, is about to come.
            asyncio.get_running_loop().call_later(0.05, self._end, "it closed its stdout")

    def process_exited(self) -> None:
        assert self._transport is not None
        code = self._transport.get_returncode()
        text = f"it ended by signal {-code}" if code is not None and code < 0 else f"it exited with code {code}"
        # What it wrote last may still be in the pipe; a helper of its own may hold the pipe open for ever.
        asyncio.get_running_loop().call_later(0.02, self._end, text)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _end(self, reason: str) -> None:
        if not self.exited.done():
            self.exited.set_result(reason)
            self._writable.set()

    # What `stdio` calls

    @property
    def writable(self) -> bool:
        """Whether the pipe takes more now; `drained` waits until it does."""
        return self._writable.is_set()

    async def drained(self) -> None:
        """Wait until the child has read enough of what was written."""
        await self._writable.wait()

    def write(self, data: bytes) -> bool:
        """Write to stdin; False when that is closed."""
        if self._stdin is None or self._stdin.is_closing() or self.exited.done():
            return False
        self._stdin.write(data)
        return True

    async def stop(self) -> None:
        """Close stdin, then SIGTERM, then SIGKILL for the whole group; helpers it left behind go as well."""
        if self._stdin is not None and not self._stdin.is_closing():
            self._stdin.close()
        try:
            await self._wait(_GRACE)
            for number in (signal.SIGTERM, signal.SIGKILL):
                if not self._signal(number):
                    break
                await self._group_gone(_GRACE)
        except asyncio.CancelledError:
            # Closing would kill one that still lives: that is left to the guardian, which gives it time.
            if self._transport is not None and self._transport.get_returncode() is not None:
                self._transport.close()
            raise
        if self._transport is not None:
            self._transport.close()
        self._end("stopped")

    async def _wait(self, seconds: float) -> None:
        await asyncio.wait([self.exited], timeout=seconds)

    async def _group_gone(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        # Nobody is told when the last member of a group has ended; asking is all there is.
        while self._signal(0) and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    def _signal(self, number: int) -> bool:
        """Signal the group; False when nobody is left in it."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return False
        except PermissionError:  # a member changed its user: nothing more can be done
            return False
        return True


def child_environment(own: Mapping[str, str], configured: Mapping[str, str]) -> dict[str, str]:
    """The child's environment: the few inherited variables, then what was configured."""
    return {**{name: own[name] for name in INHERITED if name in own}, **configured}


async def start(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str | None,
    guardian: Guardian,
    on_stdout: Callable[[bytes], None],
    on_stderr: Callable[[str], None],
) -> Child:
    """Start a process. Raises `WireError` when it cannot be started."""
    await guardian.start()
    child = Child(on_stdout, on_stderr)
    try:
        await asyncio.get_running_loop().subprocess_exec(
            lambda: child, *command, env=dict(env), cwd=cwd, start_new_session=True
        )
    except FileNotFoundError:
        raise WireError(Failure.UNREACHABLE, Phase.NOT_SENT, _missing(command[0], cwd)) from None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        raise WireError(Failure.UNREACHABLE, Phase.NOT_SENT, f"cannot start {command[0]!r}: {reason}") from None
    guardian.watch(child.pid)
    return child


def _missing(command: str, cwd: str | None) -> str:
    if cwd is not None and not os.path.isdir(cwd):
        return "the working directory does not exist"
    return f"the command {command!r} does not exist"
