from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mcp_proxy.base.json import encode
from mcp_proxy.core.upstream import child as child_module
from mcp_proxy.core.upstream.failures import Attempt, Failure, Phase, WireError
from mcp_proxy.core.upstream.guardian import Guardian
from mcp_proxy.core.upstream.messages import Incoming
from mcp_proxy.core.upstream.stdio import StdioWire
from mcp_proxy.core.upstream.wire import Outgoing
from tests.unit.core.upstream.processes import gone

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


class Bench:
    def __init__(self) -> None:
        self.guardian = Guardian()
        self.heard: list[Incoming] = []
        self.stderr: list[str] = []
        self.wire = StdioWire(
            max_result=10_000, guardian=self.guardian, on_incoming=self.heard.append, on_stderr=self.stderr.append
        )
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
