"""The edge around a small app, driven by scopes made by hand; its log is read back from the bytes it wrote."""

from __future__ import annotations

import io
import json
from collections.abc import Awaitable, Callable, Iterable
from itertools import count
from typing import Any

import pytest

from mcp_proxy.base.errors import UNAUTHORIZED, ProxyError
from mcp_proxy.core.auth.principal import Principal
from mcp_proxy.edge.stack import build_edge
from mcp_proxy.edge.types import App, Message, Receive, Scope, Send
from mcp_proxy.settings import Settings
from mcp_proxy.telemetry.logs import configure

GOOD = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJlLW9mLWFkYQ"
BAD = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJldmUifQ.c2lnbmF0dXJlLW9mLWV2ZQ"
LOCALHOST = (b"host", b"localhost:5000")


class FakeClock:
    """Both clocks; every look at the monotonic one takes a quarter of a second."""

    def __init__(self) -> None:
        self.mono = 100.0

    def monotonic(self) -> float:
        self.mono += 0.25
        return self.mono

    def time(self) -> float:
        return 1_800_000_000.5


class OneTokenVerifier:
    """Accepts `GOOD`. ``seen``: the principals of tokens that need not be asked for again."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.seen: dict[str, Principal] = {}

    def known(self, token: str) -> Principal | None:
        return self.seen.get(token)

    async def authenticate(self, token: str) -> Principal:
        self.asked.append(token)
        if token == GOOD:
            return Principal(subject="ada")
        raise ProxyError(UNAUTHORIZED, "the token is not accepted")


class Answer:
    """What an app sent for one scope, taken apart."""

    def __init__(self, sent: list[Message]) -> None:
        self.sent = sent
        start = next((message for message in sent if message["type"].endswith("response.start")), None)
        self.status: int | None = start["status"] if start else None
        self.headers: list[tuple[bytes, bytes]] = list(start["headers"]) if start else []
        self.body = b"".join(message.get("body", b"") for message in sent if message["type"].endswith("response.body"))

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        return self.json["error"]

    def header(self, name: bytes) -> bytes | None:
        found = [value for key, value in self.headers if key == name]
        assert len(found) <= 1, f"{name!r} is there several times"
        return found[0] if found else None


def http(
    path: str = "/health", headers: Iterable[tuple[bytes, bytes]] = (LOCALHOST,), *, query: bytes = b"", **more: Any
) -> Scope:
    """An HTTP scope as the server makes it."""
    return {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": query, "headers": list(headers),
        "client": ("192.0.2.7", 40000), "server": ("127.0.0.1", 5000), "extensions": {}, **more,
    }  # fmt: skip


def websocket(
    headers: Iterable[tuple[bytes, bytes]] = (LOCALHOST,), *, query: bytes = b"", denial: bool = True
) -> Scope:
    """A websocket scope; ``denial``: whether the server can answer a handshake with a whole response."""
    extensions = {"websocket.http.response": {}} if denial else {}
    return http("/ws", headers, query=query) | {"type": "websocket", "extensions": extensions}


async def answer_ok(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that is content with everything."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 1000})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"fine"})


def messages(*parts: Message) -> Receive:
    """``receive`` that gives these, and then says that the client left."""
    left = list(parts)

    async def receive() -> Message:
        return left.pop(0) if left else {"type": "http.disconnect"}

    return receive


class Edge:
    """The whole edge around ``app``, with a log in memory. ``scopes``: what the app was given."""

    def __init__(self, settings: Settings, app: App) -> None:
        self.stream = io.StringIO()
        self.verifier = OneTokenVerifier()
        self.scopes: list[Scope] = []
        clock = FakeClock()
        numbers = count(1)

        async def noting(scope: Scope, receive: Receive, send: Send) -> None:
            self.scopes.append(scope)
            await app(scope, receive, send)

        self.app = build_edge(
            noting,
            settings=settings,
            verifier=self.verifier,
            log=configure(settings, stream=self.stream, clock=clock),
            clock=clock,
            ids=lambda: f"id-{next(numbers)}",
        )

    async def send(self, scope: Scope, receive: Receive | None = None) -> Answer:
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        await self.app(scope, receive or messages({"type": "http.request", "body": b""}), send)
        return Answer(sent)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().encode().splitlines()]

    @property
    def requests(self) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == "request"]


MakeEdge = Callable[..., Edge]


@pytest.fixture
def make_edge() -> MakeEdge:
    """Build an edge: ``make_edge(app, **settings)``."""

    def make(app: Callable[[Scope, Receive, Send], Awaitable[None]] = answer_ok, **settings: Any) -> Edge:
        return Edge(Settings(**settings), app)

    return make


@pytest.fixture
def edge(make_edge: MakeEdge) -> Edge:
    """The edge with default settings."""
    return make_edge()
