"""A stream of messages towards a client: what is put in leaves in order, and a client that does not read loses its stream.

Knows neither HTTP nor pipes: the transports write what `Outlet.next` gives them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

BACKLOG = 1024
"""Messages that may wait for a client that reads slowly."""
BACKLOG_BYTES = 8 * 1024 * 1024


class Channel(Protocol):
    """The way to a client while one of its requests is being served, ahead of the answer."""

    def send(self, message: bytes) -> bool:
        """Hand on a notification or a request of ours; False when the client cannot be reached this way."""
        ...


class AskingChannel(Channel, Protocol):
    """A `Channel` by which a client can be asked, too: what it is asked may be large."""

    async def room_for(self, message: bytes) -> None:
        """Wait until ``message`` can be sent without its reader being taken for slow, or never can be."""
        ...


class NoChannel:
    """The `Channel` of clients that take nothing but the answer."""

    def send(self, message: bytes) -> bool:
        """See `Channel.send`."""
        return False

    async def room_for(self, message: bytes) -> None:
        """See `AskingChannel.room_for`."""


class Outlet:
    """A bounded queue with one reader. An `AskingChannel`."""

    def __init__(self) -> None:
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self.closed = False
        self.overrun = False
        """Whether it was closed because its reader was too slow."""

    def __repr__(self) -> str:
        return f"<Outlet {len(self._waiting)} waiting{' closed' if self.closed else ''}>"

    def send(self, message: bytes) -> bool:
        """See `Channel.send`. A reader that is too far behind loses the stream, not single messages."""
        if self.closed:
            return False
        if not self._fits(message):
            self.overrun = True
            self._waiting.clear()
            self.close()
            return False
        self._put(message)
        return True

    async def send_patiently(self, message: bytes) -> bool:
        """Like `send`, but waits for room: for answers, which may be large, and of which the sender bounds the number."""
        await self.room_for(message)
        if self.closed:
            return False
        self._put(message)
        return True

    async def room_for(self, message: bytes) -> None:
        """See `AskingChannel.room_for`."""
        while not (self.closed or self._fits(message)):
            self._room.clear()
            await self._room.wait()

    def _fits(self, message: bytes) -> bool:
        """A single message may be of any size, and says nothing of how fast those behind it are read."""
        if not self._waiting:
            return True
        behind = self._size - len(self._waiting[0])
        return len(self._waiting) < BACKLOG and behind + len(message) <= BACKLOG_BYTES

    def _put(self, message: bytes) -> None:
        self._waiting.append(message)
        self._size += len(message)
        self._wake.set()

    def close(self) -> None:
        """No more messages; those that wait are still given out."""
        self.closed = True
        self._wake.set()
        self._room.set()

    async def next(self, seconds: float | None = None) -> bytes | None:
        """The next message; None when the outlet is closed and empty. Raises `TimeoutError` after ``seconds`` without one."""
        while not self._waiting:
            if self.closed:
                return None
            self._wake.clear()
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        message = self._waiting.popleft()
        self._size -= len(message)
        self._room.set()
        return message
