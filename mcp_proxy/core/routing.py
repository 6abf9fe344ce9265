"""What a request is about, and which servers it may go to; the latter is worked out once for as long as nothing changes.

The rules are `catalog.resolve`'s. Sending, and sending again, is `calls`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from mcp_proxy.base.errors import RESOURCE_NOT_FOUND, UPSTREAM_UNAVAILABLE, ProxyError
from mcp_proxy.config.model import ServerSpec
from mcp_proxy.core.auth.principal import Principal
from mcp_proxy.core.catalog.snapshot import Catalog
from mcp_proxy.core.catalog.tool import Tool
from mcp_proxy.core.mcp_client_manager import McpClientManager
from mcp_proxy.core.upstream.client import PROXY, Client
from mcp_proxy.core.upstream.upstream import Upstream

_MOST_KEPT = 4096
"""Routes kept at once: as many names, rights and preferences as are in use."""

Place = tuple[ServerSpec, Upstream, Tool | None]
_Key = tuple[tuple[str, ...] | None, tuple[str, ...] | None, str, str | None, bool, str | None]


class About(StrEnum):
    """What the name in a call names."""

    TOOL = "tool"
    PROMPT = "prompt"
    RESOURCE = "resource"
    """A URI, or a URI template as it is listed."""


class Call(msgspec.Struct, frozen=True):
    """A request for a server, as a door received it.

    ``name`` is the tool, the prompt or the URI that it is about; names may be bare or full. ``params`` are all
    parameters; what the server itself calls the thing is put in. ``server`` is a name, a group or a URL; with ``pinned``
    no other may stand in. ``shown``: the caller works from a list that this service gave it. ``prefer``: the server that
    bare names mean before all others, where none is named.
    """

    name: str
    params: Mapping[str, Any]
    principal: Principal
    request_id: str
    door: str
    method: str = "tools/call"
    about: About = About.TOOL
    server: str | None = None
    pinned: bool = False
    shown: bool = False
    prefer: str | None = None
    client: Client = PROXY


class Route(msgspec.Struct, frozen=True):
    """Where a call may go: replicas of one another, the best one first. ``own_name``: as the servers call the thing."""

    own_name: str
    places: Sequence[Place]
    preferred: str | None = None

    @property
    def first(self) -> Place:
        return self.places[0]


class Routing:
    """Finds routes. Those of tools are kept while the catalogue and the servers are the same objects: these are replaced, never changed."""

    def __init__(self, manager: McpClientManager) -> None:
        self.manager = manager
        self._kept: dict[_Key, Route] = {}
        self._catalog: Catalog | None = None
        self._specs: Mapping[str, ServerSpec] | None = None

    def known(self, call: Call) -> Route | None:
        """Where the call goes, if that was found before."""
        key = _key(call)
        return None if key is None else self._current().get(key)

    async def find(self, call: Call) -> Route:
        """Where the call goes. Raises `ProxyError`."""
        route = await self._find(call)
        if call.pinned:
            return _pinned(call, route)
        if (key := _key(call)) is not None:
            kept = self._current()
            if len(kept) >= _MOST_KEPT:
                kept.clear()
            kept[key] = route
        return route

    def _current(self) -> dict[_Key, Route]:
        """What was found in the catalogue and for the servers of this moment."""
        catalog, specs = self.manager.catalog, self.manager.specs
        if catalog is not self._catalog or specs is not self._specs:
            self._kept.clear()
            self._catalog, self._specs = catalog, specs
        return self._kept

    async def _find(self, call: Call) -> Route:
        who, name, client, manager = call.principal, call.name, call.client, self.manager
        if call.about is About.TOOL:
            tools = await manager.resolve_tool(
                who, name, call.server, client=client, shown=call.shown, prefer=call.prefer
            )
            places = [(entry.spec, manager.upstream(entry.server), entry.item) for entry in tools.entries]
            return Route(tools.name, places, tools.preferred)
        if call.about is About.RESOURCE:
            specs = await manager.resolve_resource(who, name, call.server, client=client)
            if not specs:
                raise ProxyError(
                    RESOURCE_NOT_FOUND, f"no server has the resource {name[:200]!r}", details={"uri": name}
                )
            places_ = [(spec, manager.upstream(spec.name), None) for spec in specs]
            return Route(name, places_, call.server)
        prompts = await manager.resolve_prompt(
            who, name, call.server, client=client, shown=call.shown, prefer=call.prefer
        )
        found = [(entry.spec, manager.upstream(entry.server), None) for entry in prompts.entries]
        return Route(prompts.name, found, prompts.preferred)


def _key(call: Call) -> _Key | None:
    """Equal for calls with the same route; None where it is found anew each time."""
    if call.pinned or call.about is not About.TOOL or call.client.profile:
        return None
    who = call.principal
    return who.servers, who.tools, call.name, call.server, call.shown, call.prefer


def owners(route: Route) -> list[Route]:
    """One route for each group, and for each server that is in none; in order."""
    found: dict[tuple[bool, str], list[Place]] = {}
    for place in route.places:
        spec = place[0]
        found.setdefault((spec.group is None, spec.group or spec.name), []).append(place)
    return [Route(route.own_name, places, route.preferred) for places in found.values()]


def _pinned(call: Call, route: Route) -> Route:
    """The route of a call that is tied to the server which answered before."""
    kept = [place for place in route.places if place[0].name == call.server]
    if not kept:
        text = f"{call.server} began this call and no longer has what it is about"
        raise ProxyError(UPSTREAM_UNAVAILABLE, text, details={"server": call.server})
    return Route(route.own_name, kept, call.server)
