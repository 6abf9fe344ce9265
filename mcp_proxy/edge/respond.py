"""Answers that the edge gives by itself: JSON bodies and the one error shape, with the headers that belong to it.

What an error is stands in `base.errors`; answers of the doors are theirs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable

from mcp_proxy.base.errors import INSUFFICIENT_SCOPE, ProxyError
from mcp_proxy.base.json import encode
from mcp_proxy.edge.types import Header, Scope, Send
from mcp_proxy.telemetry.record import SCOPE_KEY, RequestRecord

REALM = "mcp-proxy-api"
Tell = Callable[[Scope, ProxyError, str], tuple[int, bytes, Iterable[Header]]]
"""Status, body and further headers for an error and a request id, in the words that the door's clients know."""
TELL_KEY = "mcp_proxy.tell"
"""Where a scope holds each `Tell` of a door that has an error shape of its own, by the first part of its paths."""
CLOSE: Header = (b"connection", b"close")

# What a quoted parameter of RFC 6750 may not hold: quotes, backslashes, anything but printable ASCII.
_UNQUOTABLE = re.compile(r"[^\x20\x21\x23-\x5b\x5d-\x7e]")


async def send_json(send: Send, status: int, body: bytes, headers: Iterable[Header] = ()) -> None:
    """Send a whole answer whose body is JSON already."""
    start = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": body})


async def send_error(
    send: Send, error: ProxyError, request_id: str, headers: Iterable[Header] = (), *, token_given: bool = False
) -> None:
    """Send ``error`` in the one error shape. ``token_given`` tells a 401 for a bad token from one for none."""
    extra = [*error_headers(error, token_given=token_given), *headers]
    await send_json(send, error.status, encode(error.body(request_id)), extra)


async def refuse(
    scope: Scope, send: Send, error: ProxyError, headers: Iterable[Header] = (), *, token_given: bool = False
) -> None:
    """Answer a request, or the handshake of a WebSocket, with ``error``, and note it in the request's record."""
    record: RequestRecord = scope[SCOPE_KEY]
    record.error = error.kind.type
    if scope["type"] == "http":
        if (tell := scope.get(TELL_KEY, {}).get(scope["path"][1:].partition("/")[0])) is not None:
            status, body, own = tell(scope, error, record.request_id)
            await send_json(send, status, body, [*_challenges(error, token_given), *own, *headers])
        else:
            await send_error(send, error, record.request_id, headers, token_given=token_given)
        return
    if "websocket.http.response" not in (scope.get("extensions") or ()):
        # Nothing but the fact can be said; the server makes a 403 of it.
        await send({"type": "websocket.close", "code": 1008})
        return

    async def send_denial(message: dict[str, object]) -> None:
        await send({**message, "type": f"websocket.{message['type']}"})

    await send_error(send_denial, error, record.request_id, headers, token_given=token_given)  # type: ignore[arg-type]


def closing(scope: Scope) -> tuple[Header, ...]:
    """``Connection: close``, where what the client still sends is not read; HTTP/2 forbids it (RFC 9113 §8.2.2)."""
    return (CLOSE,) if str(scope.get("http_version", "1.1")).startswith("1") else ()


def error_headers(error: ProxyError, *, token_given: bool = False) -> list[Header]:
    """``Retry-After`` (RFC 9110, whole seconds) and ``WWW-Authenticate`` (RFC 6750) as the error asks for them."""
    headers: list[Header] = []
    if error.retry_after is not None:
        headers.append((b"retry-after", str(max(1, math.ceil(error.retry_after))).encode()))
    return headers + _challenges(error, token_given)


def _challenges(error: ProxyError, token_given: bool) -> list[Header]:
    challenge = _challenge(error, token_given)
    return [(b"www-authenticate", challenge.encode("ascii"))] if challenge else []


def _challenge(error: ProxyError, token_given: bool) -> str:
    if error.status == 401:
        plain = f'Bearer realm="{REALM}"'
        return (
            f'{plain}, error="invalid_token", error_description="{_quotable(error.message)}"' if token_given else plain
        )
    if error.kind is INSUFFICIENT_SCOPE:
        needed = (error.details or {}).get("scope")
        words = " ".join(map(str, needed)) if isinstance(needed, (list, tuple, set, frozenset)) else needed
        scope = f', scope="{_quotable(str(words))}"' if words else ""
        return f'Bearer realm="{REALM}", error="insufficient_scope"{scope}'
    return ""


def _quotable(text: str) -> str:
    return _UNQUOTABLE.sub("'", text)
