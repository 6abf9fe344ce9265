"""``/.well-known/oauth-protected-resource``: where clients of the MCP door get tokens. Its content is `core.auth.resource`."""

from __future__ import annotations

from mcp_proxy.api.messages import ApiReply, ApiRequest, reply
from mcp_proxy.base.errors import NOT_FOUND, ProxyError
from mcp_proxy.core.auth.resource import metadata, resource_of
from mcp_proxy.settings import Settings


class Resources:
    """Handlers that describe the addresses of the MCP door."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def describe(self, request: ApiRequest) -> ApiReply:
        """``GET …`` (of ``/mcp``) and ``GET …/{path}``: for everybody; 404 where no token is asked for."""
        path = "/" + request.params.get("path", "mcp").rstrip("/")
        if self._settings.no_auth or path == "/messages" or resource_of(path) != path:
            raise ProxyError(NOT_FOUND, "there is no resource at this address that asks for tokens")
        return reply(metadata(self._settings.public_url or request.base_url, path, self._settings))
