"""The APIs that the door speaks, as a table: which codec belongs to which path. The codecs are `bridge.wire`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from mcp_proxy.bridge.chat import ChatRequest, ChatResult, Delta
from mcp_proxy.bridge.errors import ChatError


class Frames(Protocol):
    """One answer as server-sent events. All that is returned are whole events, or b""."""

    KEEP_ALIVE: bytes

    def first(self) -> bytes:
        """What may be sent before anything is known of the answer."""
        ...

    def delta(self, delta: Delta) -> bytes:
        """The events that a delta allows to be sent."""
        ...

    def error(self, error: ChatError, request_id: str) -> bytes:
        """The event that tells of a failure; it is the last."""
        ...


class MakeFrames(Protocol):
    def __call__(self, ask: ChatRequest, *, id: str, created: int) -> Frames: ...


class Read(Protocol):
    def __call__(self, body: Mapping[str, Any]) -> ChatRequest: ...


class Whole(Protocol):
    def __call__(self, result: ChatResult, ask: ChatRequest, *, id: str, created: int) -> Mapping[str, Any]: ...


class ErrorBody(Protocol):
    def __call__(self, error: ChatError, request_id: str) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Api:
    """One API. ``prefix`` begins the ids of its answers."""

    name: str
    prefix: str
    read: Read
    whole: Whole
    frames: MakeFrames
    error_body: ErrorBody
