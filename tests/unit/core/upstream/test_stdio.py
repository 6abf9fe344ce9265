from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from msgspec.structs import replace

from mcp_proxy.base.json import encode
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.core.upstream import child as child_module
from mcp_proxy.core.upstream.failures import Attempt, Failure, Phase, RpcError, WireError
from mcp_proxy.core.upstream.guardian import Guardian
from mcp_proxy.core.upstream.link import Link
from mcp_proxy.core.upstream.messages import Incoming
from mcp_proxy.core.upstream.stdio import StdioWire
from mcp_proxy.core.upstream.terms import Era, Terms
from mcp_proxy.core.upstream.wire import ACKNOWLEDGED, Outgoing
from tests.unit.core.upstream.processes import gone
from tests.unit.core.upstream.wires import begun, turns

pytestmark = pytest.mark.anyio

# A server that answers a call with the bytes its argument `say` holds, `ID` standing for the request's id.
SERVER = r"""
import json, os, sys
out = sys.stdout.buffer
def say(data):
    out.write(data); out.flush()
say(b"Starting up! SECRET=abc\n\n{not json}\n")
heard = []
for line in sys.stdin:
    message = json.loads(line)
    heard.append(message)
    params = message.get("params", {})
    if message.get("method") == "heard":
        say(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": {"v": heard}}).encode() + b"\n")
    elif "say" in params:
        say(bytes.fromhex(params["say"]).replace(b"ID", str(message["id"]).encode()))
    if params.get("then") == "exit":
        os._exit(3)
"""


def unexpected(name: str, error: BaseException) -> None:
    raise AssertionError(f"{name}: {error!r}")


class Bench:
    def __init__(self) -> None:
        self.guardian = Guardian()
        self.tasks = TaskSet(unexpected)
        self.heard: list[Incoming] = []
        self.stderr: list[str] = []
        self.wire = StdioWire(
            max_result=10_000, guardian=self.guardian, tasks=self.tasks,
            on_incoming=self.heard.append, on_stderr=self.stderr.append,
        )  # fmt: skip
        self.attempt = Attempt()

    async def call(self, say: bytes | None = None, **params: Any) -> Any:
        extra = {} if say is None else {"say": say.hex()}
        self.attempt = Attempt()
        async with asyncio.timeout(10):
            result = await self.wire.request(Outgoing("tools/call", {**extra, **params}), self.attempt)
        return json.loads(encode(result))["v"]

    async def failure(self, say: bytes, **params: Any) -> WireError:
        with pytest.raises(WireError) as raised:
            await self.call(say, **params)
        return raised.value

    async def messages_heard(self) -> list[dict[str, Any]]:
        async with asyncio.timeout(10):
            found = json.loads(encode(await self.wire.request(Outgoing("heard", {}), Attempt())))["v"]
        assert isinstance(found, list)
        return found


def answer(result: bytes) -> bytes:
    """``result`` in an object, which `Bench.call` takes it out of again."""
    return b'{"jsonrpc":"2.0","id":ID,"result":{"v":' + result + b"}}\n"


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(child_module, "_GRACE", 0.5)
    bench = Bench()
    await bench.wire.open((sys.executable, "-c", SERVER), {"PATH": os.environ["PATH"]}, None)
    yield bench
    await bench.wire.close()
    await bench.tasks.close()
    await bench.guardian.close()


async def test_noise_before_and_between_answers_is_skipped(bench: Bench) -> None:
    assert await bench.call(b"noise\n[1]\n\n" + answer(b'{"a":1}') + b"more noise\n") == {"a": 1}
    assert bench.wire.noise >= 4
    assert bench.attempt.phase is Phase.SENT


async def test_line_ends_of_windows_are_accepted(bench: Bench) -> None:
    assert await bench.call(answer(b"1").replace(b"\n", b"\r\n")) == 1


async def test_bad_utf8_is_replaced_and_the_caller_gets_an_answer(bench: Bench) -> None:
    assert await bench.call(answer(b'{"text":"a\xff\xfeb"}')) == {"text": "a\ufffd\ufffdb"}


