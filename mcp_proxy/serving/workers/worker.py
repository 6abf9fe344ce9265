"""A worker's process, from its first line to its last: what it is told, what it serves, and its end with the owner's.

Imports no more than a server needs: each worker costs what it loads.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path

import msgspec

from mcp_proxy.base.clock import SystemClock
from mcp_proxy.base.ids import random_id
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.serving.choosing import loop_factory, server_named
from mcp_proxy.serving.collector import set_up_collector
from mcp_proxy.serving.listeners import Listeners
from mcp_proxy.serving.terms import Serving
from mcp_proxy.serving.workers.channel import Channel
from mcp_proxy.serving.workers.relay import Relay
from mcp_proxy.serving.workers.remote_log import RemoteLog
from mcp_proxy.telemetry.logs import route_foreign

_THE_OWNERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that are meant for the owner, and sent to all processes by terminals and service managers."""


class Terms(msgspec.Struct, frozen=True):
    """What a worker is told, on its command line; sockets are descriptors that it inherits."""

    server: str
    channel: int
    listening: list[int]
    host: str
    certificate: list[str]
    """Files with the certificate and its key, or none."""


def main(told: str) -> int:
    """Serve until the owner says stop, or has ended. ``told`` is `Terms` in JSON; returns the exit code."""
    for number in _THE_OWNERS:
        signal.signal(number, signal.SIG_IGN)
    terms = msgspec.json.decode(told, type=Terms)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return 0 if runner.run(_Worker(terms).run()) else 1


class _Worker:
    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._finished = False
        self._tasks = TaskSet(self._failed)

    async def run(self) -> bool:
        """Whether it ended as it was told to."""
        terms, relay = self._terms, Relay(self._tasks)
        relay.channel = channel = Channel(relay.take, self._orphaned)
        await channel.connect(socket.socket(fileno=terms.channel))
        self._log = RemoteLog(channel)
        route_foreign(self._log)
        try:
            serve = server_named(terms.server)
            set_up_collector()
            await serve(self._serving(relay))
        except Exception:  # noqa: BLE001 - boundary: the owner's log is where a worker can say why it ends
            self._log.exception("worker_failed")
        await self._tasks.close()
        self._finished = True
        await channel.finish()
        return relay.stopping.is_set()

    def _serving(self, relay: Relay) -> Serving:
        terms = self._terms
        listeners = Listeners(terms.host, *map(Path, terms.certificate))
        listeners.sockets = [socket.socket(fileno=one) for one in terms.listening]

        async def until_stopped() -> None:
            await relay.stopping.wait()

        return Serving(relay, listeners, until_stopped, self._tasks, self._log, SystemClock(), random_id)

    def _orphaned(self) -> None:
        """The owner has ended. At once, because the next one cannot have the ports while they are listened on here."""
        if not self._finished:
            os._exit(1)

    def _failed(self, name: str, error: BaseException) -> None:
        self._log.error("task_failed", task=name, reason=f"{type(error).__name__}: {error}")
