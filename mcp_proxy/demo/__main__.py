"""``python -m mcp_proxy.demo``: three small tools on the official SDK, over stdio, or with ``--http PORT`` over HTTP.

The HTTP form (streamable HTTP at ``/mcp``) is for containers, where the demo is a service of its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until stopped: on stdin and stdout, or on a port. It asks for no token; a network must keep others out."""
    parser = argparse.ArgumentParser(prog="python -m mcp_proxy.demo", description="The demo server: add, echo, now.")
    parser.add_argument("--http", type=int, metavar="PORT", help="serve streamable HTTP at /mcp instead of stdio")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    given = parser.parse_args(arguments)
    if given.http is None:
        server.run()
    else:
        server.run("streamable-http", host=given.host, port=given.http)


if __name__ == "__main__":
    main()
