"""Following resources over whatever link there is: a subscription each on a legacy one, a stream each on a modern one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.core.upstream import followed as followed_module
from mcp_proxy.core.upstream.failures import Failure, Phase, RpcError, WireError
from mcp_proxy.core.upstream.followed import Followed
from mcp_proxy.core.upstream.terms import Era
from mcp_proxy.core.upstream.wire import Outgoing
from tests.unit.core.fakes import RecordingLog
from tests.unit.core.upstream.wires import FakeWire, T, acknowledge, begun, terms, turns

pytestmark = pytest.mark.anyio

A, B = "file:///a", "file:///b"
LISTEN = "subscriptions/listen"
LOST = WireError(Failure.LOST, Phase.SENT, "lost")
REFUSED = RpcError(-32602, "no")
Made = Callable[[], FakeWire]


def unexpected(name: str, error: BaseException) -> None:
    raise AssertionError(f"{name}: {error!r}")


def legacy() -> FakeWire:
    return FakeWire({"resources/subscribe": {}, "resources/unsubscribe": {}}, terms(Era.LEGACY))


def modern(listen: object = acknowledge) -> FakeWire:
    return FakeWire({LISTEN: listen}, terms(Era.MODERN))


async def soon(work: Awaitable[T]) -> T:
    async with asyncio.timeout(5):
        return await work


class Bench:
    def __init__(self) -> None:
        self.tasks = TaskSet(unexpected)
        self.log = RecordingLog()
        self.followed = self.another()

    def another(self) -> Followed:
        # The pause before a stream is asked for again is over at once.
        return Followed("up", tasks=self.tasks, random=lambda: -1.0, log=self.log)

    async def add(self, wire: FakeWire, uri: str = A) -> None:
        await soon(self.followed.add(wire.link(), uri))

    async def again(self, wire: FakeWire) -> None:
        await soon(self.followed.again(wire.link()))

    async def remove(self, wire: FakeWire | None, uri: str = A) -> None:
        await soon(self.followed.remove(None if wire is None else wire.link(), uri))
        await turns()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.tasks.close()


def asked(wire: FakeWire) -> list[str]:
    """What was asked for on either kind of link."""
    return [
        out.params["uri"]
        if out.method == "resources/subscribe"
        else out.params["notifications"]["resourceSubscriptions"][0]
        for out in wire.sent
        if out.method in ("resources/subscribe", LISTEN)
    ]


# Both eras


@pytest.mark.parametrize("make", [legacy, modern])
async def test_a_resource_is_asked_for_once(bench: Bench, make: Made) -> None:
    wire = make()
    for uri in (A, A, B, A):
        await bench.add(wire, uri)
    assert asked(wire) == [A, B]
    assert len(bench.followed) == 2


@pytest.mark.parametrize("make", [legacy, modern])
async def test_a_new_link_is_asked_for_all_that_is_still_followed(bench: Bench, make: Made) -> None:
    old, new = make(), make()
    for uri in (A, B, "file:///c"):
        await bench.add(old, uri)
    await bench.remove(old, B)
    bench.followed.pause()
    await bench.again(new)
    assert asked(new) == [A, "file:///c"]


@pytest.mark.parametrize("make", [legacy, modern])
async def test_what_was_let_go_can_be_followed_again(bench: Bench, make: Made) -> None:
    wire = make()
    await bench.add(wire)
    await bench.remove(wire)
    assert len(bench.followed) == 0
    await bench.add(wire)
    assert asked(wire) == [A, A]


@pytest.mark.parametrize("make", [legacy, modern])
async def test_what_another_follows_is_followed_from_the_first_link_on(bench: Bench, make: Made) -> None:
    old, new = make(), make()
    await bench.add(old)
    other = bench.another()
    other.take_over(bench.followed)
    await soon(other.again(new.link()))
    assert (asked(new), len(other), len(bench.followed)) == ([A], 1, 1)
    # Each has streams of its own.
    bench.followed.pause()
    await turns()
    assert new.cancelled == []


@pytest.mark.parametrize("method", ["resources/subscribe", LISTEN])
@pytest.mark.parametrize("error", [REFUSED, LOST], ids=str)
async def test_what_is_refused_is_not_followed(bench: Bench, method: str, error: Exception) -> None:
    wire = legacy() if method != LISTEN else modern()
    answer, wire.answers[method] = wire.answers[method], error
    with pytest.raises(type(error)):
        await bench.add(wire)
    await turns()
    assert (len(bench.followed), len(bench.tasks)) == (0, 0)
    wire.answers[method] = answer
    await bench.add(wire)
    assert asked(wire) == [A, A]


@pytest.mark.parametrize("make", [legacy, modern])
async def test_a_caller_who_leaves_leaves_nothing_behind(bench: Bench, make: Made) -> None:
    wire = make()
    wire.answers = {}.fromkeys(wire.answers)
    following = begun(bench.add(wire))
    await turns()
    following.cancel()
    await asyncio.wait([following], timeout=5)
    await turns()
    assert (len(bench.followed), len(bench.tasks)) == (0, 0)
    assert len(wire.cancelled) == 1


@pytest.mark.parametrize("make", [legacy, modern])
async def test_a_server_that_says_nothing_is_given_up_in_time(
    bench: Bench, make: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert followed_module._TIMEOUT == 5
    monkeypatch.setattr(followed_module, "_TIMEOUT", 0)
    wire = make()
    wire.answers = {}.fromkeys(wire.answers)
    with pytest.raises(TimeoutError):
        await bench.add(wire)
    await turns()
    assert (len(bench.followed), len(bench.tasks)) == (0, 0)


@pytest.mark.parametrize("error", [REFUSED, LOST], ids=str)
@pytest.mark.parametrize("era", Era)
async def test_what_a_new_link_refuses_is_said_and_tried_on_the_next(bench: Bench, era: Era, error: Exception) -> None:
    make, method = (legacy, "resources/subscribe") if era is Era.LEGACY else (modern, LISTEN)
    first, second, third = make(), make(), make()
    await bench.add(first)
    await bench.add(first, B)
    bench.followed.pause()
    answer = second.answers[method]
    outcomes = [error, answer]

    def refuses_first(out: Outgoing) -> object:
        outcome = outcomes.pop(0)
        return outcome(out) if callable(outcome) else outcome

    second.answers[method] = refuses_first
    await bench.again(second)
    assert asked(second) == [A, B]
    assert [(event, fields["server"]) for _, event, fields in bench.log.lines] == [("follow_lost", "up")]
    bench.followed.pause()
    await bench.again(third)
    assert asked(third) == [A, B]


# Legacy


async def test_letting_go_unsubscribes(bench: Bench) -> None:
    wire = legacy()
    await bench.add(wire)
    await bench.remove(wire)
    assert [(out.method, out.params) for out in wire.sent[1:]] == [("resources/unsubscribe", {"uri": A})]


@pytest.mark.parametrize("error", [REFUSED, LOST], ids=str)
async def test_a_server_that_does_not_let_go_is_no_error(bench: Bench, error: Exception) -> None:
    wire = legacy()
    wire.answers["resources/unsubscribe"] = error
    await bench.add(wire)
    await bench.remove(wire)
    assert len(bench.followed) == 0


async def test_a_server_that_does_not_answer_when_let_go_is_no_error(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = legacy()
    wire.answers["resources/unsubscribe"] = None
    await bench.add(wire)
    monkeypatch.setattr(followed_module, "_TIMEOUT", 0)
    await bench.remove(wire)
    assert len(bench.followed) == 0


@pytest.mark.parametrize("make", [None, modern], ids=["no link", "a modern link"])
async def test_a_subscription_of_a_link_that_is_gone_needs_no_end(bench: Bench, make: Made | None) -> None:
    await bench.add(legacy())
    bench.followed.pause()
    other = None if make is None else make()
    await bench.remove(other)
    assert len(bench.followed) == 0
    assert other is None or other.sent == []


# Modern


async def test_following_waits_for_the_acknowledgement(bench: Bench) -> None:
    heard: list[Outgoing] = []
    wire = modern(lambda out: heard.append(out))
    following = begun(bench.add(wire))
    await turns()
    assert not following.done()
    acknowledge(heard[0])
    await soon(following)
    await turns()
    assert (wire.cancelled, len(bench.tasks)) == ([], 1)


async def test_a_server_that_does_not_honour_the_resource_keeps_no_stream(bench: Bench) -> None:
    wire = modern(lambda out: acknowledge(out, {"resourceSubscriptions": [B]}))
    with pytest.raises(RpcError) as raised:
        await bench.add(wire)
    await turns()
    assert raised.value.code == -32600
    assert (wire.cancelled, len(bench.tasks), len(bench.followed)) == ([LISTEN], 0, 0)


async def test_a_new_link_that_does_not_honour_the_resource_keeps_no_stream(bench: Bench) -> None:
    await bench.add(modern())
    bench.followed.pause()
    wire = modern(lambda out: acknowledge(out, {}))
    await bench.again(wire)
    await turns()
    assert (wire.cancelled, len(bench.tasks)) == ([LISTEN], 0)
    assert bench.log.events() == ["follow_lost"]


async def test_letting_go_ends_the_stream_and_no_other(bench: Bench) -> None:
    wire = modern()
    await bench.add(wire)
    await bench.add(wire, B)
    await bench.remove(wire)
    assert (wire.methods, wire.cancelled, len(bench.tasks)) == ([LISTEN, LISTEN], [LISTEN], 1)


async def test_streams_end_with_their_link(bench: Bench) -> None:
    wire = modern()
    await bench.add(wire)
    await bench.add(wire, B)
    bench.followed.pause()
    await turns()
    assert (wire.cancelled, len(bench.tasks), len(bench.followed)) == ([LISTEN, LISTEN], 0, 2)


async def test_a_stream_that_is_open_on_this_link_is_not_opened_again(bench: Bench) -> None:
    wire = modern()
    await bench.add(wire)
    await bench.again(wire)
    assert asked(wire) == [A]


async def test_whoever_waits_when_the_link_goes_is_told_at_once(bench: Bench) -> None:
    wire = modern(None)
    following = begun(bench.add(wire))
    await turns()
    bench.followed.pause()
    with pytest.raises(WireError) as raised:
        await soon(following)
    assert raised.value.failure is Failure.LOST
    assert len(bench.followed) == 0


async def test_on_a_link_that_has_ended_there_is_nothing_to_wait_for(bench: Bench) -> None:
    wire = modern()
    wire.ended.set_result("gone")
    with pytest.raises(WireError):
        await bench.add(wire)
    assert wire.sent == []


@pytest.mark.parametrize("end", [{}, LOST], ids=["ended", "lost"])
async def test_a_stream_that_ends_is_opened_again(bench: Bench, end: object) -> None:
    over = asyncio.Event()
    streams = 0

    async def listen(out: Outgoing) -> object:
        nonlocal streams
        streams += 1
        acknowledge(out)
        if streams == 1:
            await over.wait()
            return end
        return None

    wire = modern(listen)
    await bench.add(wire)
    over.set()
    await turns()
    assert asked(wire) == [A, A]
    await bench.remove(wire)
    assert (wire.cancelled, len(bench.tasks)) == ([LISTEN], 0)


async def test_a_stream_that_ends_before_it_is_acknowledged_is_opened_again(bench: Bench) -> None:
    outcomes = [{}, acknowledge]

    def listen(out: Outgoing) -> object:
        outcome = outcomes.pop(0)
        return outcome(out) if callable(outcome) else outcome

    wire = modern(listen)
    await bench.add(wire)
    assert asked(wire) == [A, A]


async def test_a_server_that_refuses_to_go_on_is_left_alone(bench: Bench) -> None:
    outcomes: list[object] = [REFUSED]

    async def listen(out: Outgoing) -> object:
        acknowledge(out)
        await turns()
        return outcomes.pop(0)

    wire = modern(listen)
    await bench.add(wire)
    await turns(50)
    assert (asked(wire), len(bench.tasks)) == ([A], 0)
    assert bench.log.events() == ["follow_ended"]


async def test_a_link_that_has_ended_is_asked_for_nothing_more(bench: Bench) -> None:
    wire = modern()

    def listen(out: Outgoing) -> object:
        acknowledge(out)
        wire.ended.set_result("gone")
        return LOST

    wire.answers[LISTEN] = listen
    await bench.add(wire)
    await turns()
    assert (asked(wire), len(bench.tasks)) == ([A], 0)
