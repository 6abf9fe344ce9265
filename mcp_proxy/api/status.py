"""How the service and its servers are: ``/servers``, ``/health`` and the front page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mcp_proxy.api.messages import ApiReply, ApiRequest, reply
from mcp_proxy.base.version import VERSION
from mcp_proxy.core.auth.principal import Scope
from mcp_proxy.core.limits import Gate
from mcp_proxy.core.mcp_client_manager import McpClientManager
from mcp_proxy.core.registry import Registry


class Status:
    """Handlers that tell how things are."""

    def __init__(self, manager: McpClientManager, registry: Registry, gate: Gate, doors: Sequence[str]) -> None:
        self._manager = manager
        self._registry = registry
        self._gate = gate
        self._doors = doors

    async def servers(self, request: ApiRequest) -> ApiReply:
        """``GET /servers``."""
        return reply({"servers": self._manager.describe(request.caller(Scope.SERVERS_READ))})

    async def health(self, request: ApiRequest) -> ApiReply:
        """``GET /health``: for everybody; with ``servers:read`` also what is wrong."""
        health = self._manager.health(draining=self._gate.not_ready)
        body: dict[str, Any] = {
            "status": health.status,
            "servers": health.servers,
            "config_error": bool(self._manager.refused or self._registry.problems),
        }
        if request.principal is not None and request.principal.has(Scope.SERVERS_READ):
            body["errors"] = {
                row["name"]: row["last_error"]
                for row in self._manager.describe(request.principal)
                if row["last_error"] and row["state"] != "connected"
            }
            body["config_problems"] = [
                {"server": one.name, "source": one.source, "reason": one.reason}
                for one in self._manager.refused
                if request.principal.sees_server(one.name)
            ] + [{"source": one.source, "line": one.line, "reason": one.reason} for one in self._registry.problems]
        return reply(body, 200 if health.status in ("ok", "degraded") else 503)

    async def live(self, request: ApiRequest) -> ApiReply:
        """``GET /health/live``: the process answers."""
        return reply({"status": "ok"})

    async def ready(self, request: ApiRequest) -> ApiReply:
        """``GET /health/ready``: new work is welcome."""
        return reply({"status": "draining"}, 503) if self._gate.not_ready else reply({"status": "ok"})

    async def index(self, request: ApiRequest) -> ApiReply:
        """``GET /``."""
        return reply({"name": "mcp-proxy-api", "version": VERSION, "doors": self._doors})
