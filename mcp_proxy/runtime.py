"""Every long-lived object, made once and started and stopped in order. No door, no web framework."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from pathlib import Path

from mcp_proxy.base.clock import Clock, SystemClock
from mcp_proxy.base.ids import IdSource, random_id
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.config.model import Servers
from mcp_proxy.core.audit import LogAudit
from mcp_proxy.core.auth.keys import load_keys
from mcp_proxy.core.auth.revocation import Revocations
from mcp_proxy.core.auth.verifier import TokenVerifier
from mcp_proxy.core.calls import CallPath
from mcp_proxy.core.limits import Gate, MemoryRateLimiter
from mcp_proxy.core.mcp_client_manager import McpClientManager
from mcp_proxy.core.retry import RetryBudgets
from mcp_proxy.settings import Settings
from mcp_proxy.telemetry.logs import Logger


class Runtime:
    """The parts of a running service. Made by `app.create_app`; `start` and `stop` are called by the server's lifespan."""

    def __init__(
        self,
        settings: Settings,
        servers: Servers,
        *,
        log: Logger,
        clock: Clock | None = None,
        ids: IdSource = random_id,
        randomness: Callable[[], float] = random.random,
    ) -> None:
        """Raises `StartError` for keys or state that cannot be used."""
        self.settings = settings
        self.log = log
        self.clock = clock or SystemClock()
        self.ids = ids
        self.keys = load_keys(settings, self.clock)
        self.revocations = Revocations(settings.state_dir)
        self.verifier = TokenVerifier(settings, self.keys, self.clock, self.revocations)
        self.gate = Gate(settings.max_inflight)
        self.audit = LogAudit(log)
        self.manager = McpClientManager(servers, settings, clock=self.clock, random=randomness, log=log)
        self.calls = CallPath(
            manager=self.manager,
            gate=self.gate,
            rates=MemoryRateLimiter(self.clock),
            audit=self.audit,
            clock=self.clock,
            random=randomness,
            call_timeout=settings.call_timeout,
            budgets=RetryBudgets(self.clock),
        )
        self._tasks = TaskSet(self.task_failed)
        self._ending = TaskSet(self.task_failed)
        self._end: asyncio.Task[None] | None = None
        self._running = False

    async def start(self) -> None:
        """Begin: returns at once, everything slow goes on behind it."""
        self._running = True
        if not _writable(self.settings.state_dir):
            self.log.warning(
                "state_dir_not_writable", path=str(self.settings.state_dir), reason="tokens cannot be revoked"
            )
        self._tasks.spawn(self.revocations.watch(), "revocations")
        if self.keys is not None:
            self._tasks.spawn(self.keys.watch(), "keys")
        self.manager.start()

    async def drain(self) -> None:
        """Take no new calls and give those in flight their time; what is left then is ended."""
        left = not await self.gate.drain(self.settings.drain_timeout)
        if left:
            self.log.warning("drain_timeout", calls_in_flight=self.gate.inflight)
            # Upstreams end first: the calls fail while their callers can still be told that nobody knows the outcome.
            await self.stop()

    async def stop(self) -> None:
        """End everything; nothing is left running. May be called twice: the second call waits for the same end."""
        if self._running:
            self._running = False
            self._end = self._ending.spawn(self._close(), "stop")
        if self._end is not None:
            # Whoever loses patience with the wait must not leave children half stopped.
            await asyncio.shield(self._end)

    async def _close(self) -> None:
        await self._tasks.close()
        await self.manager.close()

    def task_failed(self, name: str, error: BaseException) -> None:
        """Where failures of background tasks are reported."""
        self.log.error("task_failed", task=name, reason=f"{type(error).__name__}: {error}")


def _writable(directory: Path) -> bool:
    """Whether the directory, or the nearest one above it that exists, can be written to."""
    for place in (directory, *directory.absolute().parents):
        if place.exists():
            return place.is_dir() and os.access(place, os.W_OK)
    return False
