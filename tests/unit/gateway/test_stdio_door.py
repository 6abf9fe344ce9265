"""`StdioDoor` between streams in memory and a door that does as it is told."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mcp_proxy.base.clock import SystemClock
from mcp_proxy.base.json import encode
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.core.auth.principal import LOCAL, Principal
from mcp_proxy.core.upstream.terms import Era
from mcp_proxy.gateway import stdio
from mcp_proxy.gateway.asked import Answer, Asked
from mcp_proxy.gateway.envelope import Notification, Refusal
from mcp_proxy.gateway.session import Introduction, Session, Sessions
from mcp_proxy.gateway.stdio import StdioDoor
from mcp_proxy.settings import Settings
from mcp_proxy.telemetry.logs import configure
from tests.harness import eventually

pytestmark = pytest.mark.anyio

ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {"sampling": {}},
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    "io.modelcontextprotocol/logLevel": "warning",
}
INITIALIZE = {"protocolVersion": "2025-06-18", "capabilities": {"roots": {}}, "clientInfo": {"name": "t"}}


class FakeDoor:
    """Answers with the method; ``held`` methods only when their event is set, ``broken`` ones raise."""

    def __init__(self) -> None:
        ids = itertools.count(1)
        self.ended: list[Session] = []
        self.sessions = Sessions(
            limit=10, idle=60, clock=SystemClock(), ids=lambda: f"s{next(ids)}", on_end=self.ended.append
        )
        self.asked: list[Asked] = []
        self.heard: list[tuple[Session | None, Notification]] = []
        self.held: dict[str, asyncio.Event] = {}
        self.cancelled: list[str] = []

    async def answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        method = asked.request.method
        if method == "broken":
            raise ValueError("a secret of the inside")
        if method == "ask" and asked.session is not None:
            return self._result(asked, await asked.session.ask("roots/list", None, asked.channel))
        if method == "progress":
            for number in range(3):
                asked.channel.send(
                    encode({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"n": number}})
                )
        if method in self.held:
            try:
                await self.held[method].wait()
            except asyncio.CancelledError:
                self.cancelled.append(method)
                raise
        if method == "refused":
            asked.record.error = "tool_not_found"
            return self.refuse(Refusal(-32602, "no such tool", status=404, id=asked.request.id))
        if method == "wide":
            return Answer(b'{"jsonrpc":"2.0",\r\n"id":1,"result":{\n"text":"a\\nb"}}')
        return self._result(asked, {"did": method, "size": "x" * asked.request.params.get("size", 0)})

    def _result(self, asked: Asked, result: dict[str, Any]) -> Answer:
        return Answer(encode({"jsonrpc": "2.0", "id": asked.request.id, "result": result}))

    def introduce(self, asked: Asked) -> tuple[Session | None, Answer]:
        self.asked.append(asked)
        params = asked.request.params
        introduction = Introduction(params["protocolVersion"], params["capabilities"], params["clientInfo"])
        return self.sessions.open(asked.principal, introduction), self._result(asked, {"welcome": True})

    def notified(self, session: Session | None, message: Notification) -> None:
        if message.method == "notifications/broken":
            raise ValueError("a secret of the inside")
        self.heard.append((session, message))
        if message.method == "notifications/cancelled" and session is not None:
            session.cancel(message.params.get("requestId"))

    def refuse(self, refusal: Refusal) -> Answer:
        error = {"code": refusal.code, "message": refusal.message}
        return Answer(encode({"jsonrpc": "2.0", "id": refusal.id, "error": error}), refusal.status)

    def check_namespace(self, name: str, principal: Principal) -> None:
        raise NotImplementedError


class Pipe:
    """What the client reads. While ``stuck`` it takes nothing; once ``broken`` it is gone."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.moving = asyncio.Event()
        self.moving.set()
        self.broken = False
        self._news = asyncio.Condition()

    async def write(self, data: bytes, /) -> None:
        await self.moving.wait()
        if self.broken:
            raise BrokenPipeError(32, "Broken pipe")
        self.lines.append(data)
        async with self._news:
            self._news.notify_all()

    async def messages(self, count: int) -> list[Any]:
        """The first ``count`` messages, once they are there."""
        async with asyncio.timeout(5), self._news:
            await self._news.wait_for(lambda: len(self.lines) >= count)
        return [json.loads(line) for line in self.lines]


