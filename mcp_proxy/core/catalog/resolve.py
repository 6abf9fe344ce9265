"""From the name in a call to the servers that may execute it: tools, prompts, resources. Pure.

The rules of the contract, section 4: what counts as a replica, when a name is ambiguous, and that a server which is
named is never left, except for another member of its group. Prompts follow the rules of tools.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic

from mcp_proxy.base.errors import AMBIGUOUS_TOOL, SERVER_NOT_FOUND, TOOL_NOT_FOUND, ProxyError
from mcp_proxy.config.model import ServerSpec
from mcp_proxy.core.auth.principal import Principal
from mcp_proxy.core.catalog.item import Prompt
from mcp_proxy.core.catalog.names import Entry, ItemT, NameTable
from mcp_proxy.core.catalog.snapshot import Catalog
from mcp_proxy.core.catalog.tool import Tool


@dataclass(frozen=True, slots=True)
class Target(Generic[ItemT]):
    """Where a call may go: replicas of one another. ``preferred`` is tried first while it can be."""

    name: str
    """As the servers themselves call it."""
    entries: tuple[Entry[ItemT], ...]
    """The preferred one stands first: its schema and its time-out are the call's."""
    preferred: str | None = None

    @property
    def tool(self) -> str:
        """The name, where it is a tool's."""
        return self.name


@dataclass(frozen=True, slots=True)
class Owners:
    """The servers to ask for a resource, best first. ``listed``: they list the URI, else only a template fits it."""

    specs: tuple[ServerSpec, ...] = ()
    listed: bool = False


@dataclass(frozen=True, slots=True)
class Named:
    """The servers a caller named: one server (``preferred``, with the rest of its group), or a whole group."""

    members: tuple[ServerSpec, ...]
    preferred: str | None


def find_server(name: str, servers: Mapping[str, ServerSpec], principal: Principal) -> Named:
    """The server or group called ``name``, or with that URL, or the only one of a provider called so. Raises `ProxyError` (``server_not_found``).

    A server outside the token's rights is answered like one that does not exist.
    """
    visible = [spec for spec in servers.values() if principal.sees_server(spec.name, spec.group)]
    for spec in visible:
        if name == spec.name or (spec.url is not None and _same_url(name, spec.url)):
            mates = tuple(mate for mate in visible if mate.group == spec.group) if spec.group else (spec,)
            return Named(mates, spec.name)
    members = tuple(spec for spec in visible if spec.group == name)
    provided = [spec for spec in visible if spec.provider == name]
    if not members and len(provided) == 1:
        return Named((provided[0],), provided[0].name)
    if not members:
        raise ProxyError(SERVER_NOT_FOUND, f"there is no server called {name[:200]!r}; GET /servers lists them")
    return Named(members, None)


def _find_liked(name: str | None, servers: Mapping[str, ServerSpec], principal: Principal) -> Named | None:
    """A preference for a server that is gone, or no longer visible, is none."""
    try:
        return None if name is None else find_server(name, servers, principal)
    except ProxyError:
        return None


def _same_url(one: str, other: str) -> bool:
    return one.rstrip("/") == other.rstrip("/")


def resolve_tool(
    catalog: Catalog,
    servers: Mapping[str, ServerSpec],
    principal: Principal,
    name: str,
    server: str | None = None,
    *,
    shown: bool = False,
    prefer: str | None = None,
) -> Target[Tool]:
    """Where to send a call of the tool ``name``, at ``server`` if one is named.

    ``shown``: the caller works from a list, so a name as it is listed means what it is listed for, whatever else is called
    so. ``prefer``: the server or group whose tools bare names mean before all others, as long as it is there.

    Raises `ProxyError`: ``server_not_found``, ``tool_not_found``, ``ambiguous_tool``.
    """
    named = None if server is None else find_server(server, servers, principal)
    return _Question(catalog.tools, principal, name, "tool", "GET /tools/list").answer(
        named, shown=shown, liked=_find_liked(prefer, servers, principal)
    )


def resolve_prompt(
    catalog: Catalog,
    servers: Mapping[str, ServerSpec],
    principal: Principal,
    name: str,
    server: str | None = None,
    *,
    shown: bool = False,
    prefer: str | None = None,
) -> Target[Prompt]:
    """As `resolve_tool`, for prompts; the kinds of the errors are the same, their messages say prompt."""
    named = None if server is None else find_server(server, servers, principal)
    return _Question(catalog.prompts, principal, name, "prompt", "prompts/list").answer(
        named, shown=shown, liked=_find_liked(prefer, servers, principal)
    )


def resolve_resource(
    catalog: Catalog, servers: Mapping[str, ServerSpec], principal: Principal, uri: str, server: str | None = None
) -> Owners:
    """The visible servers that list ``uri``, or that list it as a template; if there are none, those with a template that it fits; perhaps none.

    The first one's group comes before the others. ``server`` names a server (which comes first, before the rest of its
    group) or a group, and no others are asked. Raises `ProxyError` (``server_not_found``).
    """
    named = None if server is None else find_server(server, servers, principal)
    table = catalog.resources
    owners: Sequence[Entry[Any]] = table.by_uri.get(uri) or table.by_template.get(uri) or ()
    listed = _ordered(_visible(owners, principal), named)
    if listed:
        return Owners(listed, listed=True)
    templates = [entry for entry in _visible(catalog.resources.all_templates, principal) if entry.item.matches(uri)]
    return Owners(_ordered(templates, named))


