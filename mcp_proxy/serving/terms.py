"""What a server is handed: the seam between the orderly start and stop, which is `server`'s, and who serves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from mcp_proxy.base.clock import Clock
from mcp_proxy.base.ids import IdSource
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.edge.types import App
from mcp_proxy.serving.listeners import Listeners
from mcp_proxy.telemetry.logs import Logger

GRACE = 3.0
"""Seconds that idle connections and streams get once no call is in flight."""
KEEP_ALIVE = 75
"""Seconds that a connection may be idle."""
MAX_HEAD = 64 * 1024
"""Bytes of a request's line and headers."""
MAX_WEBSOCKET_MESSAGE = 64 * 1024
"""Bytes."""


@dataclass(frozen=True, slots=True)
class Serving:
    """One run of a server: it starts the application by its lifespan, and serves until ``until_stopped`` has returned.

    Until then it takes new connections. Then it lets go of all of them within `GRACE` seconds, without error messages,
    and stops the application.
    """

    app: App
    listeners: Listeners
    until_stopped: Callable[[], Awaitable[None]]
    tasks: TaskSet
    log: Logger
    clock: Clock
    ids: IdSource


Serve = Callable[[Serving], Awaitable[None]]
