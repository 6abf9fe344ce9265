"""The meta tools as clients see them: names, texts, schemas, and the scope that each needs. No logic.

Argument names are those of the router that these tools come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mcp_proxy.core.auth.principal import Scope
from mcp_proxy.core.catalog.names import SEPARATORS
from mcp_proxy.core.catalog.tool import Tool

MOST_FOUND = 50
"""Tools that one search may be asked for."""
USUALLY_FOUND = 10
_DOTTED = "mcp.router."


@dataclass(frozen=True, slots=True)
class MetaTool:
    """One of them. ``word`` is the last part of its name; ``manages``: it changes which servers there are."""

    word: str
    tool: Tool
    scope: Scope
    manages: bool = False

    @property
    def name(self) -> str:
        """With dots, as the log has it."""
        return self.tool.name


def prefix(separator: str) -> str:
    """What stands before the word in names with this separator."""
    return f"mcp{separator}router{separator}"


def named(text: str, separator: str) -> str:
    """A text that mentions meta tools, with their names as they are listed."""
    return text.replace(_DOTTED, prefix(separator))


def listed(one: MetaTool, separator: str) -> Mapping[str, Any]:
    """The definition for a list."""
    definition = one.tool.definition
    description = named(definition["description"], separator)
    return {**definition, "name": f"{prefix(separator)}{one.word}", "description": description}


def _text(description: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "minLength": 1, "description": description, **more}


_SERVER = _text("A server or group")
_PROVIDER = _text("The provider that a server was configured for")
_OWN_NAME = _text("The server's name")
_READS = {"readOnlyHint": True, "destructiveHint": False, "idempotentHint": True, "openWorldHint": False}


def _rows(member: str, **more: Any) -> dict[str, Any]:
    """The schema of a result that lists something and says how many more there are."""
    properties = {member: {"type": "array", "items": {"type": "object"}}, "more": {"type": "integer"}, **more}
    return {"type": "object", "properties": properties, "required": list(properties)}


def _meta(
    word: str,
    title: str,
    description: str,
    properties: Mapping[str, Any],
    *required: str,
    annotations: Mapping[str, bool] = _READS,
    output: Mapping[str, Any] | None = None,
    scope: Scope = Scope.TOOLS_READ,
    manages: bool = False,
) -> MetaTool:
    schema: dict[str, Any] = {"type": "object", "properties": dict(properties), "additionalProperties": False}
    if required:
        schema["required"] = list(required)
    definition: dict[str, Any] = {
        "name": f"{_DOTTED}{word}",
        "title": title,
        "description": description,
        "inputSchema": schema,
    }
    if output is not None:
        definition["outputSchema"] = dict(output)
    definition["annotations"] = {"title": title, **annotations}
    return MetaTool(word, Tool(definition), scope, manages)


def _managing(
    word: str, title: str, description: str, properties: Mapping[str, Any], *required: str, destructive: bool = False
) -> MetaTool:
    hints = {
        "readOnlyHint": False,
        "destructiveHint": destructive,
        "idempotentHint": word in ("enable", "disable"),
        "openWorldHint": word in ("add", "enable"),
    }
    scope = Scope.SERVERS_WRITE
    return _meta(word, title, description, properties, *required, annotations=hints, scope=scope, manages=True)


_ALL = (
    _meta(
        "list", "List servers",
        "The MCP servers behind this one: name, state, number of tools and what they are for. Begin here, or with "
        "mcp.router.search if you know what you want to do.",
        {"provider_name": _PROVIDER},
        output=_rows("servers"),
    ),
    _meta(
        "help", "Explain tools",
        "How to find and call tools here. With instance_name: the tools of that server, one line each. With tool_name: "
        "everything about that tool, its arguments included.",
        {"instance_name": _SERVER, "tool_name": _text("A tool, by its full name or as its server calls it")},
    ),
    _meta(
        "use", "Use a server",
        "The tools of one server with their arguments. Afterwards, in clients that hold a session, the names of its tools "
        "mean this server even where other servers have tools of the same name.",
        {"instance_name": _SERVER, "provider_name": _PROVIDER},
        annotations={**_READS, "readOnlyHint": False},
        output=_rows("tools", server={"type": "string"}, preferred={"type": "boolean"}),
    ),
    _meta(
        "search", "Search tools",
        "Find tools of all servers by words in their names and descriptions, the best first, with their arguments. Call "
        "what you find with mcp.router.call, or by its name.",
        {
            "query": _text("What the tool is to do, in a few words", maxLength=500),
            "limit": {
                "type": "integer", "minimum": 1, "maximum": MOST_FOUND, "default": USUALLY_FOUND,
                "description": "How many tools at most",
            },
        },
        "query",
        output=_rows("tools"),
    ),
    _meta(
        "call", "Call a tool",
        "Call any tool of any server. mcp.router.search and mcp.router.help tell which there are and what arguments they "
        "take.",
        {
            "instance_name": _text("The server or group; not needed with a full name, or one that no other server has"),
            "tool_name": _text("The tool, by its full name or as its server calls it"),
            "arguments": {"type": "object", "description": "The tool's own arguments"},
        },
        "tool_name",
        annotations={"readOnlyHint": False, "destructiveHint": True, "idempotentHint": False, "openWorldHint": True},
        scope=Scope.TOOLS_CALL,
    ),
    _managing(
        "add", "Add a server",
        "Add an MCP server, which stays until it is removed.",
        {
            "instance_name": _text("The server's name: letters, digits, _ and -", maxLength=64),
            "provider_name": _text("Another name for it, by which it can be found"),
            "config": {
                "type": "object",
                "description": "How it is reached: url (with headers), or command, args and env; and the other keys of "
                "a server in a configuration file",
            },
        },
        "instance_name", "config",
    ),
    _managing(
        "remove", "Remove a server",
        "Remove an MCP server that was added here or over the API.",
        {"instance_name": _OWN_NAME}, "instance_name",
        destructive=True,
    ),
    _managing(
        "enable", "Switch a server on", "Switch on an MCP server that is switched off.",
        {"instance_name": _OWN_NAME}, "instance_name",
    ),
    _managing(
        "disable", "Switch a server off", "Switch an MCP server off; it keeps its configuration.",
        {"instance_name": _OWN_NAME}, "instance_name",
    ),
)  # fmt: skip
META_TOOLS: Mapping[str, MetaTool] = {one.word: one for one in _ALL}
"""All meta tools by their word, in the order they are listed."""
META_NAMES: Mapping[str, MetaTool] = {f"{prefix(separator)}{one.word}": one for separator in SEPARATORS for one in _ALL}
"""The same by name, in either form."""
