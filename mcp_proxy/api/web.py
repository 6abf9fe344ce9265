"""The Quart application of the REST door, and the same handlers for servers that speak plain ASGI.

Every route is made by `Routes.add`, from a handler that says which scope it needs; Quart itself decides nothing here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from quart import Quart, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from mcp_proxy.api.messages import REQUEST_LATE, ApiHandler, ApiReply, ApiRequest
from mcp_proxy.base.errors import (
    BAD_REQUEST,
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    PAYLOAD_TOO_LARGE,
    REQUEST_TIMEOUT,
    Kind,
    ProxyError,
)
from mcp_proxy.core.auth.principal import PRINCIPAL_KEY
from mcp_proxy.telemetry.record import SCOPE_KEY, RequestRecord

_STATUS_KINDS: dict[int, Kind] = {404: NOT_FOUND, 405: METHOD_NOT_ALLOWED, 408: REQUEST_TIMEOUT, 413: PAYLOAD_TOO_LARGE}

Render = Callable[[ProxyError, str], ApiReply]
"""Turns an error into an answer (the edge's rendering, so that all errors look alike)."""


class Routes:
    """Adds handlers to a Quart application."""

    def __init__(self, app: Quart, render: Render) -> None:
        self._app = app
        self._render = render
        self.served: list[tuple[str, str]] = []
        """Method and rule of each route that was added."""
        app.register_error_handler(HTTPException, self._http_error)

    def add(self, method: str, rule: str, handler: ApiHandler) -> None:
        """Serve ``method rule`` with ``handler``; parts of the rule arrive as ``params``."""

        async def view(**params: str) -> Response:
            scope = _scope()
            record: RequestRecord = scope[SCOPE_KEY]
            try:
                answer = await handler(
                    ApiRequest(
                        record=record,
                        principal=scope[PRINCIPAL_KEY],
                        body=await _body() if method in ("POST", "PATCH", "PUT") else b"",
                        content_type=request.headers.get("Content-Type", ""),
                        query=request.args,
                        params=params,
                        base_url=request.url_root.rstrip("/"),
                        if_match=request.headers.get("If-Match"),
                        if_none_match=request.headers.get("If-None-Match"),
                    )
                )
            except ProxyError as error:
                answer = self._refused(error, record)
            return _response(answer)

        self.served.append((method, rule))
        self._app.add_url_rule(
            rule, f"{method} {rule}", view, methods=[method], provide_automatic_options=False, strict_slashes=False
        )

    def _refused(self, error: ProxyError, record: RequestRecord) -> ApiReply:
        record.error = error.kind.type
        return self._render(error, record.request_id)

    async def _http_error(self, raised: Any) -> Response:
        """What Quart itself refuses: unknown paths, wrong methods, bodies it cannot take."""
        record: RequestRecord = _scope()[SCOPE_KEY]
        status = raised.code or 500
        kind = _STATUS_KINDS.get(status, BAD_REQUEST)
        messages = {
            404: f"there is nothing at {request.path[:200]}",
            408: REQUEST_LATE,
            405: f"{request.method} is not possible at {request.path[:200]}",
        }
        error = ProxyError(kind, messages.get(status, "the request is not acceptable"), status=status)
        answer = _response(self._refused(error, record))
        if isinstance(raised, MethodNotAllowed) and raised.valid_methods:
            answer.headers["Allow"] = ", ".join(sorted(raised.valid_methods))
        return answer


def _scope() -> dict[str, Any]:
    """The ASGI scope, with what the edge put there."""
    return cast("dict[str, Any]", request.scope)


async def _body() -> bytes:
    data = await request.get_data(cache=False, as_text=False)
    assert isinstance(data, bytes)
    return data


def _response(answer: ApiReply) -> Response:
    response = Response(answer.body, answer.status, content_type="application/json")
    for name, value in answer.headers:
        response.headers[name.decode()] = value.decode()
    if answer.status == 304:
        # They would speak of the document that is not sent (RFC 9110 §8.6).
        for absent in ("Content-Type", "Content-Length"):
            response.headers.pop(absent, None)
    return response
