"""Where finished lines go: to the stream, the files and the live log, those of one turn of the event loop together.

A system call for every line would be a good part of what a small request costs. What a line says is `logs`; what becomes
of lines that a stream or a file does not take is said there (`log_stream`, `log_files`).
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Callable

from mcp_proxy.telemetry.log_feed import LogFeed
from mcp_proxy.telemetry.log_files import LogFiles
from mcp_proxy.telemetry.log_stream import LogStream

Line = tuple[bytes, bytes]
"""As the stream shows it, and as JSON for files and live log (empty where there are none); each with its newline."""


class LogOutput:
    """Takes lines from any thread and writes them in the order in which they came.

    A line that is logged in an event loop waits for the end of its turn; at most until the next one that is not, or
    until the process ends. All others are written at once: from threads, and before and after the loop.
    """

    def __init__(self, stream: LogStream, on_lost: Callable[[int], None]) -> None:
        """``on_lost`` is told how many lines were lost, when the stream takes lines again."""
        self.files: LogFiles | None = None
        self.feed: LogFeed | None = None
        self._stream = stream
        self._on_lost = on_lost
        self._waiting: list[Line] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        """That will write what waits, in the thread of this number."""
        self._thread = 0
        # Reentrant: a collected object may log while lines are written. They follow then.
        self._lock = threading.RLock()
        self._writing = False
        # Without a descriptor there is no system call to be saved, and nothing waits.
        self._gathers = stream.has_descriptor
        if self._gathers:
            atexit.register(self.flush)

    def write(self, line: Line) -> None:
        """Take one line."""
        self._waiting.append(line)
        if not self._gathers:
            return self.flush()
        if self._loop is not None and self._thread == threading.get_ident() and self._loop.is_running():
            return None  # Most lines of a busy service.
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            return self.flush()
        self._thread = threading.get_ident()
        self._loop.call_soon(self.flush)
        return None

    def flush(self) -> None:
        """Write what waits."""
        self._loop = None
        with self._lock:
            if self._writing:
                return
            self._writing = True
            try:
                while self._waiting:
                    lines = self._waiting[:]  # Whoever logs meanwhile appends behind these.
                    del self._waiting[: len(lines)]
                    self._write(lines)
            finally:
                self._writing = False

    def _write(self, lines: list[Line]) -> None:
        kept = [line for _, line in lines if line]
        if self.files is not None:
            self.files.write(*kept)
        if self.feed is not None:
            self.feed.put(*kept)
        if self._stream.write(*[line for line, _ in lines]) and self._stream.lost:
            lost, self._stream.lost = self._stream.lost, 0
            self._on_lost(lost)
