"""A server on the 1.x SDK (handshake era only) that asks its clients for everything; run by the Python of its environment.

    python era_server.py stdio
    python era_server.py streamable-http --port 41234

Tools as in flows/mcp_upstream.py. Calls that are taken back are noted, a name a line, in the file that ERA_LEDGER names.
"""

from __future__ import annotations

import argparse
import os
import socket

import anyio
import uvicorn
from mcp.server.fastmcp import Context, FastMCP
from mcp.types import SamplingMessage, TextContent
from pydantic import BaseModel

server = FastMCP("era", log_level="WARNING")


class Person(BaseModel):
    name: str


def note(word: str) -> None:
    with open(os.environ["ERA_LEDGER"], "a") as ledger:
        ledger.write(word + "\n")


@server.tool()
def echo(text: str) -> str:
    return f"era echo {text}"


@server.tool()
async def ask(who: str, ctx: Context) -> str:
    answer = await ctx.elicit(f"who is {who}?", Person)
    return answer.data.name if answer.action == "accept" else answer.action


@server.tool()
async def ask_twice(who: str, ctx: Context) -> str:
    first = await ctx.elicit(f"first, {who}", Person)
    second = await ctx.elicit(f"second, {who}", Person)
    return f"{first.data.name} {second.data.name}"


@server.tool()
async def sample(text: str, ctx: Context) -> str:
    messages = [SamplingMessage(role="user", content=TextContent(type="text", text=text))]
    answer = await ctx.session.create_message(messages, max_tokens=10, related_request_id=ctx.request_id)
    return answer.content.text


@server.tool()
async def roots(ctx: Context) -> str:
    return str((await ctx.session.list_roots()).roots[0].uri)


@server.tool()
async def progress(ctx: Context) -> str:
    for step in (1, 2, 3):
        await ctx.report_progress(step, 3)
    return "progress"


@server.tool()
async def log(ctx: Context) -> str:
    for step in (1, 2, 3):
        await ctx.info(f"step {step}")
    return "log"


@server.tool()
async def hang(ctx: Context) -> str:
    note("begun")
    try:
        await anyio.sleep(60)
    except anyio.get_cancelled_exc_class():
        note("cancelled")
        raise
    return "too long"


@server._mcp_server.set_logging_level()
async def set_level(level: str) -> None:
    """So that it declares the capability."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("transport", choices=("stdio", "streamable-http"))
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    args = parser.parse_args()
    if args.transport == "stdio":
        return server.run("stdio")
    listener = socket.create_server(("127.0.0.1", args.port))
    config = uvicorn.Config(server.streamable_http_app(), log_level="warning", timeout_graceful_shutdown=1)
    return uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
