"""Talking to a proxy from the command line: a running one over HTTP, or one made for the moment in this process.

``tools`` and ``call`` use it; both ways answer with the same JSON, since the second serves the same application.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click

from mcp_proxy.base.errors import StartError
from mcp_proxy.base.quote import quote


@dataclass(frozen=True, slots=True)
class Where:
    """Which proxy: a running one (``url``, ``token``), or the servers in ``config`` files."""

    url: str
    token: str | None
    config: tuple[str, ...]


def ask(where: Where, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
    """One request; the JSON answer. Raises `StartError` with the proxy's own error message."""
    return asyncio.run(_local(where.config, method, path, body) if where.config else _http(where, method, path, body))


def _checked(status: int, data: bytes) -> Any:
    try:
        answer = json.loads(data)
    except ValueError:
        raise StartError(f"the answer (HTTP {status}) is not JSON: is this the address of the proxy?") from None
    error = answer.get("error") if isinstance(answer, dict) else None
    if status >= 400 and isinstance(error, dict):
        details = f" {json.dumps(error['details'], ensure_ascii=False)}" if error.get("details") else ""
        raise StartError(f"{error.get('type')}: {error.get('message')}{details}")
    if status >= 400:
        raise StartError(f"the proxy answered with HTTP {status}")
    return answer


async def _http(where: Where, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
    import aiohttp

    if not where.url.startswith(("http://", "https://")):
        raise StartError(f"--url must begin with http:// or https://, and is {quote(where.url)}")
    headers = {"Authorization": f"Bearer {where.token}"} if where.token else {}
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=660)) as session,
            session.request(method, where.url.rstrip("/") + path, headers=headers, json=body) as response,
        ):
            return _checked(response.status, await response.read())
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        reason = "connection refused" if isinstance(error, aiohttp.ClientConnectorError) else type(error).__name__
        raise StartError(f"no proxy answers at {where.url} ({reason}); start one, or use --config FILE") from None


async def _local(config: tuple[str, ...], method: str, path: str, body: Mapping[str, Any] | None) -> Any:
    """Start the servers of these files, ask the application itself, stop them."""
    from mcp_proxy.app import create_app
    from mcp_proxy.base.clock import SystemClock
    from mcp_proxy.config.loader import load_servers
    from mcp_proxy.settings import load_settings
    from mcp_proxy.telemetry.logs import configure

    loaded = load_settings({"config": config, "no_auth": "on", "host": "127.0.0.1", "log_level": "ERROR"})
    # Only the files named here: what else is configured belongs to a service.
    settings = loaded.settings.model_copy(update={"mcp_url": None, "mcp_urls": ()})
    servers = load_servers(settings, loaded.environ)
    for refused in servers.refused:
        click.echo(f"mcp-proxy-api: {refused.name} is not usable: {refused.reason}", err=True)
    app = create_app(settings, servers, configure(settings, clock=SystemClock()))
    await app.runtime.start()
    try:
        for upstream in app.runtime.manager.upstreams:
            await upstream.wait_settled()
            if upstream.era is None and not upstream.spec.disabled:
                click.echo(f"mcp-proxy-api: {upstream.spec.name} is not connected: {upstream.last_error}", err=True)
        client = app.test_client()
        response = await client.open(path, method=method, json=body, headers={"Host": "localhost"})
        return _checked(response.status_code, await response.get_data(as_text=False))
    finally:
        await app.runtime.stop()
