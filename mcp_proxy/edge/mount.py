"""Routes answered at the ASGI layer, in front of the web framework: the hot calls and the doors that stream.

Knows no door: handlers are handed in. Where the framework has a route to the same handler, both ways answer alike.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from mcp_proxy.edge.types import App, Receive, Scope, Send

Handler = Callable[[Scope, Receive, Send], Awaitable[None]]


class Mount:
    """Sends exact (method, path) pairs, and all that lies under a prefix, to their handlers; the rest to the app.

    The method of a WebSocket's handshake is ``WS`` here, so that nothing takes one for a GET.
    ``under`` maps the first part of paths, such as ``/mcp``: its handler gets that path and all below it, whatever the
    method.
    """

    def __init__(
        self, app: App, exact: Mapping[tuple[str, str], Handler], under: Mapping[str, Handler] | None = None
    ) -> None:
        self._app = app
        self._exact = dict(exact)
        self._under = dict(under or {})

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        handler: Handler | None = None
        if scope["type"] == "http":
            path: str = scope["path"]
            handler = self._exact.get((scope["method"], path)) or self._under.get(_first_part(path))
        elif scope["type"] == "websocket":
            handler = self._exact.get(("WS", scope["path"]))
        return (handler or self._app)(scope, receive, send)


def _first_part(path: str) -> str:
    """``/mcp`` of ``/mcp/math``."""
    end = path.find("/", 1)
    return path if end < 0 else path[:end]
