"""Results of meta tools: text that a model can read beside the same as data, never more than a model wants to read. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from mcp_proxy.base.json import encode

T = TypeVar("T")
MOST = 32 * 1024
"""Bytes that the rows of one answer may have, as text and as data each."""
_IN_FULL = 24 * 1024
"""Bytes after which rows are shown in short, so that there is room to name more of them."""
_LINE = 160


@dataclass(frozen=True, slots=True)
class Row:
    """One thing in an answer. ``brief`` stands in for it where there is no room for all of it."""

    text: str
    data: Mapping[str, Any]
    brief: Row | None = None

    @property
    def size(self) -> int:
        return max(len(self.text.encode(errors="surrogatepass")) + 1, len(encode(self.data)) + 1)


def fitted(things: Sequence[T], make: Callable[[T], Row]) -> tuple[list[Row], int]:
    """The rows, made of ``things`` in their order, that fit into one answer, and how many more there would be."""
    kept: list[Row] = []
    size = 0
    for row in map(make, things):
        if row.brief is not None and size + row.size > _IN_FULL:
            row = row.brief
        if size + row.size > MOST:
            break
        size += row.size
        kept.append(row)
    return kept, len(things) - len(kept)


def one_line(text: object) -> str:
    """The first line of a description, cut to a length; "" for what is no text."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "") if isinstance(text, str) else ""
    return line if len(line) <= _LINE else f"{line[: _LINE - 1].rstrip()}…"


def result(lines: Sequence[str], data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields of a ``tools/call`` result."""
    return {"content": [{"type": "text", "text": "\n".join(lines)}], "structuredContent": data, "isError": False}


# Rows for tools. ``name`` is the full name, ``server`` the server or group that has it.


def tool_in_full(name: str, server: str, definition: Mapping[str, Any]) -> Row:
    """Everything that is known of a tool."""
    own = {key: value for key, value in definition.items() if key != "name"}
    data = {"name": name, "server": server, "tool_name": definition["name"], **own}
    lines = [name]
    if described := definition.get("description"):
        lines.append(str(described).strip())
    lines.append(f"arguments: {encode(definition.get('inputSchema', {})).decode()}")
    return Row("\n".join(lines), data, tool_in_short(name, server, definition))


def tool_in_short(name: str, server: str, definition: Mapping[str, Any]) -> Row:
    """A line for a tool."""
    line = one_line(definition.get("description") or definition.get("title"))
    data = {"name": name, "server": server, "tool_name": definition["name"], "description": line}
    return Row(f"- {name}{f': {line}' if line else ''}", data)
