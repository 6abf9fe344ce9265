"""The answer to what cannot be read as a request, in bytes: no application sees it. All other errors are `edge.respond`'s."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

from mcp_proxy.base.errors import ProxyError
from mcp_proxy.base.json import encode
from mcp_proxy.edge.respond import CLOSE
from mcp_proxy.edge.security_headers import SECURITY_HEADERS
from mcp_proxy.edge.types import Header


def refusal(error: ProxyError, request_id: str, headers: Iterable[Header]) -> bytes:
    """A whole answer in HTTP/1.1, in the one error shape, after which the connection ends."""
    body = encode(error.body(request_id))
    fields: list[Header] = [
        *headers,
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", request_id.encode("latin-1", "replace")),
        *SECURITY_HEADERS,
        CLOSE,
    ]
    line = f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n".encode()
    return b"".join([line, *(b"%b: %b\r\n" % field for field in fields), b"\r\n", body])
