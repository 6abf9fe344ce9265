"""Who is shown which meta tools, and their calls. What each answers is `reading` and `managing`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from msgspec.structs import replace

from mcp_proxy.base.errors import ProxyError
from mcp_proxy.core.auth.principal import Principal, Scope
from mcp_proxy.core.calls import check_arguments, require
from mcp_proxy.core.mcp_client_manager import McpClientManager
from mcp_proxy.core.registry import Registry
from mcp_proxy.gateway.asked import Asked
from mcp_proxy.gateway.meta.definitions import META_NAMES, META_TOOLS, MetaTool, listed, named
from mcp_proxy.gateway.meta.managing import Managing
from mcp_proxy.gateway.meta.reading import Reading
from mcp_proxy.gateway.sight import Sight
from mcp_proxy.settings import Settings

_Handler = Callable[[Asked, Mapping[str, Any]], Awaitable[Mapping[str, Any]]]
_HINT = (
    "Tools are not listed here one by one: mcp.router.search finds them by what they do, mcp.router.list shows the servers, "
    "mcp.router.call calls."
)


class MetaTools:
    """The meta tools of one door."""

    def __init__(self, settings: Settings, manager: McpClientManager, registry: Registry, sight: Sight) -> None:
        self._setting = settings.meta_tools
        self._manages = settings.allow_instance_management
        self._separator = settings.separator
        self._reading = Reading(manager, sight, settings.separator)
        managing = Managing(registry, manager)
        self._handlers: Mapping[str, _Handler] = {
            "list": self._reading.list,
            "help": self._reading.help,
            "use": self._reading.use,
            "search": self._reading.search,
            "add": managing.add,
            "remove": managing.remove,
            "enable": managing.enable,
            "disable": managing.disable,
        }

    # Who is shown what

    def is_compact(self, principal: Principal, namespace: str | None) -> bool:
        """Whether the caller's list of tools has the meta tools only; every tool can be called all the same."""
        return namespace is None and (self._setting == "only" or principal.compact)

    def _has(self, one: MetaTool, principal: Principal, namespace: str | None) -> bool:
        """Whether the tool is there for the caller; what it may not do with it is another matter."""
        if namespace is not None:
            return False
        if one.manages:
            return self._manages and principal.has(Scope.SERVERS_WRITE)
        return self._setting != "off" or principal.compact

    def listed(self, asked: Asked) -> list[Mapping[str, Any]]:
        """The definitions of those that the caller may call."""
        return [
            listed(one, self._separator)
            for one in META_TOOLS.values()
            if self._has(one, asked.principal, asked.namespace) and asked.principal.has(one.scope)
        ]

    def find(self, name: str, principal: Principal, namespace: str | None) -> MetaTool | None:
        """The meta tool that a call of ``name`` means, in either form of the name, if it is there for the caller."""
        one = META_NAMES.get(name)
        return one if one is not None and self._has(one, principal, namespace) else None

    def hint(self, principal: Principal, namespace: str | None) -> str | None:
        """What a client's model should know that sees no tools but these."""
        return named(_HINT, self._separator) if self.is_compact(principal, namespace) else None

    # Calls

    def checked(self, one: MetaTool, principal: Principal, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """The arguments that are given, once right and schema allow the call. Raises `ProxyError`."""
        require(principal, one.scope)
        check_arguments(one.tool, arguments)
        return {name: value for name, value in arguments.items() if value is not None}

    async def answer(self, one: MetaTool, asked: Asked, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """The result of any of them but ``call``, which is a call of another tool: see `meant`. Raises `ProxyError`."""
        return await self._handlers[one.word](asked, given)

    async def explained(self, error: ProxyError, asked: Asked, given: Mapping[str, Any]) -> ProxyError:
        """The error of a call that was made through ``call``; of a wrong name it says what may have been meant.

        Names are for callers who may list them.
        """
        if not asked.principal.has(Scope.TOOLS_READ):
            return error
        return await self._reading.explain(error, asked, given["tool_name"], given.get("instance_name"))


def meant(asked: Asked, given: Mapping[str, Any]) -> Asked:
    """The request that a call of ``call`` stands for: ``tools/call`` of the tool, at the address of its server.

    Its HTTP headers are those of ``call``: they have nothing to say of the tool.
    """
    named_tool = {"name": given["tool_name"], "arguments": given.get("arguments", {})}
    request = replace(asked.request, params={**asked.request.params, **named_tool})
    return replace(asked, request=request, namespace=given.get("instance_name"), headers=None)
