from __future__ import annotations

import asyncio

import pytest

from mcp_proxy.gateway import outlet as module
from mcp_proxy.gateway.outlet import NoChannel, Outlet
from tests.unit.gateway.http_fakes import LIMIT, settle

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKLOG", 4)
    monkeypatch.setattr(module, "BACKLOG_BYTES", 100)


async def take(outlet: Outlet) -> list[bytes]:
    """All that is left of a closed outlet."""
    taken = []
    async with asyncio.timeout(LIMIT):
        while (message := await outlet.next()) is not None:
            taken.append(message)
    return taken


async def test_messages_leave_in_order() -> None:
    outlet = Outlet()
    assert [outlet.send(b"1"), outlet.send(b"2"), outlet.send(b"3")] == [True] * 3
    assert [await outlet.next(), await outlet.next(), await outlet.next()] == [b"1", b"2", b"3"]


async def test_a_reader_that_waits_gets_the_next_message() -> None:
    outlet = Outlet()
    asyncio.get_running_loop().call_soon(outlet.send, b"1")
    assert await outlet.next(LIMIT) == b"1"


async def test_a_reader_waits_no_longer_than_it_says() -> None:
    outlet = Outlet()
    with pytest.raises(TimeoutError):
        await outlet.next(0.001)
    outlet.send(b"1")
    assert await outlet.next(LIMIT) == b"1"


async def test_what_waits_when_it_is_closed_is_still_given_out() -> None:
    outlet = Outlet()
    outlet.send(b"1")
    outlet.close()
    assert outlet.send(b"2") is False
    assert await take(outlet) == [b"1"]
    assert not outlet.overrun


async def test_closing_wakes_the_reader() -> None:
    outlet = Outlet()
    asyncio.get_running_loop().call_soon(outlet.close)
    assert await outlet.next(LIMIT) is None


async def test_a_reader_too_many_messages_behind_loses_the_stream() -> None:
    outlet = Outlet()
    assert [outlet.send(b"x") for _ in range(6)] == [True] * 4 + [False] * 2
    assert (outlet.closed, outlet.overrun, await take(outlet)) == (True, True, [])


async def test_a_reader_too_many_bytes_behind_loses_the_stream() -> None:
    outlet = Outlet()
    assert [outlet.send(b"x" * 60) for _ in range(3)] == [True, True, False]
    assert outlet.overrun


async def test_a_large_message_that_waits_does_not_make_those_behind_it_too_many() -> None:
    outlet = Outlet()
    assert [outlet.send(b"x" * 1000), outlet.send(b"y" * 100), outlet.send(b"z")] == [True, True, False]


async def test_bytes_that_have_left_no_longer_count() -> None:
    outlet = Outlet()
    for _ in range(5):
        assert outlet.send(b"x" * 60)
        assert await outlet.next() == b"x" * 60


async def test_a_single_message_may_be_of_any_size() -> None:
    outlet = Outlet()
    assert outlet.send(b"x" * 1000)
    assert await outlet.next() == b"x" * 1000


async def test_a_patient_sender_waits_for_room() -> None:
    outlet = Outlet()
    sent: list[bool] = []

    async def send(message: bytes) -> None:
        sent.append(await outlet.send_patiently(message))

    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(send(b"%d" % number * 60))
        await settle(lambda: len(sent) == 2)
        assert sent == [True, True]
        assert [await outlet.next() for _ in range(4)] == [b"0" * 60, b"1" * 60, b"2" * 60, b"3" * 60]
    assert sent == [True] * 4
    assert not outlet.closed


async def test_a_patient_sender_is_told_when_the_outlet_closes() -> None:
    outlet = Outlet()
    outlet.send(b"x")
    outlet.send(b"x" * 90)
    asyncio.get_running_loop().call_soon(outlet.close)
    async with asyncio.timeout(LIMIT):
        assert await outlet.send_patiently(b"y" * 90) is False
    assert await take(outlet) == [b"x", b"x" * 90]


async def test_its_repr_shows_no_message() -> None:
    outlet = Outlet()
    outlet.send(b"secret")
    outlet.close()
    assert repr(outlet) == "<Outlet 1 waiting closed>"


def test_no_channel_takes_nothing() -> None:
    assert NoChannel().send(b"x") is False
