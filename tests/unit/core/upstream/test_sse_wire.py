from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from mcp_proxy.base.json import Fields, encode
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.core.upstream.exchange import Response
from mcp_proxy.core.upstream.failures import Attempt, Failure, Phase, WireError
from mcp_proxy.core.upstream.messages import Incoming
from mcp_proxy.core.upstream.sse_wire import SseWire
from mcp_proxy.core.upstream.wire import Outgoing
from tests.unit.core.upstream.scripted import Answer, Request, ScriptedExchange, ScriptedResponse, result

pytestmark = pytest.mark.anyio

CALL = Outgoing("tools/call", {"name": "add"})


class Stream(ScriptedResponse):
    """The event stream: what the test says comes, until it says that it ends."""

    def __init__(self) -> None:
        super().__init__(Answer(200, {"Content-Type": "text/event-stream"}), Attempt())
        self.queue: asyncio.Queue[bytes | WireError | None] = asyncio.Queue()

    def event(self, message: object, event: str = "message") -> None:
        text = message if isinstance(message, str) else json.dumps(message)
        self.queue.put_nowait(f"event: {event}\ndata: {text}\n\n".encode())

    async def chunks(self) -> AsyncIterator[bytes]:
        while (item := await self.queue.get()) is not None:
            if isinstance(item, WireError):
                raise item
            yield item


