"""The console end of the log: a stream (stderr) that may be slow, full or gone.

A line that cannot be written is lost and counted, it never raises and never holds up the event loop for long.
What a line says is `logs`, when it is written `log_output`; files are `log_files`.
"""

from __future__ import annotations

import os
import select
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import accumulate
from typing import TextIO

PATIENCE_MS = 100
"""How long lines wait for a reader that is behind. After some that were lost, the next ones do not wait."""


class LogStream:
    """Writes whole lines of bytes to a text stream, past its buffer where it has a file descriptor."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._fd = _descriptor(stream)
        self._poll = None if self._fd is None else _poll(self._fd)
        self._patience = PATIENCE_MS
        self._torn = False
        self.lost = 0

    def __repr__(self) -> str:
        return f"<LogStream fd={self._fd} lost={self.lost}>"

    @property
    def has_descriptor(self) -> bool:
        """Whether what is written goes to the system at once."""
        return self._fd is not None

    def write(self, *lines: bytes) -> bool:
        """Write lines, each with its newline. False: the last of them, at least, is lost."""
        written = False
        for piece in (lines,) if self._poll is None else _pieces(lines):
            written = self._write(piece)
        return written

    def _write(self, lines: Sequence[bytes]) -> bool:
        if self._torn and self._take(b"\n"):
            self._torn = False
        data = b"".join(lines)
        taken = 0 if self._torn else self._take(data)
        if taken == len(data):
            return True
        ends = [0, *accumulate(map(len, lines))]
        self.lost += sum(end > taken for end in ends)
        self._torn = self._torn or taken not in ends
        return False

    def _take(self, data: bytes) -> int:
        """Write what the stream takes now, or soon; returns how many bytes that was."""
        if self._stream is None or self._stream.closed:
            return 0
        if self._fd is not None:
            return self._to_descriptor(self._fd, data)
        try:
            self._stream.write(data.decode("utf-8", "replace"))
            self._stream.flush()
        except (OSError, ValueError):
            return 0
        return len(data)

    def _to_descriptor(self, fd: int, data: bytes) -> int:
        taken = 0
        try:
            while taken < len(data):
                if self._poll is None:
                    taken += os.write(fd, data[taken:])
                elif self._poll.poll(self._patience):
                    # After POLLOUT a pipe takes this much without blocking (POSIX PIPE_BUF); more is not promised.
                    taken += os.write(fd, data[taken : taken + select.PIPE_BUF])
                else:
                    self._patience = 0
                    return taken
            self._patience = PATIENCE_MS
        except OSError:
            pass  # A reader that left, a full disk: there is nobody to tell.
        return taken


def _descriptor(stream: TextIO | None) -> int | None:
    try:
        return None if stream is None else stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None


def _poll(fd: int) -> select.poll | None:
    """What tells whether ``fd`` takes something; None where nobody reads on the other side who could be behind."""
    with suppress(OSError):
        kind = os.fstat(fd)
        if stat.S_ISREG(kind.st_mode) or os.path.samestat(kind, os.stat(os.devnull)):
            return None
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return poll


def _pieces(lines: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Lines as many as a pipe takes whole, or not at all, in one write; a longer line is a piece of its own."""
    first = size = 0
    for place, line in enumerate(lines):
        if place > first and size + len(line) > select.PIPE_BUF:
            yield lines[first:place]
            first, size = place, 0
        size += len(line)
    yield lines[first:]
