"""``mcp-proxy-api call``."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from mcp_proxy.base.errors import StartError
from mcp_proxy.base.json import JsonError, read_strict
from mcp_proxy.cli.remote import Where, ask
from mcp_proxy.cli.tools import where_options


@click.command()
@click.argument("tool")
@where_options
@click.option("--json", "arguments", default="{}", show_default=True, help="The arguments, as a JSON object.")
@click.option("--server", help="The server to call it at.")
@click.option("--raw", is_flag=True, help="Print the whole answer as JSON, not only its text.")
def call(
    tool: str, url: str, token: str | None, config: tuple[str, ...], arguments: str, server: str | None, raw: bool
) -> None:
    """Call TOOL (bare, or server.tool), at a running proxy or with the servers in a file.

    Exit code 1 when the tool ran and failed, 2 when it could not be called.

    \b
    mcp-proxy-api call add --json '{"a": 2, "b": 3}' --token "$TOKEN"
    mcp-proxy-api call time.get_current_time --json '{"timezone": "UTC"}' --config mcp.json
    """
    body: dict[str, Any] = {"method": tool, "args": _arguments(arguments)}
    if server:
        body["server"] = server
    answer = ask(Where(url, token, config), "POST", "/tools", body)
    if raw:
        click.echo(json.dumps(answer, indent=2, ensure_ascii=False))
    else:
        for part in answer["content"]:
            click.echo(part["text"] if part.get("type") == "text" else json.dumps(part, ensure_ascii=False))
    sys.exit(1 if answer["isError"] else 0)


def _arguments(text: str) -> dict[str, Any]:
    try:
        value = read_strict(text.encode())
    except (JsonError, UnicodeEncodeError) as error:
        raise StartError(f"--json is not acceptable JSON: {error}") from None
    if not isinstance(value, dict):
        raise StartError("--json must be a JSON object")
    return value
