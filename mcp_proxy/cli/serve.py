"""``mcp-proxy-api serve``."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
from pydantic import SecretStr

from mcp_proxy.cli.options import environment_help, setting_options
from mcp_proxy.config.loader import load_servers
from mcp_proxy.config.model import Servers, ServerSpec, Transport
from mcp_proxy.settings import Loaded, Settings, load_settings

if TYPE_CHECKING:
    from mcp_proxy.server import Ports
    from mcp_proxy.telemetry.logs import Logger

DEMO = ServerSpec(
    name="demo",
    transport=Transport.STDIO,
    source="built in",
    command=sys.executable,
    args=("-m", "mcp_proxy.demo"),
    description="the built-in demo server",
)
_DEMO_TTL = 3600


@dataclass(frozen=True, slots=True)
class Plan:
    """What ``serve`` would serve; ``demo`` when nothing was configured."""

    settings: Settings
    servers: Servers
    demo: bool


@click.command(epilog="Settings without a flag, from the environment or .env:\n\n\b\n" + environment_help())
@setting_options()
def serve(**flags: Any) -> None:
    """Serve. Flags win over the environment, the environment over .env.

    With no server configured anywhere, a small demo server is started and one curl command is printed that calls it.
    """
    loaded = load_settings(flags)
    plan = plan_serving(loaded.settings, loaded.environ)
    # Everything above is quick to fail; the web stack is loaded once it is needed.
    from mcp_proxy.app import create_app
    from mcp_proxy.server import run

    log = open_log(loaded, plan)
    app = create_app(plan.settings, plan.servers if plan.demo else None, log, loaded.environ)

    async def listening(ports: Ports) -> None:
        urls = shown_urls(plan.settings, ports)
        log.info("serving", **urls, doors=list(app.runtime.doors))
        # The command is shown when it works, not while the demo server is still starting.
        callable_here = plan.demo and "rest" in app.runtime.doors
        if callable_here and await app.runtime.manager.upstream(DEMO.name).wait_ready(60):
            click.echo(curl_command(plan.settings, urls["url"]))

    run(app, plan.settings, listening)


def open_log(loaded: Loaded, plan: Plan) -> Logger:
    """The log, with everything in it that is to be said of the configuration."""
    from mcp_proxy.base.clock import SystemClock
    from mcp_proxy.telemetry.logs import configure

    log = configure(plan.settings, clock=SystemClock())
    for warning in loaded.warnings:
        log.warning("setting_ignored", reason=warning)
    for refused in plan.servers.refused:
        log.warning("server_refused", server=refused.name, source=refused.source, reason=refused.reason)
    for finding in plan.servers.findings:
        log.info(
            "config_finding", server=finding.server, field=finding.field, grade=finding.grade, reason=finding.message
        )
    return log


def plan_serving(settings: Settings, environ: Mapping[str, str]) -> Plan:
    """The servers to serve: those configured, else the demo with a secret of its own."""
    if settings.mcp_urls or settings.mcp_url or settings.config or settings.config_dir:
        return Plan(settings, load_servers(settings, environ), demo=False)
    if settings.jwt_secret is None and not settings.no_auth and settings.jwt_algorithm.startswith("HS"):
        from mcp_proxy.core.auth.secret import random_secret

        settings = settings.model_copy(update={"jwt_secret": SecretStr(random_secret())})
    return Plan(settings, Servers(specs=(DEMO,)), demo=True)


def shown_urls(settings: Settings, ports: Ports) -> dict[str, str]:
    """``url``, and ``admin_url`` where management has a port of its own, for the log."""
    urls = {"url": shown_url(settings, ports.main)}
    if ports.admin is not None:
        urls["admin_url"] = shown_url(settings, ports.admin)
    return urls


def shown_url(settings: Settings, port: int) -> str:
    """The address as somebody on this machine writes it."""
    scheme = "https" if settings.certfile else "http"
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104
    bracketed = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"{scheme}://{bracketed}:{port}"


def curl_command(settings: Settings, url: str) -> str:
    """One command on the demo server that works when pasted."""
    auth = ""
    if not settings.no_auth and settings.jwt_secret is not None:
        auth = f" -H 'Authorization: Bearer {_demo_token(settings)}'"
    body = """'{"method": "add", "args": {"a": 2, "b": 3}}'"""
    return f"curl -s {url}/tools{auth} -H 'Content-Type: application/json' -d {body}"


def _demo_token(settings: Settings) -> str:
    from mcp_proxy.base.ids import random_id
    from mcp_proxy.core.auth.mint import mint, signing_key

    return mint(
        signing_key(settings),
        subject="demo",
        now=int(time.time()),
        ttl=_DEMO_TTL,
        scopes=None,
        servers=None,
        tools=None,
        models=None,
        rate=None,
        token_id=random_id(),
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        max_ttl=settings.jwt_max_ttl,
    )
