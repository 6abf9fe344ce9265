"""Challenges of the MCP door name the metadata of what was asked for (RFC 9728 §5.1), whoever made them.

What the metadata say is `core.auth.resource`; the challenges themselves are `respond`.
"""

from __future__ import annotations

from collections.abc import Awaitable

from mcp_proxy.core.auth.resource import metadata_url
from mcp_proxy.edge.types import App, Header, Message, Receive, Scope, Send

_DOOR = frozenset({"mcp", "sse", "messages", "hook"})
_REFUSED = frozenset({401, 403})


class Challenges:
    """Completes ``WWW-Authenticate`` in answers of 401 and 403 at the paths of the MCP door."""

    def __init__(self, app: App, public_url: str | None) -> None:
        """``public_url`` is the service's base URL; None: scheme and host as the client wrote them."""
        self._app = app
        self._public_url = public_url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"][1:].partition("/")[0] in _DOOR:
            send = self._pointing(scope, send)
        await self._app(scope, receive, send)

    def _pointing(self, scope: Scope, send: Send) -> Send:
        def pointing(message: Message) -> Awaitable[None]:
            if message.get("status") in _REFUSED and (url := self._url(scope)) is not None:
                message = {**message, "headers": [_pointed(header, url) for header in message.get("headers") or ()]}
            return send(message)

        return pointing

    def _url(self, scope: Scope) -> str | None:
        base = self._public_url
        if base is None:
            # A Host header that is no host was refused before there could be a challenge.
            host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")
            base = f"{scope.get('scheme', 'http')}://{host}{scope.get('root_path', '')}" if host else None
        return None if base is None else metadata_url(base, scope["path"])


def _pointed(header: Header, url: str) -> Header:
    name, value = header
    if name.lower() != b"www-authenticate" or not value.startswith(b"Bearer "):
        return header
    return name, value + f', resource_metadata="{url}"'.encode()
