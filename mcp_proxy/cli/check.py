"""``mcp-proxy-api check``: read the configuration and say what it comes to. Connects to nothing."""

from __future__ import annotations

import sys
from typing import Any

import click

from mcp_proxy.base.errors import StartError
from mcp_proxy.cli.options import default_text, setting_options
from mcp_proxy.cli.serve import plan_serving
from mcp_proxy.config.describe import describe
from mcp_proxy.config.model import Grade, Servers
from mcp_proxy.settings import Settings, load_settings, setting_table


@click.command()
@setting_options()
@click.option("--env-example", is_flag=True, help="Print a .env file with every setting and its default, and stop.")
def check(env_example: bool, **flags: Any) -> None:
    """Say what is configured: settings, servers, and everything that could not be taken over.

    Exit code 0 when all of it can be used, 1 when a server is refused or a key is not supported, 2 when the program
    could not start.

    \b
    mcp-proxy-api check --config mcp.json
    mcp-proxy-api check --env-example > .env
    """
    if env_example:
        click.echo(env_file(), nl=False)
        return
    loaded = load_settings(flags)
    plan = plan_serving(loaded.settings, loaded.environ)
    servers = Servers() if plan.demo else plan.servers
    problem = _try_out(plan.settings)
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}")
    _print_settings(loaded.settings)
    _print_servers(servers, demo=plan.demo)
    if problem is not None:
        raise StartError(problem)
    bad = bool(servers.refused) or any(finding.grade is Grade.UNSUPPORTED for finding in servers.findings)
    sys.exit(1 if bad else 0)


def _try_out(settings: Settings) -> str | None:
    """Why ``serve`` would not start, in its own words: keys, static tokens, state, addresses."""
    from mcp_proxy.base.clock import SystemClock
    from mcp_proxy.core.auth.keys import load_keys
    from mcp_proxy.core.auth.revocation import Revocations
    from mcp_proxy.core.auth.verifier import TokenVerifier
    from mcp_proxy.edge.addresses import check_hosts, refuse_open_doors

    clock = SystemClock()
    try:
        refuse_open_doors(settings.host, no_auth=settings.no_auth)
        check_hosts(settings.allow_host)
        TokenVerifier(settings, load_keys(settings, clock), clock, Revocations(settings.state_dir))
    except StartError as error:
        return str(error)
    return None


def _print_settings(settings: Settings) -> None:
    click.echo("Settings")
    for row in setting_table():
        value = getattr(settings, row.field)
        shown = ("set" if value is not None else "none") if row.secret else default_text(value)
        changed = "" if value == row.default else "  (changed)"
        click.echo(f"  {row.env} = {shown}{changed}")


def _print_servers(servers: Servers, *, demo: bool) -> None:
    click.echo("Servers")
    if not servers.specs and not servers.refused:
        click.echo("  none" + (": serve starts the built-in demo server" if demo else ""))
    for spec in servers.specs:
        shown = describe(spec)
        where = shown.get("url") or " ".join([shown.get("command", ""), *shown.get("args", [])])
        state = "  (disabled)" if spec.disabled else f"  (group {spec.group})" if spec.group else ""
        click.echo(f"  {spec.name}: {spec.transport} {where}{state}  [{spec.source}]")
    for refused in servers.refused:
        click.echo(f"  {refused.name}: REFUSED, {refused.reason}  [{refused.source}]")
    for finding in servers.findings:
        click.echo(
            f"  {finding.server or '-'}: {finding.field}: {finding.message} ({finding.grade})  [{finding.source}]"
        )


def env_file() -> str:
    """Every setting with its meaning and default, as a ``.env`` file."""
    lines = [
        "# Settings of MCP Proxy API. Flags win over the environment, the environment over this file.",
        "# Made by: mcp-proxy-api check --env-example",
    ]
    group = ""
    for row in setting_table():
        if row.group != group:
            group = row.group
            lines += ["", f"# {group}"]
        flag = f" ({row.flag})" if row.flag else ""
        lines.append(f"# {row.help}{flag}")
        if row.env == "JWT_SECRET":
            lines += ["# make one with: openssl rand -base64 48", "JWT_SECRET="]
        else:
            text = "" if default_text(row.default) == "none" else default_text(row.default)
            lines.append(f"# {row.env}={text}")
    return "\n".join(lines) + "\n"
