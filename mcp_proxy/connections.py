"""The connections that Hypercorn serves: let go once their clients have left, and ended at the stop.

Made for Hypercorn 0.18, whose class for a connection is replaced within `own_connections`; there is no other way in.
The listening sockets, and when a stop begins, are `server`'s.
"""

from __future__ import annotations

import asyncio
import fcntl
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from hypercorn.asyncio import run as hypercorn_run
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.events import Event, Updated
from hypercorn.protocol.h2 import H2Protocol

DEAF = 1.0
"""Seconds after which a client that has taken nothing of what waits for it counts as one that does not read."""

_RELIED_ON = ("run", "protocol_send", "_read_data", "_idle_timeout")
"""Of Hypercorn's class for a connection."""


@contextmanager
def own_connections() -> Iterator[Connections]:
    """While the block runs, connections that Hypercorn accepts are these.

    Raises `RuntimeError` when this is not the Hypercorn that it was made for.
    """
    check_hypercorn()
    connections = Connections()
    place: Any = hypercorn_run
    place.TCPServer = partial(Connection, connections)
    try:
        yield connections
    finally:
        place.TCPServer = TCPServer


def check_hypercorn() -> None:
    """Raises `RuntimeError` when Hypercorn lacks what is relied on here."""
    found = getattr(hypercorn_run, "TCPServer", None)
    if found is not TCPServer or not all(hasattr(found, one) for one in _RELIED_ON):
        raise RuntimeError("the class for connections was made for Hypercorn 0.18; this one differs")


class Connections:
    """Those that are open."""

    def __init__(self) -> None:
        self.open: set[Connection] = set()

    async def end(self, seconds: float) -> None:
        """Cut off clients that do not read, and after ``seconds`` all that are left.

        Those that read get their answers meanwhile, and Hypercorn ends the connections that are idle. It would end the
        others by cancelling their tasks, which neither ends a wait for a client nor passes without error messages.
        """
        clock = asyncio.get_running_loop().time
        until = clock() + seconds
        seen: dict[Connection, tuple[int, float]] = {}
        while (now := clock()) < until:
            for one in list(self.open):
                untaken = one.untaken()
                before, since = seen.get(one, (0, now))
                if untaken != before:
                    seen[one] = untaken, now
                elif untaken and now - since >= DEAF:
                    one.abort()
            await asyncio.sleep(min(DEAF / 4, until - now))
        for one in list(self.open):
            one.abort()


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
        self._connections.open.add(self)
        try:
            await super().run()
        finally:
            self._connections.open.discard(self)

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

    def untaken(self) -> int:
        """What its client has not taken: bytes kept here and, where the system tells, in the kernel; and its end, as one.

        With TLS, a client has to confirm the end.
        """
        transport = self.writer.transport
        waiting = transport.get_write_buffer_size() + transport.is_closing()
        with suppress(OSError, ValueError):  # not told, or closed
            told = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
            waiting += int.from_bytes(told, sys.byteorder)
        return waiting

    def abort(self) -> None:
        """End it at once, with what waits for its client."""
        self.writer.transport.abort()
