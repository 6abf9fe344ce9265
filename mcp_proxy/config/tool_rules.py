"""Which of a server's tools are offered, and how they are shown: the keys ``tools`` and their twins of other clients.

What the rules do to a tool is `core.catalog.control`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mcp_proxy.config.fields import Fields, Refused, quoted, word_list
from mcp_proxy.config.model import ToolOverride, ToolRules

ALLOW_KEYS = ("includeTools", "enabled_tools")
DENY_KEYS = ("disabledTools", "excludeTools", "disabled_tools")
_KEYS = ("allow", "deny", "override", "pin")
_OVERRIDE_KEYS = ("name", "title", "description", "fixed", "hidden")
_TOOL_NAME = re.compile(r"[A-Za-z0-9_./-]{1,128}")
"""What the protocol recommends for names of tools (server/tools, Tool Names)."""


def read_tool_rules(fields: Fields) -> ToolRules:
    """The rules. Raises `Refused`: also for an unknown word, since what it forbids would stay open."""
    found = fields.take("tools", *ALLOW_KEYS)
    deny = [glob for key in DENY_KEYS for glob in fields.words(key) or ()]
    if found is None:
        return ToolRules(deny=tuple(deny))
    key, value = found
    if key != "tools" or not isinstance(value, dict):
        return ToolRules(word_list(key, value), tuple(deny))
    _refuse_unknown("tools", value, _KEYS)
    allow, denied, pin = value.get("allow"), value.get("deny"), value.get("pin")
    if pin is not None and not isinstance(pin, bool):
        raise Refused("tools.pin must be true or false")
    return ToolRules(
        ("*",) if allow is None else word_list("tools.allow", allow),
        (*(() if denied is None else word_list("tools.deny", denied)), *deny),
        _overrides(fields, value.get("override")),
        pin,
    )


def _overrides(fields: Fields, value: object) -> Mapping[str, ToolOverride]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Refused("tools.override must be an object of tools")
    overrides = {tool: _override(fields, f"tools.override.{quoted(tool)}", one) for tool, one in value.items()}
    names: dict[str, str] = {}
    for tool, override in overrides.items():
        if override.name is not None and names.setdefault(override.name, tool) != tool:
            raise Refused(f"tools.override: {quoted(names[override.name])} and {quoted(tool)} get the same name")
    return overrides


def _override(fields: Fields, place: str, value: object) -> ToolOverride:
    if not isinstance(value, dict):
        raise Refused(f"{place} must be an object")
    _refuse_unknown(place, value, _OVERRIDE_KEYS)
    name = _text(place, value, "name")
    if name is not None and not _TOOL_NAME.fullmatch(name):
        raise Refused(f"{place}.name must be 1 to 128 of A-Z a-z 0-9 _ - . /")
    fixed = value.get("fixed")
    if not isinstance(fixed, dict | None):
        raise Refused(f"{place}.fixed must be an object of arguments")
    hidden = value.get("hidden")
    return ToolOverride(
        name=name,
        title=_text(place, value, "title"),
        description=_text(place, value, "description"),
        fixed={key: _expanded(fields, f"{place}.fixed.{quoted(key)}", one) for key, one in (fixed or {}).items()},
        hidden=() if hidden is None else word_list(f"{place}.hidden", hidden),
    )


def _expanded(fields: Fields, place: str, value: Any) -> Any:
    """Variables are filled in in texts; values of other types are taken as they are."""
    return fields.expanded(place, value, secret=True) if isinstance(value, str) else value


def _text(place: str, value: Mapping[str, Any], key: str) -> str | None:
    text = value.get(key)
    if not isinstance(text, str | None):
        raise Refused(f"{place}.{key} must be text")
    return text


def _refuse_unknown(place: str, value: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for word in value:
        if word not in known:
            raise Refused(f"{place}.{quoted(word)} is not known; accepted: {', '.join(known)}")
