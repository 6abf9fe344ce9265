"""Each way in which an upstream can fail one call, over each transport: what the caller is told, and what was executed.

One proxy serves misbehaving upstreams of each kind and a good one; while a call goes wrong, others go on.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from tests.faults.harness import FaultyCommand, FaultyUpstream, faulty_http, faulty_stdio
from tests.harness import ProxyProcess, Reply

pytestmark = pytest.mark.anyio

CAP = 4 * 1024 * 1024
KINDS = ("modern", "legacy", "sse", "stdio")
HTTP = ("modern", "legacy")
_numbers = itertools.count(1)


@dataclass
class House:
    """A proxy with one misbehaving upstream of each kind, and a good one."""

    proxy: ProxyProcess
    upstreams: dict[str, FaultyUpstream | FaultyCommand]

    async def call(self, kind: str, fault: str | None = None, **options: Any) -> tuple[Reply, int]:
        """Call ``count`` with a fault; the answer, and how often the call was executed."""
        tag = next(_numbers)
        args = {"tag": tag, **options} | ({"fault": fault} if fault else {})
        answer = await self.proxy.call("count", args, server=kind)
        return answer, self.upstreams[kind].ledger.count("count", tag=tag)

    async def recover(self, kind: str) -> None:
        """Two good calls, so that no breaker opens over the run of the table."""
        for _ in range(2):
            answer, executed = await self.call(kind)
            assert (answer.status, executed) == (200, 1), answer.json


@pytest.fixture(scope="module")
async def house() -> AsyncIterator[House]:
    async with AsyncExitStack() as stack:
        modern = await stack.enter_async_context(faulty_http())
        legacy = await stack.enter_async_context(faulty_http("legacy-only"))
        sse = await stack.enter_async_context(faulty_http("legacy-only"))
        stdio = await stack.enter_async_context(faulty_stdio())
        good = await stack.enter_async_context(faulty_stdio())
        servers: dict[str, Any] = {
            "modern": {"type": "http", "url": modern.url, "timeout": 2},
            "legacy": {"type": "http", "url": legacy.url, "timeout": 2},
            "sse": {"type": "sse", "url": sse.sse_url, "timeout": 2},
            "stdio": {**stdio.entry, "timeout": 2},
            "good": good.entry,
        }
        env = {"MCP_PROXY_MAX_RESULT": str(CAP)}
        proxy = await stack.enter_async_context(ProxyProcess(servers=servers, env=env))
        await proxy.connected(timeout=30)
        yield House(proxy, {"modern": modern, "legacy": legacy, "sse": sse, "stdio": stdio, "good": good})


def expected(status: int, kind: str, *faults: str, of: tuple[str, ...] = KINDS) -> list[tuple[str, str, int, str]]:
    return [(transport, fault, status, kind) for fault in faults for transport in of]


TABLE = [
    *expected(504, "outcome_unknown", "hang", "hang-before"),
    *expected(502, "outcome_unknown", "close", "close-before", "truncate-json", "truncate-sse", of=HTTP),
    *expected(502, "upstream_error", "wrong-id", "string-id", "batch", "no-result", of=HTTP),
    *expected(502, "outcome_unknown", "notification", of=("legacy",)),
    *expected(502, "upstream_error", "notification", "empty", "garbage", "html", "wrong-type", of=("modern",)),
    *expected(502, "upstream_error", "odd-result", "nan", "deep"),
    *expected(502, "upstream_error", "invalid-utf8", of=HTTP),
    *expected(502, "outcome_unknown", "status-500", of=HTTP),
    *expected(502, "upstream_error", "status-401", "redirect", of=HTTP),
    *expected(503, "upstream_unavailable", "status-429", "status-503", of=HTTP),
    *expected(502, "upstream_error", "error"),
    *expected(502, "result_too_large", "huge"),
]


@pytest.mark.parametrize(("transport", "fault", "status", "kind"), TABLE)
async def test_a_call_that_gets_no_good_answer_is_told_so_and_never_sent_twice(
    house: House, transport: str, fault: str, status: int, kind: str
) -> None:
    size = {"size": CAP + 4096} if fault == "huge" else {}
    others = [house.call("good") for _ in range(5)]
    (answer, executed), *rest = await asyncio.gather(house.call(transport, fault, **size), *others)

    assert (answer.status, answer.json["error"]["type"]) == (status, kind), answer.json
    assert answer.json["error"]["code"] == status
    assert executed <= 1
    assert [(good.status, count) for good, count in rest] == [(200, 1)] * 5
    if status == 503:
        assert int(answer.headers["retry-after"]) >= 1
    if fault == "redirect":
        assert "redirects are not followed" in answer.json["error"]["message"]
    await house.recover(transport)


@pytest.mark.parametrize(
    ("transport", "fault"),
    [
        *((transport, fault) for fault in ("twice", "progress", "slow", "server-request") for transport in KINDS),
        *((transport, fault) for fault in ("odd-sse", "big-event") for transport in ("modern", "legacy", "sse")),
        ("stdio", "invalid-utf8"),
        ("stdio", "overlong-line"),
    ],
)
async def test_oddities_that_the_protocol_allows_or_that_can_be_mended_do_not_fail_the_call(
    house: House, transport: str, fault: str
) -> None:
    options = {"slow": {"ms": 200}, "overlong-line": {"size": CAP + 4096}}.get(fault, {})
    answer, executed = await house.call(transport, fault, **options)
    assert (answer.status, executed) == (200, 1), answer.json
    assert answer.json["isError"] is False


@pytest.mark.parametrize("transport", KINDS)
async def test_a_tool_that_ran_and_failed_is_an_answer(house: House, transport: str) -> None:
    answer, executed = await house.call(transport, "is-error")
    assert (answer.status, answer.json["isError"], executed) == (200, True, 1)


async def test_a_tool_that_asks_for_input_is_422_with_what_it_asks(house: House) -> None:
    answer, executed = await house.call("modern", "input-required")
    assert (answer.status, answer.json["error"]["type"], executed) == (422, "input_required", 0)
    assert answer.json["error"]["details"]["inputRequests"]


@pytest.mark.parametrize(("code", "status", "kind"), [(-32602, 400, "upstream_error"), (-32021, 422, "input_required")])
async def test_errors_of_the_upstream_keep_their_code(house: House, code: int, status: int, kind: str) -> None:
    answer, _ = await house.call("modern", "error", code=code)
    error = answer.json["error"]
    assert (answer.status, error["type"], error["details"]["rpc_code"]) == (status, kind, code)


@pytest.mark.parametrize("transport", KINDS)
async def test_an_answer_with_another_calls_id_reaches_no_other_caller(house: House, transport: str) -> None:
    """Many calls at once; one of them is answered with ids around its own."""
    texts = [f"mine-{n}" for n in range(20)]
    calls = [house.proxy.call("echo", {"text": text}, server=transport) for text in texts]
    wrong = house.proxy.call("echo", {"text": "not-yours", "fault": "wrong-id"}, server=transport)
    _, *answers = await asyncio.gather(wrong, *calls)
    assert [answer.json["content"][0]["text"] for answer in answers] == texts
    await house.recover(transport)


async def test_a_caller_that_leaves_cancels_the_call_at_the_upstream(house: House) -> None:
    from tests.harness import eventually

    for transport in KINDS:
        ledger = house.upstreams[transport].ledger
        before = len(ledger.events("cancelled")) + len(ledger.events("disconnected"))
        task = asyncio.get_running_loop().create_task(house.call(transport, "hang"))
        received = len(ledger.events("received"))
        await eventually(lambda r=received, led=ledger: len(led.events("received")) > r, 5)
        task.cancel()
        await asyncio.wait([task])
        await eventually(
            lambda b=before, led=ledger: len(led.events("cancelled")) + len(led.events("disconnected")) > b,
            5,
            what=f"{transport} is told",
        )
        await house.recover(transport)
