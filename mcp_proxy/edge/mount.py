"""Routes answered at the ASGI layer, in front of the web framework: the hot calls, behind the same edge.

Knows no door: handlers are handed in. The framework has a route to the same handler, so both ways answer alike.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from mcp_proxy.edge.types import App, Receive, Scope, Send

Handler = Callable[[Scope, Receive, Send], Awaitable[None]]


class Mount:
    """Sends exact (method, path) pairs to their handlers and everything else to the app."""

    def __init__(self, app: App, handlers: Mapping[tuple[str, str], Handler]) -> None:
        self._app = app
        self._handlers = dict(handlers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            handler = self._handlers.get((scope["method"], scope["path"]))
            if handler is not None:
                return await handler(scope, receive, send)
        return await self._app(scope, receive, send)
