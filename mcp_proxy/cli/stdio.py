"""``mcp-proxy-api stdio``: the program as MCP clients start it, with or without the HTTP doors beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from mcp_proxy.base.errors import StartError
from mcp_proxy.cli.options import environment_help, setting_options
from mcp_proxy.cli.serve import DEMO, Plan, curl_command, open_log, plan_serving, shown_urls
from mcp_proxy.settings import Settings, load_settings, setting_table

if TYPE_CHECKING:
    from mcp_proxy.server import Ports

_EXAMPLE = """\
  {"mcpServers": {"proxy": {
    "command": "mcp-proxy-api",
    "args": ["stdio", "--config", "/path/to/mcp.json", "--separator", "__"]
  }}}"""
_LISTENING = frozenset({"host", "auto_port", "admin_port", "doors", "allow_host", "cors_origin", "certfile", "keyfile"})
"""What says how to listen, and says nothing where nobody does."""
_SHARED = frozenset(row.field for row in setting_table() if row.flag is not None) - {"port"}


@click.command(
    epilog="In the configuration of a client (Claude Desktop, Cursor and others):\n\n\b\n"
    + _EXAMPLE
    + "\n\nSettings without a flag, from the environment or .env:\n\n\b\n"
    + environment_help()
)
@setting_options(only=_SHARED)
@click.option(
    "--port",
    default=None,
    help="Serve the HTTP doors on this port (auto: any that is free) as well, in the same process. Without this flag "
    "nothing listens, whatever PORT says, and flags about listening (--auto-port, --host, --doors, …) are ignored with "
    "a warning.",
)
def stdio(**flags: Any) -> None:
    """Serve MCP on stdin and stdout, to the client that starts this program, until it closes stdin.

    That client needs no token, so that no JWT_SECRET is needed; with --port the callers over HTTP do. stdout carries
    only the protocol: the log goes to stderr. With no server configured anywhere, the demo server is started.
    """
    from mcp_proxy.gateway.descriptors import claim_standard_streams

    streams = claim_standard_streams()
    if flags["workers"] is not None:
        raise StartError("--workers is for serve: the client that starts stdio is served by one process")
    loaded = load_settings(flags)
    listens = flags["port"] is not None
    plan = plan_serving(loaded.settings, loaded.environ)
    if not listens:
        plan = Plan(_without_tokens(plan.settings), plan.servers, plan.demo)
        loaded = replace(loaded, warnings=(*loaded.warnings, *_ignored(flags)))
    elif plan.settings.workers > 1:
        plan = replace(plan, settings=plan.settings.model_copy(update={"workers": 1}))
        warning = "MCP_PROXY_WORKERS is ignored: stdio is served by one process"
        loaded = replace(loaded, warnings=(*loaded.warnings, warning))
    # Everything above is quick to fail; the web stack is loaded once it is needed.
    from mcp_proxy.app import create_app
    from mcp_proxy.base.tasks import TaskSet
    from mcp_proxy.gateway.descriptors import DescriptorReader, DescriptorWriter
    from mcp_proxy.gateway.stdio import StdioDoor
    from mcp_proxy.server import run

    log = open_log(loaded, plan)
    app = create_app(plan.settings, plan.servers if plan.demo else None, log, loaded.environ)
    runtime = app.runtime
    door = StdioDoor(
        runtime.door,
        read=DescriptorReader(streams[0]),
        write=DescriptorWriter(streams[1]),
        log=log,
        clock=runtime.clock,
        ids=runtime.ids,
        tasks=TaskSet(runtime.task_failed),
        max_message=plan.settings.max_body,
        log_bodies=plan.settings.log_bodies,
    )

    async def listening(ports: Ports) -> None:
        urls = shown_urls(plan.settings, ports)
        log.info("serving", **urls, doors=["stdio", *runtime.doors])
        callable_here = plan.demo and "rest" in runtime.doors
        if callable_here and await runtime.manager.upstream(DEMO.name).wait_ready(60):
            click.echo(curl_command(plan.settings, urls["url"]), err=True)

    if not listens:
        log.info("serving", doors=["stdio"])
    run(app, plan.settings, listening if listens else None, stdio=door)


def _ignored(flags: Mapping[str, Any]) -> tuple[str, ...]:
    """What is to be said of flags that only count with --port. Variables are shared with ``serve`` and go unmentioned."""
    named = [row.flag for row in setting_table() if row.flag and row.field in _LISTENING and flags[row.field]]
    if not named:
        return ()
    return (f"{', '.join(named)} {'is' if len(named) == 1 else 'are'} ignored: without --port nothing listens",)


def _without_tokens(settings: Settings) -> Settings:
    """Nothing listens, so that there is nobody to ask for a token, whatever address is set."""
    return settings.model_copy(update={"no_auth": True, "host": "127.0.0.1"})
