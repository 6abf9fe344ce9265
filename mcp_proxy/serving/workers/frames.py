"""What owner and worker say to each other, and its bytes: a length, then MessagePack. Pure; the socket is `channel`'s.

Of ASGI's messages and scopes those keys cross that stand here: what is the server's own (``state``) does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, TypedDict, cast

import msgspec

from mcp_proxy.edge.types import Header, Message, Scope

Level = Literal["debug", "info", "warning", "error"]

_LENGTH = 4


class WireScope(TypedDict, total=False):
    type: str
    asgi: dict[str, str]
    http_version: str
    method: str
    scheme: str
    path: str
    raw_path: bytes
    query_string: bytes
    root_path: str
    headers: list[Header]
    client: tuple[str, int | None] | None
    server: tuple[str, int | None] | None
    subprotocols: list[str]
    extensions: dict[str, dict[str, Any]]


class WireMessage(TypedDict, total=False):
    type: str
    body: bytes
    more_body: bool
    status: int
    headers: list[Header]
    text: str | None
    bytes: bytes | None
    code: int
    reason: str | None
    subprotocol: str | None


class Frame(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """One thing said. ``conversation`` is a number of the worker's, never used twice."""


class Opened(Frame, frozen=True, tag=0):
    """By a worker: somebody asks."""

    conversation: int
    scope: WireScope


class Passed(Frame, frozen=True, tag=1):
    """By either: a message, to be received by the application or sent to the client."""

    conversation: int
    message: WireMessage


class Taken(Frame, frozen=True, tag=2):
    """By either: so many bytes of messages have been passed on, and as many more may come. See `window`."""

    conversation: int
    size: int


class Answered(Frame, frozen=True, tag=3):
    """By the owner: the application has returned."""

    conversation: int


class Dropped(Frame, frozen=True, tag=4):
    """By a worker: nothing more is taken, or heard, of this conversation."""

    conversation: int


class Said(Frame, frozen=True, tag=5):
    """By a worker: a line for the log; ``level`` is a method of `Logger`."""

    level: Level
    event: str
    fields: dict[str, Any]


class Stop(Frame, frozen=True, tag=6):
    """By the owner: let go of all connections, and end."""


class Sign(Frame, frozen=True, tag=7):
    """By the owner: is anybody there? By a worker: yes."""


AnyFrame = Opened | Passed | Taken | Answered | Dropped | Said | Stop | Sign

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(AnyFrame).decode
_SCOPE_KEYS = tuple(WireScope.__annotations__)


def append(buffer: bytearray, frame: AnyFrame) -> None:
    """Write a frame at the end of ``buffer``. Raises `TypeError` or `ValueError`, and writes nothing, for what is none."""
    data = _encode(frame)
    buffer += len(data).to_bytes(_LENGTH, "big")
    buffer += data


class FrameReader:
    """Makes frames of bytes, however these were cut on the way."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def read(self, data: bytes) -> Iterator[AnyFrame]:
        """The frames that are complete with ``data``. Raises `msgspec.DecodeError` for what is none."""
        if self._rest:
            self._rest += data
            data = bytes(self._rest) if self._is_complete() else b""
        start, view = 0, memoryview(data)
        while (begin := start + _LENGTH) <= len(data):
            end = begin + int.from_bytes(view[start:begin], "big")
            if end > len(data):
                break
            yield _decode(view[begin:end])
            start = end
        if data:
            self._rest = bytearray(view[start:])

    def _is_complete(self) -> bool:
        """Whether there is a frame. A long one is looked at once it is here, not with each of its pieces."""
        return len(self._rest) >= _LENGTH + int.from_bytes(self._rest[:_LENGTH], "big")


def wire_scope(scope: Scope) -> WireScope:
    """A scope as it crosses. Of what servers offer beyond the standard, refusing handshakes in HTTP does."""
    found: Any = {key: scope[key] for key in _SCOPE_KEYS if key in scope}
    answers = {key: value for key, value in (scope.get("extensions") or {}).items() if key == "websocket.http.response"}
    found["extensions"] = answers
    return cast(WireScope, found)


def wire_message(message: Message) -> WireMessage:
    """A message of ASGI's, as a type checker sees those that cross."""
    return cast(WireMessage, message)
