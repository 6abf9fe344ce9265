"""The catalogue: an immutable snapshot of what all servers offer, and what of it stands in each other's way.

Replaced whole, never changed; readers keep the one they hold. Pure: who is connected, and who may call, is not known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mcp_proxy.config.model import ServerSpec
from mcp_proxy.core.catalog.item import Prompt, Resource, Template
from mcp_proxy.core.catalog.names import Entry, ItemT, NameTable, grouped, strangers, tabulate
from mcp_proxy.core.catalog.naming import NamingPolicy
from mcp_proxy.core.catalog.offer import Offer
from mcp_proxy.core.catalog.tool import Tool


@dataclass(frozen=True, slots=True)
class Conflict:
    """A name that several servers use which are no replicas of one another.

    ``kind`` is the field of its list: ``tools``, ``prompts``, ``resources``, ``resourceTemplates``. ``name``: the URI (or template) that both list; the bare
    name that both have, where bare names are shown; or the name at the doors that one had to give way for. ``kept`` and
    ``hidden`` are servers; the first in the servers' order keeps.
    """

    kind: str
    name: str
    kept: str
    hidden: str


@dataclass(frozen=True, slots=True)
class ResourceTable:
    """Resources once per URI and templates once per URI template, the first in the servers' order; and all owners."""

    resources: tuple[Entry[Resource], ...] = ()
    templates: tuple[Entry[Template], ...] = ()
    by_uri: Mapping[str, tuple[Entry[Resource], ...]] = field(default_factory=dict, repr=False)
    by_template: Mapping[str, tuple[Entry[Template], ...]] = field(default_factory=dict, repr=False)
    all_resources: tuple[Entry[Resource], ...] = field(default=(), repr=False)
    all_templates: tuple[Entry[Template], ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Catalog:
    """Everything that is offered. ``revision`` grows with each change."""

    revision: int = 0
    tools: NameTable[Tool] = field(default_factory=NameTable)
    prompts: NameTable[Prompt] = field(default_factory=NameTable)
    resources: ResourceTable = field(default_factory=ResourceTable)
    conflicts: tuple[Conflict, ...] = ()

    def offers_the_same_as(self, other: Catalog) -> bool:
        """Whether nothing but the revision differs."""
        return (
            self.tools.entries == other.tools.entries
            and self.prompts.entries == other.prompts.entries
            and self.resources.all_resources == other.resources.all_resources
            and self.resources.all_templates == other.resources.all_templates
        )


def build(servers: Iterable[tuple[ServerSpec, Offer]], policy: NamingPolicy, revision: int) -> Catalog:
    """The catalogue of these servers, in their order; what the operator's rules withhold is no longer in the offers."""
    offers = list(servers)
    tools = tabulate([Entry(tool, spec) for spec, offer in offers for tool in offer.tools], policy)
    prompts = tabulate([Entry(prompt, spec) for spec, offer in offers for prompt in offer.prompts], policy)
    resources = _resource_table(
        [Entry(resource, spec) for spec, offer in offers for resource in offer.resources],
        [Entry(template, spec) for spec, offer in offers for template in offer.templates],
    )
    conflicts = (
        *_of_names("tools", tools),
        *_of_names("prompts", prompts),
        *_of_owners("resources", resources.by_uri),
        *_of_owners("resourceTemplates", resources.by_template),
    )
    return Catalog(revision, tools, prompts, resources, conflicts)


def _resource_table(resources: Sequence[Entry[Resource]], templates: Sequence[Entry[Template]]) -> ResourceTable:
    by_uri = grouped((entry.name, entry) for entry in resources)
    by_template = grouped((entry.name, entry) for entry in templates)
    return ResourceTable(
        resources=tuple(owners[0] for owners in by_uri.values()),
        templates=tuple(owners[0] for owners in by_template.values()),
        by_uri=by_uri,
        by_template=by_template,
        all_resources=tuple(resources),
        all_templates=tuple(templates),
    )


def _of_names(kind: str, table: NameTable[ItemT]) -> Iterable[Conflict]:
    return (Conflict(kind, clash.name, clash.kept.server, clash.hidden.server) for clash in table.clashes)


def _of_owners(kind: str, table: Mapping[str, Sequence[Entry[ItemT]]]) -> Iterable[Conflict]:
    for name, owners in table.items():
        for other in strangers(owners):
            yield Conflict(kind, name, owners[0].server, other.server)
