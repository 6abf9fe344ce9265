"""What the tests of the HTTP transports share: a door that does as it is told, and requests as the server shows them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from itertools import count
from typing import Any

from mcp_proxy.base.errors import SERVER_NOT_FOUND, ProxyError
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.core.auth.principal import PRINCIPAL_KEY, Principal
from mcp_proxy.edge.types import App, Message, Scope
from mcp_proxy.gateway.asked import Answer, Asked
from mcp_proxy.gateway.envelope import Notification, Refusal
from mcp_proxy.gateway.session import Introduction, Session, Sessions
from mcp_proxy.telemetry.record import SCOPE_KEY, RequestRecord
from tests.unit.core.fakes import FakeClock

ADA = Principal(subject="ada")
EVE = Principal(subject="eve")
BOTH = (b"accept", b"application/json, text/event-stream")
EVENTS = (b"accept", b"text/event-stream")
JSON = (b"accept", b"application/json")
LIMIT = 5.0
"""Seconds until a test that waits has failed."""


def result(asked: Asked, value: Any) -> Answer:
    return Answer(json.dumps({"jsonrpc": "2.0", "id": asked.request.id, "result": value}).encode())


class FakeDoor:
    """Answers with what it was asked, unless ``work`` is set; notes everything."""

    def __init__(self, clock: FakeClock, *, limit: int = 8) -> None:
        numbers = count(1)
        self.ended: list[Session] = []
        self.sessions = Sessions(
            limit=limit, idle=60, clock=clock, ids=lambda: f"key-{next(numbers)}", on_end=self.ended.append
        )
        self.asked: list[Asked] = []
        self.notes: list[tuple[Session | None, str]] = []
        self.cancelled: list[Any] = []
        self.work: Callable[[Asked], Awaitable[Answer]] | None = None

    async def answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        try:
            return await self.work(asked) if self.work else result(asked, {"did": asked.request.method})
        except asyncio.CancelledError:
            self.cancelled.append(asked.request.id)
            raise

    def introduce(self, asked: Asked) -> tuple[Session | None, Answer]:
        self.asked.append(asked)
        params = asked.request.params
        introduction = Introduction("2025-11-25", params.get("capabilities", {}), {"name": "t"}, asked.namespace)
        try:
            session = self.sessions.open(asked.principal, introduction)
        except ProxyError as error:
            return None, Answer(b'{"error":"full"}', error.status, ((b"retry-after", b"5"),))
        return session, result(asked, {"welcome": True})

    def notified(self, session: Session | None, message: Notification) -> None:
        self.notes.append((session, message.method))
        if session is not None and message.method == "notifications/cancelled":
            session.cancel(message.params.get("requestId"))

    def refuse(self, refusal: Refusal) -> Answer:
        error = {"code": refusal.code, "message": refusal.message}
        if refusal.data is not None:
            error["data"] = refusal.data
        return Answer(json.dumps({"jsonrpc": "2.0", "id": refusal.id, "error": error}).encode(), refusal.status)

    def check_namespace(self, name: str, principal: Principal) -> None:
        if name not in ("math", "a b"):
            raise ProxyError(SERVER_NOT_FOUND, "no such server")


class Exchange:
    """One HTTP request to ``app``, and what came back so far."""

    def __init__(self, app: App, scope: Scope, body: bytes) -> None:
        self._app = app
        self.scope = scope
        self._body: bytes | None = body
        self._gone = asyncio.Event()
        self._changed = asyncio.Event()
        self.sent: list[Message] = []
        self.reading = asyncio.Event()
        self.reading.set()
        """Cleared: a client that does not read, so that `send` blocks."""
        self.task = asyncio.get_running_loop().create_task(app(scope, self.receive, self.send))

    async def receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await self.reading.wait()
        self.sent.append(message)
        self._changed.set()

    def leave(self) -> None:
        self._gone.set()

    async def done(self) -> Exchange:
        async with asyncio.timeout(LIMIT):
            await self.task
        return self

    async def until(self, condition: Callable[[Exchange], Any]) -> None:
        async with asyncio.timeout(LIMIT):
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()

    @property
    def record(self) -> RequestRecord:
        found: RequestRecord = self.scope[SCOPE_KEY]
        return found

    @property
    def status(self) -> int | None:
        return self.sent[0]["status"] if self.sent else None

    def header(self, name: bytes) -> bytes | None:
        found = [value for key, value in self.sent[0]["headers"] if key == name]
        assert len(found) <= 1
        return found[0] if found else None

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])

    @property
    def ended(self) -> bool:
        return len(self.sent) > 1 and not self.sent[-1].get("more_body", False)

    @property
    def json(self) -> Any:
        assert self.header(b"content-type") == b"application/json"
        return json.loads(self.body)

    @property
    def blocks(self) -> list[bytes]:
        """The events and comments of the stream so far, as they were written."""
        assert self.header(b"content-type") == b"text/event-stream"
        return self.body.split(b"\n\n")[:-1]

    @property
    def events(self) -> list[Any]:
        """The data of the stream's message events."""
        return [
            json.loads(block.split(b"data: ", 1)[1]) for block in self.blocks if block.startswith(b"event: message")
        ]


def request(
    app: App,
    message: Any = None,
    *headers: tuple[bytes, bytes],
    method: str = "POST",
    path: str = "/mcp",
    query: bytes = b"",
    principal: Principal | None = ADA,
    **scope: Any,
) -> Exchange:
    """Start one request. ``message`` is sent as JSON unless it is bytes."""
    body = message if isinstance(message, bytes) else b"" if message is None else json.dumps(message).encode()
    record = RequestRecord("r1", method, path, "192.0.2.7", "test", 0.0)
    default: Iterable[tuple[bytes, bytes]] = [(b"content-type", b"application/json")] if method == "POST" else []
    names = {name for name, _ in headers}
    return Exchange(
        app,
        {
            "type": "http", "http_version": "1.1", "method": method, "path": path, "query_string": query,
            "headers": [*(header for header in default if header[0] not in names), *headers],
            SCOPE_KEY: record, PRINCIPAL_KEY: principal, **scope,
        },
        body,
    )  # fmt: skip


class Failures(list[tuple[str, BaseException]]):
    """What background tasks failed of; a test that leaves something here has failed."""

    def __call__(self, name: str, error: BaseException) -> None:
        self.append((name, error))


class Bench:
    """A door, a clock and a task set for one test."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.door = FakeDoor(self.clock)
        self.failures = Failures()
        self.tasks = TaskSet(self.failures)

    async def close(self) -> None:
        async with asyncio.timeout(LIMIT):
            await self.tasks.close()
        assert self.failures == []


def call(id: int | str = 1, method: str = "tools/call", **params: Any) -> dict[str, Any]:
    """A request."""
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": params}


def note(method: str, **params: Any) -> dict[str, Any]:
    """A notification."""
    return {"jsonrpc": "2.0", "method": method, "params": params}


class Gate:
    """Work that says when it has begun, and goes on when it is told to."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.open = asyncio.Event()
        self.asked: list[Asked] = []
        self.finished = 0

    async def __call__(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        self.begun.set()
        await self.open.wait()
        self.finished += 1
        return result(asked, {"waited": True})


async def within(event: asyncio.Event) -> None:
    """Wait for an event, not for ever."""
    async with asyncio.timeout(LIMIT):
        await event.wait()


async def settle(condition: Callable[[], Any]) -> None:
    """Let other tasks run until ``condition`` holds; fails when it does not come."""
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0)
