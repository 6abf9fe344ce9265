"""What a REST handler gets and gives: values without a web framework, so that any server can call it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import msgspec

from mcp_proxy.base.errors import BAD_REQUEST, UNAUTHORIZED, UNPROCESSABLE, UNSUPPORTED_MEDIA_TYPE, ProxyError
from mcp_proxy.base.json import JsonError, encode, read_strict
from mcp_proxy.core.auth.principal import Principal, Scope
from mcp_proxy.core.calls import require
from mcp_proxy.telemetry.record import RequestRecord


class ApiRequest(msgspec.Struct):
    """One request. ``body`` is b"" where there is none; ``params`` come from the path, ``query`` from the URL.

    ``base_url`` is scheme, host and mount point as the client wrote them, without a slash at the end.
    """

    record: RequestRecord
    principal: Principal | None
    body: bytes = b""
    content_type: str = ""
    query: Mapping[str, str] = msgspec.field(default_factory=dict)
    params: Mapping[str, str] = msgspec.field(default_factory=dict)
    base_url: str = ""
    if_match: str | None = None
    """The ``If-Match`` header, where there is one."""
    if_none_match: str | None = None
    """The ``If-None-Match`` header, where there is one."""

    def caller(self, scope: Scope) -> Principal:
        """Who calls, holding ``scope``. Raises `ProxyError` (401 without a token, 403 without the scope)."""
        if self.principal is None:
            raise ProxyError(
                UNAUTHORIZED, "a token is needed: send Authorization: Bearer TOKEN (mcp-proxy-api token makes one)"
            )
        require(self.principal, scope)
        return self.principal

    def json_object(self, *, optional: bool = False) -> dict[str, Any]:
        """The body as one JSON object. Raises `ProxyError` (415, 400 with the reason)."""
        if not self.body:
            # Without a body there is nothing that could be called JSON or not.
            if optional:
                return {}
            raise ProxyError(BAD_REQUEST, "the body is empty: a JSON object is needed")
        kind = self.content_type.partition(";")[0].strip().lower()
        if kind not in ("application/json", "application/merge-patch+json"):
            raise ProxyError(UNSUPPORTED_MEDIA_TYPE, "the body must be JSON: send Content-Type: application/json")
        try:
            value = read_strict(self.body)
        except JsonError as error:
            raise ProxyError(BAD_REQUEST, f"the body is not acceptable JSON: {error}") from None
        if not isinstance(value, dict):
            raise ProxyError(BAD_REQUEST, "the body must be a JSON object")
        return value


class ApiReply(msgspec.Struct, frozen=True):
    """One answer. The body is JSON, unless ``headers`` have a ``content-type`` of their own."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


BODY_TIMEOUT = 30
"""Seconds that a client has for sending a body."""
REQUEST_LATE = "the request body did not arrive in time"

ApiHandler = Callable[[ApiRequest], Coroutine[Any, Any, ApiReply]]


def reply(value: Any, status: int = 200) -> ApiReply:
    """An answer from a JSON value; raw parts are spliced."""
    return ApiReply(status, encode(value))


def only_fields(body: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    """Refuse fields that mean nothing: a misspelt one would otherwise be ignored. Raises `ProxyError` (422)."""
    for name in body:
        if name not in allowed:
            raise ProxyError(
                UNPROCESSABLE,
                f"unknown field {name[:64]!r}; accepted: {', '.join(allowed)}",
                details={"field": name[:64]},
            )


def string_field(body: Mapping[str, Any], name: str, *, required: bool = False) -> str | None:
    """A string of the body. Raises `ProxyError` (400) naming the field."""
    value = body.get(name)
    if value is None and not required:
        return None
    if not isinstance(value, str) or not value:
        raise ProxyError(BAD_REQUEST, f"{name} must be a non-empty string", details={"field": name})
    return value
