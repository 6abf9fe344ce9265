"""Reading a whole request body, for handlers that speak plain ASGI. The limit of all requests is `limits`."""

from __future__ import annotations

from mcp_proxy.base.errors import PAYLOAD_TOO_LARGE, ProxyError
from mcp_proxy.edge.types import Receive


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
