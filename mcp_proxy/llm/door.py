"""The LLM door as an ASGI application under ``/v1``: which paths there are, and who may come.

A completion is `completing`; what requests and answers look like is in `apis`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mcp_proxy.base.errors import ProxyError
from mcp_proxy.base.json import JsonError, encode, read_strict
from mcp_proxy.bridge.errors import (
    BAD_REQUEST,
    FORBIDDEN,
    METHOD_NOT_ALLOWED,
    MODEL_NOT_FOUND,
    NOT_FOUND,
    UNAUTHORIZED,
    ChatError,
)
from mcp_proxy.bridge.routes import Routes
from mcp_proxy.core.auth.principal import PRINCIPAL_KEY, Principal
from mcp_proxy.core.auth.principal import Scope as Right
from mcp_proxy.edge.body import read_body_in_time
from mcp_proxy.edge.respond import send_json
from mcp_proxy.edge.types import Header, Receive, Scope, Send
from mcp_proxy.llm.answer import failure_headers, send_failure
from mcp_proxy.llm.apis import Api
from mcp_proxy.llm.completing import Completing, read_question
from mcp_proxy.llm.refusals import told
from mcp_proxy.telemetry.record import SCOPE_KEY, RequestRecord

Describe = Callable[[str, int], Mapping[str, Any]]
"""What ``/v1/models`` says of a model: its name, and since when it is there (Unix time)."""


@dataclass(frozen=True, slots=True)
class Models:
    """How models are listed."""

    listed: Callable[[tuple[str, ...], int], Mapping[str, Any]]
    one: Describe


class LlmDoor:
    """Serves the LLM APIs."""

    def __init__(
        self,
        completing: Completing,
        routes: Routes,
        apis: Mapping[str, Api],
        *,
        counting: Mapping[str, tuple[Api, Callable[[Any], int]]],
        models: Models,
        fallback: Api,
        standing: Callable[[], list[Header]],
        since: int,
        max_body: int,
    ) -> None:
        """``apis`` and ``counting`` are by path; ``fallback`` is spoken where the path tells nothing.

        ``standing`` says how the service stands, in headers; ``since`` is Unix time.
        """
        self._completing = completing
        self._routes = routes
        self._apis = apis
        self._counting = counting
        self._models = models
        self._fallback = fallback
        self._standing = standing
        self._since = since
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        record: RequestRecord = scope[SCOPE_KEY]
        record.door = "llm"
        api = self._api(scope)
        try:
            await self._served(scope, receive, send, record)
        except ChatError as error:
            record.error = error.problem.code
            caller: Principal | None = scope[PRINCIPAL_KEY]
            limits = [] if caller is None else self._completing.limits(caller, api, error)
            await send_failure(send, api, error, record.request_id, limits)
        except ProxyError as error:
            record.error = error.kind.type
            await send_failure(send, api, told(error), record.request_id)

    def tell(self, scope: Scope, error: ProxyError, request_id: str) -> tuple[int, bytes, list[Header]]:
        """What the edge refuses, in the words of the API that is called (a `respond.Tell`)."""
        failure = told(error)
        body = encode(self._api(scope).error_body(failure, request_id))
        return failure.problem.status, body, failure_headers(failure, request_id)

    def _api(self, scope: Scope) -> Api:
        """Whose words a failure is told in."""
        path = scope["path"]
        known = self._apis.get(path) or next((api for at, (api, _) in self._counting.items() if at == path), None)
        if known is not None:
            return known
        anthropic = any(name == b"anthropic-version" for name, _ in scope["headers"])
        return next((api for api in self._apis.values() if anthropic and api.name == "anthropic"), self._fallback)

    async def _served(self, scope: Scope, receive: Receive, send: Send, record: RequestRecord) -> None:
        path, method = scope["path"], scope["method"]
        caller = _caller(scope)
        if path in self._apis or path in self._counting:
            if method != "POST":
                raise ChatError(METHOD_NOT_ALLOWED, f"{path} takes POST only")
            body = await self._body(scope, receive)
            if path in self._counting:
                return await send_json(send, 200, encode({"input_tokens": self._counting[path][1](body)}))
            api = self._apis[path]
            self._completing.note_received(api, body, record)
            question = read_question(api, caller, body, _said_beside(scope))
            return await self._completing.run(question, receive, send, record)
        if path == "/v1/models" or path.startswith("/v1/models/"):
            if method != "GET":
                raise ChatError(METHOD_NOT_ALLOWED, f"{path} takes GET only")
            return await self._list(path.removeprefix("/v1/models").removeprefix("/"), caller, send)
        raise ChatError(NOT_FOUND, f"there is nothing at {path[:200]}")

    async def _body(self, scope: Scope, receive: Receive) -> Any:
        try:
            return read_strict(await read_body_in_time(receive, self._max_body))
        except JsonError as error:
            raise ChatError(BAD_REQUEST, f"the body is not acceptable JSON: {error}") from None

    async def _list(self, name: str, caller: Principal, send: Send) -> None:
        names = tuple(name for name in self._routes.names if caller.sees_model(name))
        headers = [*self._standing(), (b"x-mcp-models-count", str(len(names)).encode())]
        if not name:
            return await send_json(send, 200, encode(self._models.listed(names, self._since)), headers)
        if name not in names:
            raise ChatError(MODEL_NOT_FOUND, f"there is no model called {name[:200]!r}", param="model")
        return await send_json(send, 200, encode(self._models.one(name, self._since)), headers)


def _said_beside(scope: Scope) -> dict[str, str]:
    """The headers that belong to what is said."""
    return {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in scope["headers"]
        if name in (b"anthropic-beta", b"anthropic-version")
    }


def _caller(scope: Scope) -> Principal:
    """Who asks. Raises `ChatError`."""
    principal: Principal | None = scope[PRINCIPAL_KEY]
    if principal is None:
        raise ChatError(UNAUTHORIZED, "a token is needed: as the API key of the client, or in Authorization: Bearer")
    if not principal.has(Right.LLM_CALL):
        raise ChatError(FORBIDDEN, f"this token lacks the scope {Right.LLM_CALL}")
    return principal
