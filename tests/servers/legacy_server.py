"""A small server on the 1.x SDK (handshake era only), run by the Python of its own environment.

    python legacy_server.py stdio
    python legacy_server.py sse --port 0              # /sse, /messages/
    python legacy_server.py streamable-http --port 0  # /mcp

The HTTP modes print one line when they are ready: {"port": 41234}. The same tools as modern_server.py.
"""

from __future__ import annotations

import argparse
import json
import socket

import anyio
import uvicorn
from mcp.server.fastmcp import Context, FastMCP

server = FastMCP("legacy", log_level="WARNING")


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers"""
    return a + b


@server.tool()
def echo(text: str) -> str:
    """Return the text"""
    return text


@server.tool()
async def slow(ms: int) -> str:
    """Answer after some milliseconds"""
    await anyio.sleep(ms / 1000)
    return f"slept {ms} ms"


@server.tool()
def fail(message: str = "failed as asked") -> str:
    """Fail while running"""
    raise ValueError(message)


@server.tool()
async def progress(steps: int, ctx: Context) -> str:
    """Report progress before the answer"""
    for step in range(steps):
        await ctx.report_progress(step + 1, steps)
    return f"{steps} steps"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("transport", choices=("stdio", "sse", "streamable-http"))
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    args = parser.parse_args()
    if args.transport == "stdio":
        return server.run("stdio")
    app = server.sse_app() if args.transport == "sse" else server.streamable_http_app()
    listener = socket.create_server(("127.0.0.1", args.port))
    print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
    return uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
