"""Completions that a server asks for and its client cannot make: over one link, and through an upstream's actor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from mcp_proxy.base.json import Raw, decode, encode
from mcp_proxy.core.upstream.client import PROXY, Client
from mcp_proxy.core.upstream.crossing import MAX_ROUNDS, Sending, exchange, is_input_required
from mcp_proxy.core.upstream.deadline import Deadline
from mcp_proxy.core.upstream.failures import Attempt, Failure, RpcError, WireError
from mcp_proxy.core.upstream.house import Desk, sampled
from mcp_proxy.core.upstream.messages import Incoming
from mcp_proxy.core.upstream.terms import Era
from mcp_proxy.core.upstream.wire import Outgoing
from tests.unit.core.upstream.actor import Bench, Server
from tests.unit.core.upstream.wires import FakeWire, begun, terms, turns

pytestmark = pytest.mark.anyio

ASK = {"messages": [{"role": "user", "content": {"type": "text", "text": "Hello"}}], "maxTokens": 10}
SAMPLE = {"method": "sampling/createMessage", "params": ASK}
NAME = {"method": "elicitation/create", "params": {"message": "Your name?"}}
SAID = {"role": "assistant", "content": {"type": "text", "text": "Hi"}, "model": "m"}
OFFERED = {"sampling": {"tools": {}}}
DONE = {"content": [], "n": 1}
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"


def question(id: int = 1, params: object = ASK) -> Incoming:
    return Incoming("sampling/createMessage", Raw(encode(params)), id)


def wanting(state: object = "s", **requests: object) -> dict[str, Any]:
    return {"resultType": "input_required", "inputRequests": requests, "requestState": state}


class Model:
    """What makes the completions: at once, or when it is let go."""

    def __init__(self, *, waits: bool = False, error: Exception | None = None) -> None:
        self.asked: list[Mapping[str, Any]] = []
        self.given_up = 0
        self.go = asyncio.Event()
        if not waits:
            self.go.set()
        self.error = error

    async def answer(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        self.asked.append(params)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        if self.error is not None:
            raise self.error
        return SAID


class Person:
    """A client that can be asked for its user's word, and for nothing else."""

    def __init__(self, era: Era, key: str | None = "k") -> None:
        self.asked: list[str] = []
        self.client = Client(era, capabilities={"elicitation": {}}, key=key, on_request=self._ask)

    async def _ask(self, request: Incoming) -> Mapping[str, Any]:
        self.asked.append(request.method)
        return {"action": "accept"}


class Scope:
    """A call's time, as it is seen from within."""

    def __init__(self) -> None:
        self.attempt, self.deadline = Attempt(), Deadline(60, 600)
        self.ends = self.deadline.at

    @property
    def is_paused(self) -> bool:
        return self.deadline._paused > 0


# Who is asked


def test_a_client_that_cannot_make_completions_offers_those_of_the_house() -> None:
    client = Client(Era.LEGACY, capabilities={"roots": {}, "tasks": {}}, key="k").housed(Model().answer)
    assert client.declared == {"roots": {}, "tasks": {}, **OFFERED}
    assert client.handshake_capabilities() == {"roots": {}, **OFFERED}
    assert client.capabilities == {"roots": {}, "tasks": {}}


def test_what_the_house_offers_makes_no_other_client_of_it() -> None:
    plain = Client(Era.LEGACY, key="k")
    housed = plain.housed(Model().answer)
    assert (housed.asks, housed.needs_own_link, housed.profile) == (False, False, "")


def test_a_client_that_can_make_them_stays_as_it_is() -> None:
    client = Client(capabilities={"sampling": {}})
    assert client.housed(Model().answer) is client


def test_without_a_house_a_client_stays_as_it_is() -> None:
    assert PROXY.housed(None) is PROXY
    assert PROXY.declared is PROXY.capabilities


@pytest.mark.parametrize(
    "params", [b"[]", b"7", b"null", b'{"a":1,"a":2}', b'{"a":NaN}', b"[" * 100 + b"]" * 100, None]
)
async def test_params_that_are_no_object_reach_nobody(params: bytes | None) -> None:
    model = Model()
    with pytest.raises(RpcError) as raised:
        await sampled(model.answer, Incoming("sampling/createMessage", None if params is None else Raw(params), 1))
    assert (raised.value.code, model.asked) == (-32602, [])


