"""What every request meets first, and its answer last: here it gets its record, and whatever leaves the app is answered.

The rules that may refuse it stand further in, each a layer of its own; their order is `stack`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import MappingProxyType

from mcp_proxy.base.errors import INTERNAL_ERROR, ProxyError
from mcp_proxy.edge.body import ClientGone
from mcp_proxy.edge.challenges import Challenges
from mcp_proxy.edge.cors import CorsHeaders
from mcp_proxy.edge.exchange import Exchange
from mcp_proxy.edge.request_log import RequestLog
from mcp_proxy.edge.respond import TELL_KEY, Tell, refuse
from mcp_proxy.edge.types import HEADERS_KEY, App, Header, Receive, Scope, Send
from mcp_proxy.telemetry.logs import Logger
from mcp_proxy.telemetry.record import SCOPE_KEY, RequestRecord


class Front:
    """Hands requests to ``layers``, with a `RequestRecord` in their scope, and all else to ``app``."""

    def __init__(
        self,
        layers: App,
        app: App,
        *,
        log: Logger,
        requests: RequestLog,
        challenges: Challenges,
        cors: CorsHeaders | None = None,
        telling: Mapping[str, Tell] = MappingProxyType({}),
    ) -> None:
        """``telling``: doors that have their own words for errors, by the first part of paths, as ``v1``."""
        self._layers = layers
        self._app = app
        self._log = log
        self._requests = requests
        self._challenges = challenges
        self._cors = cors
        self._telling = telling

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        # A copy, because the layers below take the token out of their scope.
        scope = {**scope, HEADERS_KEY: dict(reversed(scope["headers"])), TELL_KEY: self._telling}
        record = scope[SCOPE_KEY] = self._requests.open(scope)
        added: tuple[Header, ...] = ((b"x-request-id", record.request_id.encode("latin-1", "replace")),)
        if self._cors is not None:
            added += self._cors.answering(scope)
        exchange = Exchange(scope, receive, send, added, self._challenges)
        try:
            await self._layers(scope, exchange.receive, exchange.send)
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
            self._requests.close(record, exchange)
        return None

    async def _unanswered(self, scope: Scope, exchange: Exchange, record: RequestRecord) -> None:
        if not exchange.gone:
            self._log.error("request_unanswered", request_id=record.request_id, path=record.path)
            await self._answer(scope, exchange, _internal_error())

    async def _failed(self, scope: Scope, exchange: Exchange, record: RequestRecord, error: Exception) -> None:
        self._log.exception("unhandled_exception", request_id=record.request_id, path=record.path, exc_info=error)
        record.error = INTERNAL_ERROR.type
        await self._answer(scope, exchange, _internal_error())

    async def _answer(self, scope: Scope, exchange: Exchange, error: ProxyError) -> None:
        """Tell the client, unless an answer has begun: that one then stays incomplete, which the server shows it."""
        if not exchange.started:
            await refuse(scope, exchange.send, error)
        elif not exchange.complete:
            exchange.code = error.status
            if exchange.accepted and not exchange.gone:  # RFC 6455 §7.4.1: an unexpected condition
                await exchange.send({"type": "websocket.close", "code": 1011, "reason": error.kind.type})
            exchange.complete = True


def _internal_error() -> ProxyError:
    return ProxyError(INTERNAL_ERROR, "the service failed to answer; its log says why, under this request_id")
