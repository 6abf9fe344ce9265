"""Every long-lived object, made once and started and stopped in order. No door, no web framework."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from mcp_proxy.api.live_log import LiveLog
from mcp_proxy.base.clock import Clock, SystemClock
from mcp_proxy.base.ids import IdSource, random_id
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.bridge.broker import Broker
from mcp_proxy.bridge.completions import Completions
from mcp_proxy.config.llm import load_llm
from mcp_proxy.config.model import Servers, ServerSpec
from mcp_proxy.config.pin_file import PinFile
from mcp_proxy.config.sources import Sources
from mcp_proxy.config.state import StateStore
from mcp_proxy.config.watch import ConfigWatch
from mcp_proxy.core.admission import Admission
from mcp_proxy.core.admission.commands import CommandTemplates
from mcp_proxy.core.admission.guard import AddressGuard
from mcp_proxy.core.audit import LogAudit
from mcp_proxy.core.auth.keys import load_keys
from mcp_proxy.core.auth.principal import Principal
from mcp_proxy.core.auth.revocation import Revocations
from mcp_proxy.core.auth.verifier import TokenVerifier
from mcp_proxy.core.calls import CallPath
from mcp_proxy.core.limits import Gate, MemoryRateLimiter
from mcp_proxy.core.mcp_client_manager import McpClientManager
from mcp_proxy.core.pins import Pins
from mcp_proxy.core.registry import Registry
from mcp_proxy.core.retry import RetryBudgets
from mcp_proxy.core.routing import Routing
from mcp_proxy.gateway.door import McpDoor
from mcp_proxy.gateway.seal import state_key
from mcp_proxy.gateway.sse import Sse
from mcp_proxy.gateway.streamable import StreamableHttp
from mcp_proxy.llm.for_servers import ForServers
from mcp_proxy.llm.service import LlmService
from mcp_proxy.settings import Settings
from mcp_proxy.telemetry.log_feed import LogFeed
from mcp_proxy.telemetry.logs import Logger, follow

DOORS = ("rest", "mcp", "sse", "llm", "ws")
"""The ways in over HTTP, as the log and ``GET /`` name them."""


class Runtime:
    """The parts of a running service. Made by `app.create_app`; `start` and `stop` are called by the server's lifespan."""

    def __init__(
        self,
        settings: Settings,
        servers: Servers | None,
        *,
        environ: Mapping[str, str] = MappingProxyType({}),
        log: Logger,
        clock: Clock | None = None,
        ids: IdSource = random_id,
        randomness: Callable[[], float] = random.random,
    ) -> None:
        """``servers`` stand in the place of those of variables and files; ``environ`` fills the variables in files.

        Raises `StartError` for keys, sources or state that cannot be used.
        """
        self.settings = settings
        self.admin_port = settings.admin_port
        """Where management is served alone, None: nowhere apart. What listens corrects it, where it chose the port."""
        self.log = log
        self.clock = clock or SystemClock()
        self.ids = ids
        self.keys = load_keys(settings, self.clock)
        self.revocations = Revocations(settings.state_dir)
        self.verifier = TokenVerifier(settings, self.keys, self.clock, self.revocations)
        self.gate = Gate(settings.max_inflight)
        self.audit = LogAudit(log) if settings.log_level == "DEBUG" else None
        admission = Admission(AddressGuard(settings.allow_network), CommandTemplates(settings.api_commands))
        store = StateStore(settings.state_dir)
        state = store.load()
        sources = Sources(settings, environ, servers)
        configured = sources.start(state)

        def guarded(spec: ServerSpec) -> AddressGuard | None:
            return admission.guard if spec.source == sources.state_source else None

        spec = load_llm(settings.config, environ)
        has_llm = settings.llm or settings.llm_demo or spec.enabled
        for_servers = ForServers(
            spec.servers if has_llm else (),
            self._completions,
            clock=self.clock,
            ids=ids,
            log=log,
            log_bodies=settings.log_bodies,
        )
        self.pins = Pins(PinFile(settings.state_dir), default=settings.pin_tools, log=log)
        self.manager = McpClientManager(
            configured.servers,
            settings,
            clock=self.clock,
            random=randomness,
            log=log,
            guarded=guarded,
            pins=self.pins,
            house_of=for_servers.house_of,
        )
        self.registry = Registry(
            self.manager, sources, store, state, configured, admission=admission, pins=self.pins, log=log
        )
        self._watch = ConfigWatch(sources, self.registry.reload)
        self.calls = CallPath(
            routing=Routing(self.manager),
            gate=self.gate,
            rates=MemoryRateLimiter(self.clock),
            audit=self.audit,
            clock=self.clock,
            random=randomness,
            call_timeout=settings.call_timeout,
            budgets=RetryBudgets(self.clock),
        )
        self._tasks = TaskSet(self.task_failed)
        self._streaming = TaskSet(self.task_failed)
        broker = None
        self.llm: LlmService | None = None
        """What is behind ``/v1``; None: nothing is."""
        if has_llm:
            if settings.llm or settings.llm_demo or settings.llm_ambient or spec.asks_clients:
                broker = Broker(clock=self.clock, tasks=self._streaming)
            self.llm = LlmService(
                spec,
                settings,
                broker=broker,
                calls=self.calls,
                gate=self.gate,
                tasks=self._streaming,
                clock=self.clock,
                ids=ids,
                log=log,
            )
        shut = () if self.llm is not None else ("llm",)
        self.doors = tuple(door for door in DOORS if door in settings.doors and door not in shut)
        self.door = McpDoor(
            self.manager,
            self.calls,
            self.registry,
            settings,
            clock=self.clock,
            ids=random_id,
            log=log,
            seal_key=state_key(settings),
            broker=broker,
        )
        self.mcp = StreamableHttp(
            self.door,
            tasks=self._streaming,
            max_body=settings.max_body,
            max_streams=settings.max_streams,
            clock=self.clock,
        )
        self.sse = Sse(
            self.door,
            tasks=self._streaming,
            max_body=settings.max_body,
            max_streams=settings.max_streams,
            clock=self.clock,
        )
        feed = LogFeed()
        follow(log, feed)
        self.ws = LiveLog(feed, group_of=self._group_of, clock=self.clock, on_error=self.task_failed)
        self._ending = TaskSet(self.task_failed)
        self._end: asyncio.Task[None] | None = None
        self._running = False

    def _completions(self) -> Completions:
        assert self.llm is not None, "servers are answered only where something can"
        return self.llm.completions

    async def start(self) -> None:
        """Begin: returns at once, everything slow goes on behind it."""
        self._running = True
        if not _writable(self.settings.state_dir):
            self.log.warning(
                "state_dir_not_writable",
                path=str(self.settings.state_dir),
                reason="tokens cannot be revoked, and servers not changed",
            )
        self._tasks.spawn(self.revocations.watch(), "revocations")
        self._tasks.spawn(self._end_revoked(), "streams of revoked tokens")
        if self.keys is not None:
            self._tasks.spawn(self.keys.watch(), "keys")
        self.manager.start()
        self._tasks.spawn(self._watch.run(), "files with servers")
        self._tasks.spawn(self.pins.keep(), "pinned tools")
        self.door.start()
        if self.llm is not None:
            self._tasks.spawn(self.llm.keep(), "budgets of tokens")

    async def drain(self) -> None:
        """Take no new calls and give those in flight their time; what is left then is ended."""
        self.door.drain()
        left = not await self.gate.drain(self.settings.drain_timeout)
        if left:
            self.log.warning("drain_timeout", calls_in_flight=self.gate.inflight)
            await self.stop()
        else:
            await self._end_streams()

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
        # Upstreams end first: the calls fail while their callers can still be told that nobody knows the outcome.
        await self.manager.close()
        await self.pins.flush()
        await self._end_streams()
        await self.door.close()
        await self._streaming.close()
        if self.llm is not None:
            await self.llm.close()

    async def _end_revoked(self) -> None:
        """A token's revocation ends what it holds open, as soon as it refuses its next request."""
        while True:
            await asyncio.sleep(0.5)
            self.mcp.end_where(self._is_revoked)
            self.sse.end_where(self._is_revoked)
            self.ws.end_where(self._is_revoked)
            self.door.end_where(self._is_revoked)

    def _is_revoked(self, principal: Principal) -> bool:
        return principal.token_id is not None and self.revocations.is_revoked(principal.token_id)

    async def _end_streams(self) -> None:
        """Streams that stay open end with what they are owed, before the server closes their connections."""
        self.door.release()
        await self.mcp.close()
        await self.sse.close()
        await self.ws.close()

    def _group_of(self, server: str) -> str | None:
        spec = self.manager.specs.get(server)
        return None if spec is None else spec.group

    def task_failed(self, name: str, error: BaseException) -> None:
        """Where failures of background tasks are reported."""
        self.log.error("task_failed", task=name, reason=f"{type(error).__name__}: {error}")


def _writable(directory: Path) -> bool:
    """Whether the directory, or the nearest one above it that exists, can be written to."""
    for place in (directory, *directory.absolute().parents):
        if place.exists():
            return place.is_dir() and os.access(place, os.W_OK)
    return False
