"""Which tools of this service a model is offered for one answer, and under which names.

How the names are made is `bridge.tool_names`; the loop that uses the tools is `house`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from mcp_proxy.bridge.chat import ALL_TOOLS, ChatRequest, Tool
from mcp_proxy.bridge.errors import BAD_REQUEST, FORBIDDEN, ChatError
from mcp_proxy.bridge.tool_names import OwnName, named
from mcp_proxy.core.auth.principal import Principal, Scope
from mcp_proxy.core.catalog.snapshot import Catalog
from mcp_proxy.core.catalog.view import view

MOST = 128
"""Tools that OpenAI's API takes."""
_PARAM = "mcp_tools"


@dataclass(frozen=True, slots=True)
class Offer:
    """Tools as a model gets them. ``own_names``: which tool each name means."""

    tools: tuple[Tool, ...]
    own_names: Mapping[str, OwnName]

    def meant(self, choice: str) -> str | None:
        """The name of the tool that a caller chooses, by its name here or as ``server/tool``."""
        if choice in self.own_names:
            return choice
        return next((name for name, own in self.own_names.items() if "/".join(own) == choice), None)


def check_rights(principal: Principal) -> None:
    """Raises `ChatError` (FORBIDDEN), which names the scope that is lacking."""
    for scope in (Scope.TOOLS_CALL, Scope.TOOLS_READ):
        if not principal.has(scope):
            raise ChatError(FORBIDDEN, f"this token lacks the scope {scope}, which {_PARAM} needs", param=_PARAM)


def offer(catalog: Catalog, principal: Principal, ask: ChatRequest) -> Offer:
    """The tools that this caller sees and has asked for. Raises `ChatError`: too many of them, or none of those named."""
    found = dict(_wanted(catalog, principal, ask.house_tools))
    if len(found) > MOST:
        text = f"{len(found)} tools are more than the {MOST} that a model can be given; narrow them with"
        raise ChatError(BAD_REQUEST, f'{text} "{_PARAM}": ["server", "server/tool-glob"]', param=_PARAM)
    if not found and ask.house_tools != ALL_TOOLS:
        raise ChatError(BAD_REQUEST, f"no tool that this token may call is called so: {_PARAM}", param=_PARAM)
    names = named(found, {tool.name for tool in ask.tools})
    return Offer(tuple(_tool(name, found[own]) for name, own in names.items()), names)


def _wanted(
    catalog: Catalog, principal: Principal, globs: Iterable[str]
) -> Iterator[tuple[OwnName, Mapping[str, Any]]]:
    """Servers or groups, their tools, and how these are defined."""
    patterns = [(server, tool if slash else "*") for server, slash, tool in (glob.partition("/") for glob in globs)]
    for one in view(catalog, principal).tools:
        tool, namespace = one.entry.tool.name, one.entry.namespace
        members = (entry.spec for entry in catalog.tools.by_shown[one.name])
        owners = {namespace, *(spec.name for spec in members if principal.sees_server(spec.name, spec.group))}
        if any(
            fnmatchcase(tool, which) and any(fnmatchcase(owner, whose) for owner in owners) for whose, which in patterns
        ):
            yield (namespace, tool), one.entry.tool.definition


def _tool(name: str, definition: Mapping[str, Any]) -> Tool:
    schema = definition.get("inputSchema")
    said = (definition.get(key) for key in ("description", "title"))
    return Tool(
        name,
        {**(schema if isinstance(schema, dict) else {}), "type": "object"},
        next((text for text in said if isinstance(text, str) and text), None),
    )
