"""The operator's rules for a server's tools: which are offered, under what name, and with which arguments filled in. Pure.

A tool that is shown otherwise than its server defines it is a `ControlledTool`, which knows the tool it stands for.
Rules that cannot be kept withhold the tool: to offer it as it is would open what they are to close.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from mcp_proxy.config.model import ToolOverride, ToolRules
from mcp_proxy.core.catalog.offer import Withheld
from mcp_proxy.core.catalog.tool import Tool

HELD = "its definition has changed since it was pinned; it is offered again once the change is approved"


class ControlledTool(Tool):
    """A tool as callers see it. ``own`` is what the server knows."""

    def __init__(self, own: Tool, override: ToolOverride) -> None:
        super().__init__(_definition(own.definition, override))
        self._own = own
        self._fixed = dict(override.fixed)
        self._closed = frozenset({*override.fixed, *override.hidden})

    @property
    def own(self) -> Tool:
        """See `Tool.own`."""
        return self._own

    def argument_fault(self, arguments: Mapping[str, Any]) -> tuple[str, str] | None:
        """See `Tool.argument_fault`; what is filled in or hidden cannot be given."""
        for name in arguments:
            if name in self._closed:
                return f"/{name.replace('~', '~0').replace('/', '~1')}", "cannot be given by callers of this service"
        return super().argument_fault(arguments)

    def completed(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `Tool.completed`."""
        return {**arguments, **self._fixed} if self._fixed else arguments


class Control:
    """The rules of one server, applied to its tools. A tool that has not changed keeps its controlled twin."""

    def __init__(self, rules: ToolRules) -> None:
        self.rules = rules
        self._made: dict[str, ControlledTool] = {}

    def apply(self, tools: Iterable[Tool], held: Collection[str] = ()) -> tuple[tuple[Tool, ...], tuple[Withheld, ...]]:
        """The tools as they are offered, and those that cannot be. ``held``: names of tools with unapproved changes."""
        listed = [tool for tool in tools if _allowed(tool.name, self.rules)]
        own_names = {tool.name for tool in listed if self._name(tool) == tool.name}
        offered: list[Tool] = []
        withheld: list[Withheld] = []
        for tool in listed:
            reason = HELD if tool.name in held else self._fault(tool, own_names)
            if reason is None:
                offered.append(self._controlled(tool))
            else:
                withheld.append(Withheld("tools", tool.name, reason))
        return tuple(offered), tuple(withheld)

    def _name(self, tool: Tool) -> str:
        override = self.rules.override.get(tool.name)
        return tool.name if override is None or override.name is None else override.name

    def _controlled(self, tool: Tool) -> Tool:
        override = self.rules.override.get(tool.name)
        if override is None:
            return tool
        made = self._made.get(tool.name)
        if made is None or made.own is not tool:
            made = self._made[tool.name] = ControlledTool(tool, override)
        return made

    def _fault(self, tool: Tool, own_names: Collection[str]) -> str | None:
        """Why the rules for this tool cannot be kept."""
        override = self.rules.override.get(tool.name)
        if override is None:
            return None
        if override.name is not None and override.name != tool.name and override.name in own_names:
            return f"it is to be called {override.name!r}, as another tool of the server is"
        schema = tool.definition.get("inputSchema")
        known = schema.get("properties") if isinstance(schema, dict) else None
        known = known if isinstance(known, dict) else {}
        closed = isinstance(schema, dict) and schema.get("additionalProperties") is False
        for name in override.fixed:
            if name not in known and (known or closed):
                return f"the argument {name!r} is to be filled in, and the tool has none of that name"
        required = schema.get("required") if isinstance(schema, dict) else None
        for name in override.hidden:
            if isinstance(required, list) and name in required and name not in override.fixed:
                return f"the argument {name!r} is to be hidden, and the tool cannot do without"
        return None


def _allowed(name: str, rules: ToolRules) -> bool:
    """``deny`` wins over ``allow``; both know the tools by their servers' names."""
    allowed = any(fnmatchcase(name, glob) for glob in rules.allow)
    return allowed and not any(fnmatchcase(name, glob) for glob in rules.deny)


def _definition(own: Mapping[str, Any], override: ToolOverride) -> Mapping[str, Any]:
    given = {"name": override.name, "title": override.title, "description": override.description}
    shown = {**own, **{key: value for key, value in given.items() if value is not None}}
    schema = own.get("inputSchema")
    closed = {*override.fixed, *override.hidden}
    if closed and isinstance(schema, dict):
        shown["inputSchema"] = _without(schema, closed)
    return shown


def _without(schema: Mapping[str, Any], closed: Collection[str]) -> Mapping[str, Any]:
    """The schema of an object that lacks some of its properties."""
    shown = dict(schema)
    if isinstance(properties := schema.get("properties"), dict):
        shown["properties"] = {name: one for name, one in properties.items() if name not in closed}
    if isinstance(required := schema.get("required"), list):
        shown["required"] = [name for name in required if name not in closed]
        if not shown["required"]:
            del shown["required"]
    return shown
