"""Arguments that a tool wants repeated as HTTP headers (``x-mcp-header``). Pure; reads schemas, follows no ``$ref``.

Source: basic/transports/streamable-http (2026-07-28), Custom Headers. A client must leave out a tool whose annotations
are not valid.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

KEY = "x-mcp-header"
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TYPES = frozenset({"string", "integer", "boolean"})
_ONE = frozenset(
    {
        "items", "contains", "unevaluatedItems", "additionalProperties", "propertyNames", "unevaluatedProperties",
        "not", "if", "then", "else", "contentSchema",
    }
)  # fmt: skip
_LIST = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_MAP = frozenset({"patternProperties", "dependentSchemas", "$defs", "definitions"})

Path = tuple[str, ...]


def headers_of(schema: object) -> dict[Path, str]:
    """Property paths and the headers they are repeated in, of a schema that `fault` accepts."""
    found = {}
    for path, part in _positions(schema):
        header = part.get(KEY)
        if path and isinstance(header, str) and _TOKEN.fullmatch(header) and _is_scalar(part):
            found[path] = f"Mcp-Param-{header}"
    return found


def fault(schema: object) -> str | None:
    """Why an annotation somewhere in ``schema`` is not valid, or None."""
    seen: set[str] = set()
    for path, part in _positions(schema):
        if KEY not in part:
            continue
        header = part[KEY]
        if not path:
            return "it stands where a value cannot be found by property names alone"
        if not isinstance(header, str) or not _TOKEN.fullmatch(header):
            return "it is no header name"
        if not _is_scalar(part):
            return "its property is no string, integer or boolean"
        if header.lower() in seen:
            return "it names one header twice"
        seen.add(header.lower())
    return None


def _is_scalar(part: dict[str, Any]) -> bool:
    kind = part.get("type")
    return isinstance(kind, str) and kind in _TYPES


def _positions(schema: object) -> Iterator[tuple[Path | None, dict[str, Any]]]:
    """Every subschema; the path is None where anything but ``properties`` leads to it."""
    left: list[tuple[Path | None, object]] = [((), schema)]
    while left:
        path, part = left.pop()
        if not isinstance(part, dict):
            continue
        yield path, part
        for key, value in part.items():
            if key == "properties" and isinstance(value, dict):
                left += [(None if path is None else (*path, name), sub) for name, sub in value.items()]
            elif key in _ONE:
                left.append((None, value))
            elif key in _LIST and isinstance(value, list):
                left += [(None, sub) for sub in value]
            elif key in _MAP and isinstance(value, dict):
                left += [(None, sub) for sub in value.values()]
