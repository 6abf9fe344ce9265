"""Newline framing for stdio: bytes in, lines out, with a cap. Pure.

A line over the cap is dropped as it comes, without being kept, and reported with its two ends: enough to tell whose
answer it was.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

EDGE = 160
"""Bytes that are kept of either end of something overlong."""
_HEAD_ID = re.compile(rb'^\s*\{\s*"jsonrpc"\s*:\s*"2\.0"\s*,\s*"id"\s*:\s*(\d{1,18})\s*,\s*"(?:result|error)"\s*:')
_HEAD_ANSWER = re.compile(rb'^\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"(?:result|error)"\s*:')
_TAIL_ID = re.compile(rb'\}\s*,\s*"jsonrpc"\s*:\s*"2\.0"\s*,\s*"id"\s*:\s*(\d{1,18})\s*\}\s*$')


@dataclass(frozen=True, slots=True)
class Overlong:
    """A line that was over the cap: its first and last bytes."""

    head: bytes
    tail: bytes

    def reply_id(self) -> int | None:
        """The id of the answer this line was, where its place shows that it is the message's own.

        None for the upstream's own requests as well: their ids are not ours.
        """
        found = _HEAD_ID.match(self.head)
        if found is None and _HEAD_ANSWER.match(self.head):
            found = _TAIL_ID.search(self.tail)
        return int(found.group(1)) if found else None


def broken_reply_id(line: bytes) -> int | None:
    """The id of the answer that a line which is no JSON was meant to be, where its place shows that."""
    return Overlong(line[:EDGE], line[-EDGE:]).reply_id()


class LineFramer:
    """Feed it chunks; it returns the lines they complete, without line ends. Empty lines are skipped."""

    def __init__(self, max_line: int) -> None:
        self._max = max_line
        self._parts: list[bytes] = []
        self._size = 0
        self._head: bytes | None = None
        self._tail = b""

    def feed(self, chunk: bytes) -> list[bytes | Overlong]:
        """Take the next bytes; linear in the input."""
        lines: list[bytes | Overlong] = []
        start = 0
        # Not `split`, which looks at every byte for itself: many times slower where lines are long.
        while (end := chunk.find(b"\n", start)) >= 0:
            self._add(chunk[start:end])
            if (line := self._finish()) is not None:
                lines.append(line)
            start = end + 1
        self._add(chunk[start:])
        return lines

    def _add(self, piece: bytes) -> None:
        if not piece:
            return
        if self._head is None and self._size + len(piece) <= self._max:
            self._parts.append(piece)
            self._size += len(piece)
            return
        if self._head is None:
            whole = b"".join(self._parts)
            self._head = (whole + piece[:EDGE])[:EDGE]
            self._tail = whole[-EDGE:]
            self._parts, self._size = [], 0
        self._tail = (self._tail + piece[-EDGE:])[-EDGE:]

    def _finish(self) -> bytes | Overlong | None:
        if self._head is not None:
            line: bytes | Overlong = Overlong(self._head, self._tail)
            self._head = None
            return line
        whole = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts, self._size = [], 0
        return whole.rstrip(b"\r") or None
