"""Which paths belong to which door, which of them are management, and what each port serves of them.

The tables are plain predicates. Who may call what is decided behind the doors; a path that is not served here is
answered as one that does not exist.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from urllib.parse import urlparse

from mcp_proxy.base.errors import NOT_FOUND, ProxyError
from mcp_proxy.edge.respond import refuse
from mcp_proxy.edge.types import App, Receive, Scope, Send

_DOORS = {"mcp": "mcp", "sse": "sse", "messages": "sse", "hook": "mcp", "v1": "llm", "ws": "ws"}
"""The door by the first part of a path; all others are REST's."""

_ALWAYS = frozenset({"", "health", ".well-known"})
"""First parts of paths that belong to no door: the front page, probes, and what clients look for before they know any."""

_READING = frozenset({"GET", "HEAD"})
_MANAGEMENT: tuple[tuple[tuple[str, ...], bool], ...] = (
    (("servers",), False),
    (("api", "instances"), False),
    (("api", "config"), True),
    (("api", "tokens"), True),
    (("ws",), True),
)
"""First parts of paths, and whether reading them is management too. Any other method than reading always is.

That is what needs servers:write, logs:read or admin, and the configuration, which tells callers of tools nothing.
"""


def door_of(path: str) -> str | None:
    """The door that a path belongs to; None: it is served whatever the doors."""
    first = _parts(path)[0]
    return None if first in _ALWAYS else _DOORS.get(first, "rest")


def is_management(method: str, path: str) -> bool:
    """Whether a request is for the port of the administrators, where there is one."""
    parts = _parts(path)
    return any(
        parts[: len(start)] == start and (all_of_it or method not in _READING) for start, all_of_it in _MANAGEMENT
    )


def is_probe(path: str) -> bool:
    """Whether a path is one of those that every port serves: the health of the process."""
    return _parts(path)[0] == "health"


def serves(method: str, path: str, *, doors: Collection[str], admin: bool | None) -> bool:
    """Whether there is anything for a request, as far as doors and ports decide that.

    ``doors`` are those that are on. ``admin``: whether this is the port of the administrators; None: there is none.
    """
    door = door_of(path)
    if door is not None and door not in doors:
        return False
    return admin is None or is_probe(path) or is_management(method, path) is admin


class Doors:
    """Answers 404 to what is not served, or not on the port that it came to."""

    def __init__(self, app: App, doors: Collection[str], admin_port: Callable[[], int | None]) -> None:
        """``admin_port`` is asked for every request: the port may be known only once it is listened on."""
        self._app = app
        self._doors = frozenset(doors)
        self._admin_port = admin_port

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        method, path = scope.get("method", "GET"), scope["path"]
        if not serves(method, path, doors=self._doors, admin=self._is_admin(scope)):
            return refuse(scope, send, ProxyError(NOT_FOUND, f"there is nothing at {path[:200]}"))
        return self._app(scope, receive, send)

    def _is_admin(self, scope: Scope) -> bool | None:
        port = self._admin_port()
        if port is None:
            return None
        # What does not say where it arrived is not taken for the port that is kept apart.
        server = scope.get("server")
        return server is not None and server[1] == port


def _parts(path: str) -> tuple[str, ...]:
    """The parts of a path, ("",) for the front page.

    Read as by what answers behind this, or another way of writing a path would get past: empty parts do not count, and
    a request line may hold a whole URL (RFC 9112 §3.2.2), which Quart takes apart with the same function.
    """
    if not path.startswith("/"):
        path = urlparse(path).path
    return tuple(part for part in path.split("/") if part) or ("",)
