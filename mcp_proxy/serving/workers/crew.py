"""The workers of one run: started, started again when they are lost, and told to stop when the service does.

What passes between them and the owner is `conversations`; what a worker is, `worker`.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from contextlib import suppress
from pathlib import Path

import msgspec

from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.core.upstream.backoff import Backoff
from mcp_proxy.serving.terms import GRACE, Serve, Serving
from mcp_proxy.serving.workers.channel import Channel
from mcp_proxy.serving.workers.conversations import Conversations
from mcp_proxy.serving.workers.frames import Sign, Stop
from mcp_proxy.serving.workers.lifespan import Lifespan
from mcp_proxy.serving.workers.worker import Terms

_ENDING = GRACE + 3.0
"""Seconds that a worker has for letting go of its connections; its server needs `GRACE` and a little more."""
_LOOK = 5.0
"""Seconds between looks whether a worker is there."""
_LOOKS = 6
"""Looks without an answer after which it counts as hanging; starting takes some."""
_HOME = Path(__file__).parents[3]
"""Where the package is."""


def serve_by(count: int, server: str) -> Serve:
    """A server that is ``count`` workers, of the server of this name each."""

    async def serve(serving: Serving) -> None:
        await _Crew(serving, server).serve(count)

    return serve


class _Crew:
    def __init__(self, serving: Serving, server: str) -> None:
        self._serving = serving
        self._server = server
        self._stopping = asyncio.Event()
        self._conversations = TaskSet(self._failed)
        self._places = TaskSet(self._failed)

    async def serve(self, count: int) -> None:
        """See `Serving`."""
        lifespan = Lifespan(self._serving.app, self._serving.tasks)
        await lifespan.start()
        places = [self._places.spawn(self._keep(number), f"worker {number}") for number in range(1, count + 1)]
        try:
            await self._serving.until_stopped()
        finally:
            self._stopping.set()
            await asyncio.wait(places)
            for sock in self._serving.listeners.sockets:
                sock.close()
            await self._conversations.close()
            await self._places.close()
            await lifespan.end()

    async def _keep(self, number: int) -> None:
        """Have one worker until the stop."""
        log, clock = self._serving.log, self._serving.clock
        backoff = Backoff(random.random)
        while not self._stopping.is_set():
            started = clock.monotonic()
            try:
                reason = await self._employ(number)
            except OSError as error:
                reason = f"it could not be started: {error.strerror or error}"
            if self._stopping.is_set():
                return
            backoff.lasted(clock.monotonic() - started)
            pause = backoff.next()
            log.error("worker_lost", worker=number, reason=reason, retry_in=round(pause, 1))
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()

    async def _employ(self, number: int) -> str:
        """Start a worker and wait for its end, which the stop brings about, or its silence.

        Returns how it ended. Raises `OSError`.
        """
        conversations = Conversations(self._serving.app, self._conversations, self._serving.log)
        ours, theirs = socket.socketpair()
        try:
            conversations.channel = Channel(conversations.take, conversations.drop_all)
            await conversations.channel.connect(ours)
            process = await self._start(theirs)
        finally:
            theirs.close()
        self._serving.log.info("worker_started", worker=number, pid=process.pid)
        ended = self._places.spawn(process.wait(), f"end of worker {number}")
        stopping = self._places.spawn(self._stopping.wait(), "stop")
        silent = self._places.spawn(_silence(conversations), f"silence of worker {number}")
        await asyncio.wait([ended, stopping, silent], return_when=asyncio.FIRST_COMPLETED)
        hangs = silent.done() and not ended.done()
        if hangs:
            process.kill()
        elif not ended.done():
            conversations.channel.send(Stop())
            await asyncio.wait([ended], timeout=_ENDING)
        if not (hangs or ended.done()):
            self._serving.log.error("worker_lost", worker=number, reason="it did not stop in time")
            process.kill()
        stopping.cancel()
        silent.cancel()
        await asyncio.wait([ended])
        return "it did not answer any more" if hangs else f"it ended with {process.returncode}"

    async def _start(self, channel: socket.socket) -> Process:
        listeners = self._serving.listeners
        listening = [sock.fileno() for sock in listeners.sockets]
        certificate = [str(file) for file in (listeners.certfile, listeners.keyfile) if file is not None]
        terms = Terms(self._server, channel.fileno(), listening, listeners.host, certificate)
        # The package from where it is here, and nothing from the working directory.
        path = os.pathsep.join(filter(None, [str(_HOME), os.environ.get("PYTHONPATH")]))
        return await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "mcp_proxy.serving.workers", msgspec.json.encode(terms).decode(),
            stdin=DEVNULL, stdout=DEVNULL, env={**os.environ, "PYTHONPATH": path},
            pass_fds=[channel.fileno(), *listening], start_new_session=True,
        )  # fmt: skip

    def _failed(self, name: str, error: BaseException) -> None:
        self._serving.log.error("task_failed", task=name, reason=f"{type(error).__name__}: {error}")


async def _silence(worker: Conversations) -> None:
    """Until the worker has not answered several times. Time in which we stood still ourselves is one of them at most."""
    missed = 0
    while missed < _LOOKS:
        worker.answered = False
        worker.channel.send(Sign())
        await asyncio.sleep(_LOOK)
        missed = 0 if worker.answered else missed + 1
