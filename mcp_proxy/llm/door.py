"""The LLM door as an ASGI application under ``/v1``: who may ask, what for, and the way of the answer.

Every completion goes through `bridge.completions`; what the requests and answers look like is in `apis`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mcp_proxy.base.clock import Clock
from mcp_proxy.base.errors import ProxyError
from mcp_proxy.base.ids import IdSource
from mcp_proxy.base.json import JsonError, encode, read_strict
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.bridge.chat import ChatRequest
from mcp_proxy.bridge.completions import Completions, Course
from mcp_proxy.bridge.errors import (
    BAD_REQUEST,
    FORBIDDEN,
    METHOD_NOT_ALLOWED,
    MODEL_NOT_FOUND,
    NOT_FOUND,
    UNAUTHORIZED,
    ChatError,
)
from mcp_proxy.core.auth.principal import PRINCIPAL_KEY, Principal
from mcp_proxy.core.auth.principal import Scope as Right
from mcp_proxy.core.limits import Gate
from mcp_proxy.edge.body import ClientGone, read_body_in_time
from mcp_proxy.edge.presence import while_connected
from mcp_proxy.edge.respond import send_json
from mcp_proxy.edge.types import Header, Receive, Scope, Send
from mcp_proxy.llm.answer import Streaming, collected, failure_headers, send_failure
from mcp_proxy.llm.apis import Api
from mcp_proxy.llm.audit import Watched, write_completion, write_received, write_sent
from mcp_proxy.llm.refusals import told
from mcp_proxy.telemetry.logs import Logger
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
        completions: Completions,
        apis: Mapping[str, Api],
        *,
        counting: Mapping[str, tuple[Api, Callable[[Any], int]]],
        models: Models,
        fallback: Api,
        gate: Gate,
        tasks: TaskSet,
        clock: Clock,
        ids: IdSource,
        log: Logger,
        log_bodies: bool,
        max_body: int,
        ready: Callable[[], bool],
    ) -> None:
        """``apis`` and ``counting`` are by path; ``fallback`` is spoken where the path tells nothing.

        ``ready``: whether there is something that could answer just now.
        """
        self._completions = completions
        self._apis = apis
        self._counting = counting
        self._models = models
        self._fallback = fallback
        self._gate = gate
        self._tasks = tasks
        self._clock = clock
        self._ids = ids
        self._log = log
        self._log_bodies = log_bodies
        self._ready = ready
        self._max_body = max_body
        self._since = int(clock.time())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        record: RequestRecord = scope[SCOPE_KEY]
        record.door = "llm"
        api = self._api(scope)
        try:
            await self._served(scope, receive, send, record)
        except ChatError as error:
            record.error = error.problem.code
            await send_failure(send, api, error, record.request_id)
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
            return await self._complete(self._apis[path], body, caller, receive, send, record)
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
        names = tuple(name for name in self._completions.routes.names if caller.sees_model(name))
        headers = [*self._standing(), (b"x-mcp-models-count", str(len(names)).encode())]
        if not name:
            return await send_json(send, 200, encode(self._models.listed(names, self._since)), headers)
        if name not in names:
            raise ChatError(MODEL_NOT_FOUND, f"there is no model called {name[:200]!r}", param="model")
        return await send_json(send, 200, encode(self._models.one(name, self._since)), headers)

    def _standing(self) -> list[Header]:
        return [(b"x-mcp-bridge", b"hook"), (b"x-mcp-session-ready", b"true" if self._ready() else b"false")]

    async def _complete(
        self, api: Api, body: Any, caller: Principal, receive: Receive, send: Send, record: RequestRecord
    ) -> None:
        ask = api.read(body)
        if not caller.sees_model(ask.model):
            text = f"there is no model called {ask.model[:200]!r} for this token"
            raise ChatError(MODEL_NOT_FOUND, text, param="model")
        course = Course()
        watched = Watched(ask, caller, course, self._clock.monotonic, self._log_bodies, self._clock.monotonic())
        if self._log_bodies:
            write_received(self._log, record, api.name, body)
        self._gate.enter()
        try:
            await while_connected(receive, self._answer(api, watched, send, record))
        except ClientGone:
            record.error = "client_gone"
            raise
        except ChatError as error:
            record.error = error.problem.code
            raise
        finally:
            self._gate.leave()
            record.tool, record.server = course.model, course.source
            write_completion(self._log, watched, record, api.name)
            if self._log_bodies:
                write_sent(self._log, record, api.name, watched)

    async def _answer(self, api: Api, watched: Watched, send: Send, record: RequestRecord) -> None:
        ask, course = watched.ask, watched.course
        deltas = watched.follow(self._completions.stream(ask, tenant=watched.caller.who, course=course))
        made = {"id": f"{api.prefix}{self._ids()}", "created": int(self._clock.time())}

        def headers() -> list[Header]:
            return [*_headers(ask, course, record.request_id), *self._standing()]

        if not ask.stream:
            result = await collected(deltas)
            estimated = [(b"x-bridge-usage", b"estimated")] if result.usage.estimated else []
            fields = {**api.whole(result, ask, **made), "request_id": record.request_id}  # type: ignore[arg-type]
            await send_json(send, 200, encode(fields), [*headers(), *estimated])
            return
        frames = api.frames(ask, **made)  # type: ignore[arg-type]
        failed = await Streaming(send, frames, record.request_id, tasks=self._tasks).run(deltas, headers)
        if failed is not None:
            record.error = failed.problem.code


def _caller(scope: Scope) -> Principal:
    """Who asks. Raises `ChatError`."""
    principal: Principal | None = scope[PRINCIPAL_KEY]
    if principal is None:
        raise ChatError(UNAUTHORIZED, "a token is needed: as the API key of the client, or in Authorization: Bearer")
    if not principal.has(Right.LLM_CALL):
        raise ChatError(FORBIDDEN, f"this token lacks the scope {Right.LLM_CALL}")
    return principal


def _headers(ask: ChatRequest, course: Course, request_id: str) -> list[Header]:
    headers: list[Header] = [(b"request-id", request_id.encode())]
    if course.model is not None or ask.model:
        headers.append((b"x-mcp-model", _ascii(course.model or ask.model)))
    if ask.ignored:
        headers.append((b"x-bridge-ignored-params", _ascii(", ".join(ask.ignored))))
    return headers


def _ascii(text: str) -> bytes:
    """Fit for a header."""
    return "".join(one if " " <= one <= "~" else "?" for one in text)[:500].encode()
