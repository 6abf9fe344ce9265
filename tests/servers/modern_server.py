"""A small server on the 2.x SDK, which speaks both eras; run by the Python of the main environment.

    python modern_server.py stdio
    python modern_server.py streamable-http --port 0  # /mcp

The HTTP mode prints one line when it is ready: {"port": 41234}. The same tools as legacy_server.py.
"""

from __future__ import annotations

import argparse
import json
import socket

import anyio
import uvicorn
from mcp.server.mcpserver import Context, MCPServer

server = MCPServer("modern", log_level="WARNING")


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
    parser.add_argument("transport", choices=("stdio", "streamable-http"))
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    args = parser.parse_args()
    if args.transport == "stdio":
        return server.run("stdio")
    listener = socket.create_server(("127.0.0.1", args.port))
    print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
    config = uvicorn.Config(server.streamable_http_app(), log_level="warning", timeout_graceful_shutdown=1)
    return uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
