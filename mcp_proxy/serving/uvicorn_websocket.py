"""A WebSocket of uvicorn's, with wsproto: one that keeps its headers, and is quiet about its end."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from uvicorn.config import Config
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.wsproto_impl import WSProtocol

from mcp_proxy.serving.uvicorn_state import State

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent
    from wsproto import events


class WebSocketConnection(WSProtocol):
    """One connection, from its handshake to its end."""

    def __init__(self, config: Config, server_state: State, app_state: dict[str, Any]) -> None:
        server_state.headers()  # The date that its answer will have.
        super().__init__(config, server_state, app_state)

    def handle_connect(self, event: events.Request) -> None:
        """wsproto keeps the subprotocols to itself, and a token may be among these."""
        super().handle_connect(event)
        if event.subprotocols:
            asked = ", ".join(event.subprotocols).encode("latin-1")
            self.scope["headers"] = [*self.scope["headers"], (b"sec-websocket-protocol", asked)]

    async def send(self, message: ASGISendEvent) -> None:
        """Send; after the client has left, or the connection has been ended for it, nothing."""
        if self.close_sent and message["type"] in ("websocket.send", "websocket.close"):
            return
        with suppress(ClientDisconnected):
            await super().send(message)