# Rounds with a modern server


class Rounds:
    """One request to a modern server over a fake wire."""

    def __init__(self, *results: object, model: Model | None = None) -> None:
        self.model = model or Model()
        self.results = list(results)
        self.wire = FakeWire({"tools/call": lambda _: self.results.pop(0)}, terms(Era.MODERN))
        self.attempt, self.deadline = Attempt(), Deadline(60, 600)

    async def send(self, client: Client = PROXY, **params: Any) -> Mapping[str, Any]:
        sending = Sending("tools/call", {"name": "t", **params}, client.housed(self.model.answer))
        async with asyncio.timeout(10):
            found = await exchange(self.wire.link(), sending, self.attempt, self.deadline)
        return {name: decode(value) for name, value in found.items()}


@pytest.mark.parametrize("client", [PROXY, Client(Era.LEGACY), Person(Era.MODERN).client, Person(Era.LEGACY).client])
async def test_a_modern_server_gets_its_completions_round_by_round(client: Client) -> None:
    run = Rounds(wanting("one", a=SAMPLE, b=SAMPLE), wanting("two", c=SAMPLE), DONE)
    assert await run.send(client, requestState="zero", inputResponses={"x": {}}) == DONE
    assert run.model.asked == [ASK] * 3
    sent = [{key: out.params.get(key) for key in ("inputResponses", "requestState")} for out in run.wire.sent]
    assert [decode(encode(one)) for one in sent] == [
        {"inputResponses": {"x": {}}, "requestState": "zero"},
        {"inputResponses": {"a": SAID, "b": SAID}, "requestState": "one"},
        {"inputResponses": {"c": SAID}, "requestState": "two"},
    ]
    assert all("sampling" in out.params["_meta"][CAPABILITIES] for out in run.wire.sent)
    assert run.attempt.forwarded


async def test_a_legacy_client_is_asked_for_the_rest_of_a_round() -> None:
    run, person = Rounds(wanting(a=SAMPLE, b=NAME), DONE), Person(Era.LEGACY)
    assert await run.send(person.client) == DONE
    assert (run.model.asked, person.asked) == ([ASK], ["elicitation/create"])
    assert run.wire.sent[1].params["inputResponses"] == {"a": SAID, "b": {"action": "accept"}}


@pytest.mark.parametrize("client", [PROXY, Client(Era.LEGACY), Person(Era.MODERN).client])
async def test_what_is_left_to_the_client_is_all_that_it_is_told_of(client: Client) -> None:
    run = Rounds(wanting("s", a=SAMPLE, b=NAME))
    assert await run.send(client) == wanting("s", b=NAME)
    assert run.model.asked == []


@pytest.mark.parametrize("result", [wanting(), {"resultType": "input_required", "requestState": "s"}])
async def test_a_round_that_asks_for_nothing_is_a_result_like_any(result: Mapping[str, Any]) -> None:
    run = Rounds(result)
    assert await run.send() == result


async def test_a_client_that_can_make_completions_gets_the_wish_itself() -> None:
    run = Rounds(wanting(a=SAMPLE))
    result = await run.send(Client(capabilities={"sampling": {}}))
    assert (result["inputRequests"], run.model.asked) == ({"a": SAMPLE}, [])


async def test_a_server_that_never_stops_asking_is_given_up() -> None:
    run = Rounds(*[wanting(a=SAMPLE)] * (MAX_ROUNDS + 1))
    with pytest.raises(WireError, match="more than 16 times") as raised:
        await run.send()
    assert raised.value.failure is Failure.BAD_REPLY
    assert len(run.model.asked) == MAX_ROUNDS - 1


async def test_a_completion_that_is_refused_ends_the_call() -> None:
    run = Rounds(wanting(a=SAMPLE), model=Model(error=RpcError(-1, "no")))
    with pytest.raises(RpcError, match="no"):
        await run.send()


async def test_a_wish_that_cannot_be_read_is_the_servers_fault() -> None:
    run = Rounds({"resultType": "input_required", "inputRequests": {"a": {"method": 7}}})
    with pytest.raises(WireError) as raised:
        await run.send()
    assert raised.value.failure is Failure.BAD_REPLY


