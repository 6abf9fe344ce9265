"""Which lines of the log somebody asks for, and which of them somebody may see. Pure: no connection, no log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from mcp_proxy.api.messages import only_fields, string_field
from mcp_proxy.base.errors import BAD_REQUEST, ProxyError
from mcp_proxy.base.json import JsonError, read_strict
from mcp_proxy.core.auth.principal import Principal
from mcp_proxy.telemetry.log_feed import RECENT, LogLine

LAST = 100
LEVELS = ("debug", "info", "warning", "error", "critical")
_FIELDS = ("level", "server", "tool", "principal", "event")


@dataclass(frozen=True, slots=True)
class LogFilter:
    """``level`` is that or above; the others are compared with the line's fields of these names. None: any."""

    level: str | None = None
    server: str | None = None
    tool: str | None = None
    principal: str | None = None
    event: str | None = None

    def passes(self, line: LogLine) -> bool:
        """Whether the line is asked for."""
        if self.level is not None and line.level in LEVELS[: LEVELS.index(self.level)]:
            return False
        return (
            self.server in (None, line.server)
            and self.tool in (None, line.tool)
            and self.principal in (None, line.principal)
            and self.event in (None, line.event)
        )

    def as_asked(self) -> dict[str, str]:
        """The conditions there are, by name."""
        return {name: value for name in _FIELDS if (value := getattr(self, name)) is not None}


def may_see(principal: Principal, line: LogLine, group_of: Callable[[str], str | None]) -> bool:
    """Whether a line is within the token's ``servers`` and ``tools``.

    A token that is narrowed shows only lines that name a server, or a server and a tool, within that; others may speak
    of anything. ``admin`` does not widen it.
    """
    if principal.servers is None and principal.tools is None:
        return True
    if not isinstance(line.server, str):
        return False
    group = group_of(line.server)
    if principal.tools is None:
        return principal.sees_server(line.server, group)
    return isinstance(line.tool, str) and principal.sees_tool(line.tool, line.server, group)


def read_query(query: bytes) -> tuple[LogFilter, int]:
    """The filter of a URL, and its ``last``. Raises `ProxyError` (400, 422) naming what is wrong."""
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=16)
    except ValueError:
        raise ProxyError(BAD_REQUEST, "the query is not acceptable: it has too many fields, or is not UTF-8") from None
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ProxyError(BAD_REQUEST, "the query names a field twice")
    only_fields(found, (*_FIELDS, "last"))
    last = found.pop("last", str(LAST))
    if not (last.isdecimal() and len(last) <= 4 and int(last) <= RECENT):
        raise ProxyError(BAD_REQUEST, f"last must be a number from 0 to {RECENT}", details={"field": "last"})
    return _read(found), int(last)


def read_message(text: str | None) -> LogFilter:
    """The filter in a client's message, ``{"filter": {…}}``. Raises `ProxyError` (400, 422) naming what is wrong."""
    try:
        message = None if text is None else read_strict(text.encode())
    except JsonError as error:
        raise ProxyError(BAD_REQUEST, f"the message is not acceptable JSON: {error}") from None
    if not isinstance(message, dict) or not isinstance(message.get("filter"), dict):
        raise ProxyError(BAD_REQUEST, 'a message must be a JSON text of the form {"filter": {…}}')
    only_fields(message, ("filter",))
    only_fields(message["filter"], _FIELDS)
    return _read(message["filter"])


def _read(asked: Mapping[str, Any]) -> LogFilter:
    values = {name: string_field(asked, name) for name in _FIELDS}
    level = values["level"]
    if level is not None and level.lower() not in LEVELS:
        raise ProxyError(BAD_REQUEST, f"level must be one of {', '.join(LEVELS)}", details={"field": "level"})
    return LogFilter(**{**values, "level": level and level.lower()})
