"""The edge as one ordered list: what every request passes, at every door, before an app sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from mcp_proxy.base.clock import Clock
from mcp_proxy.base.ids import IdSource
from mcp_proxy.core.limits import RequestRates
from mcp_proxy.edge.addresses import Addresses
from mcp_proxy.edge.challenges import Challenges
from mcp_proxy.edge.cors import CorsHeaders, Preflight
from mcp_proxy.edge.doors import Doors
from mcp_proxy.edge.front import Front
from mcp_proxy.edge.identity import Identity, Verifier
from mcp_proxy.edge.limits import BodyLimit
from mcp_proxy.edge.request_log import RequestLog
from mcp_proxy.edge.respond import Tell
from mcp_proxy.edge.types import App
from mcp_proxy.settings import DOORS, Settings
from mcp_proxy.telemetry.logs import Logger


def build_edge(
    app: App,
    *,
    settings: Settings,
    verifier: Verifier,
    log: Logger,
    clock: Clock,
    ids: IdSource,
    admin_port: Callable[[], int | None] | None = None,
    telling: Mapping[str, Tell] = MappingProxyType({}),
) -> App:
    """``app`` inside the edge. Raises `StartError` for an ``allow_host`` that is no host name.

    ``admin_port`` says which port it has become, where the setting leaves it to the system. ``telling``: doors that have
    their own words for errors, see `front`.

    A layer is handed requests only. Those that have nothing to wait for are plain functions, which return what the next
    one returns: a coroutine that only awaits another costs every request, each time it is resumed.
    """
    limited = settings.rate is not None or settings.rate_address is not None
    rates = RequestRates(clock, per_principal=settings.rate, per_address=settings.rate_address) if limited else None
    shut = settings.doors != DOORS or settings.admin_port is not None
    layers: list[Callable[[App], App]] = [
        lambda inner: Addresses(inner, settings.host, settings.allow_host, settings.cors_origin),
        *([Preflight] if settings.cors_origin else []),
        lambda inner: BodyLimit(
            inner, limit=settings.max_body, other={"/v1/": settings.llm_max_body} if telling else {}
        ),
        lambda inner: Identity(inner, verifier, no_auth=settings.no_auth, rates=rates),
        *([lambda inner: Doors(inner, settings.doors, admin_port or (lambda: settings.admin_port))] if shut else []),
    ]
    inner = app
    for layer in reversed(layers):
        inner = layer(inner)
    return Front(
        inner,
        app,
        log=log,
        requests=RequestLog(log=log, clock=clock, ids=ids, bodies=settings.log_bodies),
        challenges=Challenges(settings.public_url),
        cors=CorsHeaders(settings.cors_origin) if settings.cors_origin else None,
        telling=telling,
    )