class SseExchange(ScriptedExchange):
    """GET opens the stream, POSTs are answered as scripted (202)."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(lambda _: Answer(202))
        self.stream = stream
        self.head = Answer(200, {"Content-Type": "text/event-stream"})
        self.posted: asyncio.Queue[Request] = asyncio.Queue()

    async def open(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, attempt: Attempt
    ) -> Response:
        if method == "GET" and self.head.status == 200:
            return self.stream
        if method == "GET":
            return ScriptedResponse(self.head, attempt)
        response = await super().open(method, url, headers, body, attempt)
        self.posted.put_nowait(self.requests[-1])
        return response


def unexpected(name: str, error: BaseException) -> None:
    raise AssertionError(f"{name}: {error!r}")


class Bench:
    def __init__(self) -> None:
        self.stream = Stream()
        self.exchange = SseExchange(self.stream)
        self.tasks = TaskSet(unexpected)
        self.heard: list[Incoming] = []
        self.wire = SseWire(
            self.exchange, "http://up.test:80/sse", {"X-Key": "k"},
            max_result=1000, tasks=self.tasks, on_incoming=self.heard.append,
        )  # fmt: skip

    async def open(self, endpoint: str = "/messages/?session=1") -> None:
        self.stream.event(endpoint, "endpoint")
        async with asyncio.timeout(5):
            await self.wire.open()

    def call(self, attempt: Attempt | None = None) -> asyncio.Task[Fields]:
        return self.tasks.spawn(self.wire.request(CALL, attempt or Attempt()), "call")

    async def posted(self) -> Request:
        async with asyncio.timeout(5):
            return await self.exchange.posted.get()


async def failed(call: asyncio.Task[Fields]) -> WireError:
    async with asyncio.timeout(5):
        with pytest.raises(WireError) as raised:
            await call
    return raised.value


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    bench.tasks = bench.wire._tasks = TaskSet(lambda *_: None)
    yield bench
    await bench.wire.close()
    await bench.tasks.close()


async def test_requests_go_to_the_endpoint_and_answers_come_by_the_stream(bench: Bench) -> None:
    await bench.open()
    calls = [bench.call(), bench.call()]
    ids = [(await bench.posted()).message["id"] for _ in calls]
    for number in reversed(ids):
        bench.stream.event(result(number, {"n": number}))
    assert [json.loads(encode(await call)) for call in calls] == [{"n": number} for number in ids]
    assert bench.exchange.requests[0].url == "http://up.test:80/messages/?session=1"
    assert bench.exchange.requests[0].headers["X-Key"] == "k"


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://elsewhere.test/messages",
        "//elsewhere.test/m",
        "https://up.test:80/m",
        "http://up.test:81/m",
        "file:///etc",
    ],
)
async def test_an_endpoint_on_another_origin_is_refused(bench: Bench, endpoint: str) -> None:
    with pytest.raises(WireError, match="another origin") as raised:
        await bench.open(endpoint)
    assert raised.value.failure is Failure.BAD_REPLY


async def test_only_the_first_endpoint_counts(bench: Bench) -> None:
    await bench.open("/one")
    bench.stream.event("http://elsewhere.test/two", "endpoint")
    bench.call()
    assert (await bench.posted()).url == "http://up.test:80/one"


@pytest.mark.parametrize("head", [Answer(404), Answer(500)])
async def test_no_stream_is_no_wire(bench: Bench, head: Answer) -> None:
    bench.exchange.head = head
    with pytest.raises(WireError) as raised:
        await bench.wire.open()
    assert (raised.value.status, raised.value.phase) == (head.status, Phase.NOT_SENT)


async def test_a_stream_that_ends_before_it_names_an_endpoint_is_no_wire(bench: Bench) -> None:
    bench.stream.queue.put_nowait(None)
    with pytest.raises(WireError, match="the event stream ended"):
        await bench.wire.open()


@pytest.mark.parametrize("end", [None, WireError(Failure.LOST, Phase.STREAMING, "broke off")])
async def test_when_the_stream_ends_all_calls_learn_that_they_may_have_been_executed(
    bench: Bench, end: WireError | None
) -> None:
    await bench.open()
    calls = [bench.call() for _ in range(3)]
    for _ in calls:
        await bench.posted()
    bench.stream.queue.put_nowait(end)
    for call in calls:
        error = await failed(call)
        assert (error.failure, error.phase) == (Failure.LOST, Phase.SENT)
    assert bench.wire.ended.done()
    after = await failed(bench.call())
    assert after.phase is Phase.NOT_SENT


async def test_an_answer_with_another_id_reaches_nobody(bench: Bench) -> None:
    await bench.open()
    call = bench.call()
    number = (await bench.posted()).message["id"]
    bench.stream.event(result(number + 1, {"for": "another"}))
    bench.stream.event(result(str(number), {"for": "another"}))
    bench.stream.event(result(number, {"for": "me"}))
    assert json.loads(encode(await call)) == {"for": "me"}


async def test_an_answer_that_cannot_be_read_fails_its_own_call_alone(bench: Bench) -> None:
    await bench.open()
    broken, other = bench.call(), bench.call()
    first, second = [(await bench.posted()).message["id"] for _ in range(2)]
    bench.stream.event(json.dumps(result(first, {"n": float("nan")})))
    bench.stream.event("garbage")
    bench.stream.event(result(second))
    assert (await failed(broken)).failure is Failure.BAD_REPLY
    await other


async def test_an_event_over_the_cap_fails_the_call_it_answers_and_no_other(bench: Bench) -> None:
    await bench.open()
    large, other = bench.call(), bench.call()
    first, second = [(await bench.posted()).message["id"] for _ in range(2)]
    text = "x" * 2000
    bench.stream.event(f'{{"jsonrpc":"2.0","id":{first},"result":{{"text":"{text}"}}}}')
    bench.stream.event(result(second))
    error = await failed(large)
    assert (error.failure, "larger than 1000" in error.message) == (Failure.TOO_LARGE, True)
    assert await other


async def test_a_404_means_that_the_session_is_lost_and_nothing_was_executed(bench: Bench) -> None:
    await bench.open()
    bench.exchange.script = lambda _: Answer(404)
    attempt = Attempt()
    error = await failed(bench.call(attempt))
    assert (error.failure, error.phase, attempt.phase) == (Failure.SESSION_LOST, Phase.NOT_SENT, Phase.NOT_SENT)
    assert bench.wire.ended.done()


@pytest.mark.parametrize("status", [307, 400, 500])
async def test_another_status_is_a_failure_of_a_request_that_was_sent(bench: Bench, status: int) -> None:
    await bench.open()
    bench.exchange.script = lambda _: Answer(status)
    error = await failed(bench.call())
    assert (error.failure, error.status, error.phase) == (Failure.HTTP, status, Phase.SENT)
    assert not bench.wire.ended.done()


async def test_cancelling_tells_the_upstream(bench: Bench) -> None:
    await bench.open()
    call = bench.call()
    number = (await bench.posted()).message["id"]
    call.cancel()
    notice = (await bench.posted()).message
    assert (notice["method"], notice["params"]["requestId"]) == ("notifications/cancelled", number)


async def test_requests_of_the_upstream_are_answered(bench: Bench) -> None:
    await bench.open()
    bench.stream.event({"jsonrpc": "2.0", "id": "p", "method": "ping"})
    assert (await bench.posted()).message == {"jsonrpc": "2.0", "id": "p", "result": {}}


async def test_requests_of_the_upstream_reach_the_links_handler_and_are_answered_by_post(bench: Bench) -> None:
    async def handler(request: Incoming) -> Mapping[str, Any]:
        return {"asked": request.method}

    await bench.open()
    assert bench.wire.on_request is None
    bench.wire.on_request = handler
    bench.stream.event({"jsonrpc": "2.0", "id": "r", "method": "roots/list"})
    assert (await bench.posted()).message == {"jsonrpc": "2.0", "id": "r", "result": {"asked": "roots/list"}}


async def test_log_messages_reach_the_only_call_that_asked_for_some(bench: Bench) -> None:
    await bench.open()
    logs: list[Incoming] = []
    out = Outgoing("tools/call", {"name": "add"}, on_message=logs.append, logs=True)
    call = bench.tasks.spawn(bench.wire.request(out, Attempt()), "call")
    number = (await bench.posted()).message["id"]
    bench.stream.event({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": "x"}})
    bench.stream.event(result(number))
    await call
    assert ([one.method for one in logs], bench.heard) == (["notifications/message"], [])


async def test_closing_ends_stream_and_connections(bench: Bench) -> None:
    await bench.open()
    call = bench.call()
    await bench.posted()
    await bench.wire.close()
    await failed(call)
    assert bench.stream.closed
    assert bench.exchange.closed
    assert bench.wire.ended.done()
