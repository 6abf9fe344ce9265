"""Tools, and how they are to be used, as OpenAI's two APIs say it in a request.

They differ in one thing: in chat completions a function stands in an object of that name, in responses it does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mcp_proxy.bridge.chat import Tool, ToolChoice, ToolMode
from mcp_proxy.bridge.wire import reading
from mcp_proxy.bridge.wire.house_calls import wanted
from mcp_proxy.bridge.wire.reading import unsupported, wrong

_MODES = {"auto": ToolMode.AUTO, "none": ToolMode.NONE, "required": ToolMode.REQUIRED}


@dataclass(frozen=True, slots=True)
class Tools:
    """The caller's tools; ``house``: which of this service's are wanted too. ``passed_over``: what cannot be passed on of
    them."""

    tools: tuple[Tool, ...]
    house: tuple[str, ...]
    passed_over: tuple[str, ...]


def read_tools(body: Mapping[str, Any], *, nested: bool) -> Tools:
    """``tools`` and ``mcp_tools``. ``nested``: functions stand in an object. Raises `ChatError`."""
    tools: dict[str, Tool] = {}
    listed = strict = False
    value = body.get("tools")
    for index, entry in enumerate([] if value is None else reading.array(value, "tools")):
        at = f"tools[{index}]"
        given = reading.obj(entry, at)
        match reading.kind(given, at):
            case "function":
                given, at = _function(given, at, nested=nested)
                tool = _tool(given, at)
                if tool.name in tools:
                    raise wrong(f"{at}.name", "two tools have the same name")
                tools[tool.name] = tool
                strict = reading.flag(given.get("strict"), f"{at}.strict") or strict
            case "mcp":
                _check_house(given, at)
                listed = True
            case kind:
                raise unsupported(at, f"a tool of type {reading.known_as(kind)} is not available here")
    house = wanted(body.get("mcp_tools"), listed=listed)
    return Tools(tuple(tools.values()), house, ("tools.strict",) if strict else ())


def read_tool_choice(body: Mapping[str, Any], known: Tools, *, nested: bool) -> ToolChoice:
    """``tool_choice`` and ``parallel_tool_calls``. Raises `ChatError`."""
    value, parallel = body.get("tool_choice"), body.get("parallel_tool_calls")
    alone = parallel is not None and not reading.flag(parallel, "parallel_tool_calls")
    mode, name = _choice(value, nested=nested)
    if mode is ToolMode.REQUIRED and not known.tools and not known.house:
        raise wrong("tool_choice", "there are no tools to choose from")
    if name is not None and not known.house and all(tool.name != name for tool in known.tools):
        raise wrong("tool_choice", "names none of the tools")
    return ToolChoice(mode, name, parallel=not alone)


def _choice(value: Any, *, nested: bool) -> tuple[ToolMode, str | None]:
    if value is None:
        return ToolMode.AUTO, None
    if isinstance(value, str):
        if value not in _MODES:
            raise wrong("tool_choice", "must be auto, none, required or an object")
        return _MODES[value], None
    given = reading.obj(value, "tool_choice")
    if (kind := reading.kind(given, "tool_choice")) != "function":
        raise unsupported("tool_choice", f"a choice of type {reading.known_as(kind)} cannot be passed on")
    function, at = _function(given, "tool_choice", nested=nested)
    return ToolMode.REQUIRED, reading.name(function.get("name"), f"{at}.name")


def _function(given: Mapping[str, Any], at: str, *, nested: bool) -> tuple[Mapping[str, Any], str]:
    return (reading.obj(given.get("function"), f"{at}.function"), f"{at}.function") if nested else (given, at)


def _tool(given: Mapping[str, Any], at: str) -> Tool:
    parameters, description = given.get("parameters"), given.get("description")
    schema = {} if parameters is None else reading.obj(parameters, f"{at}.parameters")
    if schema.get("type", "object") != "object":
        raise wrong(f"{at}.parameters.type", "must be object")
    return Tool(
        reading.name(given.get("name"), f"{at}.name"),
        {"type": "object", **schema},
        None if description is None else reading.text(description, f"{at}.description"),
    )


def _check_house(given: Mapping[str, Any], at: str) -> None:
    """Raises `ChatError` unless this means the tools of this service, all of them, without asking back."""
    for key in ("server_url", "connector_id"):
        if given.get(key) is not None:
            raise unsupported(f"{at}.{key}", "servers of the caller's are not called from here")
    if given.get("allowed_tools") is not None:
        raise unsupported(f"{at}.allowed_tools", "the tools of this service are chosen by mcp_tools")
    if given.get("require_approval") not in (None, "never"):
        raise unsupported(f"{at}.require_approval", "calls of this service's tools cannot be held for approval")
