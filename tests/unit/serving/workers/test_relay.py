"""One conversation across both ends: a server that the test plays, the relay, the socket, and the application."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.serving.workers.channel import Channel
from mcp_proxy.serving.workers.conversations import Conversations
from mcp_proxy.serving.workers.lifespan import Lifespan
from mcp_proxy.serving.workers.relay import Relay
from mcp_proxy.serving.workers.remote_log import RemoteLog
from mcp_proxy.serving.workers.window import PIECE, WINDOW
from tests.harness import eventually
from tests.unit.serving.raw import App, Log

pytestmark = pytest.mark.anyio

PATIENCE = 10.0
SCOPE: dict[str, Any] = {
    "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "POST",
    "scheme": "https", "path": "/é", "raw_path": b"/%C3%A9", "query_string": b"a=b", "root_path": "",
    "headers": [(b"host", b"x"), (b"x-twice", b"1"), (b"x-twice", b"2")],
    "client": ("192.0.2.1", 4711), "server": ("192.0.2.2", 443), "extensions": {},
}  # fmt: skip
SOCKET = {**SCOPE, "type": "websocket", "scheme": "wss", "subprotocols": ["log"]}
DISCONNECT = {"type": "http.disconnect"}
Asgi = Callable[[Any, Any, Any], Awaitable[None]]


def body(data: bytes = b"", *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": data, "more_body": more}


class Line:
    """Both ends in this process, and conversations that are going on."""

    def __init__(self, app: Asgi) -> None:
        self.failures: list[str] = []
        self.tasks = TaskSet(lambda name, error: self.failures.append(f"{name}: {error!r}"))
        self.log = Log()
        self.relay = Relay(self.tasks)
        self.conversations = Conversations(app, self.tasks, self.log)

    async def connect(self) -> None:
        ours, theirs = socket.socketpair()
        self.conversations.channel = Channel(self.conversations.take, self.conversations.drop_all)
        self.relay.channel = Channel(self.relay.take, lambda: None)
        await self.conversations.channel.connect(ours)
        await self.relay.channel.connect(theirs)

    def ask(self, scope: dict[str, Any], *messages: dict[str, Any]) -> Asked:
        """Serve one request, of which these messages have come."""
        asked = Asked()
        for message in messages:
            asked.messages.put_nowait(message)
        asked.served = self.tasks.spawn(self.relay(dict(scope), asked.receive, asked.send), "served")
        return asked


class Asked:
    """The server's side of one request. Its client reads while ``reading`` is set."""

    served: asyncio.Task[None]

    def __init__(self) -> None:
        self.messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.received = 0
        self.sent: list[Any] = []
        self.reading = asyncio.Event()
        self.reading.set()

    async def receive(self) -> Any:
        self.received += 1
        return await self.messages.get()

    async def send(self, message: Any) -> None:
        await self.reading.wait()
        self.sent.append(message)

    async def answered(self) -> list[Any]:
        """All that was sent, once it is complete."""
        await asyncio.wait_for(self.served, PATIENCE)
        return self.sent

    def body(self) -> bytes:
        return b"".join(one.get("body", b"") for one in self.sent)


@asynccontextmanager
async def line(app: Asgi) -> AsyncIterator[Line]:
    """Nothing may be left of any conversation, and nothing have failed."""
    one = Line(app)
    await one.connect()
    try:
        yield one
        await eventually(lambda: not len(one.conversations), what="the application has done with all of them")
    finally:
        await one.relay.channel.finish()
        await one.conversations.channel.finish()
        await one.tasks.close()
    assert one.failures == []


async def test_request_and_answer_cross_as_they_are() -> None:
    app = App()
    async with line(app) as one:
        asked = one.ask({**SCOPE, "path": "/read", "state": {"server": object()}}, body(b"ab", more=True), body(b"c"))
        start, end = await asked.answered()
    assert app.scopes == [{**SCOPE, "path": "/read"}]
    assert app.asked == [("/read", b"abc")]
    assert start == {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]}
    assert end == {"type": "http.response.body", "body": b"3"}


