"""What can go wrong between us and an upstream, as values the call path decides on.

Library exceptions end here: wires raise only `WireError` and `RpcError`. What the caller is told is `core.calls`' business.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any


class Phase(StrEnum):
    """How far a request got. Only ``NOT_SENT`` proves that the upstream has not executed it."""

    NOT_SENT = "not_sent"
    SENT = "sent"
    STREAMING = "streaming"


class Failure(StrEnum):
    """Why there is no answer."""

    UNREACHABLE = "unreachable"
    """No connection: name, refusal, TLS, a process that does not start."""
    LOST = "lost"
    """The connection ended before the answer was complete."""
    TIMEOUT = "timeout"
    BAD_REPLY = "bad_reply"
    """The upstream broke the protocol."""
    TOO_LARGE = "too_large"
    SESSION_LOST = "session_lost"
    """The upstream does not know our legacy session (any more), and so has not executed the request."""
    BUSY = "busy"
    """HTTP 429 or 503."""
    HTTP = "http"
    """Another HTTP status without a JSON-RPC answer."""
    RESTING = "resting"
    """Our own breaker did not let the request out."""
    FULL = "full"
    """Our own bulkhead had no place for the request."""


class Attempt:
    """One try at a request; the wire notes here how far it got, so that a time-out or cancellation can tell.

    ``forwarded``: something of what came before the answer has reached the client.
    """

    __slots__ = ("forwarded", "phase")

    def __init__(self) -> None:
        self.phase = Phase.NOT_SENT
        self.forwarded = False


class WireError(Exception):
    """No JSON-RPC answer. The text is for people and holds nothing the upstream sent."""

    def __init__(
        self,
        failure: Failure,
        phase: Phase,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.failure = failure
        self.phase = phase
        self.message = message
        self.status = status
        self.retry_after = retry_after


class RpcError(Exception):
    """The upstream answered with a JSON-RPC error. ``data`` is decoded JSON or None."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.data = data
