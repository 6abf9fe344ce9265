from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.bridge.broker import Broker
from mcp_proxy.bridge.errors import NO_ANSWER, NOT_READY, ChatError
from mcp_proxy.core.auth.principal import Principal, Scope
from mcp_proxy.gateway import ambient as ambient_module
from mcp_proxy.gateway import lane as lane_module
from mcp_proxy.gateway.ambient import Ambient
from mcp_proxy.gateway.envelope import Response
from mcp_proxy.gateway.lane import LegacyLane
from mcp_proxy.gateway.outlet import Outlet
from mcp_proxy.gateway.session import Introduction, Session, Sessions
from tests.unit.core.fakes import FakeClock
from tests.unit.gateway.http_fakes import ADA, LIMIT, Failures, settle

pytestmark = pytest.mark.anyio

SERVER = Principal(subject="ada", scopes=frozenset({Scope.LLM_SERVE}))
OFFERS = Introduction("2025-11-25", {"sampling": {}})


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients are looked at all the time."""
    monkeypatch.setattr(ambient_module, "FIRST_LOOK", 0.001)
    monkeypatch.setattr(ambient_module, "PING_EVERY", 0.002)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ping has to be answered at once."""
    monkeypatch.setattr(lane_module, "PING_PATIENCE", 0.02)


class Client:
    """A scripted client on a session: answers pings at once, and completions when it is let."""

    def __init__(self, session: Session, tasks: TaskSet) -> None:
        self.session = session
        self.answers_pings = True
        self.one_at_a_time = False
        self.go = asyncio.Event()
        self.go.set()
        self.asked: list[str] = []
        self._tasks = tasks

    def listens(self) -> Outlet:
        """It opens its stream."""
        outlet = Outlet()
        self.session.attach(outlet)
        self._tasks.spawn(self._read(outlet), "client")
        return outlet

    async def _read(self, outlet: Outlet) -> None:
        while (message := await outlet.next()) is not None:
            work = self._answer(json.loads(message))
            if self.one_at_a_time:
                await work
            else:
                self._tasks.spawn(work, "client at work")
        self.session.detach(outlet)

    async def _answer(self, message: Mapping[str, Any]) -> None:
        self.asked.append(message["method"])
        if message["method"] == "ping":
            if self.answers_pings:
                self.session.resolve(Response(message["id"], {}, None))
        elif message["method"] == "sampling/createMessage":
            await self.go.wait()
            self.session.resolve(Response(message["id"], {"did": message["params"]["n"]}, None))


class House:
    """A broker, sessions, and the clients of a test."""

    def __init__(self) -> None:
        self.failures = Failures()
        self.tasks = TaskSet(self.failures)
        self.broker = Broker(clock=FakeClock(), tasks=self.tasks, patience=LIMIT)
        numbers = count(1)
        ids = lambda: f"id-{next(numbers)}"  # noqa: E731 - a source of ids, as the others are handed in
        self.ambient = Ambient(self.broker, ids=ids, tasks=self.tasks)
        self.sessions = Sessions(limit=9, idle=60, clock=FakeClock(), ids=ids, on_end=self.ambient.farewell)

    def opened(self, introduction: Introduction = OFFERS, principal: Principal = SERVER) -> Client:
        """A client that has said that it is ready."""
        client = Client(self.sessions.open(principal, introduction), self.tasks)
        self.ambient.welcome(client.session)
        return client

    async def connected(self) -> Client:
        """One that is asked."""
        client = self.opened()
        client.listens()
        await settle(lambda: self.broker.lanes)
        return client

    async def complete(self, n: int = 1) -> Mapping[str, Any]:
        async with asyncio.timeout(LIMIT):
            return await self.broker.complete("tenant", lambda tools: {"n": n})

    def completing(self, n: int = 1) -> asyncio.Task[Any]:
        return self.tasks.spawn(self._outcome(n), "completion")

    async def _outcome(self, n: int) -> Any:
        try:
            return await self.complete(n)
        except ChatError as error:
            return error.problem


@asynccontextmanager
async def a_house() -> AsyncIterator[House]:
    house = House()
    yield house
    house.sessions.close()
    async with asyncio.timeout(LIMIT):
        await house.tasks.close()
    assert house.failures == []
    assert house.broker.lanes == ()


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with a_house() as house:
        yield house


async def test_a_client_that_offers_sampling_is_asked_without_a_call_of_its_own(house: House) -> None:
    client = await house.connected()
    assert await house.complete(7) == {"did": 7}
    assert client.asked[0] == "ping"


async def test_many_are_asked_at_once(house: House) -> None:
    client = await house.connected()
    client.go.clear()
    work = [house.completing(n) for n in range(20)]
    await settle(lambda: client.asked.count("sampling/createMessage") == 20)
    client.go.set()
    assert [await one for one in work] == [{"did": n} for n in range(20)]


async def test_a_client_counts_from_when_it_can_be_reached(house: House) -> None:
    client = house.opened()
    with pytest.raises(ChatError) as refused:
        await house.complete()
    assert refused.value.problem is NOT_READY
    client.listens()
    await settle(lambda: house.broker.lanes)
    assert await house.complete() == {"did": 1}


