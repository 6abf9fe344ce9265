"""What a client is shown of the catalogue: servers may show more to clients that can be asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mcp_proxy.core.catalog.snapshot import Catalog
from mcp_proxy.core.catalog.view import View, view
from mcp_proxy.core.mcp_client_manager import McpClientManager
from mcp_proxy.core.upstream.client import Client
from mcp_proxy.gateway.asked import Asked
from mcp_proxy.gateway.clients import identity, keyed
from mcp_proxy.gateway.parking import Parking


@dataclass(frozen=True, slots=True)
class Seen:
    """The catalogue of clients like this one, and what this caller sees of it."""

    catalog: Catalog
    view: View


class Sight:
    """Looks for one client after the other. Rights to look at all are for the methods to check."""

    def __init__(self, manager: McpClientManager, parking: Parking) -> None:
        self._manager = manager
        self._parking = parking

    async def of(self, asked: Asked) -> Seen:
        """What the caller sees; waits for servers that are being connected for the first time."""
        await self._manager.settled()
        client = asked.client
        if not client.profile:
            return _seen(self._manager.catalog, asked)
        client, done = self._with_links(asked, client)
        try:
            await self._manager.learn(client)
            return _seen(self._manager.catalog_for(client), asked)
        finally:
            done()

    def _with_links(self, asked: Asked, client: Client) -> tuple[Client, Callable[[], None]]:
        """The client with links to list by: a modern one has none of its own."""
        if asked.session is not None or not self._manager.has_legacy:
            return client, lambda: None
        lease, done = self._parking.lease(identity(asked))
        return keyed(client, lease), done


def _seen(catalog: Catalog, asked: Asked) -> Seen:
    return Seen(catalog, view(catalog, asked.principal, asked.namespace))
