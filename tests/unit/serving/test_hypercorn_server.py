"""Connections from Hypercorn's hands to their ends, in this process; `tests.flows.test_connections` has the whole program."""

from __future__ import annotations

import asyncio
import itertools
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import h2.config
import h2.connection
import pytest
from hypercorn.asyncio import run as hypercorn_run
from hypercorn.asyncio import serve
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.config import Config

from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.serving import connections, hypercorn_server
from mcp_proxy.serving.hypercorn_server import Connections, own_connections
from tests.harness import eventually

pytestmark = pytest.mark.anyio

PATIENCE = 10.0
BODY = b"x" * 100_000
LINUX = sys.platform == "linux"


class Application:
    """Answers at once, or (``late``) only when it has heard that the client left."""

    def __init__(self, *, late: bool = False, body: bytes = BODY) -> None:
        self.late = late
        self.body = body
        self.answered = 0

    async def __call__(self, scope: Any, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        if scope["type"] != "http":
            return
        while self.late and (await receive())["type"] != "http.disconnect":
            pass
        headers = [(b"content-length", b"%d" % len(self.body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})
        self.answered += 1


@asynccontextmanager
async def serving(app: Application) -> AsyncIterator[tuple[int, Connections]]:
    """The port, and the connections to it."""
    listening = socket.create_server(("127.0.0.1", 0))
    port, config, stop = listening.getsockname()[1], Config(), asyncio.Event()
    config.bind = [f"fd://{listening.detach()}"]
    config.errorlog = None
    config.keep_alive_timeout = 10 * PATIENCE
    config.graceful_timeout = 1
    failures: list[str] = []
    tasks = TaskSet(lambda name, error: failures.append(f"{name}: {error!r}"))
    with own_connections(config) as made:
        server = tasks.spawn(serve(app, config, shutdown_trigger=stop.wait), "server")  # type: ignore[arg-type]
        try:
            yield port, made
        finally:
            stop.set()
            await asyncio.wait_for(server, PATIENCE)
            await tasks.close()
    assert failures == []


def asking(protocol: str) -> bytes:
    """What a client sends that asks for something and nothing more."""
    if protocol == "http/1.1":
        return b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.initiate_connection()
    fields = {":method": "GET", ":path": "/", ":scheme": "http", ":authority": "localhost"}
    client.send_headers(1, list(fields.items()), end_stream=True)
    return client.data_to_send()


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
async def test_a_connection_ends_when_its_client_has_left(protocol: str) -> None:
    async with serving(Application()) as (port, made):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(asking(protocol))
        await asyncio.wait_for(reader.readexactly(1000), PATIENCE)
        assert len(made) == 1
        writer.close()
        await eventually(lambda: not made, what="the connection ended")


async def test_a_client_that_has_closed_its_own_side_gets_its_answer_and_then_the_end() -> None:
    async with serving(app := Application(late=True)) as (port, made):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(asking("http/1.1"))
        writer.write_eof()
        said = await asyncio.wait_for(reader.read(), PATIENCE)
        assert (said[:12], said[-len(BODY) :], app.answered) == (b"HTTP/1.1 200", BODY, 1)
        await eventually(lambda: not made, what="the connection ended")
        writer.close()


async def test_an_answer_that_nobody_sends_any_more_does_not_keep_its_connection() -> None:
    async with serving(app := Application(late=True)) as (port, made):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(asking("h2"))
        writer.write_eof()
        await asyncio.wait_for(reader.read(), PATIENCE)
        await eventually(lambda: not made, what="the connection ended")
        assert app.answered == 1, "nor is the application left in the middle of it"
        writer.close()


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


async def test_what_a_client_has_not_taken_is_known_until_it_has() -> None:
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        async with serving(Application(body=b"x" * 8_000_000)) as (port, made):
            client.connect(("127.0.0.1", port))
            client.sendall(asking("http/1.1"))
            client.settimeout(PATIENCE)
            [one] = await eventually(lambda: made)
            here = one.get_write_buffer_size
            await eventually(
                lambda: connections.untaken(one) > here() > 0 if LINUX else here() > 0,
                what="it waits, also in the kernel",
            )
            while connections.untaken(one):
                assert await asyncio.to_thread(client.recv, 1_000_000)


def test_hypercorn_is_the_one_that_the_connections_were_made_for() -> None:
    hypercorn_server.check_hypercorn()
    assert version("hypercorn").startswith("0.18."), "look at what hypercorn.asyncio.tcp_server has become"


@pytest.mark.parametrize("missing", ["_read_data", "_idle_timeout", "protocol_send"])
def test_another_hypercorn_is_refused(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.delattr(TCPServer, missing)
    with pytest.raises(RuntimeError, match=r"Hypercorn 0\.18"), own_connections(Config()):
        pytest.fail("it was taken")


def test_hypercorn_is_left_as_it_was() -> None:
    before = hypercorn_run.TCPServer  # another's, where a server runs beside this test
    with own_connections(Config()):
        assert hypercorn_run.TCPServer is not before
    assert hypercorn_run.TCPServer is before


async def test_each_of_two_servers_in_one_process_has_its_own() -> None:
    async with serving(Application()) as (first, ours), serving(Application()) as (second, theirs):
        with socket.create_connection(("127.0.0.1", first)):
            await eventually(lambda: len(ours) == 1, what="a connection to the first")
            assert not theirs
            with socket.create_connection(("127.0.0.1", second)):
                await eventually(lambda: len(theirs) == 1, what="a connection to the second")
                assert len(ours) == 1
