"""Recent lines of the log, and the lines as they come, for readers inside the process: the source of ``WS /ws``.

Whoever logs is never held up: readers that are behind lose their oldest lines, and are told how many.
What a line says, and that it is redacted, is `logs`; who may read which lines is decided where they are served.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import msgspec

from mcp_proxy.base.json import encode

RECENT = 1000
RECENT_BYTES = 1024 * 1024
WAITING = 2 * RECENT
WAITING_BYTES = 2 * RECENT_BYTES
"""Of one reader: all recent lines, and as much again while it reads those."""


class LogLine(msgspec.Struct, frozen=True):
    """The fields of a line by which it can be chosen; each may be any JSON value, and None where the line lacks it."""

    level: Any = None
    event: Any = None
    server: Any = None
    tool: Any = None
    principal: Any = None


Wanted = Callable[[LogLine], bool]
_read = msgspec.json.Decoder(LogLine).decode


class Backlog:
    """Messages in order, the oldest dropped once they are too many, or too large together."""

    def __init__(self, count: int, size: int) -> None:
        """At most ``count`` messages of ``size`` bytes together."""
        self._limits = count, size
        self._size = 0
        self._messages: deque[bytes] = deque()

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._messages)

    def add(self, *messages: bytes) -> int:
        """Add ``messages``. Returns how many were dropped for them, of themselves too when they are too many or large."""
        count, size = self._limits
        self._messages.extend(messages)
        self._size += sum(map(len, messages))
        dropped = 0
        while self._size > size or len(self._messages) > count:
            self._size -= len(self._messages.popleft())
            dropped += 1
        return dropped

    def take(self) -> bytes:
        """Remove and return the oldest. Raises `IndexError` when there is none."""
        message = self._messages.popleft()
        self._size -= len(message)
        return message

    def clear(self) -> None:
        """Drop them all."""
        self._messages.clear()
        self._size = 0


class Reader:
    """One reader of the feed, in the event loop it was made in. ``wanted`` may be changed at any time."""

    def __init__(self, wanted: Wanted, lock: threading.RLock) -> None:
        self.wanted = wanted
        self._lock = lock
        self._waiting = Backlog(WAITING, WAITING_BYTES)
        self._dropped = 0
        self._ended = False
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._told = False

    def put(self, message: bytes) -> None:
        """Hand the reader a message, from any thread."""
        with self._lock:
            if self._ended:
                return
            self._dropped += self._waiting.add(message)
            if not self._told:
                self._told = True
                with suppress(RuntimeError):  # a loop that has ended has no readers
                    self._loop.call_soon_threadsafe(self._wake)

    async def next(self, seconds: float) -> bytes | None:
        """The next message, or ``lines_dropped`` where some are missing; None at the end.

        Raises `TimeoutError` when there is none for so long.
        """
        while True:
            with self._lock:
                if self._dropped:
                    count, self._dropped = self._dropped, 0
                    return encode({"event": "lines_dropped", "count": count})
                if self._waiting:
                    return self._waiting.take()
                if self._ended:
                    return None
                self._news.clear()
            async with asyncio.timeout(seconds):
                await self._news.wait()

    def end(self, *, at_once: bool = False) -> None:
        """Take nothing more. ``at_once``: nor is what waits handed out any more."""
        with self._lock:
            self._ended = True
            if at_once:
                self._waiting.clear()
                self._dropped = 0
        self._news.set()

    def _wake(self) -> None:
        self._told = False
        self._news.set()


class LogFeed:
    """Takes each line of the log, from any thread, keeps the last ones, and hands them to `Reader`s."""

    def __init__(self) -> None:
        self._recent = Backlog(RECENT, RECENT_BYTES)
        self._readers: set[Reader] = set()
        # Reentrant: a collected object may log while a line is being added.
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"<LogFeed recent={len(self._recent)} readers={len(self._readers)}>"

    def put(self, *lines: bytes) -> None:
        """Take lines of JSON, redacted, each with or without its newline. Neither blocks nor raises."""
        with self._lock:
            self._recent.add(*lines)
            if self._readers:
                for line in lines:
                    self._tell(line)

    def _tell(self, line: bytes) -> None:
        fields = _read(line)
        for reader in list(self._readers):
            if reader.wanted(fields):
                reader.put(line.rstrip(b"\n"))

    @contextmanager
    def reading(self, wanted: Wanted, last: int) -> Iterator[Reader]:
        """A reader of the lines that are ``wanted``, beginning with the ``last`` recent ones of them."""
        reader = Reader(wanted, self._lock)
        with self._lock:
            recent = [line for line in self._recent if wanted(_read(line))]
            for line in recent[len(recent) - last :] if last < len(recent) else recent:
                reader.put(line.rstrip(b"\n"))
            self._readers.add(reader)
        try:
            yield reader
        finally:
            with self._lock:
                self._readers.discard(reader)
