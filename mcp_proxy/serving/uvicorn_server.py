"""Serving by uvicorn, with httptools: HTTP/1.1, and HTTP/2 where somebody else is handed its connections.

Of uvicorn's these are the protocols and the lifespan, not its class for a server, which has signals, sockets and an end
of its own. Made for uvicorn 0.54. What becomes of a connection is `uvicorn_http` and `uvicorn_websocket`, or
`hypercorn_http2`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.lifespan.on import LifespanOn

from mcp_proxy.serving.connections import end
from mcp_proxy.serving.first_bytes import FirstBytes
from mcp_proxy.serving.listeners import BACKLOG
from mcp_proxy.serving.terms import GRACE, KEEP_ALIVE, MAX_WEBSOCKET_MESSAGE, Serving
from mcp_proxy.serving.uvicorn_http import HttpConnection
from mcp_proxy.serving.uvicorn_state import State, TakeOver
from mcp_proxy.serving.uvicorn_websocket import WebSocketConnection

_UNWINDING = 0.5
"""Seconds that handlers have once their connections are gone."""


async def serve(serving: Serving, http2: Callable[[Serving, State], TakeOver] | None = None) -> None:
    """See `Serving`. Without ``http2`` it is HTTP/1.1 alone."""
    config = _config(serving)
    config.load()
    lifespan = LifespanOn(config)
    await lifespan.startup()
    if lifespan.should_exit:
        raise RuntimeError("the application did not start; the log says why")
    state = State(log=serving.log, clock=serving.clock, ids=serving.ids)
    accept: Callable[[], asyncio.Protocol] = (http1 := partial(HttpConnection, config, state, lifespan.state))
    protocols = ["http/1.1"]
    if http2 is not None:
        state.http2 = http2(serving, state)
        accept = partial(FirstBytes, http1, state.http2)
        protocols = ["h2", "http/1.1"]
    loop, tls = asyncio.get_running_loop(), serving.listeners.tls(*protocols)
    servers = [
        await loop.create_server(accept, sock=sock, ssl=tls, backlog=BACKLOG) for sock in serving.listeners.sockets
    ]
    try:
        await serving.until_stopped()
    finally:
        for server in servers:
            server.close()
        await _let_go(state)
        await lifespan.shutdown()


async def _let_go(state: State) -> None:
    """End all connections, those that are idle at once, and what is left of their handlers."""
    for one in list(state.connections):
        one.shutdown()
    await end(lambda: [one.transport for one in state.connections], GRACE)
    for cancelled in (False, True):
        if tasks := list(state.tasks):
            for task in tasks if cancelled else ():
                task.cancel()
            await asyncio.wait(tasks, timeout=_UNWINDING)


def _config(serving: Serving) -> Config:
    return Config(
        cast(Any, serving.app),
        interface="asgi3",
        http=HttpConnection,
        ws=WebSocketConnection,
        ws_max_size=MAX_WEBSOCKET_MESSAGE,
        ws_ping_interval=None,
        ws_ping_timeout=None,
        ws_per_message_deflate=False,  # A small frame could become a very large one before its size is looked at.
        lifespan="on",
        loop="none",
        log_config=None,  # Its messages reach our log by the root logger.
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE,
        reset_contextvars=True,
        workers=1,  # Or a variable of the environment decides, which need not be a number.
    )
