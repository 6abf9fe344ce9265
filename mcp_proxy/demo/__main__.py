"""``python -m mcp_proxy.demo``: three small tools over stdio, on the official SDK."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from mcp.server.mcpserver import MCPServer

server = MCPServer("demo", instructions="Tools to try the proxy with.")


@server.tool()
def add(a: int | float, b: int | float) -> int | float:
    """Add two numbers."""
    return a + b


@server.tool()
def echo(text: str) -> str:
    """Return the text as it came."""
    return text


@server.tool()
def now(timezone: str = "UTC") -> str:
    """The current time in a time zone of the IANA database, as ISO 8601."""
    try:
        zone = ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError(f"unknown time zone {timezone!r}") from error
    return datetime.now(zone).isoformat(timespec="seconds")


if __name__ == "__main__":
    server.run()