class Client:
    """A client of a `StdioDoor` that runs."""

    def __init__(self, max_message: int) -> None:
        self.door = FakeDoor()
        self.input = asyncio.StreamReader()
        self.pipe = Pipe()
        self._log = io.StringIO()
        self.failures: list[str] = []
        self.tasks = TaskSet(lambda name, error: self.failures.append(f"{name}: {error!r}"))
        ids = itertools.count(1)
        self.stdio = StdioDoor(
            self.door, read=self.input, write=self.pipe, log=configure(Settings(), stream=self._log, clock=SystemClock()),
            clock=SystemClock(), ids=lambda: f"id-{next(ids)}", tasks=self.tasks, max_message=max_message,
        )  # fmt: skip

    def send(self, *messages: Any) -> None:
        for message in messages:
            data = message if isinstance(message, bytes) else json.dumps({"jsonrpc": "2.0", **message}).encode()
            self.input.feed_data(data + b"\n")

    def lines(self, event: str = "request") -> list[dict[str, Any]]:
        found = [json.loads(line) for line in self._log.getvalue().splitlines()]
        return [line for line in found if line["event"] == event]


@asynccontextmanager
async def client(max_message: int = 65536) -> AsyncIterator[Client]:
    one = Client(max_message)
    running = one.tasks.spawn(one.stdio.run(), "run")
    try:
        yield one
        if not one.input.at_eof():
            one.input.feed_eof()
        async with asyncio.timeout(5):
            await running
            await one.stdio.finish(5)
            await one.stdio.close()
    finally:
        await one.tasks.close()
    assert one.failures == []


def request(id: int | str | None, method: str, **params: Any) -> dict[str, Any]:
    return {"id": id, "method": method, "params": params}


def modern(id: int | str, method: str, **params: Any) -> dict[str, Any]:
    return request(id, method, _meta=ENVELOPE, **params)


async def test_a_request_with_an_envelope_is_served_statelessly() -> None:
    async with client() as one:
        one.send(modern("a", "tools/list"))
        answers = await one.pipe.messages(1)

    [asked] = one.door.asked
    assert answers == [{"jsonrpc": "2.0", "id": "a", "result": {"did": "tools/list", "size": ""}}]
    assert (asked.client.era, asked.session, asked.principal) == (Era.MODERN, None, LOCAL)
    known = asked.client
    assert (known.capabilities, known.info["name"], known.log_level) == ({"sampling": {}}, "test", "warning")
    assert asked.headers is None


@pytest.mark.parametrize(
    ("meta", "code"),
    [
        ({"io.modelcontextprotocol/protocolVersion": "2026-07-28"}, -32602),
        ({**ENVELOPE, "io.modelcontextprotocol/protocolVersion": "2031-01-01"}, -32022),
    ],
)
async def test_an_envelope_that_is_not_right_is_refused_by_its_own_code(meta: dict[str, Any], code: int) -> None:
    async with client() as one:
        one.send(request(7, "tools/list", _meta=meta))
        [answer] = await one.pipe.messages(1)

    assert (answer["id"], answer["error"]["code"]) == (7, code)
    assert one.door.asked == []
    assert [(line["status_code"], line["error"]) for line in one.lines()] == [(400, "bad_request")]


