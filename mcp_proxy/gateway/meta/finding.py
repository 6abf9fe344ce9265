"""Finding tools in a catalogue: by what they do, and by names that are nearly right. What is found is filtered by who asks.

How texts are compared is `ranking`; an index is kept for as long as its catalogue is the one that is asked about.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from heapq import nlargest
from itertools import pairwise

from mcp_proxy.core.catalog.names import Entry, Shown
from mcp_proxy.core.catalog.snapshot import Catalog
from mcp_proxy.core.catalog.tool import Tool
from mcp_proxy.core.catalog.view import View
from mcp_proxy.gateway.meta.ranking import Index, Texts

_NAME, _TITLE, _OWNER, _DESCRIPTION = 4.0, 2.0, 1.5, 1.0
"""What a word counts, by where it stands."""
_KEPT = 4
"""Indexes: servers may show other tools to other kinds of clients."""
_SMALL = 500
"""Tools that are indexed at once; for more the service goes on meanwhile."""
_MOST_COMPARED = 30
"""Names that a wrong one is compared with."""
_LONGEST = 200


class Finder:
    """Searches catalogues."""

    def __init__(self) -> None:
        self._indexes: list[tuple[Catalog, Index]] = []

    async def find(self, question: str, catalog: Catalog, view: View) -> list[Shown[Tool]]:
        """The tools in ``view``, which is of ``catalog``, that have any word of the question; the best first."""
        index = await self._index(catalog)
        shown = {id(one.entry): one for one in view.tools}
        entries = catalog.tools.entries
        found = (shown.get(id(entries[number])) for number in index.ranked(question))
        return [one for one in found if one is not None]

    async def _index(self, catalog: Catalog) -> Index:
        for known, index in self._indexes:
            if known is catalog:
                return index
        entries = catalog.tools.entries
        small = len(entries) <= _SMALL
        index = _index_of(entries) if small else await asyncio.to_thread(_index_of, entries)
        self._indexes = [(catalog, index), *self._indexes[: _KEPT - 1]]
        return index


def _index_of(entries: Iterable[Entry[Tool]]) -> Index:
    return Index(_texts(entry) for entry in entries)


def _texts(entry: Entry[Tool]) -> Texts:
    definition = entry.item.definition
    annotations = definition.get("annotations")
    title = definition.get("title") or (annotations.get("title") if isinstance(annotations, Mapping) else None)
    weighed = (
        (entry.name, _NAME),
        (title, _TITLE),
        (entry.namespace, _OWNER),
        (definition.get("description"), _DESCRIPTION),
    )
    return [(text, weight) for text, weight in weighed if isinstance(text, str)]


def near(name: str, known: Iterable[str]) -> list[str]:
    """The known names that ``name`` may be a slip of, at most three. Case does not count."""
    by_lower = {other.lower(): other for other in known}
    wanted = name[:_LONGEST].lower()
    pairs = _pairs(wanted)
    # Comparing takes its time: only those that share the most with it are compared.
    likely = nlargest(_MOST_COMPARED, by_lower, key=lambda other: 2 * len(pairs & (own := _pairs(other))) - len(own))
    return [by_lower[other] for other in get_close_matches(wanted, likely, n=3, cutoff=0.6)]


def _pairs(text: str) -> set[tuple[str, str]]:
    return set(pairwise(text[:_LONGEST]))
