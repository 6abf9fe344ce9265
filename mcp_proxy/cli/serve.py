"""``mcp-proxy-api serve``."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click
from pydantic import SecretStr

from mcp_proxy.cli.options import environment_help, setting_options
from mcp_proxy.config.loader import load_servers
from mcp_proxy.config.model import Servers, ServerSpec, Transport
from mcp_proxy.settings import Settings, load_settings

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
    from mcp_proxy.base.clock import SystemClock
    from mcp_proxy.server import run
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
    app = create_app(plan.settings, plan.servers, log)

    scheme = "https" if plan.settings.certfile else "http"

    async def listening(port: int) -> None:
        url = f"{scheme}://{_shown_host(plan.settings)}:{port}"
        log.info("serving", url=url, doors=["rest"])
        # The command is shown when it works, not while the demo server is still starting.
        if plan.demo and await app.runtime.manager.upstream(DEMO.name).wait_ready(60):
            click.echo(_curl(plan.settings, url))

    run(app, plan.settings, listening)


def plan_serving(settings: Settings, environ: Mapping[str, str]) -> Plan:
    """The servers to serve: those configured, else the demo with a secret of its own."""
    if settings.mcp_urls or settings.mcp_url or settings.config:
        return Plan(settings, load_servers(settings, environ), demo=False)
    if settings.jwt_secret is None and not settings.no_auth and settings.jwt_algorithm.startswith("HS"):
        from mcp_proxy.core.auth.secret import random_secret

        settings = settings.model_copy(update={"jwt_secret": SecretStr(random_secret())})
    return Plan(settings, Servers(specs=(DEMO,)), demo=True)


def _shown_host(settings: Settings) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _curl(settings: Settings, url: str) -> str:
    """One command that works when pasted."""
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
