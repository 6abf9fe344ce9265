"""Connections that speak HTTP/2, by Hypercorn: taken over once they are known to, and let go once their clients have left.

Of Hypercorn's this is its class for a connection, not its server. Made for Hypercorn 0.18. Which connections these are, say
`first_bytes` and, for upgrades (``h2c``), `uvicorn_http`; how all of them end, `uvicorn_server`.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.events import Event, Updated
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.typing import ASGIFramework, LifespanState

from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.serving.terms import KEEP_ALIVE, MAX_HEAD, MAX_WEBSOCKET_MESSAGE, Serving
from mcp_proxy.serving.uvicorn_state import State

_LOGGER = logging.getLogger("hypercorn.error")


class Http2:
    """Called with a transport, and with what was read from it: the preface, or a whole head that asks for an upgrade."""

    def __init__(self, serving: Serving, state: State) -> None:
        self._app = ASGIWrapper(cast(ASGIFramework, serving.app))
        self._tasks = serving.tasks
        self._state = state
        self._config = _config()
        self._context = WorkerContext(None)

    def __call__(self, transport: asyncio.Transport, read: bytes) -> None:
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader, self._begin)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        reader.feed_data(read)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop, connections, tasks = asyncio.get_running_loop(), self._state.connections, self._state.tasks
        one: Any = Connection(
            self._tasks, self._app, loop, self._config, self._context, LifespanState(), reader, writer
        )
        task = self._tasks.spawn(one.run(), "HTTP/2 connection")
        connections.add(one)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        task.add_done_callback(lambda _: connections.discard(one))


class Connection(TCPServer):
    """A connection that ends once its client has left and what it asked for is done.

    Hypercorn's own then waits for its idle task, and so keeps the descriptor until ``keep_alive_timeout``.
    """

    def __init__(self, tasks: TaskSet, *args: Any) -> None:
        super().__init__(*args)
        self._tasks = tasks
        self._client_left = False

    @property
    def transport(self) -> asyncio.WriteTransport:
        return self.writer.transport

    async def run(self) -> None:
        """Serve it to its end."""
        try:
            await super().run()
        except Exception as error:  # boundary: Hypercorn does not expect all that clients send
            _LOGGER.error("Exception in an HTTP/2 connection", exc_info=error)

    def shutdown(self) -> None:
        """Take nothing new, and end when nothing is in flight. It holds for all that share its context."""
        self._tasks.spawn(self.context.terminated.set(), "stop of HTTP/2")

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


def _config() -> Config:
    config = Config()
    config.accesslog = None
    config.errorlog = _LOGGER
    config.include_server_header = False
    config.keep_alive_timeout = KEEP_ALIVE
    config.h11_max_incomplete_size = MAX_HEAD
    config.h2_max_concurrent_streams = 256
    config.websocket_max_message_size = MAX_WEBSOCKET_MESSAGE
    return config
