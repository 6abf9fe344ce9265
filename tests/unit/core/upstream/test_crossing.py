from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from mcp_proxy.base.json import Fields, Raw, decode, encode
from mcp_proxy.core.upstream.client import Client
from mcp_proxy.core.upstream.crossing import MAX_ROUNDS, Sending, exchange, is_input_required
from mcp_proxy.core.upstream.deadline import Deadline
from mcp_proxy.core.upstream.failures import Attempt, Failure, RpcError, WireError
from mcp_proxy.core.upstream.messages import Incoming
from mcp_proxy.core.upstream.terms import Era
from mcp_proxy.core.upstream.wire import Outgoing
from tests.unit.core.fakes import tool
from tests.unit.core.upstream.wires import FakeWire, begun, terms, turns

pytestmark = pytest.mark.anyio

NAME = {"method": "elicitation/create", "params": {"message": "Your name?", "amount": 12345678901234567890123}}
ROOTS = {"method": "roots/list"}


def wanting(state: object = "s", **requests: object) -> dict[str, Any]:
    """A result that asks for input."""
    found: dict[str, Any] = {"resultType": "input_required", "inputRequests": requests}
    return found if state is None else found | {"requestState": state}


class Person:
    """A client that can be asked, and what it was asked and told."""

    def __init__(self, era: Era = Era.LEGACY, answer: Mapping[str, Any] | Exception | None = None) -> None:
        self.asked: list[Incoming] = []
        self.told: list[str] = []
        self.given_up = 0
        self.answer: Mapping[str, Any] | Exception | None = {"action": "accept"} if answer is None else answer
        self.seen: Callable[[], None] = lambda: None
        self.client = Client(
            era, capabilities={"elicitation": {}}, key="k", on_message=lambda m: self.told.append(m.method),
            on_request=self._ask,
        )  # fmt: skip

    def hangs(self) -> Person:
        self.answer = None
        return self

    async def _ask(self, request: Incoming) -> Mapping[str, Any]:
        self.asked.append(request)
        self.seen()
        try:
            if self.answer is None:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        if isinstance(self.answer, Exception):
            raise self.answer
        assert self.answer is not None
        return self.answer


class Run:
    """One request over a fake wire."""

    def __init__(self, era: Era, *results: object) -> None:
        self.results = list(results)
        self.wire = FakeWire({"tools/call": self._next}, terms(era))
        self.attempt = Attempt()

    def _next(self, out: Outgoing) -> object:
        step = self.results.pop(0)
        return step(out) if callable(step) else step

    async def send(self, client: Client, params: Mapping[str, Any] | None = None, **more: Any) -> Fields:
        self.deadline = Deadline(60, 600)
        sending = Sending("tools/call", params or {"name": "t", "arguments": {"a": 1}}, client, **more)
        async with asyncio.timeout(10):
            return await exchange(self.wire.link(), sending, self.attempt, self.deadline)

    @property
    def params(self) -> list[dict[str, Any]]:
        """What was sent, without what every modern request says of its client."""
        return [{k: v for k, v in json.loads(encode(out.params)).items() if k != "_meta"} for out in self.wire.sent]


DONE = {"content": [], "n": 1}


# Rounds: a legacy client of a modern upstream


async def test_a_legacy_client_is_asked_what_a_modern_upstream_wants_to_know() -> None:
    run, person = Run(Era.MODERN, wanting(one=NAME, two=ROOTS), DONE), Person()
    assert decode((await run.send(person.client))["n"]) == 1
    assert [one.method for one in person.asked] == ["elicitation/create", "roots/list"]
    assert person.asked[0].id is None
    assert bytes(person.asked[0].params or b"") == encode(NAME["params"])
    assert person.asked[1].params is None
    call = {"name": "t", "arguments": {"a": 1}}
    answer = {"action": "accept"}
    assert run.params == [call, {**call, "inputResponses": {"one": answer, "two": answer}, "requestState": "s"}]
    assert run.attempt.forwarded


@pytest.mark.parametrize("state", [b'"a\\u00e9\\/b"', b'{ "x" : 1.50 }', b"12345678901234567890123", b"null"])
async def test_the_state_of_the_request_is_carried_byte_for_byte(state: bytes) -> None:
    run = Run(Era.MODERN, wanting(Raw(state)), DONE)
    await run.send(Person().client)
    carried = run.wire.sent[1].params["requestState"]
    assert isinstance(carried, Raw)
    assert bytes(carried) == state