async def test_a_line_over_the_cap_fails_only_the_call_it_answers(bench: Bench) -> None:
    error = await bench.failure(answer(b'"' + b"x" * 20_000 + b'"'))
    assert (error.failure, error.message) == (Failure.TOO_LARGE, "the answer is larger than 10000 bytes")
    assert await bench.call(answer(b"1")) == 1


async def test_an_answer_that_cannot_be_read_fails_only_its_own_call(bench: Bench) -> None:
    error = await bench.failure(answer(b'{"n":NaN}'))
    assert error.failure is Failure.BAD_REPLY
    assert await bench.call(answer(b"1")) == 1


@pytest.mark.parametrize("wrong", [b'"ID"', b"99", b"null", b"true"])
async def test_an_answer_with_another_id_reaches_nobody(bench: Bench, wrong: bytes) -> None:
    wrong_first = (
        answer(b'"wrong"').replace(b"ID", wrong, 1) if wrong != b'"ID"' else answer(b'"wrong"').replace(b"ID", b'"ID"')
    )
    assert await bench.call(wrong_first + answer(b'"right"')) == "right"


async def test_answers_may_come_in_any_order(bench: Bench) -> None:
    async def silent() -> Any:
        return await bench.call()

    waiting = asyncio.get_running_loop().create_task(silent())
    await asyncio.sleep(0)
    first = b'{"jsonrpc":"2.0","id":1,"result":{"v":"late"}}\n'
    assert await bench.call(answer(b'"early"') + first) == "early"
    assert await waiting == "late"


async def test_a_child_that_dies_fails_all_calls_at_once_and_they_may_have_been_executed(bench: Bench) -> None:
    waiting = [asyncio.get_running_loop().create_task(bench.call()) for _ in range(3)]
    await asyncio.sleep(0)
    error = await bench.failure(b"", then="exit")
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    for one in (error, *outcomes):
        assert isinstance(one, WireError)
        assert (one.failure, one.phase) == (Failure.LOST, Phase.SENT)
    assert bench.wire.ended.done()
    after = await bench.failure(b"")
    assert (after.failure, after.phase, bench.attempt.phase) == (Failure.LOST, Phase.NOT_SENT, Phase.NOT_SENT)
    with pytest.raises(WireError):
        await bench.wire.notify("notifications/initialized")


async def test_cancelling_tells_the_child_and_nobody_else_is_disturbed(bench: Bench) -> None:
    call = asyncio.get_running_loop().create_task(bench.call())
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait([call], timeout=5)
    heard = await bench.messages_heard()
    assert [one["method"] for one in heard] == ["tools/call", "notifications/cancelled", "heard"]
    assert heard[1]["params"]["requestId"] == heard[0]["id"]


async def test_requests_of_the_child_are_answered(bench: Bench) -> None:
    await bench.call(b'{"jsonrpc":"2.0","id":"p","method":"ping"}\n' + answer(b"1"))
    heard = await bench.messages_heard()
    assert {"jsonrpc": "2.0", "id": "p", "result": {}} in heard


async def test_requests_of_the_child_reach_the_links_handler(bench: Bench) -> None:
    asked: list[str] = []

    async def handler(request: Incoming) -> Mapping[str, Any]:
        asked.append(request.method)
        return {"roots": []}

    assert bench.wire.on_request is None
    bench.wire.on_request = handler
    await bench.call(b'{"jsonrpc":"2.0","id":"r","method":"roots/list"}\n' + answer(b"1"))
    heard = await bench.messages_heard()
    assert asked == ["roots/list"]
    assert {"jsonrpc": "2.0", "id": "r", "result": {"roots": []}} in heard


async def test_log_messages_reach_the_only_call_that_asked_for_some(bench: Bench) -> None:
    logs: list[Incoming] = []
    line = b'{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"x"}}\n'
    say = (line + answer(b"1")).hex()
    async with asyncio.timeout(10):
        await bench.wire.request(Outgoing("tools/call", {"say": say}, on_message=logs.append, logs=True), Attempt())
        await bench.wire.request(Outgoing("tools/call", {"say": say}, on_message=logs.append), Attempt())
    assert [one.method for one in logs] == ["notifications/message"]
    assert [one.method for one in bench.heard] == ["notifications/message"]


