"""What the transports hand to the door, and what they get back. No logic."""

from __future__ import annotations

from typing import Protocol

import msgspec

from mcp_proxy.core.auth.principal import Principal
from mcp_proxy.core.upstream.client import Client
from mcp_proxy.gateway.envelope import Headers, Notification, Refusal, Request
from mcp_proxy.gateway.outlet import AskingChannel
from mcp_proxy.gateway.session import Session, Sessions
from mcp_proxy.telemetry.record import RequestRecord


class Asked(msgspec.Struct, frozen=True):
    """One request of a client, whatever its era and transport.

    ``client`` is what is known of it, without a way to it, which is ``channel``. ``session`` is None for modern clients,
    and for legacy ones that came without one: they are answered statelessly. ``headers`` is None on transports that have
    none. ``namespace`` is the server or group of the address, if it names one.
    """

    request: Request
    client: Client
    principal: Principal
    channel: AskingChannel
    record: RequestRecord
    session: Session | None = None
    namespace: str | None = None
    headers: Headers | None = None


class Answer(msgspec.Struct, frozen=True):
    """A whole JSON-RPC response as JSON, and the HTTP status it goes with (200 on transports that have none)."""

    body: bytes
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Door(Protocol):
    """What the transports hand requests to."""

    sessions: Sessions

    async def answer(self, asked: Asked) -> Answer:
        """Serve any request but ``initialize``. Every error is rendered into the answer; only a cancellation leaves."""
        ...

    def introduce(self, asked: Asked) -> tuple[Session | None, Answer]:
        """Serve ``initialize``: the session it opened, or None with the error."""
        ...

    def notified(self, session: Session | None, message: Notification) -> None:
        """Take what a legacy client tells us, cancellation included."""
        ...

    def refuse(self, refusal: Refusal) -> Answer:
        """A refusal as JSON-RPC error response."""
        ...

    def check_namespace(self, name: str, principal: Principal) -> None:
        """Raises `ProxyError` (server_not_found) for a namespace that the caller cannot see."""
        ...
