"""Results and errors as a client of each era expects them, as JSON-RPC. Pure.

What an upstream answered passes as it is, apart from what one hop says to the next.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mcp_proxy.base.errors import (
    INSUFFICIENT_SCOPE,
    INTERNAL_ERROR,
    RESOURCE_NOT_FOUND,
    ProxyError,
)
from mcp_proxy.base.json import Fields, JsonError, Raw, decode_fields, encode
from mcp_proxy.base.protocol import INVALID_PARAMS, LEGACY_RESOURCE_NOT_FOUND, META_SERVER_INFO
from mcp_proxy.core.calls import UpstreamRefusal
from mcp_proxy.core.upstream.client import PROXY_INFO
from mcp_proxy.core.upstream.terms import Era
from mcp_proxy.edge.respond import error_headers
from mcp_proxy.gateway.asked import Answer
from mcp_proxy.gateway.envelope import Refusal, RequestId, http_status

_CACHED = frozenset(
    {"resources/read", "tools/list", "prompts/list", "resources/list", "resources/templates/list", "server/discover"}
)
"""Methods whose modern results say how long they may be kept (server/utilities/caching)."""
_HOP_FIELDS = frozenset({"resultType", "ttlMs", "cacheScope"})
_OF_ONE_HOP = _HOP_FIELDS | {"_meta"}
"""Where something of one hop may be."""
_PRIVATE = Raw(b'"private"')
_OWN_META = Raw(encode({META_SERVER_INFO: PROXY_INFO}))
_OWN_INFO = Raw(encode(PROXY_INFO))
_REST_HINT = re.compile(r"; (?:GET|POST|PUT|PATCH|DELETE) /(\S*) [^;'\"]*\Z")
_SAME_HERE = {"tools/list": "; tools/list lists them"}
"""Addresses of the REST door that name what is a method of MCP, too."""


def result(request_id: RequestId, fields: Mapping[str, Any], method: str, era: Era) -> Answer:
    """A result, of an upstream's or our own, for a client of that era."""
    shaped = _modern(fields, method) if era is Era.MODERN else _legacy(fields)
    return Answer(encode({"jsonrpc": "2.0", "id": request_id, "result": shaped}))


def _modern(fields: Mapping[str, Any], method: str) -> dict[str, Any]:
    shaped = dict(fields)
    shaped.setdefault("resultType", "complete")
    if method in _CACHED:
        shaped.setdefault("ttlMs", 0)
        # Who may see it is decided here, for each caller; nobody in between may keep it for others.
        shaped["cacheScope"] = _PRIVATE
    meta = shaped.get("_meta")
    shaped["_meta"] = _OWN_META if meta is None else {**_opened(meta), META_SERVER_INFO: _OWN_INFO}
    return shaped


def _legacy(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    if _OF_ONE_HOP.isdisjoint(fields):
        return fields
    shaped = {name: value for name, value in fields.items() if name not in _HOP_FIELDS}
    if "_meta" in shaped:
        meta = {name: value for name, value in _opened(shaped["_meta"]).items() if name != META_SERVER_INFO}
        if meta:
            shaped["_meta"] = meta
        else:
            del shaped["_meta"]
    return shaped


def _opened(meta: Any) -> Fields | dict[str, Any]:
    if isinstance(meta, dict):
        return meta
    try:
        return decode_fields(meta)
    except JsonError:
        return {}


def refusal(refused: Refusal, request_id: RequestId | None = None) -> Answer:
    """A request that is not served as it stands."""
    return _error(
        request_id if refused.id is None else refused.id, refused.code, refused.message, refused.data, refused.status
    )


def error(request_id: RequestId, failure: ProxyError, era: Era, trace: str, method: str = "") -> Answer:
    """A failure of a request of that method. ``trace`` is the request's id in the log."""
    if isinstance(failure, UpstreamRefusal):
        answer = failure.answer
        # A legacy server's word for an unknown resource, which the modern era has another for (server/resources).
        unknown = method == "resources/read" and answer.code == LEGACY_RESOURCE_NOT_FOUND and era is Era.MODERN
        code = INVALID_PARAMS if unknown else answer.code
        return _error(request_id, code, answer.message, answer.data, http_status(code) if era is Era.MODERN else 200)
    code = failure.kind.rpc_code
    if failure.kind is RESOURCE_NOT_FOUND and era is Era.LEGACY:
        code = LEGACY_RESOURCE_NOT_FOUND
    data: dict[str, Any] = {"type": failure.kind.type, "request_id": trace, **(failure.details or {})}
    if failure.retry_after is not None:
        data["retry_after"] = failure.retry_after
    if failure.kind is INSUFFICIENT_SCOPE:
        return _error(request_id, code, said(failure), data, 403, tuple(error_headers(failure)))
    return _error(request_id, code, said(failure), data, http_status(code) if era is Era.MODERN else 200)


def said(failure: ProxyError) -> str:
    """The message of an error, for a client that speaks MCP.

    Messages end with what to do next, and are written for the REST door: an address there is of no use to a client
    that has only methods, so that it becomes the method that does the same, or is left out.
    """
    return _REST_HINT.sub(lambda found: _SAME_HERE.get(found[1], ""), failure.message)


def fault(request_id: RequestId, trace: str) -> Answer:
    """Our own bug."""
    text = "the service failed to answer; its log says why, under this request_id"
    return _error(request_id, INTERNAL_ERROR.rpc_code, text, {"type": INTERNAL_ERROR.type, "request_id": trace}, 500)


def tool_failure(request_id: RequestId, failure: ProxyError, era: Era) -> Answer:
    """A failure as a tool result, for what the calling model can mend itself (server/tools, Error Handling)."""
    fields = {"content": [{"type": "text", "text": said(failure)}], "isError": True}
    return result(request_id, fields, "tools/call", era)


def _error(
    request_id: RequestId | None,
    code: int,
    message: str,
    data: Any,
    status: int,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> Answer:
    body: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        body["data"] = data
    return Answer(encode({"jsonrpc": "2.0", "id": request_id, "error": body}), status, headers)


def notification(method: str, params: Any = None) -> bytes:
    """A notification for a client."""
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    if params is not None:
        message["params"] = params
    return encode(message)
