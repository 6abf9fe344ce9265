from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from mcp_proxy.base.errors import CANCELLED, OVERLOADED, ProxyError
from mcp_proxy.base.json import Raw
from mcp_proxy.core.upstream.client import Client
from mcp_proxy.core.upstream.failures import RpcError
from mcp_proxy.core.upstream.terms import Era
from mcp_proxy.gateway.envelope import Response
from mcp_proxy.gateway.outlet import Channel, NoChannel, Outlet
from mcp_proxy.gateway.session import Introduction, Left, Session, Sessions
from tests.unit.core.fakes import FakeClock
from tests.unit.gateway.http_fakes import ADA, EVE, LIMIT, settle

pytestmark = pytest.mark.anyio

NEW = Introduction("2025-11-25")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def ended() -> list[Session]:
    return []


@pytest.fixture
def sessions(clock: FakeClock, ended: list[Session]) -> Sessions:
    numbers = count(1)
    return Sessions(limit=3, idle=60, clock=clock, ids=lambda: f"key-{next(numbers)}", on_end=ended.append)


@pytest.fixture
def session(sessions: Sessions) -> Session:
    return sessions.open(ADA, NEW)


async def read(outlet: Outlet) -> Any:
    message = await outlet.next(LIMIT)
    return None if message is None else json.loads(message)


async def asking(session: Session, channel: Channel, params: Raw | None = None) -> asyncio.Task[dict[str, Any]]:
    """A request to the client that waits for its answer."""
    task = asyncio.get_running_loop().create_task(session.ask("roots/list", params, channel))
    await asyncio.sleep(0)
    return task


async def ended_task(task: asyncio.Task[Any]) -> Any:
    async with asyncio.timeout(LIMIT):
        return await task


# Streams


async def test_messages_go_by_the_channel_and_else_by_the_sessions_stream(session: Session) -> None:
    channel, stream = Outlet(), Outlet()
    assert session.notify(b"0", NoChannel()) is False
    session.attach(stream)
    assert session.notify(b"1", channel)
    assert session.notify(b"2", NoChannel())
    channel.close()
    assert session.notify(b"3", channel)
    assert session.notify(b"4")
    assert await channel.next() == b"1"
    assert [await stream.next() for _ in range(3)] == [b"2", b"3", b"4"]


async def test_a_new_stream_takes_the_place_of_the_one_before(session: Session) -> None:
    old, new = Outlet(), Outlet()
    session.attach(old)
    session.attach(new)
    session.detach(old)  # the handler of the old one ends later
    assert (old.closed, new.closed, session.outlet) == (True, False, new)
    session.detach(new)
    assert (new.closed, session.outlet) == (True, None)


# Requests of the client


async def test_work_that_is_not_cancelled_gives_its_result(session: Session) -> None:
    assert await session.serve(1, asyncio.sleep(0, "done")) == "done"
    assert session.cancel(1) is False


async def test_the_client_cancels_by_id(session: Session) -> None:
    async def serve(id: int | str) -> str:
        try:
            return await session.serve(id, asyncio.sleep(LIMIT, "late"))
        except ProxyError as error:
            return error.kind.type

    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(serve(id)) for id in (1, "1", 2)]
    await asyncio.sleep(0)
    assert session.cancel(1) is True
    assert session.cancel(1) is False
    assert await ended_task(tasks[0]) == CANCELLED.type
    assert [task.done() for task in tasks[1:]] == [False, False]
    session.close()
    assert [await ended_task(task) for task in tasks] == [CANCELLED.type] * 3
    assert tasks[0].cancelling() == 0


async def test_what_runs_after_a_cancelled_request_is_not_cancelled(session: Session) -> None:
    async def serve() -> str:
        with pytest.raises(ProxyError):
            await session.serve(1, asyncio.sleep(LIMIT))
        await asyncio.sleep(0)
        return "went on"

    task = asyncio.get_running_loop().create_task(serve())
    await asyncio.sleep(0)
    session.cancel(1)
    assert await ended_task(task) == "went on"


