"""Everything one server offers, and the taking over of a fresh listing. Which of it is usable is decided before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mcp_proxy.core.catalog.item import Prompt, Resource, Template
from mcp_proxy.core.catalog.names import ItemT
from mcp_proxy.core.catalog.tool import Tool

Definitions = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Withheld:
    """Something that a server offers and that is not passed on. ``kind`` is the field of its list."""

    kind: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Offer:
    """What one server lists, in its order; no name twice within one kind."""

    tools: tuple[Tool, ...] = ()
    prompts: tuple[Prompt, ...] = ()
    resources: tuple[Resource, ...] = ()
    templates: tuple[Template, ...] = ()


def adopt_offer(listed: Mapping[str, Definitions], known: Offer) -> Offer:
    """The offer after a fresh listing.

    ``listed`` has the results of the list methods, all pages together, by the name of their member: ``tools``,
    ``prompts``, ``resources``, ``resourceTemplates``; for a key that is absent what is known stays. Definitions that have
    not changed keep their object (and with it a tool's validator). A name listed twice counts once, the first time.
    """
    return Offer(
        _adopted(Tool, listed.get("tools"), known.tools),
        _adopted(Prompt, listed.get("prompts"), known.prompts),
        _adopted(Resource, listed.get("resources"), known.resources),
        _adopted(Template, listed.get("resourceTemplates"), known.templates),
    )


def _adopted(kind: type[ItemT], listed: Definitions | None, known: tuple[ItemT, ...]) -> tuple[ItemT, ...]:
    if listed is None:
        return known
    old = {item.name: item for item in known}
    fresh: dict[str, ItemT] = {}
    for definition in listed:
        name = definition[kind.KEY]
        if name in fresh:
            continue
        before = old.get(name)
        fresh[name] = before if before is not None and before.definition == definition else kind(definition)
    return tuple(fresh.values())
