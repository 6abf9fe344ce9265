"""The console end of the log: a stream (stderr) that may be slow, full or gone.

A line that cannot be written is lost and counted, it never raises and never holds up the event loop for long.
What a line says is `logs`; files are `log_files`.
"""

from __future__ import annotations

import os
import select
from typing import TextIO

PATIENCE_MS = 100
"""How long one line waits for a reader that is behind. After one that was lost, the next ones do not wait."""


class LogStream:
    """Writes whole lines of bytes to a text stream, past its buffer where it has a file descriptor."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._fd = _descriptor(stream)
        self._patience = PATIENCE_MS
        self._torn = False
        self.lost = 0
        self._poll = select.poll()
        if self._fd is not None:
            self._poll.register(self._fd, select.POLLOUT)

    def __repr__(self) -> str:
        return f"<LogStream fd={self._fd} lost={self.lost}>"

    def write(self, line: bytes) -> bool:
        """Write one line, its newline included. False: it is lost."""
        stream = self._stream
        written = False
        try:
            if stream is None or stream.closed:
                pass
            elif self._fd is None:
                stream.write(line.decode("utf-8", "replace"))
                stream.flush()
                written = True
            else:
                written = self._to_descriptor(self._fd, line)
        except (OSError, ValueError):
            pass  # A reader that left, a stream closed meanwhile: there is nobody to tell.
        if not written:
            self.lost += 1
        return written

    def _to_descriptor(self, fd: int, line: bytes) -> bool:
        if self._torn:
            line = b"\n" + line
        rest = line
        while rest:
            # After POLLOUT a pipe takes this much without blocking (POSIX PIPE_BUF); more is not promised.
            if not self._poll.poll(self._patience):
                self._patience = 0
                self._torn = self._torn or len(rest) < len(line)
                return False
            rest = rest[os.write(fd, rest[: select.PIPE_BUF]) :]
        self._patience = PATIENCE_MS
        self._torn = False
        return True


def _descriptor(stream: TextIO | None) -> int | None:
    try:
        return None if stream is None else stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None
