"""A server as people are shown it, in the canonical keys: secrets masked, variables as they stand in the file.

Used by ``check`` and the API. How a living connection is doing is added by those who know it.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from mcp_proxy.config.model import ServerSpec, ToolOverride, ToolRules

MASK = "••••"
_SECRET_FLAG = re.compile(r"--?[\w-]*(?:key|token|secret|passw|auth|header|credential)[\w-]*$", re.IGNORECASE)


def describe(spec: ServerSpec) -> dict[str, Any]:
    """Canonical keys (what is not set is left out), JSON values only.

    Values of ``env`` and ``headers``, of a URL's query and of filled-in arguments are masked; where a variable was expanded, its reference is
    shown in place of its value.
    """
    shown: dict[str, Any] = {"name": spec.name, "transport": spec.transport.value}
    if spec.command is not None:
        shown["command"] = spec.written.get("command", spec.command)
    if spec.args:
        shown["args"] = _masked_args([spec.written.get(f"args[{i}]", arg) for i, arg in enumerate(spec.args)])
    if spec.url is not None:
        shown["url"] = shown_url(spec.written.get("url", spec.url))
    shown |= {key: dict.fromkeys(value, MASK) for key, value in (("env", spec.env), ("headers", spec.headers)) if value}
    if spec.cwd is not None:
        shown["cwd"] = spec.written.get("cwd", spec.cwd)
    shown["disabled"] = spec.disabled
    for key in ("provider", "group", "timeout", "connect_timeout", "max_concurrency", "description"):
        if (value := getattr(spec, key)) is not None:
            shown[key] = value
    shown["tools"] = _tools(spec.tools)
    shown["retry"] = {
        "max": spec.retry.max,
        "idempotent": list(spec.retry.idempotent),
        "trust_annotations": spec.retry.trust_annotations,
    }
    return shown


def _tools(rules: ToolRules) -> dict[str, Any]:
    shown: dict[str, Any] = {"allow": list(rules.allow), "deny": list(rules.deny)}
    if rules.override:
        shown["override"] = {tool: _override(override) for tool, override in rules.override.items()}
    if rules.pin is not None:
        shown["pin"] = rules.pin
    return shown


def _override(override: ToolOverride) -> dict[str, Any]:
    texts = {"name": override.name, "title": override.title, "description": override.description}
    shown: dict[str, Any] = {key: value for key, value in texts.items() if value is not None}
    if override.fixed:
        shown["fixed"] = dict.fromkeys(override.fixed, MASK)
    if override.hidden:
        shown["hidden"] = list(override.hidden)
    return shown


def _masked_args(args: list[str]) -> list[str]:
    """Arguments, without the values of those whose flag names a secret: ``--api-key=…``, ``--token …``."""
    shown: list[str] = []
    hide = False
    for arg in args:
        flag, equals, value = arg.partition("=")
        secret = _SECRET_FLAG.match(flag) is not None
        if hide and not arg.startswith("${"):
            shown.append(MASK)
        elif secret and equals and not value.startswith("${"):
            shown.append(f"{flag}={MASK}")
        else:
            shown.append(arg)
        hide = secret and not equals
    return shown


def shown_url(url: str) -> str:
    """A URL without its secrets: names of query parameters stay, their values, user names and fragments do not."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return MASK
    host = parts.netloc.rpartition("@")[2]
    query = "&".join(_masked(pair) for pair in parts.query.split("&")) if parts.query else ""
    shown = parts._replace(netloc=host, query=query, fragment="")
    return shown.geturl()


def _masked(parameter: str) -> str:
    name, equals, _ = parameter.partition("=")
    return f"{name}={MASK}" if equals else MASK
