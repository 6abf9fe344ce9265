"""The socket between owner and worker: frames in both directions, one write for all that is said in one turn of the loop.

What frames mean is `relay`'s and `conversations`'.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from mcp_proxy.serving.workers.frames import AnyFrame, FrameReader, append


class Channel(asyncio.Protocol):
    """One end. What is said before it is connected, or after its end, is lost."""

    def __init__(self, on_frame: Callable[[AnyFrame], None], on_lost: Callable[[], None]) -> None:
        """``on_lost`` is called once, when nothing can be said or heard any more."""
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._reader = FrameReader()
        self._unsent = bytearray()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._lost = asyncio.Event()

    async def connect(self, sock: socket.socket) -> None:
        """Take over one end of a pair of sockets. Frames may come before this has returned."""
        await self._loop.create_unix_connection(lambda: self, sock=sock)

    def send(self, frame: AnyFrame) -> None:
        """Say it, in order."""
        if self._transport is None:
            return
        if not self._unsent:
            self._loop.call_soon(self._flush)
        append(self._unsent, frame)

    async def finish(self) -> None:
        """Hang up once everything has been said."""
        self._flush()
        if self._transport is not None:
            self._transport.close()
            await self._lost.wait()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        for frame in self._reader.read(data):
            self._on_frame(frame)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._lost.set()
        self._on_lost()

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, bytearray()
        if unsent and self._transport is not None:
            self._transport.write(unsent)
