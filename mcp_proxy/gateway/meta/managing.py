"""The meta tools that change which servers there are: ``add``, ``remove``, ``enable``, ``disable``. What a change means is `core.registry`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mcp_proxy.core.mcp_client_manager import McpClientManager
from mcp_proxy.core.registry import Registry
from mcp_proxy.gateway.asked import Asked
from mcp_proxy.gateway.meta.results import result


class Managing:
    """Each method answers one meta tool; ``given`` are its arguments, which fit its schema. Raises `ProxyError` as the registry does."""

    def __init__(self, registry: Registry, manager: McpClientManager) -> None:
        self._registry = registry
        self._manager = manager

    async def add(self, asked: Asked, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """``mcp.router.add``."""
        name, entry = given["instance_name"], dict(given["config"])
        if "provider_name" in given:
            entry["provider"] = given["provider_name"]
        await self._registry.add({name: entry}, asked.principal)
        return self._changed("added", name, "and its tools can be called as soon as it is connected")

    async def remove(self, asked: Asked, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """``mcp.router.remove``."""
        name = given["instance_name"]
        await self._registry.remove(name, asked.principal)
        return result([f"{name} is removed."], {"removed": name})

    async def enable(self, asked: Asked, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """``mcp.router.enable``."""
        name = given["instance_name"]
        await self._registry.switch(name, on=True, principal=asked.principal)
        return self._changed("enabled", name, "and its tools can be called as soon as it is connected")

    async def disable(self, asked: Asked, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """``mcp.router.disable``."""
        name = given["instance_name"]
        await self._registry.switch(name, on=False, principal=asked.principal)
        return self._changed("disabled", name, "and keeps its configuration")

    def _changed(self, what: str, name: str, consequence: str) -> Mapping[str, Any]:
        states = self._manager.health(draining=False).servers
        return result([f"{name} is {what}, {consequence}."], {what: name, "state": states.get(name)})