async def test_the_time_stands_still_in_a_round_and_cancelling_ends_the_work() -> None:
    run = Rounds(wanting(a=SAMPLE), model=Model(waits=True))
    call = begun(run.send())
    await turns()
    assert run.deadline._paused == 1
    call.cancel()
    await asyncio.wait([call], timeout=5)
    assert (call.cancelled(), run.model.given_up, run.deadline._paused) == (True, 1, 0)


# What a legacy server asks on a shared link


async def test_a_question_belongs_to_all_calls_that_are_in_flight() -> None:
    model = Model(waits=True)
    desk, before, after = Desk(model.answer), [Scope(), Scope()], Scope()
    with desk.serving(before[0].attempt, before[0].deadline), desk.serving(before[1].attempt, before[1].deadline):
        asking = begun(desk.ask(question()))
        await turns()
        with desk.serving(after.attempt, after.deadline):
            assert [one.is_paused for one in (*before, after)] == [True, True, False]
            model.go.set()
            assert await asking == SAID
        assert not any(one.is_paused for one in before)
    assert [one.attempt.forwarded for one in (*before, after)] == [True, True, False]


async def test_a_question_is_given_up_with_the_last_call_that_it_may_belong_to_and_the_server_is_told() -> None:
    model = Model(waits=True)
    desk, first, second = Desk(model.answer), Scope(), Scope()
    with desk.serving(first.attempt, first.deadline):
        with desk.serving(second.attempt, second.deadline):
            asking = begun(desk.ask(question()))
            await turns()
        await turns()
        assert not asking.done()
    async with asyncio.timeout(5):
        with pytest.raises(RpcError, match="has ended"):
            await asking
    assert model.given_up == 1


async def test_a_question_while_nothing_is_in_flight_is_the_servers_own() -> None:
    model = Model(waits=True)
    desk, call = Desk(model.answer), Scope()
    asking = begun(desk.ask(question()))
    await turns()
    with desk.serving(call.attempt, call.deadline):
        await turns()
        assert not call.is_paused
    model.go.set()
    assert await asking == SAID


async def test_a_question_that_is_taken_back_is_given_up() -> None:
    model, call = Model(waits=True), Scope()
    desk = Desk(model.answer)
    with desk.serving(call.attempt, call.deadline):
        asking = begun(desk.ask(question()))
        await turns()
        asking.cancel()
        await asyncio.wait([asking], timeout=5)
        assert (asking.cancelled(), model.given_up, call.is_paused) == (True, 1, False)


@pytest.mark.parametrize("method", ["elicitation/create", "roots/list", "tasks/list"])
async def test_the_house_makes_completions_and_nothing_else(method: str) -> None:
    with pytest.raises(RpcError) as raised:
        await Desk(Model().answer).ask(Incoming(method, None, 1))
    assert raised.value.code == -32601


# Through an upstream


def legacy(*tools: str) -> Server:
    return Server(*tools, era=Era.LEGACY)


@pytest.fixture
async def model() -> Model:
    return Model()


@pytest.fixture
async def bench(model: Model) -> AsyncIterator[Bench]:
    bench = Bench(house=model.answer)
    yield bench
    await bench.tasks.close()


CANNOT = [PROXY, Client(Era.LEGACY, key="1"), Client(Era.MODERN, key="2"), Person(Era.LEGACY, None).client]


@pytest.mark.parametrize("client", CANNOT)
async def test_clients_that_share_a_legacy_link_share_the_house(bench: Bench, model: Model, client: Client) -> None:
    shared = legacy("t")
    answers: list[object] = []

    async def asks(out: Outgoing) -> object:
        assert out.on_request is not None
        assert shared.on_request is not None
        answers.append(await out.on_request(question(1)))  # on the call's own stream
        answers.append(await shared.on_request(question(2)))  # or anywhere
        for ask in (out.on_request, shared.on_request):
            with pytest.raises(RpcError):
                await ask(Incoming("elicitation/create", None, 3))
        return DONE

    shared.answers["tools/call"] = asks
    await bench.runs(shared)
    await bench.call(client=client)
    assert answers == [SAID, SAID]
    assert bench.dialer.dialled_for == []
    assert bench.last.forwarded