def acknowledged(subscription: str = "ID", uris: str = '["file:///a"]') -> bytes:
    """An acknowledgement; ``ID`` stands for the id of the request it comes with."""
    agreed = f'{{"resourceSubscriptions":{uris}}}'
    meta = f'{{"io.modelcontextprotocol/subscriptionId":{subscription}}}'
    params = f'{{"notifications":{agreed},"_meta":{meta}}}'
    return f'{{"jsonrpc":"2.0","method":"{ACKNOWLEDGED}","params":{params}}}\n'.encode()


class Following:
    """One resource that is followed on a modern link; ``say`` is what the child says to it."""

    def __init__(self, bench: Bench, say: bytes, uri: str = "file:///a") -> None:
        self._wire = Saying(bench.wire, say)
        link = Link(self._wire, Terms(Era.MODERN, "2026-07-28"))
        self.accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.stream = begun(link.follow(uri, self.accepted))

    async def agreed(self) -> None:
        async with asyncio.timeout(10):
            await self.accepted

    async def end(self) -> None:
        self.stream.cancel()
        await asyncio.wait([self.stream], timeout=10)


class Saying:
    """The wire, with what the child is to say in every request."""

    def __init__(self, wire: StdioWire, say: bytes) -> None:
        self._inner = wire
        self._say = say

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def request(self, out: Outgoing, attempt: Attempt) -> Any:
        return await self._inner.request(replace(out, params={**out.params, "say": self._say.hex()}), attempt)


async def test_each_acknowledgement_reaches_the_resource_whose_subscription_it_names(bench: Bench) -> None:
    first = Following(bench, b"", "file:///a")
    await turns()
    # The child says both with the second, the one of the second first.
    both = acknowledged(uris='["file:///b"]') + acknowledged("1")
    second = Following(bench, both, "file:///b")
    await second.agreed()
    await first.agreed()
    assert not first.stream.done()
    assert not second.stream.done()
    await first.end()
    await second.end()
    heard = await bench.messages_heard()
    listens = [one["id"] for one in heard if one["method"] == "subscriptions/listen"]
    assert [one["params"]["requestId"] for one in heard if one["method"] == "notifications/cancelled"] == listens
    assert bench.heard == []


async def test_an_acknowledgement_that_does_not_honour_the_resource_is_a_refusal(bench: Bench) -> None:
    following = Following(bench, acknowledged(uris="[]"))
    with pytest.raises(RpcError) as raised:
        await following.agreed()
    assert raised.value.code == -32600
    await following.end()


async def test_an_acknowledgement_of_another_subscription_is_none(bench: Bench) -> None:
    following = Following(bench, acknowledged('"ID"') + acknowledged("99"))
    await turns()
    await bench.messages_heard()
    assert not following.accepted.done()
    assert [one.method for one in bench.heard] == [ACKNOWLEDGED, ACKNOWLEDGED]
    await following.end()


async def test_a_child_that_ends_before_it_acknowledges_ends_the_stream(bench: Bench) -> None:
    following = Following(bench, b"")
    await turns()
    await bench.failure(b"", then="exit")
    async with asyncio.timeout(10):
        with pytest.raises(WireError) as raised:
            await following.stream
    assert raised.value.failure is Failure.LOST
    assert not following.accepted.done()


async def test_a_child_that_ends_gives_up_what_it_has_asked(bench: Bench) -> None:
    given_up = asyncio.Event()

    async def handler(_: Incoming) -> Mapping[str, Any]:
        try:
            await asyncio.Event().wait()
        finally:
            given_up.set()
        return {}

    bench.wire.on_request = handler
    await bench.failure(b'{"jsonrpc":"2.0","id":"r","method":"roots/list"}\n', then="exit")
    async with asyncio.timeout(5):
        await given_up.wait()


async def test_notifications_are_handed_on(bench: Bench) -> None:
    await bench.call(b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}\n' + answer(b"1"))
    assert [one.method for one in bench.heard] == ["notifications/tools/list_changed"]


async def test_closing_ends_the_child_and_the_calls(bench: Bench) -> None:
    call = asyncio.get_running_loop().create_task(bench.call())
    await asyncio.sleep(0)
    pid = bench.wire.pid
    await bench.wire.close()
    await gone(pid)
    with pytest.raises(WireError):
        await call
    assert bench.wire.ended.done()
