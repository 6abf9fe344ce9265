"""Managing servers over the API: ``/servers`` and ``/api/instances``. What a change means is `core.registry`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mcp_proxy.api.messages import ApiReply, ApiRequest, only_fields, reply, string_field
from mcp_proxy.base.errors import BAD_REQUEST, SERVER_NOT_FOUND, ProxyError
from mcp_proxy.core.auth.principal import Principal, Scope
from mcp_proxy.core.mcp_client_manager import McpClientManager
from mcp_proxy.core.registry import Registry, etag, pins_tag
from mcp_proxy.settings import Settings, shown_settings


class Instances:
    """Handlers that read and change single servers."""

    def __init__(self, registry: Registry, manager: McpClientManager, settings: Settings) -> None:
        self._registry = registry
        self._manager = manager
        self._settings = settings

    async def add_servers(self, request: ApiRequest) -> ApiReply:
        """``POST /servers``: an ``mcpServers`` object with one server or many, all or none."""
        principal = request.caller(Scope.SERVERS_WRITE)
        body = request.json_object()
        entries = body.get("mcpServers")
        if set(body) != {"mcpServers"} or not isinstance(entries, dict) or not entries:
            text = 'the body must be {"mcpServers": {name: {…}}} with at least one server'
            raise ProxyError(BAD_REQUEST, text, details={"field": "mcpServers"})
        return reply({"added": await self._registry.add(entries, principal)}, 201)

    async def remove_server(self, request: ApiRequest) -> ApiReply:
        """``DELETE /servers/{name}``."""
        principal = request.caller(Scope.SERVERS_WRITE)
        name = request.params["name"]
        await self._registry.remove(name, principal, request.if_match)
        return reply({"removed": name})

    async def list(self, request: ApiRequest) -> ApiReply:
        """``GET /api/instances``."""
        return reply(self._manager.describe(request.caller(Scope.SERVERS_READ)))

    async def get(self, request: ApiRequest) -> ApiReply:
        """``GET /api/instances/{name}``."""
        return self._shown(request.params["name"], request.caller(Scope.SERVERS_READ))

    async def add(self, request: ApiRequest) -> ApiReply:
        """``POST /api/instances``: one server, with its ``name``."""
        principal = request.caller(Scope.SERVERS_WRITE)
        body = request.json_object()
        name = string_field(body, "name", required=True)
        assert name is not None
        entry = {key: value for key, value in body.items() if key != "name"}
        await self._registry.add({name: entry}, principal)
        return self._shown(name, principal, 201)

    async def patch(self, request: ApiRequest) -> ApiReply:
        """``PATCH /api/instances/{name}``: a merge patch (RFC 7396)."""
        principal = request.caller(Scope.SERVERS_WRITE)
        await self._registry.patch(request.params["name"], request.json_object(), principal, request.if_match)
        return self._shown(request.params["name"], principal)

    async def enable(self, request: ApiRequest) -> ApiReply:
        """``POST /api/instances/{name}/enable``."""
        return await self._switch(request, on=True)

    async def disable(self, request: ApiRequest) -> ApiReply:
        """``POST /api/instances/{name}/disable``."""
        return await self._switch(request, on=False)

    async def _switch(self, request: ApiRequest, *, on: bool) -> ApiReply:
        principal = request.caller(Scope.SERVERS_WRITE)
        name = request.params["name"]
        await self._registry.switch(name, on=on, principal=principal, if_match=request.if_match)
        return self._shown(name, principal)

    async def pins(self, request: ApiRequest) -> ApiReply:
        """``GET /api/instances/{name}/pins``: pinned tools, and those that have changed since."""
        principal = request.caller(Scope.SERVERS_READ)
        found = self._registry.pins(request.params["name"], principal)
        return _tagged(reply(found), pins_tag(found))

    async def approve(self, request: ApiRequest) -> ApiReply:
        """``POST /api/instances/{name}/pins/approve``: take changed tools as they are now; without a body, all."""
        principal = request.caller(Scope.SERVERS_WRITE)
        body = request.json_object(optional=True)
        only_fields(body, ("tools",))
        tools = body.get("tools")
        if tools is not None and not (isinstance(tools, list) and all(isinstance(one, str) for one in tools)):
            raise ProxyError(BAD_REQUEST, "tools must be a list of names", details={"field": "tools"})
        approved = await self._registry.approve(request.params["name"], tools, principal, request.if_match)
        return reply({"approved": approved})

    async def config(self, request: ApiRequest) -> ApiReply:
        """``GET /api/config``: servers as written, settings and problems; secrets masked."""
        principal = request.caller(Scope.SERVERS_READ)
        problems = [{"source": one.source, "line": one.line, "reason": one.reason} for one in self._registry.problems]
        refused = [
            {"server": one.name, "source": one.source, "reason": one.reason}
            for one in self._manager.refused
            if principal.sees_server(one.name)
        ]
        return reply(
            {
                "servers": self._registry.config(principal),
                "settings": shown_settings(self._settings),
                "problems": [*problems, *refused],
                "revision": self._registry.revision,
            }
        )

    def _shown(self, name: str, principal: Principal, status: int = 200) -> ApiReply:
        row: Mapping[str, Any] | None = next(
            (one for one in self._manager.describe(principal) if one["name"] == name), None
        )
        if row is None:
            raise ProxyError(SERVER_NOT_FOUND, f"there is no server called {name[:200]!r}; GET /servers lists them")
        spec = self._manager.specs.get(name)
        if spec is None:
            return reply(row, status)
        config = next(one for one in self._registry.config(principal) if one["name"] == name)
        unmatched = [{"rule": one.rule, "name": one.name} for one in self._manager.unmatched(name)]
        return _tagged(reply({**row, "config": config, "unmatched": unmatched}, status), etag(spec))


def _tagged(made: ApiReply, tag: str) -> ApiReply:
    return ApiReply(made.status, made.body, ((b"etag", tag.encode()),))
