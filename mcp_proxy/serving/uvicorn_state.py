"""What all connections of one run of `uvicorn_server` share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from email.utils import formatdate

from uvicorn.server import ServerState

from mcp_proxy.base.clock import Clock
from mcp_proxy.base.ids import IdSource
from mcp_proxy.edge.types import Header
from mcp_proxy.telemetry.logs import Logger

TakeOver = Callable[[asyncio.Transport, bytes], None]
"""Goes on with a connection, and with what was read from it already."""


class State(ServerState):
    """uvicorn's, with what our connections need besides."""

    def __init__(self, *, log: Logger, clock: Clock, ids: IdSource) -> None:
        super().__init__()
        self.log = log
        self.ids = ids
        self._clock = clock
        self._second = -1
        self.http2: TakeOver | None = None
        """Who goes on with a connection that turns out to speak HTTP/2, if anybody can."""

    def headers(self) -> list[Header]:
        """``Date``, which every answer has (RFC 9110 §6.6.1). Formatted once a second."""
        if (second := int(self._clock.time())) != self._second:
            self._second = second
            self.default_headers = [(b"date", formatdate(second, usegmt=True).encode())]
        return self.default_headers
