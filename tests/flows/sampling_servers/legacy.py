"""A server on the 1.x SDK (handshake era only) whose tools ask their client for completions; run by the Python of its own
environment.

    python legacy.py stdio
    python legacy.py streamable-http --port 0  # /mcp

The tools are those of modern.py, and: ``summarize_apart`` asks without saying which call it is for, ``chorus {text, count}``
asks many times at once and says how often that went well.
"""

from __future__ import annotations

import argparse
import socket

import anyio
import uvicorn
from mcp import McpError
from mcp.server.fastmcp import Context, FastMCP
from mcp.types import ModelHint, ModelPreferences, SamplingMessage, TextContent, Tool

server = FastMCP("legacy", log_level="WARNING")
WEATHER = Tool(name="get_weather", inputSchema={"type": "object", "properties": {"city": {"type": "string"}}})


async def ask(ctx: Context, text: str, *, apart: bool = False, **more: object):
    """One completion. ``apart``: nothing shows which call it belongs to, not even where the transport could."""
    messages = [SamplingMessage(role="user", content=TextContent(type="text", text=text))]
    related = None if apart else ctx.request_id
    return await ctx.session.create_message(messages, max_tokens=300, related_request_id=related, **more)


@server.tool()
async def summarize(text: str, ctx: Context) -> str:
    """Have a text summarized"""
    answer = await ask(ctx, text, system_prompt="Be brief")
    return f"{answer.model}: {answer.content.text}"


@server.tool()
async def summarize_as(text: str, model: str, ctx: Context) -> str:
    """Have it done by a model of one's liking"""
    answer = await ask(ctx, text, model_preferences=ModelPreferences(hints=[ModelHint(name=model)]))
    return f"{answer.model}: {answer.content.text}"


@server.tool()
async def weather(city: str, ctx: Context) -> str:
    """Have the model choose a tool"""
    answer = await ask(ctx, f'get_weather for "{city}"', tools=[WEATHER])
    use = answer.content[0] if isinstance(answer.content, list) else answer.content
    return f"{answer.stopReason}: {use.name} {use.input['city']}"


@server.tool()
async def summarize_apart(text: str, ctx: Context) -> str:
    """Have a text summarized"""
    answer = await ask(ctx, text, apart=True)
    return f"{answer.model}: {answer.content.text}"


@server.tool()
async def chorus(text: str, count: int, ctx: Context) -> str:
    """Have many texts summarized at once"""
    went: list[bool] = []

    async def one() -> None:
        try:
            await ask(ctx, text)
            went.append(True)
        except McpError:
            went.append(False)

    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(one)
    return f"{went.count(True)} of {count}"


@server.tool()
def plain(text: str) -> str:
    """Ask nobody"""
    return text


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("transport", choices=("stdio", "sse", "streamable-http"))
    parser.add_argument("--port", type=int, default=0)
    args = parser.parse_args()
    if args.transport == "stdio":
        return server.run("stdio")
    app = server.sse_app() if args.transport == "sse" else server.streamable_http_app()
    listener = socket.create_server(("127.0.0.1", args.port))
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
    return uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
