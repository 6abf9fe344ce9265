"""What one caller sees of the catalogue, as the doors list it. Pure; a view is made quickly and may be thrown away.

What a call of a listed name reaches is `resolve`, with ``shown``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import chain
from typing import Any, Literal

from mcp_proxy.core.auth.principal import Principal
from mcp_proxy.core.catalog.item import Prompt, Resource, Template
from mcp_proxy.core.catalog.names import Entry, ItemT, NameTable, Shown
from mcp_proxy.core.catalog.snapshot import Catalog
from mcp_proxy.core.catalog.tool import Tool

Listing = Literal["tools", "prompts", "resources"]
"""What clients list, and are told changes of: ``resources`` is resources and templates together."""
_Sees = Callable[[Entry[Any]], bool]


@dataclass(frozen=True, slots=True)
class View:
    """The lists of one caller, in the servers' order, each tool and prompt once per namespace, each URI once."""

    tools: tuple[Shown[Tool], ...] = ()
    prompts: tuple[Shown[Prompt], ...] = ()
    resources: tuple[Entry[Resource], ...] = ()
    templates: tuple[Entry[Template], ...] = ()
    _digests: dict[Listing, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def digest(self, kind: Listing) -> str:
        """A hash of what is listed: names, definitions and their order. The same in every process; kept."""
        if kind not in self._digests:
            self._digests[kind] = sha256("\n".join(self._lines(kind)).encode(errors="surrogatepass")).hexdigest()
        return self._digests[kind]

    def _lines(self, kind: Listing) -> Iterable[str]:
        if kind == "resources":
            # The digest of a definition covers the URI, and a template is told from a resource by its members.
            return (entry.item.digest for entry in chain[Entry[Any]](self.resources, self.templates))
        shown: Sequence[Shown[Any]] = self.tools if kind == "tools" else self.prompts
        return (f"{one.entry.item.digest}{one.name}" for one in shown)


def view(catalog: Catalog, principal: Principal, namespace: str | None = None) -> View:
    """What ``principal`` sees: everything under its shown names, or one server or group under bare names.

    A member of a group may be named too, and shows what it has itself. A group's tool has the definition of the first
    member that is visible. A namespace that does not exist, or that is not visible, shows nothing.
    """
    resources = catalog.resources
    if namespace is None and principal.servers is None and principal.tools is None:
        return View(catalog.tools.shown, catalog.prompts.shown, resources.resources, resources.templates)
    sees = _sight(principal, namespace)
    names = _shown if namespace is None else _bare
    return View(
        names(catalog.tools, sees),
        names(catalog.prompts, sees),
        tuple(_firsts(resources.all_resources, sees).values()),
        tuple(_firsts(resources.all_templates, sees).values()),
    )


def _sight(principal: Principal, namespace: str | None) -> _Sees:
    """Whether an entry is seen; servers are looked at once each, since there are many more entries than servers."""
    servers: dict[str, bool] = {}

    def sees(entry: Entry[Any]) -> bool:
        spec = entry.spec
        here = servers.get(spec.name)
        if here is None:
            here = namespace in (None, spec.name, spec.group) and principal.sees_server(spec.name, spec.group)
            servers[spec.name] = here
        return here and (principal.tools is None or principal.sees_tool(entry.name, spec.name, spec.group))

    return sees


def _shown(table: NameTable[ItemT], sees: _Sees) -> tuple[Shown[ItemT], ...]:
    found = []
    for one in table.shown:
        if sees(one.entry):
            found.append(one)
        elif (entry := next(filter(sees, table.by_shown[one.name]), None)) is not None:
            found.append(Shown(one.name, entry))
    return tuple(found)


def _bare(table: NameTable[ItemT], sees: _Sees) -> tuple[Shown[ItemT], ...]:
    return tuple(Shown(name, entry) for name, entry in _firsts(table.entries, sees).items())


def _firsts(entries: Iterable[Entry[ItemT]], sees: _Sees) -> Mapping[str, Entry[ItemT]]:
    firsts: dict[str, Entry[ItemT]] = {}
    for entry in entries:
        if entry.name not in firsts and sees(entry):
            firsts[entry.name] = entry
    return firsts
