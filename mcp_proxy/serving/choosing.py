"""Which HTTP server it is, by its name, and which event loop. They are imported when they are chosen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from mcp_proxy.base.errors import StartError
from mcp_proxy.serving.terms import Serve


def server_named(name: str) -> Serve:
    """``hypercorn``, which adds HTTP/2 to HTTP/1.1, or ``uvicorn``. Raises `StartError` where it cannot be had."""
    try:
        from mcp_proxy.serving.uvicorn_server import serve
    except ImportError as error:
        raise StartError(f"--server {name} needs the package {error.name}, which is not installed") from None
    if name == "uvicorn":
        return serve
    from mcp_proxy.serving.hypercorn_http2 import Http2

    return partial(serve, http2=Http2)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, or None: asyncio's own, on platforms without it."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
