"""An `Exchange` that answers as scripted, so that wires are tested by the bytes they get and the requests they make."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mcp_proxy.core.upstream.exchange import Response
from mcp_proxy.core.upstream.failures import Attempt, Failure, Phase, WireError


@dataclass
class Request:
    """What was sent."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None

    @property
    def message(self) -> dict[str, Any]:
        found = json.loads(self.body or b"null")
        assert isinstance(found, dict)
        return found


@dataclass
class Answer:
    """What comes back: the body in chunks; ``breaks`` ends it like a connection that is lost."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: list[bytes] = field(default_factory=list)
    breaks: bool = False
    hangs: bool = False
    error: WireError | None = None
    """Instead of an answer."""


def as_json(message: object, status: int = 200, **headers: str) -> Answer:
    kind = {"Content-Type": "application/json; charset=utf-8"}
    return Answer(status, kind | {k.replace("_", "-"): v for k, v in headers.items()}, [json.dumps(message).encode()])


def as_events(*events: object, **more: Any) -> Answer:
    """Events of JSON data; bytes are sent as they are."""
    body = [e if isinstance(e, bytes) else b"data: " + json.dumps(e).encode() + b"\n\n" for e in events]
    return Answer(200, {"Content-Type": "text/event-stream"}, body, **more)


def result(request_id: object, value: object = None) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "result": {"content": []} if value is None else value}


Script = Callable[[Request], Answer]


class ScriptedResponse:
    def __init__(self, answer: Answer, attempt: Attempt) -> None:
        self._answer = answer
        self._attempt = attempt
        self.closed = False

    @property
    def status(self) -> int:
        return self._answer.status

    @property
    def complete(self) -> bool:
        return self.closed

    def header(self, name: str) -> str:
        return {k.lower(): v for k, v in self._answer.headers.items()}.get(name.lower(), "")

    async def read(self, limit: int) -> bytes:
        body = b""
        async for chunk in self.chunks():
            body += chunk
            if len(body) > limit:
                raise WireError(Failure.TOO_LARGE, Phase.STREAMING, "too large")
        return body

    async def chunks(self) -> AsyncIterator[bytes]:
        for chunk in self._answer.body:
            self._attempt.phase = Phase.STREAMING
            yield chunk
        if self._answer.hangs:
            await asyncio.Event().wait()
        if self._answer.breaks:
            raise WireError(Failure.LOST, self._attempt.phase, "the answer broke off")

    async def close(self) -> None:
        self.closed = True


class ScriptedExchange:
    """Asks the script for every request, and keeps requests and responses."""

    def __init__(self, script: Script | None = None) -> None:
        self.script: Script = script or (lambda request: as_json(result(request.message["id"])))
        self.requests: list[Request] = []
        self.responses: list[ScriptedResponse] = []
        self.closed = False

    async def open(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, attempt: Attempt
    ) -> Response:
        request = Request(method, url, headers, body)
        self.requests.append(request)
        attempt.phase = Phase.SENT
        answer = self.script(request)
        if answer.error is not None:
            attempt.phase = answer.error.phase
            raise answer.error
        response = ScriptedResponse(answer, attempt)
        self.responses.append(response)
        return response

    async def close(self) -> None:
        self.closed = True

    @property
    def all_closed(self) -> bool:
        return all(response.closed for response in self.responses)
