"""The headers of one HTTP request, as far as the MCP transports go by them, read in one pass. What they mean is theirs."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from mcp_proxy.gateway.accept import Accepts, accepted
from mcp_proxy.gateway.envelope import Headers


class Head(msgspec.Struct, frozen=True):
    """``mcp`` has the ``mcp-`` headers; ``content_type`` is as it stands, None where there is none."""

    mcp: Headers
    accepts: Accepts
    content_type: bytes | None


def read_head(headers: Iterable[tuple[bytes, bytes]]) -> Head:
    """From an ASGI scope's headers, whose names are in lower case."""
    mcp = Headers()
    accept = b""
    content_type = None
    for name, value in headers:
        if name[:4] == b"mcp-":
            key = name.decode("latin-1")
            if key in mcp:
                mcp.repeated |= {key}
            else:
                mcp[key] = value.decode("latin-1")
        elif name == b"accept":
            accept = accept + b"," + value if accept else value
        elif name == b"content-type" and content_type is None:
            content_type = value
    return Head(mcp, accepted(accept), content_type)