@pytest.mark.parametrize(
    ("introduction", "principal"),
    [
        (Introduction("2025-11-25", {"roots": {}}), SERVER),
        (OFFERS, replace(SERVER, scopes=frozenset({Scope.LLM_CALL, Scope.TOOLS_CALL}))),
        (OFFERS, ADA),
        (replace(OFFERS, namespace="math"), SERVER),
    ],
    ids=["offers none", "may only call", "may by default", "is there for one server"],
)
async def test_others_are_not_asked(introduction: Introduction, principal: Principal, house: House) -> None:
    client = house.opened(introduction, principal)
    client.listens()
    await house.connected()  # by then the other would have been seen too
    assert len(house.broker.lanes) == 1
    assert client.asked == []


async def test_to_say_twice_that_it_is_ready_makes_no_second_lane(house: House) -> None:
    client = await house.connected()
    house.ambient.welcome(client.session)
    await settle(lambda: client.asked.count("ping") > 3)
    assert len(house.broker.lanes) == 1


async def test_tools_are_for_clients_that_take_them(house: House) -> None:
    house.opened(Introduction("2025-11-25", {"sampling": {"tools": {}}})).listens()
    await settle(lambda: house.broker.lanes)
    assert house.broker.lanes[0].tools is True


async def test_the_lane_ends_with_its_session(house: House) -> None:
    client = await house.connected()
    client.go.clear()
    work = house.completing()
    await settle(lambda: "sampling/createMessage" in client.asked)
    house.sessions.end(client.session)
    assert house.broker.lanes == ()
    assert await work is NO_ANSWER
    house.ambient.welcome(client.session)
    assert await house.completing() is NOT_READY


@pytest.mark.usefixtures("impatient")
async def test_a_client_that_answers_no_ping_is_not_asked_until_it_does(house: House) -> None:
    client = await house.connected()
    client.answers_pings = False
    await settle(lambda: not house.broker.lanes)
    client.answers_pings = True
    await settle(lambda: house.broker.lanes)


@pytest.mark.usefixtures("impatient")
async def test_a_client_at_work_that_does_one_thing_at_a_time_is_left_to_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await house.connected()
    client.one_at_a_time = True
    client.go.clear()
    work = house.completing()
    await settle(lambda: "sampling/createMessage" in client.asked)
    looks: list[bool] = []
    look = LegacyLane.answers

    async def answers(lane: LegacyLane) -> bool:
        looks.append(await look(lane))
        return looks[-1]

    monkeypatch.setattr(LegacyLane, "answers", answers)
    monkeypatch.setattr(lane_module, "PING_PATIENCE", 0.02)
    await settle(lambda: len(looks) > 2)
    assert len(house.broker.lanes) == 1
    client.go.set()
    assert await work == {"did": 1}


async def test_what_comes_while_the_stream_is_renewed_waits_for_it(house: House) -> None:
    client = await house.connected()
    lane = house.broker.lanes[0]
    outlet = client.session.outlet
    assert outlet is not None
    client.session.detach(outlet)
    assert lane.room == 0
    work = house.completing()
    client.listens()
    assert lane.room > 0
    assert await work == {"did": 1}


async def test_a_client_whose_stream_has_ended_is_no_lane_until_it_comes_back(house: House) -> None:
    client = await house.connected()
    assert client.session.outlet is not None
    client.session.outlet.close()
    await settle(lambda: not house.broker.lanes)
    client.listens()
    await settle(lambda: house.broker.lanes)
    assert await house.complete() == {"did": 1}


async def test_a_token_that_allows_it_no_more_ends_it(house: House) -> None:
    client = await house.connected()
    house.sessions.renew(client.session, ADA)
    assert house.broker.lanes[0].room == 0
    await settle(lambda: not house.broker.lanes)


async def test_a_client_that_calls_hook_is_asked_there_alone(house: House) -> None:
    client = await house.connected()
    client.go.clear()
    begun = house.completing(1)
    await settle(lambda: client.asked.count("sampling/createMessage") == 1)
    call = Outlet()
    hook = LegacyLane("hook-1", client.session, call)
    with house.ambient.aside(client.session):
        house.broker.add(hook)
        work = house.completing(2)
        message = await asyncio.wait_for(call.next(), LIMIT)
        assert message is not None
        assert json.loads(message)["params"] == {"n": 2}
        client.go.set()
        assert await begun == {"did": 1}
        client.session.resolve(Response(json.loads(message)["id"], {"did": 2}, None))
        assert await work == {"did": 2}
        house.broker.remove(hook)
        waiting = house.completing(3)
        await settle(lambda: house.broker.waiting == 1)
    assert await waiting == {"did": 3}


async def test_for_a_client_that_is_no_lane_nothing_is_put_aside(house: House) -> None:
    client = house.opened(Introduction("2025-11-25"))
    with house.ambient.aside(client.session):
        assert house.broker.lanes == ()
