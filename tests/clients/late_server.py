"""A legacy server (SDK 1.x) over stdio whose questions and answers cross; run by the Python of its own environment."""

from __future__ import annotations

import anyio
from mcp.server.fastmcp import Context, FastMCP

server = FastMCP("late", log_level="WARNING")


@server.tool()
async def ends_while_asking(ctx: Context) -> str:
    """Ask for the client's roots, and answer without them after a moment"""
    with anyio.move_on_after(0.1):
        await ctx.session.list_roots()
    return "done"


@server.tool()
async def progress_after_asking(ctx: Context) -> str:
    """Report progress before and after a question"""
    await ctx.report_progress(1, 5)
    await ctx.session.list_roots()
    for step in range(2, 6):
        await ctx.report_progress(step, 5)
        await anyio.sleep(0.05)
    return "done"


if __name__ == "__main__":
    server.run("stdio")