async def test_bodies_stream_both_ways_at_once() -> None:
    async def echo(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        more = True
        while more:
            message = await receive()
            more = message["more_body"]
            await send({"type": "http.response.body", "body": message["body"], "more_body": more})

    async with line(echo) as one:
        asked = one.ask(SCOPE)
        for number in range(1, 4):
            asked.messages.put_nowait(body(b"%d" % number, more=number < 3))
            await eventually(lambda number=number: len(asked.sent) == number + 1)  # type: ignore[misc]
        assert [message["body"] for message in (await asked.answered())[1:]] == [b"1", b"2", b"3"]


async def test_conversations_do_not_mix() -> None:
    app = App()
    async with line(app) as one:
        slow = one.ask({**SCOPE, "path": "/slow"}, body(b"slow"))
        all_of_them = [one.ask({**SCOPE, "path": "/read"}, body(b"x" * size)) for size in range(20)]
        assert [(await asked.answered())[1]["body"] for asked in all_of_them] == [b"%d" % size for size in range(20)]
        app.go_on.set()
        assert (await slow.answered())[1]["body"] == b"4"


async def test_the_application_hears_that_the_client_has_left_and_may_still_answer() -> None:
    app = App()
    async with line(app) as one:
        asked = one.ask({**SCOPE, "path": "/waiting"}, body(), DISCONNECT)
        await asked.answered()
    assert (app.left, len(asked.body())) == (1, 100_000)


async def test_a_client_that_does_not_read_is_waited_for() -> None:
    sent = 0

    async def large(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(100):
            await send({"type": "http.response.body", "body": bytes([number]) * 20_000, "more_body": number < 99})
            sent += 20_000

    async with line(large) as one:
        deaf, other = one.ask(SCOPE, body()), one.ask(SCOPE, body())
        deaf.reading.clear()
        await other.answered()
        before = sent - len(other.body())
        assert 0 < before <= WINDOW + 20_000
        deaf.reading.set()
        await deaf.answered()
    assert deaf.body() == b"".join(bytes([number]) * 20_000 for number in range(100))


async def test_a_long_answer_in_one_message_crosses_in_pieces() -> None:
    async with line(App()) as one:
        asked = one.ask({**SCOPE, "path": "/large"}, body())
        await asked.answered()
    assert asked.body() == b"x" * 8_000_000
    assert max(len(message.get("body", b"")) for message in asked.sent) == PIECE


async def test_a_body_that_is_not_read_is_taken_only_as_far_as_the_window_and_given_up_with_the_answer() -> None:
    app = App()
    async with line(app) as one:
        asked = one.ask({**SCOPE, "path": "/slow"}, *[body(b"x" * PIECE, more=True)] * 20)
        await eventually(lambda: asked.received > WINDOW // PIECE - 1)
        assert asked.received <= WINDOW // PIECE + 1
        app.slow = app.unread  # type: ignore[method-assign]
        refused = one.ask({**SCOPE, "path": "/unread"}, *[body(b"x" * PIECE, more=True)] * 20)
        refused.reading.clear()
        await eventually(lambda: len(one.conversations) == 1)
        refused.reading.set()
        assert (await refused.answered())[1]["body"] == b"unread"
        asked.messages.put_nowait(body())
        app.go_on.set()
        assert (await asked.answered())[1]["body"] == b"%d" % (20 * PIECE)


async def test_what_still_comes_when_the_answer_is_there_is_taken_before_it_has_to_be_complete() -> None:
    """Hypercorn's queue holds ten messages, and an answer is complete once its own last word has room there."""
    queue: asyncio.Queue[Any] = asyncio.Queue(10)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)
        if message["type"] == "http.response.body":
            await queue.put(DISCONNECT)

    async def client() -> None:
        for _ in range(40):
            await queue.put(body(b"x" * PIECE, more=True))

    app = App()
    async with line(app) as one:
        sending = one.tasks.spawn(client(), "client")
        app.unread, unread = _after(app.go_on, app.unread), app.unread  # type: ignore[method-assign]
        served = one.tasks.spawn(one.relay({**SCOPE, "path": "/unread"}, queue.get, send), "served")
        await eventually(queue.full)
        app.go_on.set()
        await asyncio.wait_for(served, PATIENCE)
        sending.cancel()
    assert sent[1]["body"] == b"unread"
    assert unread is not app.unread


def _after(event: asyncio.Event, handler: Asgi) -> Asgi:
    async def handle(scope: Any, receive: Any, send: Any) -> None:
        await event.wait()
        await handler(scope, receive, send)

    return handle


async def test_a_client_that_waits_to_be_told_is_asked_for_its_body_when_the_application_asks() -> None:
    app = App()
    hesitant = {**SCOPE, "headers": [(b"expect", b"100-continue")]}
    async with line(app) as one:
        asked = one.ask({**hesitant, "path": "/slow"}, body(b"abc"))
        refused = one.ask({**hesitant, "path": "/unread"}, body(b"abc"))
        await refused.answered()
        assert (asked.received, refused.received) == (0, 0)
        app.go_on.set()
        assert (await asked.answered())[1]["body"] == b"3"


async def test_an_application_that_fails_within_its_answer_leaves_it_incomplete() -> None:
    async with line(App()) as one:
        asked = one.ask({**SCOPE, "path": "/broken"}, body())
        await asked.answered()
        assert one.failures == ["conversation: ValueError('broken')"]
        one.failures.clear()
    assert asked.body() == b"half"


@pytest.mark.parametrize("how", ["the server gives up", "the worker is lost"])
async def test_what_nobody_will_get_is_not_waited_for(how: str) -> None:
    sent = 0
    heard: list[Any] = []

    async def long(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for sent in range(20):  # noqa: B007 - how far it has come
            await send({"type": "http.response.body", "body": b"x" * PIECE, "more_body": True})
        heard.append(await receive())

    async with line(long) as one:
        asked = one.ask(SCOPE)
        asked.reading.clear()
        await eventually(lambda: sent == WINDOW // PIECE, what="it waits for its client")
        assert heard == []
        if how == "the server gives up":
            asked.served.cancel()
        else:
            await one.relay.channel.finish()
        await eventually(lambda: heard, what="it has heard")
    assert heard == [DISCONNECT]


async def test_a_websocket_crosses() -> None:
    async def chat(scope: Any, receive: Any, send: Any) -> None:
        assert (scope["type"], scope["subprotocols"]) == ("websocket", ["log"])
        assert await receive() == {"type": "websocket.connect"}
        await send({"type": "websocket.accept", "subprotocol": "log", "headers": [(b"x", b"y")]})
        while (message := await receive())["type"] != "websocket.disconnect":
            await send({"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")})
        assert message["code"] == 1001
        await send({"type": "websocket.close", "code": 1000, "reason": "done"})

    said = [{"type": "websocket.receive", "text": "é"}, {"type": "websocket.receive", "bytes": b"\xff", "text": None}]
    async with line(chat) as one:
        asked = one.ask(SOCKET, {"type": "websocket.connect"}, *said, {"type": "websocket.disconnect", "code": 1001})
        assert await asked.answered() == [
            {"type": "websocket.accept", "subprotocol": "log", "headers": [(b"x", b"y")]},
            {"type": "websocket.send", "text": "é", "bytes": None},
            {"type": "websocket.send", "text": None, "bytes": b"\xff"},
            {"type": "websocket.close", "code": 1000, "reason": "done"},
        ]


async def test_a_workers_log_lines_are_the_owners() -> None:
    async with line(App()) as one:
        log = RemoteLog(one.relay.channel)
        log.info("said", number=1, odd={1, 2})
        try:
            raise ValueError("broken")
        except ValueError:
            log.exception("failed", logger="x")
        await eventually(lambda: len(one.log.lines) == 2)
    (_, said), (_, failed) = one.log.lines
    assert said == {"number": 1, "odd": "{1, 2}"}
    assert failed["exception"].endswith("ValueError: broken")


async def test_an_application_is_started_and_ended_in_order_and_one_that_does_not_start_is_said() -> None:
    seen: list[str] = []

    async def well(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(2):
            seen.append((await receive())["type"])
            await send({"type": f"{seen[-1]}.complete"})

    async def ill(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no keys"})

    async def dead(scope: Any, receive: Any, send: Any) -> None:
        return

    tasks = TaskSet(lambda name, error: seen.append(repr(error)))
    lifespan = Lifespan(well, tasks)
    await lifespan.start()
    await lifespan.end()
    assert seen == ["lifespan.startup", "lifespan.shutdown"]
    for app, reason in ((ill, "no keys"), (dead, "lifespan.ended")):
        with pytest.raises(RuntimeError, match=reason):
            await asyncio.wait_for(Lifespan(app, tasks).start(), PATIENCE)
    await tasks.close()