async def test_initialize_opens_the_session_that_later_requests_belong_to() -> None:
    async with client() as one:
        one.send(request(1, "initialize", **INITIALIZE), request(2, "tools/list"))
        answers = await one.pipe.messages(2)
        [session] = one.door.sessions
        session.notify(b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}')
        await one.pipe.messages(3)

    assert [answer["id"] for answer in answers] == [1, 2]
    first, second = one.door.asked
    assert (first.client.era, first.session) == (Era.LEGACY, None)
    assert (second.client.era, second.session) == (Era.LEGACY, session)
    assert (second.client.capabilities, second.client.info) == ({"roots": {}}, {"name": "t"})
    assert session.introduction.version == "2025-06-18"
    assert one.door.ended == [session], "the session ends with the stream"


async def test_what_concerns_no_request_follows_the_answer_to_initialize() -> None:
    async with client() as one:
        one.pipe.moving.clear()
        one.send(modern("ahead", "ping"), request(1, "initialize", **INITIALIZE))
        await eventually(lambda: len(one.door.sessions))
        [session] = one.door.sessions
        assert not session.notify(b"{}"), "its answer still waits"
        one.pipe.moving.set()
        assert [answer["id"] for answer in await one.pipe.messages(2)] == ["ahead", 1]
        await eventually(lambda: session.notify(b"{}"))


async def test_a_client_that_introduces_itself_again_starts_anew_on_the_same_stream() -> None:
    async with client() as one:
        one.send(request(1, "initialize", **INITIALIZE), request(2, "initialize", **INITIALIZE), request(3, "x"))
        await one.pipe.messages(3)
        first = one.door.ended[0]
        [second] = one.door.sessions
        assert second.notify(b"{}")
        await one.pipe.messages(4)

    assert first is not second
    assert one.door.asked[-1].session is second


async def test_requests_before_initialize_are_served_statelessly_in_the_legacy_era() -> None:
    async with client() as one:
        one.send(request(1, "tools/list"))
        await one.pipe.messages(1)

    [asked] = one.door.asked
    assert (asked.client.era, asked.session, asked.client.capabilities) == (Era.LEGACY, None, {})


async def test_the_client_answers_requests_of_ours_on_the_same_stream() -> None:
    async with client() as one:
        one.send(request(1, "initialize", **INITIALIZE), request(2, "ask"))
        asked = (await one.pipe.messages(2))[1]
        assert asked["method"] == "roots/list"
        one.send({"id": asked["id"], "result": {"roots": []}})
        assert (await one.pipe.messages(3))[2] == {"jsonrpc": "2.0", "id": 2, "result": {"roots": []}}


async def test_a_response_nobody_waits_for_is_dropped() -> None:
    async with client() as one:
        one.send({"id": 9, "result": {}}, request(1, "ping"))
        assert [answer["id"] for answer in await one.pipe.messages(1)] == [1]


@pytest.mark.parametrize("session", [True, False], ids=["legacy", "modern"])
async def test_a_cancelled_request_gets_no_answer(session: bool) -> None:
    async with client() as one:
        one.door.held["slow"] = asyncio.Event()
        if session:
            one.send(request(0, "initialize", **INITIALIZE), request(1, "slow"))
        else:
            one.send(modern(0, "ping"), modern(1, "slow"))
        await eventually(lambda: len(one.door.asked) == 2)
        one.send({"method": "notifications/cancelled", "params": {"requestId": 1}}, request(2, "ping"))
        answers = await one.pipe.messages(2)
        await eventually(lambda: len(one.lines()) == 3)

    assert [answer["id"] for answer in answers] == [0, 2]
    assert one.door.cancelled == ["slow"]
    [line] = [line for line in one.lines() if line["method"] == "slow"]
    assert (line["status_code"], line["error"]) == (499, "cancelled")


@pytest.mark.parametrize("wanted", [2, "1", True, None, [1], {"id": 1}])
async def test_only_the_request_of_exactly_that_id_is_cancelled(wanted: object) -> None:
    async with client() as one:
        one.door.held["slow"] = asyncio.Event()
        one.send(modern(1, "slow"))
        await eventually(lambda: one.door.asked)
        one.send({"method": "notifications/cancelled", "params": {"requestId": wanted}}, request(5, "ping"))
        await one.pipe.messages(1)
        one.door.held["slow"].set()
        assert [answer["id"] for answer in await one.pipe.messages(2)] == [5, 1]


