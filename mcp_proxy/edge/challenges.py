"""Challenges of the MCP door name the metadata of what was asked for (RFC 9728 §5.1), whoever made them.

What the metadata say is `core.auth.resource`; the challenges themselves are `respond`.
"""

from __future__ import annotations

from mcp_proxy.core.auth.resource import metadata_url
from mcp_proxy.edge.types import HEADERS_KEY, Header, Scope

CHALLENGED = frozenset({401, 403})
"""Statuses of answers that may have a challenge."""
_DOOR = frozenset({"mcp", "sse", "messages", "hook"})


class Challenges:
    """Completes ``WWW-Authenticate`` in answers at the paths of the MCP door."""

    def __init__(self, public_url: str | None) -> None:
        """``public_url`` is the service's base URL; None: scheme and host as the client wrote them."""
        self._public_url = public_url

    def complete(self, scope: Scope, headers: list[Header]) -> list[Header]:
        """The headers of the answer to ``scope``, whose status is one of `CHALLENGED`."""
        if scope["type"] != "http" or scope["path"][1:].partition("/")[0] not in _DOOR:
            return headers
        url = self._url(scope)
        return headers if url is None else [_pointed(header, url) for header in headers]

    def _url(self, scope: Scope) -> str | None:
        base = self._public_url
        if base is None:
            # A Host header that is no host was refused before there could be a challenge.
            host = scope[HEADERS_KEY].get(b"host", b"").decode("latin-1")
            base = f"{scope.get('scheme', 'http')}://{host}{scope.get('root_path', '')}" if host else None
        return None if base is None else metadata_url(base, scope["path"])


def _pointed(header: Header, url: str) -> Header:
    name, value = header
    if name.lower() != b"www-authenticate" or not value.startswith(b"Bearer "):
        return header
    return name, value + f', resource_metadata="{url}"'.encode()
