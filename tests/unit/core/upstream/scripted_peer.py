"""A server on loopback that sends bytes as scripted, so that HTTP clients are tested by what comes and in which pieces."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import cast

PROBE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nprobe"
"""The answer to every request but those that are scripted."""
_TURNS = 3
"""Turns of the event loop between two pieces: enough for the other side, which runs in the same loop, to read one."""


class Ending(StrEnum):
    """What becomes of the connection after the last scripted byte."""

    KEEP = "keep"
    CLOSE = "close"
    HALF = "half"
    """Only our direction is closed."""
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class Script:
    """``pieces`` are sent one by one as soon as the request's head is there (``early``) or all of it."""

    pieces: tuple[bytes, ...]
    ending: Ending = Ending.KEEP
    early: bool = False


class ScriptedPeer:
    """An asynchronous context manager. Requests for ``/probe`` always get the same good answer.

    ``scripted``: how many of the others get the script; after those they get the good answer as well.
    """

    def __init__(
        self, script: Script, scripted: int = 1, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
    ) -> None:
        self.script = script
        self.scripted = scripted
        self.requests: list[bytes] = []
        self.connections: list[PeerConnection] = []
        self.asked = asyncio.Event()
        """A request has come."""
        self._host = host
        self._tls = tls
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        assert isinstance(port, int)
        return port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> ScriptedPeer:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: PeerConnection(self), self._host, 0, ssl=self._tls)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for connection in self.connections:
            connection.stop()
        await asyncio.sleep(0)

    async def played(self) -> None:
        """Wait until all that is scripted has been sent, and could be read."""
        for connection in self.connections:
            if connection.playing is not None:
                await connection.playing
        await turns()

    async def deserted(self) -> None:
        """Wait until no connection is left."""
        for connection in self.connections:
            await connection.lost.wait()


class PeerConnection(asyncio.Protocol):
    """One connection of a `ScriptedPeer`."""

    def __init__(self, peer: ScriptedPeer) -> None:
        self.playing: asyncio.Task[None] | None = None
        self.lost = asyncio.Event()
        self._peer = peer
        self._received = b""
        self._answered_early = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._peer.connections.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()

    def stop(self) -> None:
        if self.playing is not None:
            self.playing.cancel()
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, rest = self._received.partition(b"\r\n\r\n")
            if self._peer.script.early and not self._answered_early and not head.startswith(b"POST /probe"):
                self._answered_early = True
                self._play()
            length = _length(head)
            if len(rest) < length:
                return
            self._received = rest[length:]
            self._take(head + b"\r\n\r\n" + rest[:length])

    def _take(self, request: bytes) -> None:
        self._peer.requests.append(request)
        self._peer.asked.set()
        if self._answered_early:
            self._answered_early = False
        elif b"/probe" in request.partition(b"\r\n")[0] or self._peer.scripted <= 0:
            self.transport.write(PROBE)
        else:
            self._peer.scripted -= 1
            self._play()

    def _play(self) -> None:
        self.playing = asyncio.get_running_loop().create_task(self._send(self._peer.script))

    async def _send(self, script: Script) -> None:
        for piece in script.pieces:
            if self.transport.is_closing():
                return
            self.transport.write(piece)
            await turns()
        if script.ending is Ending.CLOSE:
            self.transport.close()
        elif script.ending is Ending.HALF:
            self.transport.write_eof()
        elif script.ending is Ending.RESET:
            reset(self.transport)


async def turns() -> None:
    for _ in range(_TURNS):
        await asyncio.sleep(0)


def reset(transport: asyncio.Transport) -> None:
    """Close with RST instead of FIN."""
    found = transport.get_extra_info("socket")
    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
    return 0