async def test_the_calls_time_stands_still_wherever_the_question_comes(bench: Bench, model: Model) -> None:
    shared = legacy("t")
    model.go.clear()

    async def asks(_: Outgoing) -> object:
        assert shared.on_request is not None
        await shared.on_request(question())
        return DONE

    shared.answers["tools/call"] = asks
    await bench.runs(shared)
    call = begun(bench.call(seconds=0.05))
    await bench.until(lambda: bool(model.asked))
    await asyncio.wait([call], timeout=0.1)
    assert not call.done()
    model.go.set()
    await call


async def test_a_client_with_a_link_of_its_own_is_asked_there_for_all_but_completions(
    bench: Bench, model: Model
) -> None:
    own, person = legacy("t"), Person(Era.LEGACY)

    async def asks(out: Outgoing) -> object:
        assert out.on_request is not None
        assert own.on_request is not None
        assert await own.on_request(question()) == SAID
        assert await own.on_request(Incoming("elicitation/create", None, 2)) == {"action": "accept"}
        return DONE

    own.answers["tools/call"] = asks
    await bench.runs(legacy("t"))
    bench.dialer.own.append(own)
    await bench.call(client=person.client)
    assert bench.dialer.dialled_for[0].handshake_capabilities() == {"elicitation": {}, **OFFERED}
    assert (model.asked, person.asked) == ([ASK], ["elicitation/create"])


async def test_a_client_that_can_make_completions_is_asked_itself(bench: Bench, model: Model) -> None:
    own, asked = legacy("t"), []

    async def answers(request: Incoming) -> Mapping[str, Any]:
        asked.append(request.method)
        return SAID

    async def asks(out: Outgoing) -> object:
        assert out.on_request is not None
        await out.on_request(question())
        return DONE

    own.answers["tools/call"] = asks
    await bench.runs(legacy("t"))
    bench.dialer.own.append(own)
    await bench.call(client=Client(Era.LEGACY, capabilities={"sampling": {}}, key="k", on_request=answers))
    assert bench.dialer.dialled_for[0].handshake_capabilities() == {"sampling": {}}
    assert (model.asked, asked) == ([], ["sampling/createMessage"])


async def test_what_a_modern_server_lists_to_those_who_sample_is_listed_to_all(bench: Bench, model: Model) -> None:
    shared = Server("t")

    def listed(out: Outgoing) -> object:
        offers = decode(encode(out.params))["_meta"][CAPABILITIES]
        return {"tools": [{"name": name} for name in ("t", *offers)]}

    shared.answers["tools/list"] = listed
    await bench.runs(shared)
    assert [tool.name for tool in bench.upstream.offer.tools] == ["t", "sampling"]
    person = Person(Era.MODERN).client
    await bench.upstream.learn(person)
    assert [tool.name for tool in bench.upstream.offer_to(person).tools] == ["t", "elicitation", "sampling"]
    assert bench.upstream.offer_to(Client(Era.LEGACY, key="k")) is bench.upstream.offer


@pytest.mark.parametrize("client", [PROXY, Client(Era.LEGACY, key="1")])
async def test_a_modern_server_is_answered_through_the_shared_link(bench: Bench, client: Client) -> None:
    shared = Server("t")
    rounds: list[object] = [wanting(a=SAMPLE), DONE]
    shared.answers["tools/call"] = lambda _: rounds.pop(0)
    await bench.runs(shared)
    await bench.call(client=client)
    assert shared.sent[-1].params["inputResponses"] == {"a": SAID}


async def test_without_a_house_nobody_is_asked_on_a_shared_link() -> None:
    bench, shared = Bench(), legacy("t")
    asking: list[object] = []

    def asks(out: Outgoing) -> object:
        asking.append(out.on_request)
        return DONE

    shared.answers["tools/call"] = asks
    await bench.runs(shared)
    await bench.call()
    assert asking == [None]
    assert shared.on_request is not None
    with pytest.raises(RpcError):
        await shared.on_request(question())
    assert bench.upstream._base is PROXY
    await bench.tasks.close()


async def test_without_a_house_a_wish_for_a_completion_is_a_result_like_any() -> None:
    wire = FakeWire({"tools/call": wanting(a=SAMPLE)}, terms(Era.MODERN))
    found = await exchange(wire.link(), Sending("tools/call", {"name": "t"}), Attempt(), Deadline(60, 600))
    assert is_input_required(found)
