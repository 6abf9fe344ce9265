"""Web pages of the origins that the operator lists: what their browsers must be told before pages may call and read.

Source: the Fetch standard, CORS protocol. That a foreign Origin is refused at all is `addresses`. There are no cookies,
nor other credentials that a browser adds by itself, so ``Access-Control-Allow-Credentials`` is never sent.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Iterable, Mapping

from mcp_proxy.edge.types import HEADERS_KEY, App, Header, Receive, Scope, Send

METHODS = b"GET, POST, PATCH, DELETE"
EXPOSED = b"mcp-session-id, www-authenticate, x-request-id, retry-after, etag"
MAX_AGE = b"7200"
"""Seconds that a browser remembers a preflight. It costs nothing: the request itself is judged again."""

_MAX_ASKED = 4096
"""Bytes of header names that are repeated."""
_NAMES = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:[ \t]*,[ \t]*[!#$%&'*+.^_`|~0-9A-Za-z-]+)*")


class CorsHeaders:
    """Lets pages of listed origins read every answer, errors and streams included."""

    def __init__(self, origins: Iterable[str]) -> None:
        """``origins`` as browsers write them."""
        self._origins = frozenset(origin.encode("ascii") for origin in origins)

    def answering(self, scope: Scope) -> tuple[Header, ...]:
        """What the answer to ``scope`` has of them, whatever it is."""
        if scope["type"] != "http":
            return ()
        vary = (b"vary", b"Origin")  # in all answers, so that no cache gives one page the answer to another
        named = [value for name, value in scope["headers"] if name == b"origin"]
        if len(named) != 1 or named[0] not in self._origins:
            return (vary,)
        return vary, (b"access-control-allow-origin", named[0]), (b"access-control-expose-headers", EXPOSED)


class Preflight:
    """Answers preflights, at every door and path, of the origins that `addresses` lets in. Other requests go on."""

    def __init__(self, app: App) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        asked = scope[HEADERS_KEY] if scope["type"] == "http" and scope["method"] == "OPTIONS" else {}
        if b"origin" not in asked or b"access-control-request-method" not in asked:
            return self._app(scope, receive, send)
        return _allow(asked, send)


async def _allow(asked: Mapping[bytes, bytes], send: Send) -> None:
    headers = [(b"access-control-allow-methods", METHODS), (b"access-control-max-age", MAX_AGE)]
    names = asked.get(b"access-control-request-headers", b"")
    # Whatever is the name of a header: those of MCP's parameters (``mcp-param-…``) are not known beforehand.
    if len(names) <= _MAX_ASKED and _NAMES.fullmatch(names):
        headers.append((b"access-control-allow-headers", names))
    if asked.get(b"access-control-request-private-network") == b"true":
        headers.append((b"access-control-allow-private-network", b"true"))
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