async def test_every_round_carries_its_own_answers_and_state_alone() -> None:
    first = {"name": "t", "inputResponses": {"old": {}}, "requestState": "old"}
    run = Run(Era.MODERN, wanting("one", a=NAME), wanting(None, b=NAME), wanting("three"), DONE)
    await run.send(Person().client, first)
    answer = {"action": "accept"}
    assert run.params == [
        first,
        {"name": "t", "inputResponses": {"a": answer}, "requestState": "one"},
        {"name": "t", "inputResponses": {"b": answer}},
        {"name": "t", "inputResponses": {}, "requestState": "three"},
    ]


async def test_a_client_that_refuses_ends_the_call_with_its_error() -> None:
    run, person = Run(Era.MODERN, wanting(a=NAME, b=NAME)), Person(answer=RpcError(-1, "no"))
    with pytest.raises(RpcError, match="no"):
        await run.send(person.client)
    assert len(person.asked) == 1
    assert len(run.wire.sent) == 1


async def test_an_upstream_that_never_stops_asking_is_given_up() -> None:
    run, person = Run(Era.MODERN, *[wanting(a=NAME)] * (MAX_ROUNDS + 1)), Person()
    with pytest.raises(WireError, match="more than 16 times") as raised:
        await run.send(person.client)
    assert raised.value.failure is Failure.BAD_REPLY
    assert len(run.wire.sent) == MAX_ROUNDS
    assert len(person.asked) == MAX_ROUNDS - 1  # the last answers would go nowhere


@pytest.mark.parametrize(
    "requests", [b"[]", b'"x"', b'{"a":1}', b'{"a":{}}', b'{"a":{"method":7}}', b'{"a":{"method":"m"},"b":[]}']
)
async def test_a_wish_that_cannot_be_read_is_the_upstreams_fault_and_nobody_is_asked(requests: bytes) -> None:
    run = Run(Era.MODERN, {"resultType": "input_required", "inputRequests": Raw(requests)})
    person = Person()
    with pytest.raises(WireError) as raised:
        await run.send(person.client)
    assert raised.value.failure is Failure.BAD_REPLY
    assert person.asked == []


async def test_the_calls_time_stands_still_while_the_client_is_asked() -> None:
    run, person = Run(Era.MODERN, wanting(a=NAME), DONE), Person()
    moved: list[float] = []

    async def watched() -> None:
        deadline = Deadline(60, 600)
        with deadline:
            person.seen = lambda: moved.append(deadline.until - deadline.at)
            sending = Sending("tools/call", {"name": "t"}, person.client)
            await exchange(run.wire.link(), sending, run.attempt, deadline)

    await watched()
    assert moved == [pytest.approx(540)]


async def test_a_call_that_is_cancelled_while_the_client_is_asked_asks_no_longer() -> None:
    run, person = Run(Era.MODERN, wanting(a=NAME)), Person().hangs()
    call = begun(run.send(person.client))
    await turns()
    call.cancel()
    await asyncio.wait([call], timeout=5)
    assert (len(person.asked), person.given_up, call.cancelled()) == (1, 1, True)


# What passes as it is


@pytest.mark.parametrize(
    ("client", "upstream"),
    [(Era.MODERN, Era.MODERN), (Era.MODERN, Era.LEGACY), (Era.LEGACY, Era.LEGACY)],
)
async def test_between_other_eras_a_wish_for_input_is_a_result_like_any(client: Era, upstream: Era) -> None:
    run, person = Run(upstream, wanting(a=NAME)), Person(client)
    assert is_input_required(await run.send(person.client))
    assert person.asked == []


async def test_a_client_that_cannot_be_asked_gets_the_wish_itself() -> None:
    run = Run(Era.MODERN, wanting(a=NAME), wanting(a=NAME))
    for client in (Client(Era.LEGACY), Client(Era.LEGACY, on_message=lambda _: None)):
        assert is_input_required(await run.send(client))


async def test_a_modern_client_carries_answers_and_state_to_a_modern_upstream() -> None:
    params = {"name": "t", "inputResponses": {"a": {}}, "requestState": "x"}
    run = Run(Era.MODERN, DONE)
    await run.send(Client(), params)
    assert run.params == [params]