def _ordered(entries: Sequence[Entry[Any]], named: Named | None) -> tuple[ServerSpec, ...]:
    specs = list({entry.server: entry.spec for entry in entries}.values())
    if named is not None:
        members = {spec.name for spec in named.members}
        specs = sorted((spec for spec in specs if spec.name in members), key=lambda spec: spec.name != named.preferred)
    group = specs[0].group if specs else None
    return tuple(sorted(specs, key=lambda spec: spec.group != group) if group else specs)


@dataclass(frozen=True, slots=True)
class _Question(Generic[ItemT]):
    """What is meant by a name, for this principal."""

    table: NameTable[ItemT]
    principal: Principal
    name: str
    kind: str
    listing: str

    def answer(self, named: Named | None, *, shown: bool, liked: Named | None = None) -> Target[ItemT]:
        if named is not None:
            return self._at_server(named)
        if liked is not None and (target := self._at_liked(liked)) is not None:
            return target
        if shown and (listed := self._seen(self.table.by_shown)):
            return self._as_listed(listed)
        # A full name wins over a bare one that looks like it: servers are named by the operator, tools by their servers.
        if full := self._seen(self.table.by_full):
            return self._by_full_name(full)
        if bare := self._seen(self.table.by_bare):
            return Target(self.name, self._replicas(bare))
        raise self._unknown()

    def _seen(self, table: Mapping[str, tuple[Entry[ItemT], ...]]) -> list[Entry[ItemT]]:
        return _visible(table.get(self.name, ()), self.principal)

    def _at_server(self, named: Named) -> Target[ItemT]:
        members = {spec.name for spec in named.members}
        for table in (self.table.by_bare, self.table.by_full):
            entries = [entry for entry in self._seen(table) if entry.server in members]
            if entries:
                return _preferring(entries, named.preferred)
        raise self._unknown(named.preferred or named.members[0].group or "")

    def _at_liked(self, liked: Named) -> Target[ItemT] | None:
        """The thing of that bare name at the preferred server; replicas elsewhere can stand in. Full names mean what they say."""
        bare = self._seen(self.table.by_bare)
        members = {spec.name for spec in liked.members}
        own = [entry for entry in bare if entry.server in members]
        if not own or self._seen(self.table.by_full):
            return None
        first = _preferring(own, liked.preferred)
        others = (other for other in bare if other.server not in members and other.is_replica_of(own[0]))
        return Target(first.name, (*first.entries, *others), liked.preferred)

    def _as_listed(self, entries: list[Entry[ItemT]]) -> Target[ItemT]:
        first = entries[0]
        if self.name != first.name:
            return self._by_full_name(entries)
        # No server was named, so replicas of other namespaces can stand in.
        others = [other for other in self._seen(self.table.by_bare) if other.namespace != first.namespace]
        return Target(first.name, (*entries, *(other for other in others if other.is_replica_of(first))))

    def _by_full_name(self, entries: Sequence[Entry[ItemT]]) -> Target[ItemT]:
        name = entries[0].name
        if len({(entry.namespace, entry.name) for entry in entries}) > 1:
            raise self._ambiguous(entries)
        if len(entries) > 1 or entries[0].spec.group is None:
            return Target(name, tuple(entries), entries[0].server if len(entries) == 1 else None)
        # A member of a group by its own name: it comes first, the others can stand in.
        mates = [e for e in self.table.by_bare.get(name, ()) if e.spec.group == entries[0].spec.group]
        return _preferring(_visible(mates, self.principal), entries[0].server)

    def _replicas(self, entries: Sequence[Entry[ItemT]]) -> tuple[Entry[ItemT], ...]:
        """The entries, if they are all replicas of one another."""
        if not all(other.is_replica_of(entries[0]) for other in entries[1:]):
            raise self._ambiguous(entries)
        return tuple(entries)

    def _unknown(self, where: str | None = None) -> ProxyError:
        owner = "there is no" if where is None else f"{where} has no"
        return ProxyError(TOOL_NOT_FOUND, f"{owner} {self.kind} called {self.name[:200]!r}; {self.listing} lists them")

    def _ambiguous(self, entries: Sequence[Entry[ItemT]]) -> ProxyError:
        return ProxyError(
            AMBIGUOUS_TOOL,
            f"several servers have a {self.kind} called {self.name[:200]!r}: name the server, or call one of the candidates",
            details={
                "candidates": sorted({f"{entry.namespace}.{entry.name}" for entry in entries}),
                "servers": sorted({entry.server for entry in entries}),
            },
        )


def _preferring(entries: Sequence[Entry[ItemT]], preferred: str | None) -> Target[ItemT]:
    ordered = sorted(entries, key=lambda entry: entry.server != preferred)
    return Target(ordered[0].name, tuple(ordered), preferred)


def _visible(entries: Sequence[Entry[ItemT]], principal: Principal) -> list[Entry[ItemT]]:
    return [e for e in entries if principal.sees_tool(e.name, e.server, e.spec.group)]
