"""From the name in a call to the servers that may execute it. Pure.

The rules of the contract, section 4: what counts as a replica, when a name is ambiguous, and that a server which is
named is never left, except for another member of its group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mcp_proxy.base.errors import AMBIGUOUS_TOOL, SERVER_NOT_FOUND, TOOL_NOT_FOUND, ProxyError
from mcp_proxy.config.model import ServerSpec
from mcp_proxy.core.auth.principal import Principal
from mcp_proxy.core.catalog.snapshot import Catalog, Entry


@dataclass(frozen=True, slots=True)
class Target:
    """Where a call may go: replicas of one another. ``preferred`` is tried first while it can be."""

    tool: str
    entries: tuple[Entry, ...]
    """The preferred one stands first: its schema and its time-out are the call's."""
    preferred: str | None = None


@dataclass(frozen=True, slots=True)
class Named:
    """The servers a caller named: one server (``preferred``, with the rest of its group), or a whole group."""

    members: tuple[ServerSpec, ...]
    preferred: str | None


def find_server(name: str, servers: Mapping[str, ServerSpec], principal: Principal) -> Named:
    """The server or group called ``name``, or with that URL. Raises `ProxyError` (``server_not_found``).

    A server outside the token's rights is answered like one that does not exist.
    """
    visible = [spec for spec in servers.values() if principal.sees_server(spec.name, spec.group)]
    for spec in visible:
        if name == spec.name or (spec.url is not None and _same_url(name, spec.url)):
            mates = tuple(mate for mate in visible if mate.group == spec.group) if spec.group else (spec,)
            return Named(mates, spec.name)
    members = tuple(spec for spec in visible if spec.group == name)
    if not members:
        raise ProxyError(SERVER_NOT_FOUND, f"there is no server called {name[:200]!r}; GET /servers lists them")
    return Named(members, None)


def _same_url(one: str, other: str) -> bool:
    return one.rstrip("/") == other.rstrip("/")


def resolve(
    catalog: Catalog, servers: Mapping[str, ServerSpec], principal: Principal, method: str, server: str | None
) -> Target:
    """Where to send a call of ``method``, at ``server`` if one is named.

    Raises `ProxyError`: ``server_not_found``, ``tool_not_found``, ``ambiguous_tool``.
    """
    if server is not None:
        return _at_server(catalog, find_server(server, servers, principal), principal, method)
    # A full name wins over a bare one that looks like it: servers are named by the operator, tools by their servers.
    full = _visible(catalog.by_full.get(method, ()), principal)
    if full:
        return _by_full_name(catalog, principal, full, method)
    bare = _visible(catalog.by_bare.get(method, ()), principal)
    if not bare:
        raise _unknown(method)
    return Target(method, _replicas(bare, method))


def _at_server(catalog: Catalog, named: Named, principal: Principal, method: str) -> Target:
    members = {spec.name for spec in named.members}
    for table in (catalog.by_bare, catalog.by_full):
        entries = [entry for entry in _visible(table.get(method, ()), principal) if entry.server in members]
        if entries:
            return _preferring(entries, named.preferred)
    where = named.preferred or named.members[0].group or ""
    raise _unknown(method, where)


def _preferring(entries: Sequence[Entry], preferred: str | None) -> Target:
    ordered = sorted(entries, key=lambda entry: entry.server != preferred)
    return Target(ordered[0].tool.name, tuple(ordered), preferred)


def _by_full_name(catalog: Catalog, principal: Principal, entries: Sequence[Entry], method: str) -> Target:
    tool = entries[0].tool.name
    if len({(entry.namespace, entry.tool.name) for entry in entries}) > 1:
        raise _ambiguous(method, entries)
    if len(entries) > 1 or entries[0].spec.group is None:
        return Target(tool, tuple(entries), entries[0].server if len(entries) == 1 else None)
    # A member of a group by its own name: it comes first, the others can stand in.
    mates = [e for e in catalog.by_bare.get(tool, ()) if e.spec.group == entries[0].spec.group]
    return _preferring(_visible(mates, principal), entries[0].server)


def _replicas(entries: Sequence[Entry], method: str) -> tuple[Entry, ...]:
    """The entries, if they are all replicas of one another."""
    first = entries[0]
    for other in entries[1:]:
        grouped = first.spec.group is not None and first.spec.group == other.spec.group
        same_set = first.spec.replica_set is not None and first.spec.replica_set == other.spec.replica_set
        if not grouped and not (same_set and first.tool.digest == other.tool.digest):
            raise _ambiguous(method, entries)
    return tuple(entries)


def _visible(entries: Sequence[Entry], principal: Principal) -> list[Entry]:
    return [e for e in entries if principal.sees_tool(e.tool.name, e.server, e.spec.group)]


def _unknown(method: str, where: str | None = None) -> ProxyError:
    owner = "there is no" if where is None else f"{where} has no"
    return ProxyError(TOOL_NOT_FOUND, f"{owner} tool called {method[:200]!r}; GET /tools/list lists them")


def _ambiguous(method: str, entries: Sequence[Entry]) -> ProxyError:
    candidates = sorted({f"{entry.namespace}.{entry.tool.name}" for entry in entries})
    return ProxyError(
        AMBIGUOUS_TOOL,
        f"several servers have a tool called {method[:200]!r}: name the server, or call one of the candidates",
        details={"candidates": candidates, "servers": sorted({entry.server for entry in entries})},
    )
