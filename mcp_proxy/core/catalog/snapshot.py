"""The catalogue: an immutable snapshot of what all servers offer, and the tables that find a tool by its names.

Replaced whole, never changed; readers keep the one they hold. Pure: who is connected, and who may call, is not known here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from mcp_proxy.config.model import ServerSpec, ToolRules
from mcp_proxy.core.catalog.naming import NamingPolicy, shown_names
from mcp_proxy.core.catalog.tool import Tool

SEPARATORS = (".", "__")
"""A call accepts both forms, whatever the policy for lists."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One tool of one server."""

    tool: Tool
    spec: ServerSpec

    @property
    def server(self) -> str:
        return self.spec.name

    @property
    def namespace(self) -> str:
        return self.spec.group or self.spec.name


@dataclass(frozen=True, slots=True)
class Shown:
    """A tool as it is listed: once per namespace."""

    name: str
    entry: Entry


@dataclass(frozen=True, slots=True)
class Catalog:
    """All tools. ``revision`` grows with each change; ``by_bare`` and ``by_full`` find entries by name."""

    revision: int = 0
    entries: tuple[Entry, ...] = ()
    shown: tuple[Shown, ...] = ()
    by_bare: Mapping[str, tuple[Entry, ...]] = field(default_factory=dict, repr=False)
    by_full: Mapping[str, tuple[Entry, ...]] = field(default_factory=dict, repr=False)


def build(servers: Iterable[tuple[ServerSpec, Sequence[Tool]]], policy: NamingPolicy, revision: int) -> Catalog:
    """The catalogue of these servers, in their order."""
    entries = tuple(Entry(tool, spec) for spec, tools in servers for tool in tools if _offered(tool.name, spec.tools))
    listed = list({(entry.namespace, entry.tool.name): entry for entry in reversed(entries)}.values())[::-1]
    names = shown_names(policy, [(entry.namespace, entry.tool.name) for entry in listed])
    shown = tuple(Shown(name, entry) for name, entry in zip(names, listed, strict=True))
    by_bare: dict[str, list[Entry]] = defaultdict(list)
    by_full: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_bare[entry.tool.name].append(entry)
        for owner in filter(None, (entry.server, entry.spec.group)):
            for separator in SEPARATORS:
                by_full[f"{owner}{separator}{entry.tool.name}"].append(entry)
    for item in shown:
        if item.name not in by_full and item.name not in by_bare:
            by_full[item.name] = [e for e in entries if _same_listing(e, item.entry)]
    return Catalog(revision, entries, shown, _frozen(by_bare), _frozen(by_full))


def _offered(name: str, rules: ToolRules) -> bool:
    allowed = any(fnmatchcase(name, glob) for glob in rules.allow)
    return allowed and not any(fnmatchcase(name, glob) for glob in rules.deny)


def _same_listing(one: Entry, other: Entry) -> bool:
    return one.namespace == other.namespace and one.tool.name == other.tool.name


def _frozen(table: Mapping[str, list[Entry]]) -> dict[str, tuple[Entry, ...]]:
    return {name: tuple(entries) for name, entries in table.items()}
