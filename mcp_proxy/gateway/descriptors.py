"""Standard input and output as asyncio streams: whatever they are connected to, without changing how others see them.

Each is served by a daemon thread. The loop could watch pipes, but not files; and to do so it would make the descriptor
non-blocking, which a terminal shares with stderr. What the bytes mean is `stdio`.
"""

from __future__ import annotations

import asyncio
import os
import select
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from mcp_proxy.base.errors import StartError

T = TypeVar("T")


class DescriptorReader:
    """Reads a descriptor. One reader at a time."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._thread = _Thread("stdin")

    async def read(self, size: int) -> bytes:
        """At most ``size`` bytes as soon as there are any; b"" at the end, which a broken connection is too."""
        return await self._thread.do(lambda: _read(self._descriptor, size))


class DescriptorWriter:
    """Writes to a descriptor. One writer at a time."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._thread = _Thread("stdout")

    async def write(self, data: bytes) -> None:
        """Write all of it; returns when the other side has room for it. Raises `OSError` when nobody reads any more."""
        await self._thread.do(lambda: _write(self._descriptor, data))


def claim_standard_streams() -> tuple[int, int]:
    """Take stdin and stdout out of everybody else's reach; returns the descriptors that still lead to them.

    From here on descriptor 0 is empty and descriptor 1 leads to stderr, also for libraries that print and for children.
    Raises `StartError` when one of the two is closed.
    """
    if sys.stdin is None or sys.stdout is None:  # Python found them closed; their numbers may lead anywhere by now
        raise StartError("stdin or stdout is closed; this command is started by an MCP client, which holds both")
    taken = os.dup(0), os.dup(1)
    sys.stdout.flush()
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    try:
        os.dup2(2, 1)
    except OSError:  # no stderr either
        os.dup2(nothing, 1)
    os.close(nothing)
    return taken


class _Thread:
    """Does one blocking thing after another. No executor: those are waited for at the exit, and a read may never end."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]]] = SimpleQueue()
        self._started = False

    async def do(self, job: Callable[[], T]) -> T:
        """The result of ``job``. Cancelling gives up the result; the job itself goes on."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.put((job, future))
        if not self._started:
            self._started = True
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        return await future

    def _work(self) -> None:
        while True:
            job, future = self._jobs.get()
            result, error = None, None
            try:
                result = job()
            except OSError as caught:
                error = caught
            try:
                future.get_loop().call_soon_threadsafe(_settle, future, result, error)
            except RuntimeError:  # the loop is closed: nobody waits
                return


def _settle(future: asyncio.Future[Any], result: Any, error: OSError | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


def _read(descriptor: int, size: int) -> bytes:
    while True:
        try:
            return os.read(descriptor, size)
        except BlockingIOError:  # somebody else made it so
            _wait(descriptor, select.POLLIN)
        except OSError:
            return b""


def _write(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:
            _wait(descriptor, select.POLLOUT)


def _wait(descriptor: int, event: int) -> None:
    poll = select.poll()
    poll.register(descriptor, event)
    poll.poll()
