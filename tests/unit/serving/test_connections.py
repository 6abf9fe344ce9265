"""How the stop ends connections, and what is known of those whose clients do not read."""

from __future__ import annotations

import asyncio
import itertools
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.serving import connections
from mcp_proxy.serving.uvicorn_state import State
from tests.harness import eventually
from tests.unit.serving.raw import PATIENCE, App, request, served

pytestmark = pytest.mark.anyio

LINUX = sys.platform == "linux"


class Told:
    """A transport that tells in turn what its client has not taken yet, and what becomes of it."""

    def __init__(self, *untaken: int) -> None:
        self._untaken = itertools.cycle(untaken)
        self.looks = 0
        self.cut_off = False

    def get_write_buffer_size(self) -> int:
        self.looks += 1
        return next(self._untaken)

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, name: str) -> None:
        raise OSError("the system does not tell")

    def abort(self) -> None:
        self.cut_off = True


@asynccontextmanager
async def ending(seconds: float, *open_: Told) -> AsyncIterator[None]:
    tasks = TaskSet(lambda name, error: None)
    tasks.spawn(connections.end(lambda: open_, seconds), "the stop")  # type: ignore[arg-type]
    yield
    await tasks.close()


async def test_the_stop_cuts_off_only_those_that_take_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "DEAF", 0.01)
    stuck, reading, idle = Told(9), Told(9, 8, 7), Told(0)
    async with ending(1000, stuck, reading, idle):
        await eventually(lambda: min(reading.looks, idle.looks) > 6)
        assert [one.cut_off for one in (stuck, reading, idle)] == [True, False, False]


async def test_whoever_is_left_at_the_end_of_the_stop_is_cut_off() -> None:
    reading, idle = Told(9, 8, 7), Told(0)
    async with ending(0.01, reading, idle):
        await eventually(lambda: reading.cut_off and idle.cut_off)


def test_of_one_without_its_socket_what_is_kept_here_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = Told(9)
    monkeypatch.setattr(closed, "get_extra_info", lambda name: None)
    assert connections.untaken(closed) == 9  # type: ignore[arg-type]


async def test_what_a_client_has_not_taken_is_known_until_it_has(states: list[State]) -> None:
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        async with served(App()) as house:
            client.connect(("127.0.0.1", house.port))
            client.sendall(request("/large"))
            client.settimeout(PATIENCE)
            [one] = await eventually(lambda: states and states[0].connections)
            here = one.transport.get_write_buffer_size
            await eventually(
                lambda: connections.untaken(one.transport) > here() > 0 if LINUX else here() > 0,
                what="it waits, also in the kernel",
            )
            while connections.untaken(one.transport):
                assert await asyncio.to_thread(client.recv, 1_000_000)
