from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from mcp_proxy.base.json import Raw, encode
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.core.upstream.answering import _MOST, Answering, Posting
from mcp_proxy.core.upstream.failures import Failure, Phase, RpcError, WireError
from mcp_proxy.core.upstream.messages import Incoming
from tests.unit.core.upstream.wires import turns

pytestmark = pytest.mark.anyio


class Bench:
    """An upstream's open requests, a handler that answers when it is let go, and what was sent back."""

    def __init__(self) -> None:
        self.errors: list[tuple[str, BaseException]] = []
        self.tasks = TaskSet(lambda name, error: self.errors.append((name, error)))
        self.sent: list[dict[str, Any]] = []
        self.asked: list[Incoming] = []
        self.given_up: list[int | str | None] = []
        self.go = asyncio.Event()
        self.outcome: Mapping[str, Any] | Exception = {"ok": True}
        self.answering = Answering(self.tasks, lambda body: self.sent.append(json.loads(body)))

    async def handler(self, request: Incoming) -> Mapping[str, Any]:
        self.asked.append(request)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.given_up.append(request.id)
            raise
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def ask(self, request_id: int | str = 1, method: str = "roots/list") -> None:
        self.answering.take(Incoming(method, None, request_id), self.handler)

    def withdraw(self, params: object) -> None:
        self.answering.withdraw(Incoming("notifications/cancelled", Raw(encode(params))))

    async def answered(self) -> list[dict[str, Any]]:
        self.go.set()
        await turns()
        assert len(self.answering) == 0
        return self.sent


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.tasks.close()


async def test_a_ping_is_answered_at_once_whoever_is_there(bench: Bench) -> None:
    bench.answering.take(Incoming("ping", None, "p"), None)
    assert bench.sent == [{"jsonrpc": "2.0", "id": "p", "result": {}}]


async def test_what_nobody_can_answer_is_refused(bench: Bench) -> None:
    bench.answering.take(Incoming("sampling/createMessage", None, 7), None)
    [refusal] = bench.sent
    assert (refusal["id"], refusal["error"]["code"]) == (7, -32601)
    assert "sampling/createMessage" in refusal["error"]["message"]


async def test_the_answer_is_the_clients(bench: Bench) -> None:
    bench.outcome = {"roots": [], "raw": Raw(b"1.50")}
    bench.ask("a")
    assert await bench.answered() == [{"jsonrpc": "2.0", "id": "a", "result": {"roots": [], "raw": 1.5}}]
    assert bench.asked[0].method == "roots/list"


async def test_the_clients_refusal_is_handed_on_as_it_is(bench: Bench) -> None:
    bench.outcome = RpcError(-1, "the user said no", {"why": "x"})
    bench.ask()
    [refusal] = await bench.answered()
    assert refusal["error"] == {"code": -1, "message": "the user said no", "data": {"why": "x"}}


@pytest.mark.parametrize("error", [WireError(Failure.LOST, Phase.SENT, "secret"), TimeoutError("secret")])
async def test_a_client_that_does_not_answer_is_an_error_for_the_upstream(bench: Bench, error: Exception) -> None:
    bench.outcome = error
    bench.ask()
    [refusal] = await bench.answered()
    assert refusal["error"] == {"code": -32603, "message": "the client did not answer"}
    assert bench.errors == []


async def test_an_error_of_our_own_is_seen_and_leaves_no_upstream_waiting(bench: Bench) -> None:
    bench.outcome = ZeroDivisionError("secret")
    bench.ask()
    [refusal] = await bench.answered()
    assert refusal["error"] == {"code": -32603, "message": "the client could not be asked"}
    assert [type(error) for _, error in bench.errors] == [ZeroDivisionError]


async def test_requests_are_answered_in_the_order_of_their_answers(bench: Bench) -> None:
    slow = asyncio.Event()

    async def late(_: Incoming) -> Mapping[str, Any]:
        await slow.wait()
        return {}

    bench.answering.take(Incoming("roots/list", None, 1), late)
    bench.ask(2)
    bench.go.set()
    await turns()
    slow.set()
    assert [one["id"] for one in await bench.answered()] == [2, 1]


@pytest.mark.parametrize("begun", [True, False], ids=["begun", "not even begun"])
async def test_a_request_that_is_withdrawn_gets_no_answer_and_its_id_is_free_again(bench: Bench, begun: bool) -> None:
    bench.ask("a")
    if begun:
        await turns()
    bench.withdraw({"requestId": "a"})
    await turns()
    assert (bench.sent, len(bench.answering)) == ([], 0)
    assert bench.given_up == (["a"] if begun else [])
    bench.ask("a")
    assert [one["id"] for one in await bench.answered()] == ["a"]


