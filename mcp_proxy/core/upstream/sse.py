"""Server-sent events, read incrementally. Pure: bytes in, events out.

Source: the WHATWG HTML standard, section "Server-sent events". Comments, CR, LF and CRLF endings, fields over several
lines, and events of any size up to a cap are accepted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mcp_proxy.core.upstream.framing import EDGE, Overlong


class EventTooLarge(ValueError):
    """One event is larger than the cap."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event. ``retry`` is in milliseconds; ``id`` is None when the event carries none."""

    data: bytes
    event: str = "message"
    id: str | None = None
    retry: int | None = None
    overlong: Overlong | None = None
    """The two ends of an event over the cap, which was dropped; ``data`` is empty then."""


class SseParser:
    """Feed it chunks; it yields the events they complete. Linear in the input, whatever the chunking.

    An event over ``max_event`` bytes is the end (`EventTooLarge`) where the stream serves one request; where many share
    it, ``skip_overlong`` drops that event alone, as it comes.
    """

    def __init__(self, max_event: int, *, skip_overlong: bool = False) -> None:
        self._max = max_event
        self._skip_overlong = skip_overlong
        self._partial: list[bytes] = []
        self._partial_size = 0
        self._skip_lf = False
        self._first = True
        self._reset()

    def _reset(self) -> None:
        self._data: list[bytes] = []
        self._event = ""
        self._id: str | None = None
        self._retry: int | None = None
        self._size = 0
        self._head: bytes | None = None
        self._tail = b""

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Take the next bytes of the stream. Raises `EventTooLarge`, after the events that came before."""
        for line in self._lines(chunk):
            if not line:
                if (event := self._dispatch()) is not None:
                    yield event
            elif self._head is not None or self._size + len(line) > self._max:
                self._overflow(line)
            else:
                self._field(line)
        if self._head is not None or self._size + self._partial_size > self._max:
            # What is kept of the line marks it as begun.
            whole = b"".join(self._partial)
            self._partial = [whole[-EDGE:]] if whole else []
            self._partial_size = len(whole[-EDGE:])
            self._overflow(whole)

    def _overflow(self, text: bytes) -> None:
        """The event is too large: keep its ends, forget the rest."""
        if not self._skip_overlong:
            raise EventTooLarge
        if self._head is None:
            so_far = b"\n".join(self._data) or text.removeprefix(b"data:").removeprefix(b" ")
            self._head = so_far[:EDGE]
            self._data = []
        self._tail = (self._tail + text)[-EDGE:]

    def _lines(self, chunk: bytes) -> list[bytes]:
        """The lines that the chunk completes; the rest is kept for the next one."""
        if self._skip_lf and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._skip_lf = False
        if not chunk:
            return []
        self._skip_lf = chunk.endswith(b"\r")
        # Looking for single bytes from the end is quick; splitting what may be a quarter of a megabyte of one line is not.
        end = max(chunk.rfind(b"\n"), chunk.rfind(b"\r")) + 1
        lines, rest = chunk[:end].splitlines(), chunk[end:]
        if lines:
            lines[0] = b"".join((*self._partial, lines[0]))
            self._partial, self._partial_size = [], 0
            if self._first:
                self._first = False
                lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
        if rest:
            self._partial.append(rest)
            self._partial_size += len(rest)
        return lines

    def _field(self, line: bytes) -> None:
        if line.startswith(b":"):
            return  # a comment; servers send them to keep the stream alive, and they add up to nothing
        self._size += len(line)
        name, value = _parted(line)
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._event = value.decode(errors="replace")
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode(errors="replace")
        elif name == b"retry" and value.isdigit() and len(value) < 10:
            self._retry = int(value)

    def _dispatch(self) -> Event | None:
        if self._head is not None:
            event = Event(b"", self._event or "message", overlong=Overlong(self._head, self._tail))
            self._reset()
            return event
        if not self._data and self._id is None and self._retry is None:
            self._reset()
            return None
        event = Event(b"\n".join(self._data), self._event or "message", self._id, self._retry)
        self._reset()
        return event


def _parted(line: bytes) -> tuple[bytes, bytes]:
    """Name and value of a field. One copy of the value, which may be a megabyte, where `partition` would take two."""
    colon = line.find(b":")
    if colon < 0:
        return line, b""
    return line[:colon], line[colon + (2 if line.startswith(b" ", colon + 1) else 1) :]
