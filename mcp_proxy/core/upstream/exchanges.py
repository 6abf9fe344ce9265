"""Which `Exchange` is used: our own, or aiohttp's where httptools is not installed."""

from __future__ import annotations

from importlib.util import find_spec

from mcp_proxy.core.admission.guard import AddressGuard
from mcp_proxy.core.upstream.exchange import Exchange


def new_exchange(connect_timeout: float, guard: AddressGuard | None = None) -> Exchange:
    """An exchange with connections of its own. ``guard``: only to addresses that it permits; None: to any."""
    if find_spec("httptools") is not None:
        from mcp_proxy.core.upstream.http_exchange import HttpExchange

        return HttpExchange(connect_timeout, guard)
    from mcp_proxy.core.upstream.aiohttp_exchange import AiohttpExchange  # not above: importing it takes its time

    return AiohttpExchange(connect_timeout, guard)
