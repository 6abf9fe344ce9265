"""The largest request body of all doors. What a body costs once it is read (depth, numbers) is `base.json`."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Mapping
from types import MappingProxyType

from mcp_proxy.base.errors import BAD_REQUEST, PAYLOAD_TOO_LARGE, ProxyError
from mcp_proxy.edge.respond import closing, refuse
from mcp_proxy.edge.types import HEADERS_KEY, App, Message, Receive, Scope, Send


class BodyLimit:
    """Refuses bodies over ``limit`` bytes: by what Content-Length says, else by counting while they are read.

    ``other``: limits of paths by how these begin, such as ``/v1/``.
    """

    def __init__(self, app: App, *, limit: int, other: Mapping[str, int] = MappingProxyType({})) -> None:
        self._app = app
        self._limit = limit
        self._other = tuple(other.items())
        self._least = min((limit, *other.values()))

    def _limit_of(self, scope: Scope) -> int:
        return next((most for start, most in self._other if scope["path"].startswith(start)), self._limit)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http":
            headers = scope[HEADERS_KEY]
            if b"content-length" in headers:
                # The server reads no further than the length says, so that its word is enough.
                if (error := self._judge(scope)) is not None:
                    return refuse(scope, send, error, closing(scope))
            # HTTP/1 has no body without a length or an encoding; of these two methods nearly none has one.
            elif b"transfer-encoding" in headers or scope["method"] not in ("GET", "HEAD") or not _http1(scope):
                return self._counted(scope, receive, send)
        return self._app(scope, receive, send)

    def _judge(self, scope: Scope) -> ProxyError | None:
        """The reason to refuse a body by the length that is declared, or None."""
        headers, named = scope["headers"], scope[HEADERS_KEY]
        length: bytes = named[b"content-length"]
        several = len(named) < len(headers) and [name for name, _ in headers].count(b"content-length") > 1
        if several or not length.isdigit():
            return ProxyError(BAD_REQUEST, "Content-Length is not one number")
        size = int(length) if len(length) <= 18 else math.inf
        if size <= self._least:
            return None
        limit = self._limit_of(scope)
        return _too_large(limit) if size > limit else None

    async def _counted(self, scope: Scope, receive: Receive, send: Send) -> None:
        size = 0
        started = False
        limit = self._limit_of(scope)

        async def receive_counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > limit:
                raise _TooLarge(PAYLOAD_TOO_LARGE, _too_large(limit).message)
            return message

        def send_noted(message: Message) -> Awaitable[None]:
            nonlocal started
            started = True
            return send(message)

        try:
            await self._app(scope, receive_counted, send_noted)
        except _TooLarge as error:
            if started:
                raise
            await refuse(scope, send, error, closing(scope))


class _TooLarge(ProxyError):
    """Leaves ``receive`` inside the app. A `ProxyError`, so that a door may also answer it in its own shape."""


def _too_large(limit: int) -> ProxyError:
    return ProxyError(PAYLOAD_TOO_LARGE, f"the request body is larger than {limit} bytes")


def _http1(scope: Scope) -> bool:
    return str(scope.get("http_version", "1.1")).startswith("1")
