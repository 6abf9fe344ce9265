"""``mcp-proxy-api tools``."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote

import click

from mcp_proxy.cli.remote import Where, ask

F = TypeVar("F", bound=Callable[..., Any])


def where_options(command: F) -> F:
    """Options that say which proxy is meant."""
    for option in (
        click.option("--config", multiple=True, help="Start the servers of this file instead (repeatable)."),
        click.option("--token", envvar="MCP_PROXY_TOKEN", help="Token for the proxy [MCP_PROXY_TOKEN]."),
        click.option("--url", default="http://127.0.0.1:5000", show_default=True, help="Address of a running proxy."),
    ):
        command = option(command)
    return command


@click.command()
@where_options
@click.option("--server", help="Only the tools of this server.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole listing as JSON.")
def tools(url: str, token: str | None, config: tuple[str, ...], server: str | None, as_json: bool) -> None:
    """List tools, of a running proxy or of the servers in a file.

    \b
    mcp-proxy-api tools --config mcp.json
    mcp-proxy-api tools --url http://127.0.0.1:5000 --token "$TOKEN" --json
    """
    query = f"?server={quote(server)}" if server else ""
    listing = ask(Where(url, token, config), "GET", f"/tools{query}")
    if as_json:
        click.echo(json.dumps(listing, indent=2, ensure_ascii=False))
        return
    for tool in listing["tools"]:
        summary = (tool.get("description") or "").strip().split("\n")[0]
        click.echo(f"{tool['name']}  [{tool['server']}]  {summary}".rstrip())
