"""Every error a caller can see: one table of kinds, one exception that carries them.

A kind fixes the ``type`` word, the HTTP status and the JSON-RPC code; doors only render it.
Exceptions of libraries are turned into these at the seam where they occur, never further up,
and their text stays in the log: the message here is written for the caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Kind:
    """One row of the error table. JSON-RPC codes of our own lie outside -32768...-32000."""

    type: str
    status: int
    rpc_code: int


BAD_REQUEST = Kind("bad_request", 400, -32600)
INVALID_ARGUMENTS = Kind("invalid_arguments", 400, -32602)
UNAUTHORIZED = Kind("unauthorized", 401, -31010)
INSUFFICIENT_SCOPE = Kind("insufficient_scope", 403, -31011)
ORIGIN_NOT_ALLOWED = Kind("origin_not_allowed", 403, -31012)
COMMAND_NOT_ALLOWED = Kind("command_not_allowed", 403, -31018)
NOT_FOUND = Kind("not_found", 404, -32601)
TOOL_NOT_FOUND = Kind("tool_not_found", 404, -32602)
RESOURCE_NOT_FOUND = Kind("resource_not_found", 404, -32602)
SERVER_NOT_FOUND = Kind("server_not_found", 404, -32602)
METHOD_NOT_ALLOWED = Kind("method_not_allowed", 405, -32601)
NOT_ACCEPTABLE = Kind("not_acceptable", 406, -32600)
AMBIGUOUS_TOOL = Kind("ambiguous_tool", 409, -32602)
CONFLICT = Kind("conflict", 409, -31013)
REQUEST_TIMEOUT = Kind("request_timeout", 408, -32600)
PAYLOAD_TOO_LARGE = Kind("payload_too_large", 413, -32600)
UNSUPPORTED_MEDIA_TYPE = Kind("unsupported_media_type", 415, -32600)
UNKNOWN_HOST = Kind("unknown_host", 421, -31014)
UNPROCESSABLE = Kind("unprocessable", 422, -32602)
URL_NOT_ALLOWED = Kind("url_not_allowed", 422, -32602)
INPUT_REQUIRED = Kind("input_required", 422, -31015)
RATE_LIMITED = Kind("rate_limited", 429, -31016)
INTERNAL_ERROR = Kind("internal_error", 500, -32603)
UPSTREAM_ERROR = Kind("upstream_error", 502, -31006)
RESULT_TOO_LARGE = Kind("result_too_large", 502, -31005)
OUTCOME_UNKNOWN = Kind("outcome_unknown", 502, -31004)
UPSTREAM_UNAVAILABLE = Kind("upstream_unavailable", 503, -31001)
OVERLOADED = Kind("overloaded", 503, -31003)
DRAINING = Kind("draining", 503, -31008)
TIMEOUT = Kind("timeout", 504, -31002)
CANCELLED = Kind("cancelled", 499, -31017)

KINDS: tuple[Kind, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Kind))
"""Every kind, in the order of the table (documentation and tests walk it)."""


class ProxyError(Exception):
    """Something the caller is told.

    ``status`` overrides the kind's HTTP status where the contract gives one kind two (``outcome_unknown``
    is 502 or 504). ``details`` is JSON data for the caller. ``retry_after`` is in seconds.
    """

    def __init__(
        self,
        kind: Kind,
        message: str,
        *,
        status: int | None = None,
        details: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.status = kind.status if status is None else status
        self.details = details
        self.retry_after = retry_after

    def body(self, request_id: str) -> dict[str, Any]:
        """The one JSON error shape of every HTTP door."""
        error: dict[str, Any] = {
            "message": self.message,
            "code": self.status,
            "type": self.kind.type,
            "request_id": request_id,
        }
        if self.details is not None:
            error["details"] = dict(self.details)
        return {"error": error}


class StartError(Exception):
    """The program cannot start as configured. Its text is one line that says what to do."""
