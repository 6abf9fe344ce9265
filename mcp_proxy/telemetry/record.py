"""The record of one request: filled along the way, written as one line when the request ends (by the edge)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SCOPE_KEY = "mcp_proxy.record"
"""Where the edge keeps the record in the ASGI scope."""


@dataclass(slots=True)
class RequestRecord:
    """What is known of a request so far. ``started`` is monotonic seconds; ``path`` never holds a query."""

    request_id: str
    method: str
    path: str
    remote_addr: str
    user_agent: str
    started: float
    door: str = "rest"
    principal: str | None = None
    tool: str | None = None
    server: str | None = None
    error: str | None = None
    request: Any = None
    response: Any = None
