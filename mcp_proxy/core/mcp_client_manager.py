"""The facade of the servers: which there are, how they are, what they offer together.

Doors and the call path ask here. Each connection is its own actor (`upstream.upstream`); this module starts and ends
them and keeps the catalogue. Deciding is done without I/O.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from mcp_proxy.base.clock import Clock
from mcp_proxy.base.errors import SERVER_NOT_FOUND, TOOL_NOT_FOUND, UPSTREAM_UNAVAILABLE, ProxyError
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.config.describe import describe
from mcp_proxy.config.model import RefusedServer, Servers, ServerSpec, Transport
from mcp_proxy.core.admission.guard import AddressGuard
from mcp_proxy.core.auth.principal import Principal
from mcp_proxy.core.catalog.control import Control, Unmatched, unmatched
from mcp_proxy.core.catalog.item import Prompt
from mcp_proxy.core.catalog.naming import decide
from mcp_proxy.core.catalog.offer import Offer, Withheld
from mcp_proxy.core.catalog.resolve import (
    Named,
    Owners,
    Target,
    find_server,
    resolve_prompt,
    resolve_resource,
    resolve_tool,
)
from mcp_proxy.core.catalog.snapshot import Catalog, build
from mcp_proxy.core.catalog.tool import Tool
from mcp_proxy.core.events import Listener
from mcp_proxy.core.fleet import Changes, Fleet
from mcp_proxy.core.pins import Pins
from mcp_proxy.core.upstream.client import PROXY, Client, House
from mcp_proxy.core.upstream.dial import Dialer
from mcp_proxy.core.upstream.guardian import Guardian
from mcp_proxy.core.upstream.messages import Incoming
from mcp_proxy.core.upstream.terms import Era
from mcp_proxy.core.upstream.upstream import State, Upstream
from mcp_proxy.settings import Settings
from mcp_proxy.telemetry.logs import Logger

FIRST_WAIT = 5.0
"""Seconds that lists and calls wait for servers whose first connection is being made."""
_MOST_CATALOGS = 64


@dataclass(frozen=True, slots=True)
class Health:
    """The service in a word: ``ok``, ``degraded``, ``down`` or ``draining``; servers by name."""

    status: str
    servers: Mapping[str, str]


class McpClientManager:
    """All servers. `start` and `close` belong to the runtime."""

    def __init__(
        self,
        servers: Servers,
        settings: Settings,
        *,
        clock: Clock,
        random: Callable[[], float],
        log: Logger,
        guarded: Callable[[ServerSpec], AddressGuard | None] = lambda _: None,
        pins: Pins | None = None,
        house_of: Callable[[ServerSpec], House | None] = lambda _: None,
    ) -> None:
        """``guarded``: the guard of the addresses that a server may be reached at, for servers that have one.

        ``pins``: what holds changed tools back; None: nothing does. ``house_of``: what makes completions for a server whose
        callers cannot.
        """
        self._house_of = house_of
        self._pins = pins
        self._settings = settings
        self._clock = clock
        self._random = random
        self._log = log
        self._tasks = TaskSet(self._task_failed)
        self._guardian = Guardian()
        self._dialer = Dialer(settings.connect_timeout, settings.max_result, self._guardian, self._tasks, guarded)
        self.refused: tuple[RefusedServer, ...] = servers.refused
        self.findings = servers.findings
        enabled = [spec for spec in servers.specs if not spec.disabled]
        self._policy = decide(settings.naming, settings.separator, len({spec.group or spec.name for spec in enabled}))
        self._fleet = Fleet(
            servers.specs,
            make=self._make,
            tasks=self._tasks,
            drain=settings.drain_timeout,
            tied=lambda spec: house_of(spec) is not None,
        )
        self._specs = self._fleet.specs
        self._all_settled = False
        self._catalog = Catalog()
        self._stale = True
        self._built_of: tuple[tuple[ServerSpec, Offer], ...] = ()
        self._variants: dict[str, Catalog] = {}
        self._controls: dict[str, Control] = {}
        self._ruled_out: dict[str, tuple[Withheld, ...]] = {}
        """What the operator's rules withhold, by server."""
        self._idle: dict[str, tuple[Unmatched, ...]] = {}
        """Rules that no tool is meant by, as they were last reported, by server."""
        self.listeners: list[Listener] = []

    @property
    def specs(self) -> Mapping[str, ServerSpec]:
        """The servers as they are configured now, by name, in order."""
        return self._specs

    def apply(self, servers: Servers) -> Changes:
        """Make the servers these: at once, and without disturbing calls on those that stay as they are."""
        self.refused, self.findings = servers.refused, servers.findings
        changes = self._fleet.apply(servers.specs)
        self._specs = self._fleet.specs
        for gone in changes.removed:
            self._controls.pop(gone, None)
            self._ruled_out.pop(gone, None)
            self._idle.pop(gone, None)
        for name in changes.changed:
            self._report_unmatched(self._fleet[name])
        if changes:
            self._all_settled = False
            self._changed()
        return changes

    def _make(self, spec: ServerSpec) -> Upstream:
        return Upstream(
            spec,
            dialer=self._dialer,
            clock=self._clock,
            random=self._random,
            log=self._log,
            watcher=self,
            queue_limit=self._settings.max_inflight_per_upstream,
            health_interval=self._settings.health_interval,
            house=self._house_of(spec),
        )

    # Life

    def start(self) -> None:
        """Begin to connect, all at once, in the background."""
        self._fleet.start()

    async def close(self) -> None:
        """Close all connections and stop all children."""
        await self._tasks.close()
        await self._guardian.close()

    def _task_failed(self, name: str, error: BaseException) -> None:
        self._log.error("task_failed", task=name, reason=f"{type(error).__name__}: {error}")

    # What upstreams report (`upstream.Watcher`)

    def changed(self, upstream: Upstream) -> None:
        """See `upstream.Watcher.changed`."""
        name = upstream.spec.name
        if name in self._fleet and self._fleet[name] is upstream:  # one that has been removed ends its calls yet
            if self._pins is not None:  # what is seen first counts, not what somebody first looks at
                self._pins.held(upstream.spec, upstream.offer.tools)
            self._report_unmatched(upstream)
        self._changed()

    def _changed(self) -> None:
        """The catalogue is made anew when somebody next looks at it."""
        self._stale = True
        self._variants.clear()
        for listener in self.listeners:
            listener.catalog_changed()

    @property
    def catalog(self) -> Catalog:
        """What clients without capabilities are offered; `catalog_for` knows the others."""
        if self._stale:
            self._stale = False
            made_of = tuple((one.spec, one.offer) for one in self._fleet)
            if made_of != self._built_of:
                self._built_of = made_of
                self._replace(self._build(PROXY, self._catalog.revision + 1))
        return self._catalog

    def _replace(self, fresh: Catalog) -> None:
        if fresh.offers_the_same_as(self._catalog):
            return
        for conflict in fresh.conflicts:
            if conflict not in self._catalog.conflicts:
                self._log.warning(
                    "name_conflict", kind=conflict.kind, name=conflict.name, kept=conflict.kept, hidden=conflict.hidden
                )
        self._catalog = fresh
        self._log.debug("catalogue_changed", revision=fresh.revision, tools=len(fresh.tools.shown))

    def announced(self, upstream: Upstream, kinds: frozenset[str]) -> None:
        """See `upstream.Watcher.announced`."""
        for listener in self.listeners:
            listener.announced(upstream.spec, kinds)

    def updated(self, upstream: Upstream, message: Incoming) -> None:
        """See `upstream.Watcher.updated`."""
        for listener in self.listeners:
            listener.resource_updated(upstream.spec, message)

    def told(self, upstream: Upstream, key: str, message: Incoming) -> None:
        """See `upstream.Watcher.told`."""
        for listener in self.listeners:
            listener.client_told(key, upstream.spec, message)

    def _build(self, client: Client, revision: int) -> Catalog:
        offers = [self._controlled(one, client) for one in self._fleet if not one.spec.disabled]
        return build(offers, self._policy, revision)

    def _controlled(self, upstream: Upstream, client: Client) -> tuple[ServerSpec, Offer]:
        """What the operator lets pass of what a server offers."""
        spec, offer = upstream.spec, upstream.offer_to(client)
        control = self._control(spec)
        kind = (client.profile, client.key if upstream.kind_of(client) != client.profile else None)
        tools, withheld = control.apply(offer.tools, self._pins.held(spec, offer.tools, kind) if self._pins else ())
        if client is PROXY:
            self._report_withheld(spec.name, withheld)
        else:
            control.meets(offer.tools)
        return spec, replace(offer, tools=tools)

    def _control(self, spec: ServerSpec) -> Control:
        control = self._controls.get(spec.name)
        if control is None or control.rules != spec.tools:
            control = self._controls[spec.name] = Control(spec.tools)
        return control

    def _report_withheld(self, server: str, withheld: tuple[Withheld, ...]) -> None:
        for one in withheld:
            if one not in self._ruled_out.get(server, ()):
                self._log.warning("withheld", server=server, kind=one.kind, name=one.name, reason=one.reason)
        self._ruled_out[server] = withheld

    def _report_unmatched(self, upstream: Upstream) -> None:
        if upstream.terms is None:
            return  # what was said holds until it is connected again
        found = self.unmatched(upstream.spec.name)
        fresh = set(found) - set(self._idle.get(upstream.spec.name, ()))
        self._idle[upstream.spec.name] = found
        if fresh:
            rules = {rule: [one.name for one in found if one.rule == rule] for rule in ("allow", "deny", "override")}
            shown = {rule: names for rule, names in rules.items() if names}
            self._log.warning("rules_unmatched", server=upstream.spec.name, **shown)

    def unmatched(self, server: str) -> tuple[Unmatched, ...]:
        """Rules for tools that none of the server's tools is meant by; () while it is not connected."""
        upstream = self._fleet[server]
        if upstream.terms is None:
            return ()
        names = {tool.name for tool in upstream.offer.tools}
        names |= {one.name for one in upstream.withheld if one.kind == "tools"}
        met = self._control(upstream.spec).met
        return tuple(one for one in unmatched(upstream.spec.tools, names) if one not in met)

    def refresh(self) -> None:
        """What is decided about tools has changed: the catalogue is made anew."""
        self._built_of = ()
        self._changed()

    # Clients

    def catalog_for(self, client: Client) -> Catalog:
        """What this client is offered, as far as that is known; see `learn`."""
        if not client.profile or all(one.offer_to(client) is one.offer for one in self._fleet):
            return self.catalog
        kind = next((kind for one in self._fleet if (kind := one.kind_of(client)) != client.profile), client.profile)
        found = self._variants.get(kind)
        if found is None:
            if len(self._variants) >= _MOST_CATALOGS:
                self._variants.clear()
            found = self._variants[kind] = self._build(client, self.catalog.revision)
        return found

    async def learn(self, client: Client) -> None:
        """Find out what servers show to clients that can be asked what this one can; at most five seconds."""
        unknown = [one for one in self._fleet if not one.knows(client)]
        if unknown:
            await _at_most(FIRST_WAIT, [(one.learn(client), f"learn {one.spec.name}") for one in unknown])

    @property
    def has_legacy(self) -> bool:
        """Whether any server speaks the legacy era with us."""
        return any(one.era is Era.LEGACY for one in self._fleet)

    def instructions(self, principal: Principal, namespace: str | None) -> str | None:
        """What the servers tell their clients' models about themselves: one server's verbatim, several under their names."""
        told = [
            (one.spec.name, one.terms.instructions.strip())
            for one in self._fleet
            if one.terms is not None
            and one.terms.instructions
            and one.terms.instructions.strip()
            and principal.sees_server(one.spec.name, one.spec.group)
            and namespace in (None, one.spec.name, one.spec.group)
        ]
        if len(self._fleet) == 1 or (len(told) == 1 and namespace is not None):
            return told[0][1] if told else None
        return "\n\n".join(f"# {name}\n{text}" for name, text in told) or None

    def forget_client(self, key: str) -> None:
        """A client has left: the links that were its own end."""
        for upstream in self._fleet:
            upstream.forget_client(key)
        if self._pins is not None:
            self._pins.left(key)

    def tell(self, key: str, method: str) -> None:
        """Pass on a client's notification without parameters to the servers that it has links of its own with."""
        for upstream in self._fleet:
            upstream.tell(key, method)

    # Questions

    def upstream(self, name: str) -> Upstream:
        """The connection of a server that exists."""
        return self._fleet[name]

    @property
    def upstreams(self) -> tuple[Upstream, ...]:
        return tuple(self._fleet)

    async def settled(self) -> None:
        """Wait for servers whose first connection is being made, at most five seconds."""
        if self._all_settled:
            return
        waiting = [one for one in self._fleet if not one.is_settled]
        if not waiting:
            self._all_settled = True
            return
        await _at_most(FIRST_WAIT, [(one.wait_settled(), f"settle {one.spec.name}") for one in waiting])

    def find(self, name: str, principal: Principal) -> Named:
        """The server or group called ``name``. Raises `ProxyError` (``server_not_found``)."""
        return find_server(name, self.specs, principal)

    async def resolve_tool(
        self,
        principal: Principal,
        name: str,
        server: str | None,
        *,
        client: Client = PROXY,
        shown: bool = False,
        prefer: str | None = None,
    ) -> Target[Tool]:
        """Where a call of a tool goes; waits for first connections when the answer may depend on them.

        ``shown``, ``prefer``: see `catalog.resolve.resolve_tool`. Raises `ProxyError`.
        """
        if server is None and name not in self.catalog.tools.by_full:
            await self.settled()  # a bare name may yet turn out to be ambiguous

        def find() -> Target[Tool]:
            catalog = self.catalog_for(client)
            return resolve_tool(catalog, self.specs, principal, name, server, shown=shown, prefer=prefer)

        return await self._found(find, principal, name, server, client)

    async def resolve_prompt(
        self,
        principal: Principal,
        name: str,
        server: str | None,
        *,
        client: Client = PROXY,
        shown: bool = False,
        prefer: str | None = None,
    ) -> Target[Prompt]:
        """As `resolve_tool`, for prompts."""
        await self.settled()

        def find() -> Target[Prompt]:
            catalog = self.catalog_for(client)
            return resolve_prompt(catalog, self.specs, principal, name, server, shown=shown, prefer=prefer)

        return await self._found(find, principal, name, server, client)

    async def resolve_resource(
        self, principal: Principal, uri: str, server: str | None, *, client: Client = PROXY
    ) -> tuple[ServerSpec, ...]:
        """The servers to ask for a resource, in order; all that have any when nobody lists it. Raises `ProxyError`."""
        await self.settled()
        owners: Owners = resolve_resource(self.catalog_for(client), self.specs, principal, uri, server)
        if not owners.specs and client.profile:
            await self.learn(client)
            owners = resolve_resource(self.catalog_for(client), self.specs, principal, uri, server)
        if owners.specs:
            return owners.specs
        # A result may have linked to it without its being listed anywhere.
        members = self.find(server, principal).members if server is not None else tuple(self.specs.values())
        return tuple(
            spec
            for spec in members
            if (terms := self._fleet[spec.name].terms) is not None
            and terms.offers("resources")
            and principal.sees_tool(uri, spec.name, spec.group)
        )

    async def _found(
        self, find: Callable[[], Target[Any]], principal: Principal, name: str, server: str | None, client: Client
    ) -> Target[Any]:
        try:
            return find()
        except ProxyError as error:
            if error.kind is SERVER_NOT_FOUND and self.is_refused(server or "", principal):
                raise self._unusable(server or "") from None
            if error.kind is not TOOL_NOT_FOUND:
                raise
        await self.settled()
        if client.profile:
            await self.learn(client)
        try:
            return find()
        except ProxyError as error:
            if error.kind is TOOL_NOT_FOUND and (absent := self._absent(principal, name, server)) is not None:
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
            members = tuple(spec for spec in seen if not self._fleet[spec.name].is_settled)
        unknown = [s.name for s in members if self._fleet[s.name].never_listed]
        return unknown[0] if unknown and len(unknown) == len(members) else None

    def _prefix(self, method: str, principal: Principal) -> str | None:
        """The server, group or provider whose full name for some tool ``method`` looks like, if there is one."""
        specs = self.specs.values()
        sole = {provider for provider, times in Counter(spec.provider for spec in specs).items() if times == 1}
        owners = [(owner, spec) for spec in specs for owner in (spec.name, spec.group) if owner]
        owners += [(spec.provider, spec) for spec in specs if spec.provider and spec.provider in sole]
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
        upstream = self._fleet[name]
        if upstream.spec.disabled:
            text = f"{name} is disabled; POST /api/instances/{name}/enable switches it on"
            return ProxyError(UPSTREAM_UNAVAILABLE, text, details={"server": name})
        upstream.poke()
        text = f"{name} is not connected: {upstream.last_error or 'still connecting'}"
        return ProxyError(UPSTREAM_UNAVAILABLE, text, details={"server": name}, retry_after=upstream.retry_after())

    def is_refused(self, name: str, principal: Principal) -> bool:
        """Whether a server of that name was configured in a way that cannot be used."""
        return principal.sees_server(name) and any(one.name == name for one in self.refused)

    def health(self, *, draining: bool) -> Health:
        """The service and its servers, for ``/health``."""
        servers = {name: str(upstream.state) for name, upstream in ((one.spec.name, one) for one in self._fleet)}
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
        rows = [self._row(one) for one in self._fleet if principal.sees_server(one.spec.name, one.spec.group)]
        return rows + [_refused_row(one) for one in self.refused if principal.sees_server(one.name)]

    def _row(self, upstream: Upstream) -> dict[str, Any]:
        spec = upstream.spec
        shown = describe(spec)
        where: dict[str, Any] = {key: shown[key] for key in ("url", "command") if key in shown}
        tools = sum(1 for entry in self.catalog.tools.entries if entry.server == spec.name)
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
            "withheld": [*self._withheld(upstream)],
        }

    def _withheld(self, upstream: Upstream) -> Iterable[dict[str, str]]:
        """What clients are not shown of a server's offer, and why."""
        for one in (*upstream.withheld, *self._ruled_out.get(upstream.spec.name, ())):
            yield {"kind": one.kind, "name": one.name, "reason": one.reason}
        for conflict in self.catalog.conflicts:
            if conflict.hidden == upstream.spec.name:
                reason = f"{conflict.kept} has one of that name, and comes first"
                yield {"kind": conflict.kind, "name": conflict.name, "reason": reason}


async def _at_most(seconds: float, work: Iterable[tuple[Coroutine[Any, Any, None], str]]) -> None:
    """Do all of it at once, and leave what takes longer."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
            for coroutine, name in work:
                group.create_task(coroutine, name=name)


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
        "withheld": [],
    }
