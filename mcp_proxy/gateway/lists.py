"""The list methods: answered from the catalogue, in one page, with what the caller may see."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mcp_proxy.base.protocol import INVALID_PARAMS
from mcp_proxy.core.auth.principal import Scope
from mcp_proxy.core.calls import require
from mcp_proxy.core.catalog.view import View, view
from mcp_proxy.core.mcp_client_manager import McpClientManager
from mcp_proxy.core.upstream.client import Client
from mcp_proxy.gateway.asked import Asked
from mcp_proxy.gateway.clients import identity, keyed, lister
from mcp_proxy.gateway.envelope import Refusal
from mcp_proxy.gateway.parking import Parking


class Lists:
    """``tools/list`` and its siblings."""

    def __init__(self, manager: McpClientManager, parking: Parking) -> None:
        self._manager = manager
        self._parking = parking

    async def tools(self, asked: Asked) -> Mapping[str, Any]:
        """``tools/list``."""
        return {"tools": [_named(one.name, one.entry.item.definition) for one in (await self._view(asked)).tools]}

    async def prompts(self, asked: Asked) -> Mapping[str, Any]:
        """``prompts/list``."""
        return {"prompts": [_named(one.name, one.entry.item.definition) for one in (await self._view(asked)).prompts]}

    async def resources(self, asked: Asked) -> Mapping[str, Any]:
        """``resources/list``."""
        return {"resources": [entry.item.definition for entry in (await self._view(asked)).resources]}

    async def templates(self, asked: Asked) -> Mapping[str, Any]:
        """``resources/templates/list``."""
        return {"resourceTemplates": [entry.item.definition for entry in (await self._view(asked)).templates]}

    async def _view(self, asked: Asked) -> View:
        """What the caller sees; waits for servers that are being connected for the first time."""
        require(asked.principal, Scope.TOOLS_READ)
        if asked.request.params.get("cursor") is not None:
            raise Refusal(INVALID_PARAMS, "cursor was not given out here: lists are answered in one page")
        await self._manager.settled()
        client = lister(asked)
        if not client.profile:
            return view(self._manager.catalog, asked.principal, asked.namespace)
        client, done = self._with_links(asked, client)
        try:
            await self._manager.learn(client)
            return view(self._manager.catalog_for(client), asked.principal, asked.namespace)
        finally:
            done()

    def _with_links(self, asked: Asked, client: Client) -> tuple[Client, Callable[[], None]]:
        """The client with links to list by: a modern one has none of its own."""
        if asked.session is not None or not self._manager.has_legacy:
            return client, lambda: None
        lease, done = self._parking.lease(identity(asked))
        return keyed(client, lease), done


def _named(name: str, definition: Mapping[str, Any]) -> Mapping[str, Any]:
    return definition if definition["name"] == name else {**definition, "name": name}
