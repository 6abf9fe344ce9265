"""The facade of the servers: which there are, how they are, what they offer together.

Doors and the call path ask here. Each connection is its own actor (`upstream.upstream`); this module starts and ends
them and keeps the catalogue. Deciding is done without I/O.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mcp_proxy.base.clock import Clock
from mcp_proxy.base.errors import SERVER_NOT_FOUND, TOOL_NOT_FOUND, UPSTREAM_UNAVAILABLE, ProxyError
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.config.describe import describe
from mcp_proxy.config.model import RefusedServer, Servers, ServerSpec, Transport
from mcp_proxy.core.auth.principal import Principal
from mcp_proxy.core.catalog.naming import decide
from mcp_proxy.core.catalog.resolve import Named, Target, find_server, resolve
from mcp_proxy.core.catalog.snapshot import Catalog, build
from mcp_proxy.core.upstream.dial import Dialer
from mcp_proxy.core.upstream.guardian import Guardian
from mcp_proxy.core.upstream.upstream import State, Upstream
from mcp_proxy.settings import Settings
from mcp_proxy.telemetry.logs import Logger

FIRST_WAIT = 5.0
"""Seconds that lists and calls wait for servers whose first connection is being made."""


@dataclass(frozen=True, slots=True)
class Health:
    """The service in a word: ``ok``, ``degraded``, ``down`` or ``draining``; servers by name."""

    status: str
    servers: Mapping[str, str]


class McpClientManager:
    """All servers. `start` and `close` belong to the runtime."""

    def __init__(
        self, servers: Servers, settings: Settings, *, clock: Clock, random: Callable[[], float], log: Logger
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._random = random
        self._log = log
        self._tasks = TaskSet(self._task_failed)
        self._guardian = Guardian()
        self._dialer = Dialer(settings.connect_timeout, settings.max_result, self._guardian, self._tasks)
        self.refused: tuple[RefusedServer, ...] = servers.refused
        self.findings = servers.findings
        self.specs: dict[str, ServerSpec] = {spec.name: spec for spec in servers.specs}
        enabled = [spec for spec in servers.specs if not spec.disabled]
        self._policy = decide(settings.naming, settings.separator, len({spec.group or spec.name for spec in enabled}))
        self._upstreams = {spec.name: self._make(spec) for spec in servers.specs}
        self._all_settled = False
        self.catalog = Catalog()

    def _make(self, spec: ServerSpec) -> Upstream:
        return Upstream(
            spec,
            dialer=self._dialer,
            clock=self._clock,
            random=self._random,
            log=self._log,
            on_change=self._rebuild,
            queue_limit=self._settings.max_inflight_per_upstream,
            health_interval=self._settings.health_interval,
        )

    # Life

    def start(self) -> None:
        """Begin to connect, all at once, in the background."""
        for upstream in self._upstreams.values():
            if not upstream.spec.disabled:
                self._tasks.spawn(upstream.run(), f"upstream {upstream.spec.name}")

    async def close(self) -> None:
        """Close all connections and stop all children."""
        await self._tasks.close()
        await self._guardian.close()

    def _task_failed(self, name: str, error: BaseException) -> None:
        self._log.error("task_failed", task=name, reason=f"{type(error).__name__}: {error}")

    def _rebuild(self) -> None:
        """Replace the catalogue if what is offered has changed."""
        fresh = build(
            [(one.spec, one.tools) for one in self._upstreams.values() if not one.spec.disabled],
            self._policy,
            self.catalog.revision + 1,
        )
        if fresh.entries != self.catalog.entries:
            self.catalog = fresh
            self._log.debug("catalogue_changed", revision=fresh.revision, tools=len(fresh.shown))

    # Questions

    def upstream(self, name: str) -> Upstream:
        """The connection of a server that exists."""
        return self._upstreams[name]

    @property
    def upstreams(self) -> tuple[Upstream, ...]:
        return tuple(self._upstreams.values())

    async def settled(self) -> None:
        """Wait for servers whose first connection is being made, at most five seconds."""
        if self._all_settled:
            return
        waiting = [one for one in self._upstreams.values() if not one.is_settled]
        if not waiting:
            self._all_settled = True
            return
        try:
            async with asyncio.timeout(FIRST_WAIT), asyncio.TaskGroup() as group:
                for upstream in waiting:
                    group.create_task(upstream.wait_settled(), name=f"settle {upstream.spec.name}")
        except TimeoutError:
            pass

    def find(self, name: str, principal: Principal) -> Named:
        """The server or group called ``name``. Raises `ProxyError` (``server_not_found``)."""
        return find_server(name, self.specs, principal)

    async def resolve(self, principal: Principal, method: str, server: str | None) -> Target:
        """Where a call goes; waits for first connections when the answer may depend on them. Raises `ProxyError`."""
        if server is None and method not in self.catalog.by_full:
            await self.settled()  # a bare name may yet turn out to be ambiguous
        try:
            return resolve(self.catalog, self.specs, principal, method, server)
        except ProxyError as error:
            if error.kind is SERVER_NOT_FOUND and self.is_refused(server or "", principal):
                raise self._unusable(server or "") from None
            if error.kind is not TOOL_NOT_FOUND:
                raise
        await self.settled()
        try:
            return resolve(self.catalog, self.specs, principal, method, server)
        except ProxyError as error:
            if error.kind is TOOL_NOT_FOUND and (absent := self._absent(principal, method, server)) is not None:
                raise self._unusable(absent) from None
            raise

    def _absent(self, principal: Principal, method: str, server: str | None) -> str | None:
        """The server that may have the tool but has never been connected, if there is one: it is down, not unknown."""
        named = server if server is not None else self._prefix(method, principal)
        if named is not None:
            if self.is_refused(named, principal):
                return named
            members = self.find(named, principal).members
        else:
            # A bare name: only servers that are still being connected for the first time leave it open.
            seen = [spec for spec in self.specs.values() if principal.sees_server(spec.name, spec.group)]
            members = tuple(spec for spec in seen if not self._upstreams[spec.name].is_settled)
        unknown = [s.name for s in members if self._upstreams[s.name].era is None and not self._upstreams[s.name].tools]
        return unknown[0] if unknown and len(unknown) == len(members) else None

    def _prefix(self, method: str, principal: Principal) -> str | None:
        """The server or group whose full name for some tool ``method`` looks like, if there is one."""
        owners = [(owner, spec) for spec in self.specs.values() for owner in filter(None, (spec.name, spec.group))]
        for owner, spec in owners:
            if method.startswith((f"{owner}.", f"{owner}__")) and principal.sees_server(spec.name, spec.group):
                return owner
        for refused in self.refused:
            if method.startswith((f"{refused.name}.", f"{refused.name}__")) and principal.sees_server(refused.name):
                return refused.name
        return None

    def _unusable(self, name: str) -> ProxyError:
        refused = next((one.reason for one in self.refused if one.name == name), None)
        if refused is not None:
            text = f"{name} is not usable as configured: {refused}"
            return ProxyError(UPSTREAM_UNAVAILABLE, text, details={"server": name})
        upstream = self._upstreams[name]
        if upstream.spec.disabled:
            return ProxyError(UPSTREAM_UNAVAILABLE, f"{name} is disabled", details={"server": name})
        upstream.poke()
        text = f"{name} is not connected: {upstream.last_error or 'still connecting'}"
        return ProxyError(UPSTREAM_UNAVAILABLE, text, details={"server": name}, retry_after=upstream.retry_after())

    def is_refused(self, name: str, principal: Principal) -> bool:
        """Whether a server of that name was configured in a way that cannot be used."""
        return principal.sees_server(name) and any(one.name == name for one in self.refused)

    def health(self, *, draining: bool) -> Health:
        """The service and its servers, for ``/health``."""
        servers = {name: str(upstream.state) for name, upstream in self._upstreams.items()}
        servers |= {one.name: str(State.DISABLED if one.disabled else State.FAILED) for one in self.refused}
        wanted = [state for state in servers.values() if state != State.DISABLED]
        working = [state for state in wanted if state in (State.CONNECTED, State.DEGRADED)]
        if draining:
            status = "draining"
        elif wanted and not working:
            status = "down"
        else:
            status = "ok" if all(state == State.CONNECTED for state in wanted) else "degraded"
        return Health(status, servers)

    def describe(self, principal: Principal) -> list[dict[str, Any]]:
        """The servers this caller may see, for ``/servers``."""
        rows = [
            self._row(one) for one in self._upstreams.values() if principal.sees_server(one.spec.name, one.spec.group)
        ]
        return rows + [_refused_row(one) for one in self.refused if principal.sees_server(one.name)]

    def _row(self, upstream: Upstream) -> dict[str, Any]:
        spec = upstream.spec
        shown = describe(spec)
        where: dict[str, Any] = {key: shown[key] for key in ("url", "command") if key in shown}
        tools = sum(1 for entry in self.catalog.entries if entry.server == spec.name)
        return {
            "name": spec.name,
            **where,
            "transport": None if upstream.transport is Transport.AUTO else str(upstream.transport),
            "era": upstream.era,
            "protocol_version": upstream.protocol_version,
            "state": str(upstream.state),
            "group": spec.group,
            "disabled": spec.disabled,
            "tools": tools,
            "last_error": upstream.last_error,
            "latency_ms": round(upstream.latency * 1000, 2) if upstream.latency is not None else None,
            "source": spec.source,
        }


def _refused_row(refused: RefusedServer) -> dict[str, Any]:
    """A server that cannot be used as configured, in the shape of the others."""
    unknown = ("transport", "era", "protocol_version", "group", "latency_ms")
    return {
        "name": refused.name,
        **dict.fromkeys(unknown),
        "state": str(State.DISABLED if refused.disabled else State.FAILED),
        "disabled": refused.disabled,
        "tools": 0,
        "last_error": refused.reason,
        "source": refused.source,
    }
