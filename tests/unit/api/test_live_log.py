"""The live log's connection, by messages made by hand: what only shows when time, places or the client's patience end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mcp_proxy.api import live_log
from mcp_proxy.api.live_log import LiveLog
from mcp_proxy.base.errors import ProxyError
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.core.auth.principal import PRINCIPAL_KEY, Principal, Scope
from mcp_proxy.edge.body import ClientGone
from mcp_proxy.edge.types import Message
from mcp_proxy.telemetry.log_feed import LogFeed
from mcp_proxy.telemetry.record import SCOPE_KEY, RequestRecord
from tests.harness import eventually

pytestmark = pytest.mark.anyio

NOW = 1_800_000_000.0


class FixedClock:
    def monotonic(self) -> float:
        return 0.0

    def time(self) -> float:
        return NOW


class Client:
    """One WebSocket at the seam of ASGI. ``reading`` clear: the client takes nothing more."""

    def __init__(self, who: str = "ada", **claims: Any) -> None:
        self.sent: list[Message] = []
        self.stuck = False
        self.reading = asyncio.Event()
        self.reading.set()
        self.incoming: asyncio.Queue[Message] = asyncio.Queue()
        self.incoming.put_nowait({"type": "websocket.connect"})
        self.scope: dict[str, Any] = {
            "type": "websocket", "path": "/ws", "query_string": b"", "headers": [], "subprotocols": [],
            SCOPE_KEY: RequestRecord("id-1", "GET", "/ws", "", "", 0.0),
            PRINCIPAL_KEY: Principal(subject=who, scopes=frozenset({Scope.LOGS_READ}), **claims),
        }  # fmt: skip

    async def send(self, message: Message) -> None:
        self.stuck = not self.reading.is_set()
        await self.reading.wait()
        self.sent.append(message)

    def leave(self) -> None:
        self.incoming.put_nowait({"type": "websocket.disconnect"})

    @property
    def accepted(self) -> bool:
        return bool(self.sent)

    @property
    def texts(self) -> list[Any]:
        return [json.loads(one["text"]) for one in self.sent if one["type"] == "websocket.send"]

    @property
    def closed(self) -> list[int]:
        return [one["code"] for one in self.sent if one["type"] == "websocket.close"]


class Place:
    """A live log with its clients."""

    def __init__(self, **settings: Any) -> None:
        self.feed = LogFeed()
        self.failures: list[str] = []
        self.ws = LiveLog(self.feed, group_of=lambda _: None, clock=FixedClock(), on_error=self._failed, **settings)
        self.tasks = TaskSet(self._failed)

    def _failed(self, name: str, error: BaseException) -> None:
        self.failures.append(f"{name}: {error!r}")

    async def enter(self, client: Client) -> asyncio.Task[None]:
        task = self.tasks.spawn(self.ws(client.scope, client.incoming.get, client.send), "client")
        await eventually(lambda: client.accepted or task.done())
        return task


@asynccontextmanager
async def place(**settings: Any) -> AsyncIterator[Place]:
    made = Place(**settings)
    yield made
    await made.ws.close()
    await made.tasks.close()


async def ended(task: asyncio.Task[None]) -> None:
    async with asyncio.timeout(5):
        await task


async def test_a_message_that_says_nothing_comes_where_there_is_nothing_to_say() -> None:
    async with place(keep_alive=0.01) as one:
        await one.enter(client := Client())
        await eventually(lambda: len(client.texts) >= 2)
        assert client.texts[0] == {"event": "ping"}


async def test_a_client_that_leaves_is_let_go_and_nothing_is_sent_after_it() -> None:
    async with place() as one:
        task = await one.enter(client := Client())
        client.leave()
        await ended(task)
        assert ([message["type"] for message in client.sent], one.failures) == (["websocket.accept"], [])
        assert "readers=0" in repr(one.feed)


async def test_the_connection_ends_with_its_token() -> None:
    async with place() as one:
        task = await one.enter(client := Client(expires=NOW + 0.02))
        await ended(task)
        assert client.closed == [1008]


async def test_revoked_tokens_end_their_connections_and_what_waits_is_not_sent() -> None:
    async with place() as one:
        task = await one.enter(doomed := Client(token_id="doomed"))
        await one.enter(other := Client(token_id="other"))
        one.feed.put(b'{"event": "secret"}')
        one.ws.end_where(lambda principal: principal.token_id == "doomed")
        await ended(task)
        await eventually(lambda: other.texts)
        assert (doomed.texts, doomed.closed) == ([], [1008])
        assert (other.texts, other.closed) == ([{"event": "secret"}], [])


async def test_the_stop_comes_after_what_waits() -> None:
    async with place() as one:
        task = await one.enter(client := Client())
        one.feed.put(b'{"event": "stopping"}')
        await one.ws.close()
        await ended(task)
        assert (client.texts, client.closed) == ([{"event": "stopping"}], [1001])
        late = await one.enter(Client())
        with pytest.raises(ProxyError, match="stopping") as caught:
            await late
        assert caught.value.status == 503


async def test_places_are_bounded_in_all_and_for_each_caller() -> None:
    async with place(limit=10) as one:
        for _ in range(8):
            await one.enter(Client("ada"))
        with pytest.raises(ProxyError) as greedy:
            await (await one.enter(Client("ada")))
        leaving = await one.enter(client := Client("eve"))
        await one.enter(Client("eve"))
        with pytest.raises(ProxyError) as full:
            await (await one.enter(Client("bob")))
        assert [greedy.value.status, full.value.status] == [503, 503]
        client.leave()
        await ended(leaving)
        await one.enter(welcome := Client("bob"))
        assert welcome.accepted


async def test_a_client_that_is_behind_is_told_what_it_missed_and_holds_nobody_up() -> None:
    async with place() as one:
        await one.enter(slow := Client("slow"))
        await one.enter(quick := Client("quick"))
        slow.reading.clear()
        for number in range(5000):
            one.feed.put(b'{"event": "%d"}' % number)
            if number % 1000 == 0:
                await eventually(lambda number=number: any(text["event"] == str(number) for text in quick.texts))
        await eventually(lambda: len(quick.texts) == 5000)
        slow.reading.set()
        await eventually(lambda: slow.texts[-1:] == [{"event": "4999"}])
        [told] = [text for text in slow.texts if text["event"] == "lines_dropped"]
        assert told["count"] + len(slow.texts) - 1 == 5000
        assert len(slow.texts) < 2100


async def test_a_client_that_reads_nothing_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_log, "HURRIED", 0.02)
    async with place() as one:
        clients = [Client(token_id="doomed"), Client(token_id="other")]
        revoked, stopped = [await one.enter(client) for client in clients]
        for client in clients:
            client.reading.clear()
        one.feed.put(b'{"event": "a"}')
        await eventually(lambda: all(client.stuck for client in clients))
        one.ws.end_where(lambda principal: principal.token_id == "doomed")
        with pytest.raises(ClientGone):
            await ended(revoked)
        async with asyncio.timeout(1):
            await one.ws.close()
        with pytest.raises(ClientGone):
            await ended(stopped)


async def test_a_client_that_reads_nothing_gains_no_time_by_each_look_at_revoked_tokens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live_log, "HURRIED", 0.2)
    async with place() as one:
        task = await one.enter(client := Client(token_id="doomed"))
        client.reading.clear()
        one.feed.put(b'{"event": "a"}')
        await eventually(lambda: client.stuck)

        def look() -> bool:
            one.ws.end_where(lambda principal: principal.token_id == "doomed")
            return task.done()

        await eventually(look, 5, what="its place is free")
        with pytest.raises(ClientGone):
            await task
        assert "readers=0" in repr(one.feed)


async def test_a_client_that_reads_nothing_for_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_log, "STALLED", 0.02)
    async with place() as one:
        task = await one.enter(client := Client())
        client.reading.clear()
        one.feed.put(b'{"event": "a"}')
        with pytest.raises(ClientGone):
            await ended(task)
        assert "readers=0" in repr(one.feed)