async def test_requests_of_the_same_id_are_cancelled_together(session: Session) -> None:
    tasks = [asyncio.get_running_loop().create_task(session.serve(1, asyncio.sleep(LIMIT))) for _ in range(2)]
    await asyncio.sleep(0)
    session.cancel(1)
    for task in tasks:
        with pytest.raises(ProxyError):
            await ended_task(task)
    assert session.cancel(1) is False


async def test_a_cancellation_that_is_not_the_clients_stays_one(session: Session) -> None:
    for also_the_client in (False, True):
        task = asyncio.get_running_loop().create_task(session.serve(1, asyncio.sleep(LIMIT)))
        await asyncio.sleep(0)
        if also_the_client:
            session.cancel(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ended_task(task)


@pytest.mark.parametrize("id", [None, 2, "1", [1], {"a": 1}, 1.5])
async def test_what_is_not_in_flight_cannot_be_cancelled(id: object, session: Session) -> None:
    task = asyncio.get_running_loop().create_task(session.serve(1, asyncio.sleep(0, "done")))
    await asyncio.sleep(0)
    assert session.cancel(id) is False
    assert await ended_task(task) == "done"


# Requests to the client


async def test_the_client_is_asked_and_answers(session: Session) -> None:
    channel = Outlet()
    first = await asking(session, channel, Raw(b'{"a":1}'))
    second = await asking(session, channel)
    assert await read(channel) == {"jsonrpc": "2.0", "id": 1, "method": "roots/list", "params": {"a": 1}}
    assert await read(channel) == {"jsonrpc": "2.0", "id": 2, "method": "roots/list"}
    assert session.resolve(Response(2, {"roots": []}, None))
    assert session.resolve(Response(1, {"x": 1}, None))
    assert (await ended_task(first), await ended_task(second)) == ({"x": 1}, {"roots": []})


async def test_the_clients_refusal_is_the_askers(session: Session) -> None:
    for error, code, message in (
        ({"code": -1, "message": "no", "data": 5}, -1, "no"),
        ({"code": "x", "message": 3}, -32600, ""),
        ({"code": True}, -32600, ""),
    ):
        task = await asking(session, Outlet())
        assert session.resolve(Response(next(iter(session._asked)), None, error))
        with pytest.raises(RpcError) as caught:
            await ended_task(task)
        assert (caught.value.code, caught.value.message, caught.value.data) == (code, message, error.get("data"))


async def test_a_response_that_nobody_waits_for_is_not_taken(session: Session) -> None:
    task = await asking(session, Outlet())
    assert session.resolve(Response(7, {}, None)) is False
    assert session.resolve(Response(1, {}, None)) is True
    assert session.resolve(Response(1, {"again": True}, None)) is False
    assert await ended_task(task) == {}
    assert session.resolve(Response(1, {}, None)) is False


async def test_a_client_without_a_stream_cannot_be_asked(session: Session) -> None:
    with pytest.raises(RpcError, match="cannot be asked"):
        await session.ask("roots/list", None, NoChannel())
    assert session.idle_since() is not None


async def test_a_client_that_is_no_longer_waited_for_is_told(session: Session) -> None:
    channel = Outlet()
    task = await asking(session, channel)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ended_task(task)
    await read(channel)
    notice = await read(channel)
    assert (notice["method"], notice["params"]["requestId"]) == ("notifications/cancelled", 1)


async def test_when_the_session_ends_nobody_waits_for_the_client(session: Session) -> None:
    stream = Outlet()
    session.attach(stream)
    task = await asking(session, NoChannel())
    session.close()
    with pytest.raises(RpcError, match="left"):
        await ended_task(task)
    with pytest.raises(RpcError, match="cannot be asked"):
        await session.ask("roots/list", None, Outlet())
    assert stream.closed


@pytest.mark.parametrize("own", [True, False], ids=["the request's channel", "the session's stream"])
async def test_a_question_waits_for_room_and_one_that_is_not_wanted_before_is_not_heard_of(
    session: Session, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    monkeypatch.setattr("mcp_proxy.gateway.outlet.BACKLOG_BYTES", 100)
    way = Outlet()
    if not own:
        session.attach(way)
    asked = [await asking(session, way if own else NoChannel(), Raw(b'"%s"' % (b"x" * 90))) for _ in range(4)]
    asked[2].cancel()
    assert [(await read(way))["id"] for _ in range(3)] == [1, 2, 4]
    assert not way.overrun
    session.close()
    for task in asked:
        with pytest.raises((Left, asyncio.CancelledError)):
            await ended_task(task)


async def test_its_repr_names_neither_key_nor_caller(session: Session) -> None:
    session.attach(Outlet())
    assert repr(session) == "<Session 2025-11-25 0 in flight, 0 asked with a stream>"


# The table


async def test_servers_get_to_know_the_client_as_it_introduced_itself(sessions: Sessions) -> None:
    session = sessions.open(ADA, Introduction("2025-11-25", {"roots": {}}, {"name": "t"}))
    assert session.client == Client(Era.LEGACY, {"name": "t"}, {"roots": {}}, key=session.key)
    session.set_log_level("info")
    assert session.client == Client(Era.LEGACY, {"name": "t"}, {"roots": {}}, "info", key=session.key)


async def test_a_session_is_its_openers_alone(sessions: Sessions, session: Session) -> None:
    assert sessions.find(session.key, EVE) is None
    assert sessions.find("key-9", ADA) is None
    fresh = replace(ADA, rate=3)
    assert sessions.find(session.key, fresh) is session
    assert session.principal is fresh


async def test_sessions_are_bounded(sessions: Sessions) -> None:
    for _ in range(3):
        sessions.open(ADA, NEW)
    with pytest.raises(ProxyError) as caught:
        sessions.open(ADA, NEW)
    assert (caught.value.kind, caught.value.retry_after) == (OVERLOADED, 5)


async def test_idle_sessions_make_room(sessions: Sessions, clock: FakeClock, ended: list[Session]) -> None:
    first, second = sessions.open(ADA, NEW), sessions.open(ADA, NEW)
    clock.advance(59)
    sessions.open(ADA, NEW)
    assert sessions.find(second.key, ADA)
    clock.advance(1)
    assert sessions.open(ADA, NEW).key == "key-4"
    assert (ended, first.closed, len(sessions)) == ([first], True, 3)


async def test_a_session_in_use_is_not_idle(sessions: Sessions, clock: FakeClock) -> None:
    streaming, working, asked = (sessions.open(ADA, NEW) for _ in range(3))
    streaming.attach(Outlet())
    work = asyncio.get_running_loop().create_task(working.serve(1, asyncio.sleep(LIMIT)))
    question = await asking(asked, Outlet())
    clock.advance(100)
    sessions.reap()
    assert len(sessions) == 3
    assert streaming.outlet is not None
    streaming.detach(streaming.outlet)
    working.cancel(1)
    asked.resolve(Response(1, {}, None))
    with pytest.raises(ProxyError):
        await ended_task(work)
    await ended_task(question)
    sessions.reap()
    assert len(sessions) == 3  # these were signs of life
    clock.advance(60)
    sessions.reap()
    assert len(sessions) == 0


async def test_a_session_ends_once(sessions: Sessions, session: Session, ended: list[Session]) -> None:
    sessions.end(session)
    sessions.end(session)
    assert (ended, sessions.find(session.key, ADA)) == ([session], None)


async def test_close_ends_all(sessions: Sessions, ended: list[Session]) -> None:
    opened = [sessions.open(ADA, NEW) for _ in range(2)]
    assert list(sessions) == opened
    sessions.close()
    assert (ended, len(sessions)) == (opened, 0)


async def test_the_table_is_watched(clock: FakeClock, ended: list[Session]) -> None:
    sessions = Sessions(limit=3, idle=0.004, clock=clock, ids=lambda: "key", on_end=ended.append)
    session = sessions.open(ADA, NEW)
    watch = asyncio.get_running_loop().create_task(sessions.watch())
    clock.advance(1)
    await settle(lambda: ended)
    assert ended == [session]
    watch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watch