@pytest.mark.parametrize(
    "params", [{"requestId": "1"}, {"requestId": True}, {"requestId": 2}, {"requestId": [1]}, {}, []]
)
async def test_only_the_very_id_withdraws_a_request(bench: Bench, params: object) -> None:
    bench.ask(1)
    bench.withdraw(params)
    assert [one["id"] for one in await bench.answered()] == [1]


async def test_a_withdrawal_without_parameters_withdraws_nothing(bench: Bench) -> None:
    bench.ask()
    bench.answering.withdraw(Incoming("notifications/cancelled", None))
    assert len(await bench.answered()) == 1


async def test_an_id_that_is_still_open_is_refused_and_the_first_request_is_answered(bench: Bench) -> None:
    bench.ask(1)
    bench.ask(1)
    assert [(one["id"], "error" in one) for one in bench.sent] == [(1, True)]
    assert [(one["id"], "error" in one) for one in await bench.answered()] == [(1, True), (1, False)]
    assert len(bench.asked) == 1


async def test_a_number_and_a_text_are_different_ids(bench: Bench) -> None:
    bench.ask(1)
    bench.ask("1")
    assert [one["id"] for one in await bench.answered()] == [1, "1"]


async def test_there_are_never_more_open_requests_than_allowed(bench: Bench) -> None:
    for number in range(_MOST + 1):
        bench.ask(number)
    assert [one["id"] for one in bench.sent] == [_MOST]
    assert len(bench.answering) == _MOST
    assert len(await bench.answered()) == _MOST + 1
    bench.ask(_MOST)
    await turns()
    assert "result" in bench.sent[-1]


async def test_closing_gives_up_every_request_and_answers_none(bench: Bench) -> None:
    for number in range(3):
        bench.ask(number)
    await turns()
    bench.answering.close()
    await turns()
    assert (bench.sent, bench.given_up, len(bench.answering), len(bench.tasks)) == ([], [0, 1, 2], 0, 0)


# Requests that are too large, and answers that are posted


@pytest.mark.parametrize("largest", [100, 3000])
async def test_a_request_may_be_as_large_as_was_said(bench: Bench, largest: int) -> None:
    answering = Answering(bench.tasks, lambda body: bench.sent.append(json.loads(body)), largest=largest)
    for number, size in enumerate([largest, largest + 1]):
        answering.take(Incoming("roots/list", Raw(b'"%s"' % (b"x" * (size - 2))), number), bench.handler)
    assert [(one["id"], one["error"]["code"]) for one in bench.sent] == [(1, -32602)]
    assert f"larger than {largest} bytes" in bench.sent[0]["error"]["message"]
    bench.go.set()
    await turns()
    assert bench.sent[1] == {"jsonrpc": "2.0", "id": 0, "result": {"ok": True}}


class Post:
    """Where answers go: each try ends with the next of ``outcomes``, and the later ones well."""

    def __init__(self, bench: Bench, *outcomes: WireError) -> None:
        self.tries: list[bytes] = []
        self._outcomes = list(outcomes)
        self.posting = Posting(bench.tasks, self.post, pause=0)

    async def post(self, body: bytes) -> None:
        self.tries.append(body)
        if self._outcomes:
            raise self._outcomes.pop(0)


REFUSED = WireError(Failure.UNREACHABLE, Phase.NOT_SENT, "refused")
BUSY = WireError(Failure.BUSY, Phase.SENT, "HTTP 503", status=503)


@pytest.mark.parametrize("error", [REFUSED, BUSY])
async def test_an_answer_that_was_not_taken_is_sent_once_more(bench: Bench, error: WireError) -> None:
    post = Post(bench, error)
    post.posting(b"{}")
    await turns()
    assert post.tries == [b"{}"] * 2
    post = Post(bench, error, error)
    post.posting(b"{}")
    await turns()
    assert len(post.tries) == 2
    assert (bench.errors, len(bench.tasks)) == ([], 0)


@pytest.mark.parametrize("failure", [Failure.LOST, Failure.HTTP, Failure.SESSION_LOST])
async def test_an_answer_that_may_have_been_taken_is_not_sent_again(bench: Bench, failure: Failure) -> None:
    post = Post(bench, WireError(failure, Phase.SENT, "who knows"))
    post.posting(b"{}")
    await turns()
    assert len(post.tries) == 1
    assert (bench.errors, len(bench.tasks)) == ([], 0)
