"""How much of a conversation may be on its way between owner and worker: who sends waits once that much has not been
taken at the other end, and so a client that does not read is waited for, as without workers. Pure but for the waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from mcp_proxy.edge.types import Message, Scope
from mcp_proxy.serving.workers.frames import WireMessage, wire_message

WINDOW = 256 * 1024
"""Bytes of one conversation, in each direction."""
PIECE = 64 * 1024
"""Bytes of a body that cross at once, so that long answers do not hold up others."""
_NO_BOUND = 1 << 62
_OVERHEAD = 64
"""What a message counts besides its content: a flood of empty ones has to stop too."""


class Window:
    """What may still be sent. One message may go beyond it, since not all can be divided."""

    __slots__ = ("_room", "left")

    def __init__(self, size: int = WINDOW) -> None:
        self.left = size
        self._room: asyncio.Event | None = None

    async def room(self) -> None:
        """Wait until something may be sent."""
        while self.left <= 0:
            self._room = asyncio.Event()
            await self._room.wait()

    def widen(self, size: int) -> None:
        """So much has been taken."""
        self.left += size
        if self._room is not None and self.left > 0:
            self._room.set()

    def lift(self) -> None:
        """Nobody is to wait any more."""
        self.widen(_NO_BOUND)


class Receipts:
    """Counts what has been taken here. It is said to the other end when it is worth a frame."""

    __slots__ = ("_due",)

    def __init__(self) -> None:
        self._due = 0

    def taken(self, size: int) -> int:
        """Note it; the bytes to be said now, mostly 0."""
        self._due += size
        if self._due < WINDOW // 2:
            return 0
        due, self._due = self._due, 0
        return due


def size_of(message: Message | WireMessage) -> int:
    """What a message counts."""
    content = message.get("body") or message.get("bytes") or message.get("text") or b""
    return len(content) + _OVERHEAD


def pieces(message: Message) -> Iterator[WireMessage]:
    """A message, or the messages in its place that a long body is divided into."""
    body = message.get("body", b"")
    if len(body) <= PIECE:
        yield wire_message(message)
        return
    more = message.get("more_body", False)
    for start in range(0, len(body), PIECE):
        last = start + PIECE >= len(body)
        yield wire_message({**message, "body": body[start : start + PIECE], "more_body": more or not last})


def is_hesitant(scope: Scope) -> bool:
    """Whether the client sends its body once it is told to go on, which a server does when the body is asked for
    (RFC 9110 §10.1.1). Then nothing is asked for until the application does.
    """
    return any(name == b"expect" for name, _ in scope["headers"])
