"""What doors may want to hear of the servers as it happens. Core tells; who listens is put together by the runtime."""

from __future__ import annotations

from typing import Protocol

from mcp_proxy.config.model import ServerSpec
from mcp_proxy.core.upstream.messages import Incoming


class Listener(Protocol):
    """Hears what happens at the servers. Must not block and must not raise."""

    def catalog_changed(self) -> None:
        """What the servers offer together has changed, or what some clients are shown of it may have."""
        ...

    def announced(self, spec: ServerSpec, kinds: frozenset[str]) -> None:
        """A server said that its ``tools``, ``prompts`` or ``resources`` changed; the catalogue is up to date with it."""
        ...

    def resource_updated(self, spec: ServerSpec, message: Incoming) -> None:
        """``notifications/resources/updated`` of a server."""
        ...

    def client_told(self, key: str, spec: ServerSpec, message: Incoming) -> None:
        """A notification for the client with that key, from its own link with a server; it belongs to no request."""
        ...
