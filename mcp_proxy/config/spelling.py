"""Keys of an entry that say the same thing in the words of several clients, brought to the word that people are shown.

A change that was written after looking at a server (`config.describe`) meets its entry here. Reading one is `entry`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mcp_proxy.config.address import looks_like_url
from mcp_proxy.config.target import TRANSPORT_KEYS, URL_KEYS
from mcp_proxy.config.tool_rules import ALLOW_KEYS, DENY_KEYS

_OTHER_WORDS = {
    "transport": tuple(word for word in TRANSPORT_KEYS if word != "transport"),
    "url": tuple(word for word in URL_KEYS if word != "url"),
    "env": ("environment",),
    "headers": ("http_headers",),
    "cwd": ("working_dir",),
    "timeout": ("timeoutSeconds", "tool_timeout_sec"),
    "connect_timeout": ("startup_timeout_sec",),
}
"""By the word that is shown. ``tools``, ``disabled`` and ``command`` are no mere words, see below."""
_SWITCHES = {"disabled": True, "enabled": False, "isActive": False}
"""The words for "off", and the value of each that says so."""


def respelled(entry: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """``entry`` with what it says under other words for the keys of ``patch`` moved to these keys.

    It means what it meant, and merging ``patch`` into it leaves nothing said twice. What is not of the shape that is
    read stays as it is, for the reader to refuse.
    """
    made = dict(entry)
    if not isinstance(patch.get("transport"), Mapping):
        _flatten(made)
    if "url" in patch:
        _move_url(made)
    for word, others in _OTHER_WORDS.items():
        if word in patch:
            _move(made, word, others)
    for word in ("env", "headers"):
        if word in patch and isinstance(made.get(word), list):
            made[word] = _pairs(made[word])
    for word, change in _CHANGES.items():
        if word in patch:
            change(made, patch[word])
    return made


def _flatten(made: dict[str, Any]) -> None:
    """``transport: {type, url, headers}``."""
    if isinstance(inner := made.get("transport"), Mapping):
        del made["transport"]
        made.update({key: value for key, value in inner.items() if value is not None})


def _move(made: dict[str, Any], word: str, others: tuple[str, ...]) -> None:
    for other in others:
        value = made.pop(other, None)
        if value not in (None, "") and made.get(word) in (None, ""):
            made[word] = value


def _move_url(made: dict[str, Any]) -> None:
    """A URL may stand under ``command``, and one under ``httpUrl`` says the transport too."""
    if "httpUrl" in made and not any(made.get(word) for word in TRANSPORT_KEYS):
        made["transport"] = "streamable-http"
    command = made.get("command")
    if isinstance(command, str) and looks_like_url(command):
        _move(made, "url", ("command",))


def _pairs(value: list[Any]) -> Any:
    """A list of objects with ``name`` and ``value`` as an object."""
    if not all(isinstance(one, Mapping) and isinstance(one.get("name"), str) for one in value):
        return value
    return {one["name"]: one.get("value") for one in value}


def _split_command(made: dict[str, Any], _: object) -> None:
    """The program and its arguments in one list."""
    command, args = made.get("command"), made.get("args") or []
    if isinstance(command, list) and command and isinstance(args, list):
        made["command"], made["args"] = command[0], [*command[1:], *args]


def _gather_switches(made: dict[str, Any], _: object) -> None:
    off = any(made.get(word) is value for word, value in _SWITCHES.items())
    for word in _SWITCHES:
        made.pop(word, None)
    if off:
        made["disabled"] = True


def _gather_tools(made: dict[str, Any], change: object) -> None:
    """All rules into an object. A list instead of one is globs to allow, and says nothing of those that are denied."""
    _move(made, "tools", ALLOW_KEYS)
    if not isinstance(change, Mapping):
        return
    rules = made.get("tools")
    if rules is not None and not isinstance(rules, Mapping):
        rules = {"allow": rules}
    denied = [made.pop(key) for key in DENY_KEYS if isinstance(made.get(key), list)]
    made["tools"] = dict(rules or {})
    if denied:
        made["tools"]["deny"] = [*(made["tools"].get("deny") or ()), *(glob for globs in denied for glob in globs)]


_CHANGES: Mapping[str, Callable[[dict[str, Any], object], None]] = {
    "command": _split_command,
    "args": _split_command,
    "disabled": _gather_switches,
    "tools": _gather_tools,
}
