"""The record of a request and its one line in the log; and the last resort for exceptions that leave the app.

Nothing is further out but `challenges`, which completes what is answered here. What happens further in fills the
`RequestRecord` in the scope.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from mcp_proxy.base.clock import Clock
from mcp_proxy.base.errors import INTERNAL_ERROR, ProxyError
from mcp_proxy.base.ids import IdSource
from mcp_proxy.edge.body import ClientGone
from mcp_proxy.edge.respond import refuse
from mcp_proxy.edge.security_headers import with_security_headers
from mcp_proxy.edge.types import STARTS, App, Header, Message, Receive, Scope, Send
from mcp_proxy.telemetry.logs import Logger
from mcp_proxy.telemetry.record import SCOPE_KEY, RequestRecord, write_request

CLIENT_GONE = 499
"""Logged, never sent: the client left before its answer was complete."""

_TEXT_LIMIT = 2048


class RequestLog:
    """One line, event ``request``, per HTTP request and per websocket (when it ends); ``X-Request-Id`` in answers."""

    def __init__(self, app: App, *, log: Logger, clock: Clock, ids: IdSource, bodies: bool = False) -> None:
        """``bodies``: whether ``request`` and ``response`` of the record go into the line."""
        self._app = app
        self._log = log
        self._clock = clock
        self._ids = ids
        self._bodies = bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        record = _record(scope, self._ids(), self._clock.monotonic())
        exchange = _Exchange(record.request_id, receive, send)
        # A copy, because the layers below take the token out of their scope.
        scope = {**scope, SCOPE_KEY: record}
        try:
            await self._app(scope, exchange.receive, exchange.send)
            if not exchange.started:
                await self._unanswered(scope, exchange, record)
        except asyncio.CancelledError:
            exchange.gone = True
            raise
        except ClientGone:
            exchange.gone = True
        except ProxyError as error:
            record.error = error.kind.type
            await self._answer(scope, exchange, error)
        except Exception as error:  # noqa: BLE001 - boundary: whatever leaves the app is logged and answered here
            await self._failed(scope, exchange, record, error)
        finally:
            self._write(record, exchange.status())
        return None

    async def _unanswered(self, scope: Scope, exchange: _Exchange, record: RequestRecord) -> None:
        if not exchange.gone:
            self._log.error("request_unanswered", request_id=record.request_id, path=record.path)
            await self._answer(scope, exchange, _internal_error())

    async def _failed(self, scope: Scope, exchange: _Exchange, record: RequestRecord, error: Exception) -> None:
        self._log.exception("unhandled_exception", request_id=record.request_id, path=record.path, exc_info=error)
        record.error = INTERNAL_ERROR.type
        await self._answer(scope, exchange, _internal_error())

    async def _answer(self, scope: Scope, exchange: _Exchange, error: ProxyError) -> None:
        """Tell the client, unless an answer has begun: that one then stays incomplete, which the server shows it."""
        if not exchange.started:
            await refuse(scope, with_security_headers(exchange.send), error)
        elif not exchange.complete:
            exchange.code = error.status
            if exchange.accepted and not exchange.gone:  # RFC 6455 §7.4.1: an unexpected condition
                await exchange.send({"type": "websocket.close", "code": 1011, "reason": error.kind.type})
            exchange.complete = True

    def _write(self, record: RequestRecord, status: int) -> None:
        if status == CLIENT_GONE and record.error is None:
            record.error = "client_gone"
        write_request(self._log, record, status, now=self._clock.monotonic(), bodies=self._bodies)


class _Exchange:
    """What is seen of one exchange from outside: its ``receive`` and ``send``, and how far the answer has come."""

    __slots__ = ("_header", "_receive", "_send", "accepted", "code", "complete", "gone", "started")

    def __init__(self, request_id: str, receive: Receive, send: Send) -> None:
        self._header: Header = (b"x-request-id", request_id.encode("latin-1", "replace"))
        self._receive = receive
        self._send = send
        self.code = 0
        self.started = self.accepted = self.complete = self.gone = False

    def status(self) -> int:
        """The status to be logged: the one sent, that of the error that broke it off, or 499."""
        if self.gone and not self.complete:
            return CLIENT_GONE
        return self.code or 500

    async def receive(self) -> Message:
        message = await self._receive()
        kind = message["type"]
        if kind == "http.disconnect":
            self.gone = True
        elif kind == "websocket.disconnect":
            self.gone, self.complete = True, self.accepted
        return message

    def send(self, message: Message) -> Awaitable[None]:
        kind = message["type"]
        if kind in STARTS:
            self.started, self.accepted = True, kind == "websocket.accept"
            self.code = message.get("status", 101)
            message = {**message, "headers": [*(message.get("headers") or ()), self._header]}
        elif kind == "websocket.close":
            self.started = self.complete = True
            self.code = self.code or 403
        elif kind.endswith("response.body"):
            self.complete = not message.get("more_body", False)
        return self._send(message)


def _record(scope: Scope, request_id: str, started: float) -> RequestRecord:
    socket = scope["type"] == "websocket"
    client = scope.get("client")
    return RequestRecord(
        request_id=request_id,
        method="GET" if socket else scope["method"],
        path=scope["path"][:_TEXT_LIMIT],
        remote_addr=client[0] if client else "",
        user_agent=_user_agent(scope["headers"]),
        started=started,
        door="ws" if socket else "rest",
    )


def _user_agent(headers: list[Header]) -> str:
    for name, value in headers:
        if name == b"user-agent":
            return value[:_TEXT_LIMIT].decode("latin-1")
    return ""


def _internal_error() -> ProxyError:
    return ProxyError(INTERNAL_ERROR, "the service failed to answer; its log says why, under this request_id")
