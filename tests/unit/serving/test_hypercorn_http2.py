"""Connections that speak HTTP/2: what the application is told, and how they end; `tests.flows.test_connections` has the
whole program.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from importlib.metadata import version

import pytest

from mcp_proxy.serving import hypercorn_http2
from mcp_proxy.serving.choosing import server_named
from mcp_proxy.serving.uvicorn_state import State
from tests.harness import eventually
from tests.unit.serving.raw import PATIENCE, App, Served, Speaker, connected, served

pytestmark = pytest.mark.anyio


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
async def house(app: App, states: list[State]) -> AsyncIterator[Served]:
    async with served(app, server_named("hypercorn")) as one:
        yield one


def test_hypercorn_is_the_one_that_the_connections_were_made_for() -> None:
    assert version("hypercorn").startswith("0.18."), "look at what hypercorn.asyncio.tcp_server has become"
    assert {"protocol_send", "_read_data"} <= vars(hypercorn_http2.TCPServer).keys()


async def test_the_application_is_told_what_was_asked(house: Served, app: App) -> None:
    async with connected(house.port) as client:
        client.writer.write((speaker := Speaker()).ask("/read/%61?b=c", b"abc"))
        said = await speaker.hear(client)
    assert (said.status, said.body, "server" in said.headers) == (200, b"3", False)
    assert said.headers["date"].endswith(" GMT")
    assert app.asked == [("/read/a", b"abc")]
    [scope] = app.scopes
    assert (scope["type"], scope["http_version"], scope["method"], scope["scheme"]) == ("http", "2", "POST", "http")
    assert (scope["raw_path"], scope["query_string"]) == (b"/read/%61", b"b=c")
    assert (scope["client"][0], scope["server"]) == ("127.0.0.1", ("127.0.0.1", house.port))
    assert (b"host", b"x") in scope["headers"]


async def test_a_connection_ends_when_its_client_has_left(house: Served, states: list[State]) -> None:
    async with connected(house.port) as client:
        client.writer.write((speaker := Speaker()).ask())
        await speaker.hear(client)
        assert len(states[0].connections) == 1
        client.writer.close()
        await eventually(lambda: not states[0].connections, what="the connection ended")


async def test_an_answer_that_nobody_sends_any_more_does_not_keep_its_connection(
    house: Served, app: App, states: list[State]
) -> None:
    async with connected(house.port) as client:
        client.writer.write(Speaker().ask("/waiting"))
        client.writer.write_eof()
        await client.rest()
        await eventually(lambda: not states[0].connections, what="the connection ended")
        assert app.left == 1, "nor is the application left in the middle of it"


async def test_one_that_is_idle_is_ended_in_time(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hypercorn_http2, "KEEP_ALIVE", 0.1)
    async with served(app, server_named("hypercorn")) as house, connected(house.port) as client:
        client.writer.write((speaker := Speaker()).ask())
        assert (await speaker.hear(client)).status == 200
        await client.rest()


async def test_the_stop_ends_what_is_idle_and_waits_for_answers(house: Served, app: App) -> None:
    async with connected(house.port) as idle, connected(house.port) as busy:
        idle.writer.write((done := Speaker()).ask())
        await done.hear(idle)
        busy.writer.write((waits := Speaker()).ask("/slow"))
        await eventually(lambda: len(app.scopes) == 2)
        ending = asyncio.gather(house.end(), idle.rest())
        await eventually(lambda: idle.reader.at_eof())
        assert not ending.done()
        app.go_on.set()
        assert (await waits.hear(busy)).status == 200
        await busy.rest()
        await asyncio.wait_for(ending, PATIENCE)


async def test_each_of_two_servers_in_one_process_has_its_own(app: App, states: list[State]) -> None:
    serve = server_named("hypercorn")
    async with served(app, serve) as first, served(app, serve) as second, connected(first.port) as client:
        client.writer.write((speaker := Speaker()).ask())
        await speaker.hear(client)
        assert [len(one.connections) for one in states] == [1, 0]
        async with connected(second.port) as another:
            another.writer.write((speaker := Speaker()).ask())
            await speaker.hear(another)
            assert [len(one.connections) for one in states] == [1, 1]
