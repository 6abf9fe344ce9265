"""Which doors tell errors in words of their own: what the edge refuses in front of them is told in these too.

The words are the doors'; who uses them is `respond`. Outermost, so that nothing is refused before.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping

from mcp_proxy.edge.respond import TELL_KEY, Tell
from mcp_proxy.edge.types import App, Receive, Scope, Send


class Telling:
    """Puts the `Tell` of a door into the scopes of its requests. ``doors`` are by the first part of paths, as ``v1``."""

    def __init__(self, app: App, doors: Mapping[str, Tell]) -> None:
        self._app = app
        self._doors = dict(doors)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http" and (tell := self._doors.get(scope["path"][1:].partition("/")[0])) is not None:
            scope = {**scope, TELL_KEY: tell}
        return self._app(scope, receive, send)
