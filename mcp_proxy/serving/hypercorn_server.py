"""Serving by Hypercorn: HTTP/1.1 and HTTP/2. Its connections are let go once their clients have left.

Made for Hypercorn 0.18, whose class for a connection is replaced within `own_connections`; there is no other way in.
Counterpart of `uvicorn_server`.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

from hypercorn.asyncio import run as hypercorn_run
from hypercorn.asyncio import serve as hypercorn_serve
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.config import Config, Sockets
from hypercorn.events import Event, Updated
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.typing import Framework

from mcp_proxy.serving.connections import end
from mcp_proxy.serving.listeners import BACKLOG, Listeners
from mcp_proxy.serving.terms import GRACE, KEEP_ALIVE, MAX_HEAD, MAX_WEBSOCKET_MESSAGE, Serving

Connections = set[asyncio.WriteTransport]
_RELIED_ON = ("run", "protocol_send", "_read_data", "_idle_timeout")
"""Of Hypercorn's class for a connection."""


async def serve(serving: Serving) -> None:
    """See `Serving`."""
    stopped = asyncio.Event()

    async def until_stopped() -> None:
        try:
            await serving.until_stopped()
        finally:
            stopped.set()

    config = _Config(serving.listeners)

    async def work() -> None:
        try:
            await hypercorn_serve(cast(Framework, serving.app), config, shutdown_trigger=until_stopped)
        except asyncio.InvalidStateError:
            # At the end it asks every connection for its outcome; one that is left even then has none.
            if not stopped.is_set():
                raise

    with own_connections(config) as connections:
        server = serving.tasks.spawn(work(), "Hypercorn")
        closing = serving.tasks.spawn(_limit_shutdown(server, connections, stopped), "shutdown limit")
        try:
            with suppress(asyncio.CancelledError):
                await server
        finally:
            closing.cancel()


async def _limit_shutdown(server: asyncio.Task[None], connections: Connections, stopped: asyncio.Event) -> None:
    """After the drain the server has a moment to close; idle connections must not hold it up for ever."""
    clock = asyncio.get_running_loop().time
    await stopped.wait()
    until = clock() + GRACE + 1
    await end(lambda: connections, GRACE)
    await asyncio.wait([server], timeout=until - clock())
    server.cancel()


class _Config(Config):
    """Hypercorn's configuration, with our sockets."""

    def __init__(self, listeners: Listeners) -> None:
        super().__init__()
        self._listeners = listeners
        self._tls = listeners.tls("h2", "http/1.1")
        self.accesslog = None
        self.errorlog = logging.getLogger("hypercorn.error")
        self.include_server_header = False
        self.graceful_timeout = GRACE + 0.5  # By then `end` has left it nobody to wait for.
        self.shutdown_timeout = 60
        self.keep_alive_timeout = KEEP_ALIVE
        self.backlog = BACKLOG
        self.h11_max_incomplete_size = MAX_HEAD
        self.h2_max_concurrent_streams = 256
        self.websocket_max_message_size = MAX_WEBSOCKET_MESSAGE

    @property
    def ssl_enabled(self) -> bool:
        return self._tls is not None

    def create_ssl_context(self) -> ssl.SSLContext | None:
        return self._tls

    def create_sockets(self) -> Sockets:
        sockets = self._listeners.sockets
        return Sockets(sockets, [], []) if self.ssl_enabled else Sockets([], sockets, [])


@contextmanager
def own_connections(config: Config) -> Iterator[Connections]:
    """While the block runs, connections that Hypercorn accepts for ``config`` are these; blocks may be nested.

    Raises `RuntimeError` when this is not the Hypercorn that it was made for.
    """
    check_hypercorn()
    connections: Connections = set()
    place: Any = hypercorn_run
    before = place.TCPServer

    def connection(app: Any, loop: Any, asked: Config, *more: Any) -> TCPServer:
        given = (app, loop, asked, *more)
        made: TCPServer = Connection(connections, *given) if asked is config else before(*given)
        return made

    place.TCPServer = connection
    try:
        yield connections
    finally:
        place.TCPServer = before


def check_hypercorn() -> None:
    """Raises `RuntimeError` when Hypercorn lacks what is relied on here."""
    if not hasattr(hypercorn_run, "TCPServer") or not all(hasattr(TCPServer, one) for one in _RELIED_ON):
        raise RuntimeError("the class for connections was made for Hypercorn 0.18; this one differs")


class Connection(TCPServer):
    """A connection that ends once its client has left and what it asked for is done.

    Hypercorn's own then waits for its idle task, and so keeps the descriptor until ``keep_alive_timeout``.
    """

    def __init__(self, connections: Connections, *args: Any) -> None:
        super().__init__(*args)
        self._connections = connections
        self._client_left = False

    async def run(self) -> None:
        """Serve it to its end."""
        self._connections.add(self.writer.transport)
        try:
            await super().run()
        finally:
            self._connections.discard(self.writer.transport)

    async def protocol_send(self, event: Event) -> None:
        """Send, or take notice of, what the protocol says."""
        if self._client_left and isinstance(event, Updated):
            return  # An answer that was still due has been given: there is nothing to be idle for.
        await super().protocol_send(event)

    async def _read_data(self) -> None:
        """Read until the client has closed its side. What is in flight goes on: the connection's tasks are waited for."""
        await super()._read_data()
        self._client_left = True
        await self.idle_task.stop()
        protocol = self.protocol.protocol
        if isinstance(protocol, H2Protocol):
            # Nobody sends what is in these any more; answers must not wait for it.
            for buffer in list(protocol.stream_buffers.values()):
                await buffer.close()
