"""Tools or prompts of all servers, and the tables that find one by each of its names. Pure; the names are `naming`'s."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from mcp_proxy.config.model import ServerSpec
from mcp_proxy.core.catalog.item import Item
from mcp_proxy.core.catalog.naming import Named, NamingPolicy, name_all

SEPARATORS = (".", "__")
"""A call accepts both forms, whatever the policy for lists."""

ItemT = TypeVar("ItemT", bound=Item)
KeyT = TypeVar("KeyT", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Entry(Generic[ItemT]):
    """One thing that one server offers."""

    item: ItemT
    spec: ServerSpec

    @property
    def name(self) -> str:
        """The item's own name: bare, or a URI or a URI template."""
        return self.item.name

    @property
    def tool(self) -> ItemT:
        """The item, where it is a tool."""
        return self.item

    @property
    def server(self) -> str:
        return self.spec.name

    @property
    def namespace(self) -> str:
        return self.spec.group or self.spec.name

    def is_replica_of(self, other: Entry[ItemT]) -> bool:
        """Whether either may be used for the other: one group, or entries of ``MCP_URLS`` that define it identically."""
        if self.namespace == other.namespace:
            return True
        same_set = self.spec.replica_set is not None and self.spec.replica_set == other.spec.replica_set
        return same_set and self.item.digest == other.item.digest


@dataclass(frozen=True, slots=True)
class Shown(Generic[ItemT]):
    """A tool or prompt as it is listed: once per namespace."""

    name: str
    entry: Entry[ItemT]


@dataclass(frozen=True, slots=True)
class Clash(Generic[ItemT]):
    """A name that two namespaces wanted. ``kept`` comes first among the servers."""

    name: str
    kept: Entry[ItemT]
    hidden: Entry[ItemT]


@dataclass(frozen=True, slots=True)
class NameTable(Generic[ItemT]):
    """All entries in the servers' order, what is listed of them, and entries by name.

    ``by_full`` has the names with a server, a group or a provider in front, and shown names that are neither these nor bare ones;
    ``by_shown`` the entries of the namespace that is listed under the name (the members of a group).
    """

    entries: tuple[Entry[ItemT], ...] = ()
    shown: tuple[Shown[ItemT], ...] = ()
    by_bare: Mapping[str, tuple[Entry[ItemT], ...]] = field(default_factory=dict, repr=False)
    by_full: Mapping[str, tuple[Entry[ItemT], ...]] = field(default_factory=dict, repr=False)
    by_shown: Mapping[str, tuple[Entry[ItemT], ...]] = field(default_factory=dict, repr=False)
    clashes: tuple[Clash[ItemT], ...] = field(default=(), repr=False)


def tabulate(entries: Sequence[Entry[ItemT]], policy: NamingPolicy) -> NameTable[ItemT]:
    """The table of these entries, which are in the servers' order."""
    listings = grouped(((entry.namespace, entry.name), entry) for entry in entries)
    named = name_all(policy, list(listings))
    by_shown = {one.name: members for one, members in zip(named, listings.values(), strict=True)}
    by_bare = grouped((entry.name, entry) for entry in entries)
    taken = {owner for entry in entries for owner in (entry.server, entry.spec.group)}
    by_full = grouped((name, entry) for entry in entries for name in _full_names(entry, taken))
    for name, members in by_shown.items():
        if name not in by_full and name not in by_bare:
            by_full[name] = members
    return NameTable(
        entries=tuple(entries),
        shown=tuple(Shown(name, members[0]) for name, members in by_shown.items()),
        by_bare=by_bare,
        by_full=by_full,
        by_shown=by_shown,
        clashes=(*_shared(by_bare, policy), *_gave_way(named, list(by_shown.values()))),
    )


def _full_names(entry: Entry[ItemT], taken: Set[str | None]) -> list[str]:
    """The names with an owner in front. A provider that is called like a server or a group is none."""
    spec = entry.spec
    owners = [spec.name, spec.group, None if spec.provider in taken else spec.provider]
    return [f"{owner}{separator}{entry.name}" for owner in owners if owner for separator in SEPARATORS]


def grouped(pairs: Iterable[tuple[KeyT, Entry[ItemT]]]) -> dict[KeyT, tuple[Entry[ItemT], ...]]:
    """The entries of each key, in the order they come."""
    table: dict[KeyT, list[Entry[ItemT]]] = defaultdict(list)
    for key, entry in pairs:
        table[key].append(entry)
    return {key: tuple(entries) for key, entries in table.items()}


def strangers(entries: Sequence[Entry[ItemT]]) -> tuple[Entry[ItemT], ...]:
    """The first of each further namespace that is no replica of the first entry."""
    first = entries[0]
    others: dict[str, Entry[ItemT]] = {}
    for entry in entries[1:]:
        if not entry.is_replica_of(first):
            others.setdefault(entry.namespace, entry)
    return tuple(others.values())


def _shared(by_bare: Mapping[str, Sequence[Entry[ItemT]]], policy: NamingPolicy) -> Iterator[Clash[ItemT]]:
    """Bare names of several namespaces, where bare names are shown; replicas share theirs rightly."""
    if not policy.prefixed:
        for name, entries in by_bare.items():
            yield from (Clash(name, entries[0], entry) for entry in strangers(entries))


def _gave_way(named: Sequence[Named], listings: Sequence[Sequence[Entry[ItemT]]]) -> Iterator[Clash[ItemT]]:
    for one, members in zip(named, listings, strict=True):
        if one.gave_way_to is not None:
            yield Clash(one.wanted, listings[one.gave_way_to][0], members[0])
