"""The command line. Each command lives in a module of its own, loaded when it is used: `token` needs no web server."""

from __future__ import annotations

import importlib
import sys

import click

from mcp_proxy.base.errors import StartError
from mcp_proxy.base.version import VERSION

COMMANDS = {
    "serve": "serve the REST door (and start the demo server if none is configured)",
    "stdio": "serve MCP on stdin and stdout, for the client that starts the program",
    "check": "read the configuration, say what it comes to, connect to nothing",
    "tools": "list the tools of a running proxy, or of the servers in a file",
    "call": "call a tool of a running proxy, or of the servers in a file",
    "hook": "answer completions of a running proxy with a provider's key that stays here",
    "token": "make a token, or revoke one",
}


class _Lazy(click.Group):
    """A group whose commands are imported when they are run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"mcp_proxy.cli.{cmd_name}")
        command = getattr(module, cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list from the table above: ``--help`` imports no command."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="mcp-proxy-api")
def cli() -> None:
    """MCP Proxy API: one service between every AI client and every MCP tool.

    \b
    mcp-proxy-api serve                             the demo server and a ready-made curl command
    MCP_URLS=http://a/mcp,http://b/sse mcp-proxy-api serve
    mcp-proxy-api serve --config mcp.json
    mcp-proxy-api token --sub alice --ttl 8h
    mcp-proxy-api call demo.add --json '{"a": 2, "b": 3}' --config mcp.json
    """


def main() -> None:
    """Run the command line. A configuration that cannot be used is one line on stderr and exit code 2."""
    try:
        cli(prog_name="mcp-proxy-api")
    except StartError as error:
        click.echo(f"mcp-proxy-api: {error}", err=True)
        sys.exit(2)
