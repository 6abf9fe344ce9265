"""Reading a whole request body, for handlers that speak plain ASGI. The limit of all requests is `limits`."""

from __future__ import annotations

from mcp_proxy.base.errors import PAYLOAD_TOO_LARGE, REQUEST_TIMEOUT, ProxyError
from mcp_proxy.base.timers import TimeLimit
from mcp_proxy.edge.types import Receive

BODY_SECONDS = 30.0
"""Time that a client has for sending a body."""


class ClientGone(ConnectionAbortedError):
    """The client closed the connection before its request was answered. Nobody is left to be told anything."""


async def read_body(receive: Receive, limit: int) -> bytes:
    """The body, at most ``limit`` bytes. Raises `ProxyError` (payload_too_large) or `ClientGone`."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone("the client left while its request was being read")
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise ProxyError(PAYLOAD_TOO_LARGE, f"the request body is larger than {limit} bytes")
        if not message.get("more_body", False):
            return b"".join((*chunks, chunk)) if chunks else chunk
        chunks.append(chunk)


async def read_body_in_time(receive: Receive, limit: int, seconds: float = BODY_SECONDS) -> bytes:
    """The body, as `read_body` reads it. Raises `ProxyError` (request_timeout) too, when it takes longer."""
    try:
        with TimeLimit(seconds):
            return await read_body(receive, limit)
    except TimeoutError:
        raise ProxyError(REQUEST_TIMEOUT, "the request body did not arrive in time") from None
