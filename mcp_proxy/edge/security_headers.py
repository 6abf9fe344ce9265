"""Headers that keep browsers from doing more with an answer than showing it as data.

An answer that sets one of them itself (a page with its own policy, a cacheable document) keeps its own.
"""

from __future__ import annotations

from collections.abc import Awaitable

from mcp_proxy.edge.types import STARTS, App, Header, Message, Receive, Scope, Send

SECURITY_HEADERS: tuple[Header, ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
_NAMES = frozenset(name for name, _ in SECURITY_HEADERS)
# The handshake of a WebSocket is no document.
_DOCUMENT_STARTS = STARTS - {"websocket.accept"}


class SecurityHeaders:
    """Adds `SECURITY_HEADERS` to every answer that comes from further in."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, with_security_headers(send))


def with_security_headers(send: Send) -> Send:
    """``send`` that completes the headers with which an answer starts."""

    def send_with_headers(message: Message) -> Awaitable[None]:
        if message["type"] in _DOCUMENT_STARTS:
            message = {**message, "headers": _with_security(list(message.get("headers") or ()))}
        return send(message)

    return send_with_headers


def _with_security(headers: list[Header]) -> list[Header]:
    present = {name.lower() for name, _ in headers}
    if _NAMES.isdisjoint(present):
        headers.extend(SECURITY_HEADERS)
    else:
        headers.extend(header for header in SECURITY_HEADERS if header[0] not in present)
    return headers
