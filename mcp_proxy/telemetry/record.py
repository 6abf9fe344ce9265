"""The record of one request: filled along the way, written as one line when the request ends (by the edge, or the stdio door)."""

from __future__ import annotations

from typing import Any

import msgspec

from mcp_proxy.telemetry.logs import Logger

SCOPE_KEY = "mcp_proxy.record"
"""Where the edge keeps the record in the ASGI scope."""


class RequestRecord(msgspec.Struct):
    """What is known of a request so far. ``started`` is monotonic seconds; ``path`` never holds a query."""

    request_id: str
    method: str
    path: str
    remote_addr: str
    user_agent: str
    started: float
    door: str = "rest"
    principal: str | None = None
    rpc_method: str | None = None
    """The JSON-RPC method, at the doors that speak MCP over HTTP; ``method`` is HTTP's."""
    tool: str | None = None
    server: str | None = None
    error: str | None = None
    request: Any = None
    response: Any = None


def write_request(log: Logger, record: RequestRecord, status: int, *, now: float, bodies: bool) -> None:
    """The one line of a request, event ``request``, the same at every door.

    ``now`` is monotonic; ``bodies`` adds ``request`` and ``response``.
    """
    more: dict[str, Any] = {}
    if record.rpc_method is not None:
        more["rpc_method"] = record.rpc_method
    if bodies:
        if record.request is not None:
            more["request"] = record.request
        if record.response is not None:
            more["response"] = record.response
    write = log.info if status < 500 else log.error if status == 500 else log.warning
    write(
        "request",
        request_id=record.request_id,
        method=record.method,
        path=record.path,
        status_code=status,
        execution_time_ms=round((now - record.started) * 1000, 2),
        remote_addr=record.remote_addr,
        user_agent=record.user_agent,
        principal=record.principal,
        door=record.door,
        tool=record.tool,
        server=record.server,
        error=record.error,
        **more,
    )
