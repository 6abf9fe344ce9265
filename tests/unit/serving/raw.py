"""A server in this process with an application of the test's, and clients that write what they like."""

from __future__ import annotations

import asyncio
import itertools
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events

from mcp_proxy.base.clock import SystemClock
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.serving.listeners import Listeners
from mcp_proxy.serving.terms import Serve, Serving
from mcp_proxy.serving.uvicorn_server import serve as uvicorn_serve

PATIENCE = 10.0
Handler = Callable[[Any, Any, Any], Awaitable[None]]


class Log:
    """What was said, as (event, fields)."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def debug(self, event: str, /, **fields: Any) -> None:
        self.lines.append((event, fields))

    info = warning = error = exception = debug


@dataclass
class Served:
    """A server that runs."""

    port: int
    log: Log
    end: Callable[[], Awaitable[None]]
    """Stop it as the program does, and wait for its end."""


def serving(
    app: Handler, listeners: Listeners, until_stopped: Callable[[], Awaitable[None]], tasks: TaskSet, log: Log
) -> Serving:
    """With request ids that are counted: ``id-1``."""
    ids = itertools.count(1)
    return Serving(app, listeners, until_stopped, tasks, log, SystemClock(), lambda: f"id-{next(ids)}")


@asynccontextmanager
async def served(app: Handler, serve: Serve = uvicorn_serve, *certificate: Path) -> AsyncIterator[Served]:
    """The application, behind a port of the loopback. Failures of the server's fail the test."""
    log, stop, listeners = Log(), asyncio.Event(), Listeners("127.0.0.1", *certificate)
    failures: list[str] = []
    tasks = TaskSet(lambda name, error: failures.append(f"{name}: {error!r}"))
    port = listeners.listen([0], "")

    async def with_lifespan(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            return await app(scope, receive, send)
        for _ in range(2):
            event = await receive()
            await send({"type": f"{event['type']}.complete"})
        return None

    async def until_stopped() -> None:
        await stop.wait()

    server = tasks.spawn(serve(serving(with_lifespan, listeners, until_stopped, tasks, log)), "server")

    async def end() -> None:
        stop.set()
        await asyncio.wait_for(server, PATIENCE)

    try:
        yield Served(port, log, end)
    finally:
        await end()
        await tasks.close()
    assert failures == []


class App:
    """Keeps what it was asked, and answers by the path: see `HANDLERS`."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []
        self.asked: list[tuple[str, bytes]] = []
        self.go_on = asyncio.Event()
        self.left = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        await getattr(self, scope["path"].strip("/").partition("/")[0] or "read")(scope, receive, send)

    async def read(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers with the length of the body, once that is read."""
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.left += 1
                return
            body += message["body"]
            more = message["more_body"]
        self.asked.append((scope["path"], body))
        await answer(send, str(len(body)).encode())

    async def slow(self, scope: Any, receive: Any, send: Any) -> None:
        """The same, when it is let."""
        await self.go_on.wait()
        await self.read(scope, receive, send)

    async def unread(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers at once."""
        await answer(send, b"unread")

    async def closing(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers at once, and wants the connection closed."""
        await answer(send, b"closing", (b"connection", b"close"))

    async def stream(self, scope: Any, receive: Any, send: Any) -> None:
        """An answer in parts, of no length."""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for part in (b"one ", b"two"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def waiting(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers when it has heard that the client left."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self.left += 1
        await answer(send, b"x" * 100_000)

    async def large(self, scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"x" * 8_000_000)

    async def broken(self, scope: Any, receive: Any, send: Any) -> None:
        """Fails within its answer."""
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"100")]})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ValueError("broken")


async def answer(send: Any, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body)), *headers]}
    )
    await send({"type": "http.response.body", "body": body})


@dataclass
class Answer:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)["error"]
        return found


def answers(raw: bytes) -> list[Answer]:
    """The answers in what a connection has sent, of which the last may have no length."""
    found = []
    while raw:
        head, _, raw = raw.partition(b"\r\n\r\n")
        line, *fields = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in fields)}
        status = int(line.split()[1])
        length = int(headers.get("content-length", 0 if status < 200 else len(raw)))
        found.append(Answer(status, headers, raw[:length]))
        raw = raw[length:]
    return found


def request(path: str = "/", *fields: str, method: str = "GET", body: bytes = b"", version: str = "1.1") -> bytes:
    """A request. A body has its length told, unless ``fields`` say how it is framed."""
    named = ["Host: x", *fields]
    if body and not any(one.lower().startswith(("content-length", "transfer-encoding")) for one in fields):
        named.append(f"Content-Length: {len(body)}")
    return "".join(f"{one}\r\n" for one in [f"{method} {path} HTTP/{version}", *named, ""]).encode() + body


def last(path: str = "/") -> bytes:
    """A request after which the server closes."""
    return request(path, "Connection: close")


class Client:
    """A connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def rest(self) -> bytes:
        """What comes until the server closes."""
        return await asyncio.wait_for(self.reader.read(), PATIENCE)

    async def until(self, end: bytes) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(end), PATIENCE)


@asynccontextmanager
async def connected(port: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**26, ssl=tls)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


class Speaker:
    """A client's side of HTTP/2: what it says is for the test to send."""

    def __init__(self, *, upgraded: bool = False) -> None:
        """``upgraded``: by a request of HTTP/1.1's, which the first answer is to."""
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self._events: Iterator[Any] = iter(())
        self._heard: dict[int, Answer] = {}
        if upgraded:
            self._h2.initiate_upgrade_connection()
        else:
            self._h2.initiate_connection()

    def ask(self, path: str = "/", body: bytes = b"") -> bytes:
        """What has not been sent yet, and a request."""
        fields = {":method": "POST" if body else "GET", ":path": path, ":scheme": "http", ":authority": "x"}
        stream = self._h2.get_next_available_stream_id()
        self._h2.send_headers(stream, list(fields.items()), end_stream=not body)
        if body:
            self._h2.send_data(stream, body, end_stream=True)
        return self._h2.data_to_send()

    async def hear(self, client: Client) -> Answer:
        """The next answer that is complete."""
        while True:
            for event in self._events:
                match event:
                    case h2.events.ResponseReceived():
                        headers = {name.decode(): value.decode() for name, value in event.headers}
                        self._heard[event.stream_id] = Answer(int(headers.pop(":status")), headers)
                    case h2.events.DataReceived():
                        self._heard[event.stream_id].body += event.data
                        self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    case h2.events.StreamEnded():
                        return self._heard.pop(event.stream_id)
            client.writer.write(self._h2.data_to_send())
            data = await asyncio.wait_for(client.reader.read(65_536), PATIENCE)
            assert data, "the connection has ended"
            self._events = iter(self._h2.receive_data(data))


async def talk(port: int, data: bytes, *, pieces: int = 0, half_closed: bool = False) -> list[Answer]:
    """What is answered to these bytes until the server closes. ``pieces``: bytes that the server gets at once, or fewer."""
    async with connected(port) as client:
        for start in range(0, len(data), pieces or len(data)):
            client.writer.write(data[start : start + (pieces or len(data))])
            await asyncio.sleep(0)  # The server is in this process, and reads what there is.
        if half_closed:
            client.writer.write_eof()
        return answers(await client.rest())
