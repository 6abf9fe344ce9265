"""The record of a request, and its one line in the log. What happens further in fills the record.

When they are opened and closed is `front`, what is in them `telemetry.record`.
"""

from __future__ import annotations

from mcp_proxy.base.clock import Clock
from mcp_proxy.base.ids import IdSource
from mcp_proxy.edge.exchange import Exchange
from mcp_proxy.edge.types import HEADERS_KEY, Scope
from mcp_proxy.telemetry.logs import Logger
from mcp_proxy.telemetry.record import RequestRecord, write_request

CLIENT_GONE = 499
"""Logged, never sent: the client left before its answer was complete."""

_TEXT_LIMIT = 2048


class RequestLog:
    """One line, event ``request``, per HTTP request and per websocket (when it ends)."""

    def __init__(self, *, log: Logger, clock: Clock, ids: IdSource, bodies: bool = False) -> None:
        """``bodies``: whether ``request`` and ``response`` of the record go into the line."""
        self._log = log
        self._clock = clock
        self._ids = ids
        self._bodies = bodies

    def open(self, scope: Scope) -> RequestRecord:
        """The record of a request that begins now."""
        socket = scope["type"] == "websocket"
        client = scope.get("client")
        return RequestRecord(
            request_id=self._ids(),
            method="GET" if socket else scope["method"],
            path=scope["path"][:_TEXT_LIMIT],
            remote_addr=client[0] if client else "",
            user_agent=scope[HEADERS_KEY].get(b"user-agent", b"")[:_TEXT_LIMIT].decode("latin-1"),
            started=self._clock.monotonic(),
            door="ws" if socket else "rest",
        )

    def close(self, record: RequestRecord, exchange: Exchange) -> None:
        """Write the line. The status is the one sent, that of the error that broke it off, or 499."""
        status = exchange.code or 500
        if exchange.gone and not exchange.complete:
            status = CLIENT_GONE
            record.error = record.error or "client_gone"
        write_request(self._log, record, status, now=self._clock.monotonic(), bodies=self._bodies)
