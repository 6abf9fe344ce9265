"""What a server is given: the environment of a started one, the headers of a called one.

Values are secrets more often than not: they are kept out of every message, findings and refusals name the field.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from mcp_proxy.config.fields import Fields, Refused, quoted
from mcp_proxy.config.model import Grade

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def read_env(fields: Fields) -> dict[str, str]:
    """Variables for the process: forwarded ones first, written ones over them."""
    env: dict[str, str] = {}
    for name in _forwarded(fields):
        value = fields.variable("env_vars", name)
        if value is None:
            fields.note("env_vars", Grade.APPROXIMATE, f"the variable {name} is not set and not passed on")
        else:
            env[name] = value
    found = fields.take("env", "environment")
    for name, value in _pairs(*found) if found else ():
        if not name or "=" in name or "\0" in name:
            raise Refused(f"{quoted(name)} in env cannot name a variable")
        if value is not None:  # null: not set
            env[name] = fields.scalar(f"env.{quoted(name)}", value, secret=True)
    return env


def _forwarded(fields: Fields) -> Iterator[str]:
    """Codex's ``env_vars``: names, or objects with a name."""
    found = fields.take("env_vars")
    if found is None:
        return
    if not isinstance(found[1], list):
        raise Refused("env_vars must be a list of names")
    for entry in found[1]:
        name = entry.get("name") if isinstance(entry, dict) else entry
        if not isinstance(name, str):
            raise Refused("env_vars must be a list of names")
        yield name


def read_headers(fields: Fields) -> dict[str, str]:
    """Headers for every request, whether written out or named by variable."""
    headers: dict[str, str] = {}
    found = fields.take("headers", "http_headers")
    for name, value in _pairs(*found) if found else ():
        if value is not None:
            _add_header(headers, name, fields.scalar(f"headers.{quoted(name)}", value, secret=True))
    found = fields.take("env_http_headers")
    for name, variable in _pairs(*found) if found else ():
        _add_header(headers, name, fields.required_variable(f"env_http_headers.{quoted(name)}", variable))
    found = fields.take("bearer_token_env_var")
    if found:
        _add_header(headers, "Authorization", "Bearer " + fields.required_variable(*found))
    return headers


def _add_header(headers: dict[str, str], name: str, value: str) -> None:
    if not _HEADER_NAME.fullmatch(name):
        raise Refused(f"{quoted(name)} cannot be the name of a header")
    if _CONTROL.search(value):
        raise Refused(f"headers.{name} holds a control character (a line end, perhaps)")
    if any(name.lower() == other.lower() for other in headers):
        raise Refused(f"the header {name} is given twice")
    headers[name] = value


def _pairs(field: str, value: object) -> Iterable[tuple[str, Any]]:
    """An object's members; also a list of objects with ``name`` and ``value``, as the MCP Registry writes headers."""
    if isinstance(value, dict):
        return value.items()
    if not isinstance(value, list):
        raise Refused(f"{field} must be an object")
    pairs = []
    for entry in value:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise Refused(f"{field} must be an object, or a list of objects with name and value")
        pairs.append((entry["name"], entry.get("value")))
    return pairs
