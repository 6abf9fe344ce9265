"""What is noted of each call, once, whatever door it came through. Where it goes is up to the sink."""

from __future__ import annotations

from typing import Protocol

import msgspec

from mcp_proxy.telemetry.logs import Logger


class AuditEvent(msgspec.Struct, frozen=True):
    """One call. ``outcome`` is ``ok``, ``tool_error``, ``cancelled`` or the error's type; arguments and results are not in it."""

    request_id: str
    principal: str
    door: str
    tool: str
    server: str | None
    outcome: str
    attempts: int
    seconds: float
    method: str = "tools/call"


class AuditSink(Protocol):
    """Takes events. Must not block and must not raise."""

    def record(self, event: AuditEvent) -> None: ...


class LogAudit:
    """Writes a ``tool_call`` line at level DEBUG (the request's own line is the edge's)."""

    def __init__(self, log: Logger) -> None:
        self._log = log

    def record(self, event: AuditEvent) -> None:
        """See `AuditSink.record`."""
        self._log.debug(
            "tool_call",
            request_id=event.request_id,
            principal=event.principal,
            door=event.door,
            rpc_method=event.method,
            tool=event.tool,
            server=event.server,
            outcome=event.outcome,
            attempts=event.attempts,
            execution_time_ms=round(event.seconds * 1000, 2),
        )
