"""Log files (``--log-dir``): ``latest.jsonl``, and older ones named by the time they were closed.

Bounded in size and number. A failure is reported once and costs the line, never the request.
"""

from __future__ import annotations

import os
import re
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
    """Appends lines, for one thread at a time; one writer process a directory. ``on_error`` is told the first failure."""

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
        self._closer: weakref.finalize[[int], LogFiles] | None = None

    def __repr__(self) -> str:
        return f"<LogFiles {self._latest} size={self._size} open={self._fd is not None}>"

    def write(self, *lines: bytes) -> None:
        """Append lines, each with its newline. Never raises."""
        together = b"".join(lines)
        try:
            for data in (together,) if self._size + len(together) <= self._max_bytes else lines:
                self._append(data)
        except OSError as error:
            if not self._reported:
                self._reported = True
                self._on_error(error)

    def close(self) -> None:
        """Close the file; a later line opens it again."""
        if self._closer is not None:
            self._closer()
        self._fd = self._closer = None

    def _append(self, data: bytes) -> None:
        if self._fd is not None and self._size and self._size + len(data) > self._max_bytes:
            self._rotate()
        fd = self._open() if self._fd is None else self._fd
        while data:
            written = os.write(fd, data)
            self._size += written
            data = data[written:]

    def _open(self) -> int:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self._latest, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._fd = fd
        self._closer = weakref.finalize(self, os.close, fd)
        self._closer.atexit = False  # The last lines come as late as that; the end closes it anyway.
        os.fchmod(fd, 0o600)  # A file that was there before may be open to others.
        self._size = os.fstat(fd).st_size
        return fd

    def _rotate(self) -> None:
        self.close()
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
