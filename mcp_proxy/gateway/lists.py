"""The list methods: answered from the catalogue, in one page, with what the caller may see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mcp_proxy.base.protocol import INVALID_PARAMS
from mcp_proxy.core.auth.principal import Scope
from mcp_proxy.core.calls import require
from mcp_proxy.core.catalog.view import View
from mcp_proxy.gateway import hook as hook_tool
from mcp_proxy.gateway.asked import Asked
from mcp_proxy.gateway.envelope import Refusal
from mcp_proxy.gateway.hook import Hook
from mcp_proxy.gateway.meta.router import MetaTools
from mcp_proxy.gateway.sight import Sight


class Lists:
    """``tools/list`` and its siblings."""

    def __init__(self, sight: Sight, meta: MetaTools, hook: Hook | None = None) -> None:
        self._sight = sight
        self._meta = meta
        self._hook = hook

    async def tools(self, asked: Asked) -> Mapping[str, Any]:
        """``tools/list``: our own tools first, where there are any; in compact lists nothing else."""
        who, namespace = asked.principal, asked.namespace
        own = self._meta.listed(asked)
        hook = self._hook is not None and self._hook.is_for(who, namespace)
        if hook:
            own = [hook_tool.DEFINITION, *own]
            if not who.has(Scope.TOOLS_READ):  # nothing else is for this caller
                return {"tools": [hook_tool.DEFINITION]}
        if self._meta.is_compact(who, namespace):
            _check(asked)
            return {"tools": own}
        seen = await self._view(asked)
        if own:  # a server's tool that is called like one of them could not be called so
            taken = {hook_tool.NAME} if hook else frozenset[str]()
            shown = (
                one for one in seen.tools if one.name not in taken and self._meta.find(one.name, who, namespace) is None
            )
            return {"tools": [*own, *(_named(one.name, one.entry.item.definition) for one in shown)]}
        return {"tools": [_named(one.name, one.entry.item.definition) for one in seen.tools]}

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
        _check(asked)
        return (await self._sight.of(asked)).view


def _check(asked: Asked) -> None:
    require(asked.principal, Scope.TOOLS_READ)
    if asked.request.params.get("cursor") is not None:
        raise Refusal(INVALID_PARAMS, "cursor was not given out here: lists are answered in one page")


def _named(name: str, definition: Mapping[str, Any]) -> Mapping[str, Any]:
    return definition if definition["name"] == name else {**definition, "name": name}
