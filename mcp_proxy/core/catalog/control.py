"""The operator's rules for a server's tools: which are offered, under what name, and with which arguments filled in. Pure.

A tool that is shown otherwise than its server defines it is a `ControlledTool`, which knows the tool it stands for.
How arguments are taken out of a schema is `closing`.
Rules that cannot be kept withhold the tool: to offer it as it is would open what they are to close.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from mcp_proxy.config.model import ToolOverride, ToolRules
from mcp_proxy.core.catalog import closing
from mcp_proxy.core.catalog.offer import Withheld
from mcp_proxy.core.catalog.tool import Tool

HELD = "its definition has changed since it was pinned; it is offered again once the change is approved"


@dataclass(frozen=True, slots=True)
class Unmatched:
    """A rule that no tool of a server is meant by, so that it may be misspelled. ``rule``: ``allow``, ``deny`` or ``override``."""

    rule: str
    name: str


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
        self.met: frozenset[Unmatched] = frozenset()
        """Rules that would be taken for unmatched by the common listing alone; see `meets`."""

    def apply(self, tools: Iterable[Tool], held: Collection[str] = ()) -> tuple[tuple[Tool, ...], tuple[Withheld, ...]]:
        """The tools as they are offered, and those that cannot be. ``held``: names of tools with unapproved changes."""
        listed = [tool for tool in tools if offered_name(tool.name, self.rules) is not None]
        own_names = {tool.name for tool in listed if _renamed(tool.name, self.rules) == tool.name}
        offered: list[Tool] = []
        withheld: list[Withheld] = []
        for tool in listed:
            reason = HELD if tool.name in held else self._fault(tool, own_names)
            if reason is None:
                offered.append(self._controlled(tool))
            else:
                withheld.append(Withheld("tools", tool.name, reason))
        return tuple(offered), tuple(withheld)

    def meets(self, tools: Iterable[Tool]) -> None:
        """Some clients are listed these: a rule that means one of them is of use, though others are not listed it."""
        everything = unmatched(self.rules, ())
        self.met |= frozenset(everything) - frozenset(unmatched(self.rules, {tool.name for tool in tools}))

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
        return _arguments_fault(schema, override) if isinstance(schema, dict) else None


def offered_name(name: str, rules: ToolRules) -> str | None:
    """What callers know a server's tool by, or None: ``allow`` and ``deny``, which wins, know it by its server's name."""
    allowed = any(fnmatchcase(name, glob) for glob in rules.allow)
    if not allowed or any(fnmatchcase(name, glob) for glob in rules.deny):
        return None
    return _renamed(name, rules)


def unmatched(rules: ToolRules, names: Collection[str]) -> tuple[Unmatched, ...]:
    """Rules that say something of none of these tools, which have their server's names. ``*`` says nothing."""
    globs = [("allow", glob) for glob in rules.allow if glob != "*"] + [("deny", glob) for glob in rules.deny]
    idle = [Unmatched(*one) for one in dict.fromkeys(globs) if not any(fnmatchcase(name, one[1]) for name in names)]
    return (*idle, *(Unmatched("override", name) for name in rules.override if name not in names))


def _renamed(name: str, rules: ToolRules) -> str:
    override = rules.override.get(name)
    return name if override is None or override.name is None else override.name


def _arguments_fault(schema: Mapping[str, Any], override: ToolOverride) -> str | None:
    """Why the arguments cannot be filled in and hidden as they are to be."""
    if (reason := closing.fault(schema, {**override.fixed, **dict.fromkeys(override.hidden)})) is not None:
        return reason
    known = schema.get("properties")
    known = known if isinstance(known, dict) else {}
    closed = schema.get("additionalProperties") is False
    for name in override.fixed:
        if name not in known and (known or closed):
            return f"the argument {name!r} is to be filled in, and the tool has none of that name"
    required = schema.get("required")
    for name in override.hidden:
        if isinstance(required, list) and name in required and name not in override.fixed:
            return f"the argument {name!r} is to be hidden, and the tool cannot do without"
    return None


def _definition(own: Mapping[str, Any], override: ToolOverride) -> Mapping[str, Any]:
    given = {"name": override.name, "title": override.title, "description": override.description}
    shown = {**own, **{key: value for key, value in given.items() if value is not None}}
    schema = own.get("inputSchema")
    closed = {*override.fixed, *override.hidden}
    if closed and isinstance(schema, dict):
        shown["inputSchema"] = closing.without(schema, closed)
    return shown