@pytest.mark.parametrize("client", [Client(), Person(Era.MODERN).client], ids=["plain", "askable"])
async def test_a_legacy_upstream_never_sees_anything_of_rounds(client: Client) -> None:
    run = Run(Era.LEGACY, DONE)
    await run.send(client, {"name": "t", "inputResponses": {"a": {}}, "requestState": "x"})
    assert run.wire.sent[0].params == {"name": "t"}


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        (b'"input_required"', True),
        (b' "input_required" ', True),
        (b'"complete"', False),
        (b"null", False),
        (None, False),
    ],
)
def test_only_a_result_that_says_so_is_a_wish_for_input(kind: bytes | None, wanted: bool) -> None:
    assert is_input_required({} if kind is None else {"resultType": Raw(kind)}) is wanted


@pytest.mark.parametrize(
    ("era", "headers"), [(Era.MODERN, {"X": "1", "Mcp-Param-Region": "eu"}), (Era.LEGACY, {"X": "1"})]
)
async def test_arguments_are_repeated_as_headers_in_the_modern_era_alone(era: Era, headers: dict[str, str]) -> None:
    mirrored = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
    run = Run(era, DONE)
    params = {"name": "t", "arguments": {"region": "eu"}}
    await run.send(Client(), params, tool=tool("t", inputSchema=mirrored), headers={"X": "1"})
    assert run.wire.sent[0].headers == headers


async def test_a_call_without_arguments_repeats_none() -> None:
    mirrored = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
    run = Run(Era.MODERN, DONE)
    await run.send(Client(), {"name": "t"}, tool=tool("t", inputSchema=mirrored))
    assert run.wire.sent[0].headers == {}


# What comes before the answer


async def test_what_is_said_before_the_answer_reaches_the_client_and_is_noted() -> None:
    def says(out: Outgoing) -> object:
        assert out.on_message is not None
        out.on_message(Incoming("notifications/progress", None))
        return DONE

    run, person = Run(Era.LEGACY, says), Person()
    assert not run.attempt.forwarded
    await run.send(person.client)
    assert person.told == ["notifications/progress"]
    assert run.attempt.forwarded


async def test_a_request_of_a_legacy_upstream_reaches_the_client_and_its_time_stands_still() -> None:
    person = Person(Era.MODERN)
    paused: list[int] = []

    async def asks(out: Outgoing) -> object:
        assert out.on_request is not None
        person.seen = lambda: paused.append(run.deadline._paused)
        return {"heard": await out.on_request(Incoming("elicitation/create", None, 5))}

    run = Run(Era.LEGACY, asks)
    assert decode((await run.send(person.client))["heard"]) == {"action": "accept"}
    assert (paused, run.deadline._paused) == ([1], 0)
    assert run.attempt.forwarded


async def test_what_the_client_is_still_asked_is_withdrawn_when_the_request_has_ended() -> None:
    person, asking = Person().hangs(), []

    async def asks(out: Outgoing) -> object:
        assert out.on_request is not None
        asking.append(begun(out.on_request(Incoming("roots/list", None, 1))))
        await turns()
        return DONE

    run = Run(Era.LEGACY, asks)
    await run.send(person.client)
    await asyncio.wait(asking, timeout=5)
    assert (person.given_up, asking[0].cancelled(), run.deadline._paused) == (1, True, 0)


async def test_a_question_that_came_together_with_the_answer_is_not_asked_any_more() -> None:
    person, asking = Person(), []

    def asks(out: Outgoing) -> object:
        assert out.on_request is not None
        asking.append(begun(out.on_request(Incoming("roots/list", None, 1))))
        return DONE

    run = Run(Era.LEGACY, asks)
    await run.send(person.client)
    with pytest.raises(RpcError, match="has ended"):
        await asking[0]
    assert person.asked == []


@pytest.mark.parametrize("key", [None, "k"])
async def test_only_on_a_link_of_its_own_a_client_is_taken_for_the_one_that_is_asked(key: str | None) -> None:
    run, person = Run(Era.LEGACY, DONE), Person()
    client = Client(Era.LEGACY, capabilities={"roots": {}}, key=key, on_request=person._ask)
    await run.send(client)
    assert (run.wire.sent[0].on_request is not None) is (key is not None)
