"""Server-sent events, read incrementally. Pure: bytes in, events out.

Source: the WHATWG HTML standard, section "Server-sent events". Comments, CR, LF and CRLF endings, fields over several
lines, and events of any size up to a cap are accepted.
"""

from __future__ import annotations

from dataclasses import dataclass


class EventTooLarge(ValueError):
    """One event is larger than the cap."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event. ``retry`` is in milliseconds; ``id`` is None when the event carries none."""

    data: bytes
    event: str = "message"
    id: str | None = None
    retry: int | None = None


class SseParser:
    """Feed it chunks; it returns the events they complete. Linear in the input, whatever the chunking."""

    def __init__(self, max_event: int) -> None:
        self._max = max_event
        self._buffer = bytearray()
        self._scanned = 0
        self._skip_lf = False
        self._size = 0
        self._first = True
        self._reset()

    def _reset(self) -> None:
        self._data: list[bytes] = []
        self._event = ""
        self._id: str | None = None
        self._retry: int | None = None
        self._size = 0

    def feed(self, chunk: bytes) -> list[Event]:
        """Take the next bytes of the stream. Raises `EventTooLarge`."""
        self._buffer += chunk
        events: list[Event] = []
        while (line := self._next_line()) is not None:
            if not line:
                if (event := self._dispatch()) is not None:
                    events.append(event)
            else:
                self._field(line)
        if self._size + len(self._buffer) > self._max:
            raise EventTooLarge
        return events

    def _next_line(self) -> bytes | None:
        buffer = self._buffer
        if self._skip_lf and buffer:
            if buffer[0] == 0x0A:
                del buffer[:1]
            self._skip_lf = False
        lf = buffer.find(b"\n", self._scanned)
        cr = buffer.find(b"\r", self._scanned, lf if lf >= 0 else len(buffer))
        end = cr if cr >= 0 else lf
        if end < 0:
            self._scanned = len(buffer)
            return None
        line = bytes(memoryview(buffer)[:end])
        self._skip_lf = end == cr
        del buffer[: end + 1]
        self._scanned = 0
        if self._first:
            self._first = False
            line = line.removeprefix(b"\xef\xbb\xbf")
        return line

    def _field(self, line: bytes) -> None:
        self._size += len(line)
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._event = value.decode(errors="replace")
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode(errors="replace")
        elif name == b"retry" and value.isdigit() and len(value) < 10:
            self._retry = int(value)

    def _dispatch(self) -> Event | None:
        if not self._data and self._id is None and self._retry is None:
            self._reset()
            return None
        event = Event(b"\n".join(self._data), self._event or "message", self._id, self._retry)
        self._reset()
        return event