async def test_slow_requests_do_not_hold_up_others() -> None:
    async with client() as one:
        one.door.held["slow"] = asyncio.Event()
        one.send(modern(1, "slow"), modern(2, "quick"))
        assert [answer["id"] for answer in await one.pipe.messages(1)] == [2]
        one.door.held["slow"].set()
        assert [answer["id"] for answer in await one.pipe.messages(2)] == [2, 1]


async def test_what_a_request_sends_ahead_arrives_before_its_answer() -> None:
    async with client() as one:
        one.send(modern(1, "progress"))
        messages = await one.pipe.messages(4)

    assert [message.get("params", {}).get("n") for message in messages] == [0, 1, 2, None]
    assert messages[3]["id"] == 1


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"this is no JSON", -32700),
        (b'{"jsonrpc": "2.0", "id": 1', -32700),
        (b"\xff\xfe", -32700),
        (b'[{"jsonrpc": "2.0", "id": 1, "method": "ping"}]', -32600),
        (b'"text"', -32600),
        (b'{"jsonrpc": "2.0", "id": 1.5, "method": "ping"}', -32600),
    ],
)
async def test_a_line_that_is_no_message_is_answered_without_an_id_and_the_stream_goes_on(
    line: bytes, code: int
) -> None:
    async with client() as one:
        one.send(line, request(2, "ping"))
        refused, answer = await one.pipe.messages(2)

    assert (refused["id"], refused["error"]["code"]) == (None, code)
    assert answer["id"] == 2
    assert one.lines()[0] | {"method": "", "status_code": 400, "error": "bad_request"} == one.lines()[0]


async def test_a_line_that_is_too_long_is_refused_without_being_kept() -> None:
    async with client(max_message=1000) as one:
        one.send(request(1, "ping", text="x" * 100_000), request(2, "ping"))
        refused, answer = await one.pipe.messages(2)

    assert refused["id"] is None
    assert refused["error"] == {"code": -32600, "message": "the message is larger than 1000 bytes"}
    assert answer["id"] == 2


async def test_blank_lines_are_ignored() -> None:
    async with client() as one:
        one.send(b"", b"   ", b"\r", request(1, "ping"))
        assert [answer["id"] for answer in await one.pipe.messages(1)] == [1]

    assert len(one.lines()) == 1


async def test_a_last_line_without_its_end_is_served() -> None:
    async with client() as one:
        one.input.feed_data(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode())
        one.input.feed_eof()
        assert [answer["id"] for answer in await one.pipe.messages(1)] == [1]


async def test_what_is_in_flight_when_the_input_ends_is_answered() -> None:
    async with client() as one:
        one.door.held["slow"] = asyncio.Event()
        one.send(modern(1, "slow"))
        one.input.feed_eof()
        await eventually(lambda: one.door.asked)
        assert not await one.stdio.finish(0.001)
        one.door.held["slow"].set()
        assert await one.stdio.finish(5)

    assert [json.loads(line)["id"] for line in one.pipe.lines] == [1]


async def test_streams_that_last_are_waited_for_only_once_the_service_stops() -> None:
    async with client() as one:
        one.door.held["subscriptions/listen"] = asyncio.Event()
        one.send(modern(1, "subscriptions/listen"))
        await eventually(lambda: one.door.asked)
        one.input.feed_eof()
        assert await one.stdio.finish(5)
        assert not await one.stdio.finish(0.001, lasting=True)
        one.door.held["subscriptions/listen"].set()
        assert await one.stdio.finish(5, lasting=True)

    assert [json.loads(line)["id"] for line in one.pipe.lines] == [1]


async def test_what_is_still_in_flight_at_the_close_is_ended_without_an_answer() -> None:
    async with client() as one:
        one.door.held["slow"] = asyncio.Event()
        one.send(modern(1, "slow"))
        await eventually(lambda: one.door.asked)
        await one.stdio.close()

    assert one.door.cancelled == ["slow"]
    assert one.pipe.lines == []


