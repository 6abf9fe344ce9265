"""Log files (``--log-dir``): ``latest.jsonl``, and older ones named by the time they were closed.

Bounded in size and number. A failure is reported once and costs the line, never the request.
"""

from __future__ import annotations

import os
import re
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

from mcp_proxy.base.clock import Clock

MAX_BYTES = 16 * 1024 * 1024
MAX_FILES = 10
"""All files together, ``latest.jsonl`` included."""

_ROTATED = re.compile(r"latest-(\d{8}T\d{6}Z)(?:-(\d+))?\.jsonl")


class LogFiles:
    """Appends lines; one writer process a directory. ``on_error`` is told the first failure."""

    def __init__(
        self,
        directory: Path,
        *,
        clock: Clock,
        on_error: Callable[[OSError], None],
        max_bytes: int = MAX_BYTES,
        max_files: int = MAX_FILES,
    ) -> None:
        self._directory = directory
        self._latest = directory / "latest.jsonl"
        self._clock = clock
        self._on_error = on_error
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._reported = False
        self._size = 0
        self._fd: int | None = None
        self._closer: Callable[[], object] | None = None
        # Libraries log from threads too.
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<LogFiles {self._latest} size={self._size} open={self._fd is not None}>"

    def write(self, line: bytes) -> None:
        """Append one line, its newline included. Never raises."""
        failure = None
        with self._lock:
            try:
                if self._fd is not None and self._size and self._size + len(line) > self._max_bytes:
                    self._rotate()
                fd = self._open() if self._fd is None else self._fd
                self._size += os.write(fd, line)
            except OSError as error:
                failure, self._reported = (None if self._reported else error), True
        # Outside the lock: the report is a log line itself and comes by here again.
        if failure is not None:
            self._on_error(failure)

    def close(self) -> None:
        """Close the file; a later line opens it again."""
        with self._lock:
            self._close()

    def _open(self) -> int:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self._latest, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._fd = fd
        self._closer = weakref.finalize(self, os.close, fd)
        os.fchmod(fd, 0o600)  # A file that was there before may be open to others.
        self._size = os.fstat(fd).st_size
        return fd

    def _close(self) -> None:
        if self._closer is not None:
            self._closer()
        self._fd = self._closer = None

    def _rotate(self) -> None:
        self._close()
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._clock.time()))
        target, number = self._directory / f"latest-{stamp}.jsonl", 0
        while target.exists():
            number += 1
            target = self._directory / f"latest-{stamp}-{number}.jsonl"
        self._latest.rename(target)
        for path in self._rotated()[: -(self._max_files - 1) or None]:
            path.unlink(missing_ok=True)

    def _rotated(self) -> list[Path]:
        """Closed files, oldest first; nothing else in the directory is touched."""
        found = [
            (match[1], int(match[2] or 0), path)
            for path in self._directory.iterdir()
            if (match := _ROTATED.fullmatch(path.name))
        ]
        return [path for _, _, path in sorted(found)]