async def test_a_client_that_reads_no_more_ends_the_run() -> None:
    async with client() as one:
        one.door.held["slow"] = asyncio.Event()
        one.pipe.broken = True
        one.send(modern(1, "slow"), modern(2, "ping"))
        await eventually(lambda: one.lines("client_gone"))
        assert await one.stdio.finish(5), "nobody is left to be answered"

    assert one.door.cancelled == ["slow"]


async def test_answers_to_a_client_that_is_slow_to_read_wait_and_none_is_lost() -> None:
    async with client() as one:
        one.pipe.moving.clear()
        one.send(*(modern(number, "ping") for number in range(1500)))
        await eventually(lambda: len(one.door.asked) == 1500)
        one.pipe.moving.set()
        answers = await one.pipe.messages(1500)

    assert [answer["id"] for answer in answers] == list(range(1500))


async def test_nothing_more_is_read_from_a_client_that_owes_us_too_much_reading(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stdio, "OWED_LIMIT", 50_000)
    monkeypatch.setattr(stdio, "CHUNK", 1024)
    async with client() as one:
        one.pipe.moving.clear()
        for number in range(100):
            one.send(modern(number, "large", size=20_000))
        await eventually(lambda: len(one.door.asked) > 2)
        for _ in range(200):
            await asyncio.sleep(0)
        assert len(one.door.asked) < 20
        one.pipe.moving.set()
        assert len(await one.pipe.messages(100)) == 100


async def test_line_breaks_inside_an_answer_do_not_end_the_line() -> None:
    async with client() as one:
        one.send(modern(1, "wide"))
        [answer] = await one.pipe.messages(1)

    assert answer["result"] == {"text": "a\nb"}
    assert one.pipe.lines[0].count(b"\n") == 1


async def test_every_request_is_one_line_in_the_log() -> None:
    async with client() as one:
        one.send(modern(1, "tools/call"), request(2, "refused"), {"method": "notifications/initialized"})
        await one.pipe.messages(2)

    served, refused = one.lines()
    assert served | {
        "request_id": "id-1", "method": "tools/call", "path": "stdio", "status_code": 200, "door": "stdio",
        "principal": "local", "error": None, "tool": None, "server": None, "remote_addr": "", "user_agent": "",
    } == served  # fmt: skip
    assert served["execution_time_ms"] >= 0
    assert (refused["method"], refused["status_code"], refused["error"]) == ("refused", 404, "tool_not_found")


async def test_a_request_that_fails_unforeseen_is_answered_without_saying_why_and_logged() -> None:
    async with client() as one:
        one.send(modern(1, "broken"), request(2, "ping"))
        first, second = sorted(await one.pipe.messages(2), key=lambda answer: answer["id"])

    assert first["error"]["code"] == -32603
    assert "secret" not in first["error"]["message"]
    assert second["id"] == 2
    assert "a secret of the inside" in one.lines("unhandled_exception")[0]["exception"]
    assert [line["status_code"] for line in one.lines() if line["method"] == "broken"] == [500]


async def test_a_notification_that_fails_unforeseen_does_not_end_the_stream() -> None:
    async with client() as one:
        one.send({"method": "notifications/broken"}, request(2, "ping"))
        assert [answer["id"] for answer in await one.pipe.messages(1)] == [2]

    assert len(one.lines("unhandled_exception")) == 1


async def test_notifications_reach_the_door_with_the_session_once_there_is_one() -> None:
    async with client() as one:
        one.send({"method": "notifications/a"}, request(1, "initialize", **INITIALIZE))
        await one.pipe.messages(1)
        one.send({"method": "notifications/initialized"}, request(2, "ping"))
        await one.pipe.messages(2)
        [session] = one.door.sessions

    assert [(seen, message.method) for seen, message in one.door.heard] == [
        (None, "notifications/a"),
        (session, "notifications/initialized"),
    ]
