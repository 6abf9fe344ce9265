"""Who speaks with a client: by what TLS has agreed on, by its first bytes, or as it asks in a request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mcp_proxy.serving import uvicorn_http
from mcp_proxy.serving.choosing import server_named
from mcp_proxy.serving.first_bytes import PREFACE
from mcp_proxy.serving.uvicorn_state import State
from tests.flows.test_connections import certificate, trusting
from tests.harness import eventually
from tests.unit.serving.raw import (
    PATIENCE,
    App,
    Client,
    Served,
    Speaker,
    answers,
    connected,
    last,
    request,
    served,
    talk,
)

pytestmark = pytest.mark.anyio

UPGRADE = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")
BOTH = server_named("hypercorn")


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
async def house(app: App, states: list[State]) -> AsyncIterator[Served]:
    async with served(app, BOTH) as one:
        yield one


async def send(client: Client, data: bytes, pieces: int) -> None:
    for start in range(0, len(data), pieces):
        client.writer.write(data[start : start + pieces])
        await asyncio.sleep(0)  # The server is in this process, and reads what there is.


# Without TLS


@pytest.mark.parametrize("pieces", [1, 3, 23, 24, 25, 1000])
async def test_a_preface_begins_http_2_however_it_is_sent(house: Served, app: App, pieces: int) -> None:
    async with connected(house.port) as client:
        speaker = Speaker()
        await send(client, speaker.ask("/", b"abc") + speaker.ask("/a"), pieces)
        app.a = app.read  # type: ignore[attr-defined]
        assert {(await speaker.hear(client)).body for _ in range(2)} == {b"3", b"0"}
    assert [scope["http_version"] for scope in app.scopes] == ["2", "2"]


@pytest.mark.parametrize("pieces", [1, 1000])
@pytest.mark.parametrize("method", ["POST", "PUT", "PROPFIND"])
async def test_what_merely_begins_alike_is_http_1_1(house: Served, app: App, method: str, pieces: int) -> None:
    said = await talk(house.port, request(method=method, body=b"abc") + last(), pieces=pieces)
    assert [one.body for one in said] == [b"3", b"0"]
    assert [scope["http_version"] for scope in app.scopes] == ["1.1", "1.1"]


@pytest.mark.parametrize("pieces", [1, 1000])
@pytest.mark.parametrize(
    "raw",
    [
        b"PRI * HTTP/1.1\r\nHost: x\r\n\r\n", b"PRI / HTTP/2.0\r\n\r\nSM\r\n\r\n", b"PRI * HTTP/2.0\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n", b"pri * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\r\n" + PREFACE,
    ],
)  # fmt: skip
async def test_a_preface_that_is_not_one_is_refused_as_http_1_1(house: Served, raw: bytes, pieces: int) -> None:
    [said] = await talk(house.port, raw, pieces=pieces)
    assert (said.status, said.error["type"], said.headers["connection"]) == (400, "bad_request", "close")


async def test_so_is_one_that_comes_later(house: Served) -> None:
    async with connected(house.port) as client:
        client.writer.write(request())
        await client.until(b"\r\n\r\n0")
        client.writer.write(PREFACE)
        [said] = answers(await client.rest())
    assert (said.status, said.error["type"]) == (400, "bad_request")


@pytest.mark.parametrize("sent", [b"", b"P", PREFACE[:-1]])
async def test_who_says_nothing_more_is_let_go_without_a_word(
    house: Served, states: list[State], monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(uvicorn_http, "KEEP_ALIVE", 0.1)
    async with connected(house.port) as client:
        client.writer.write(sent)
        assert await client.rest() == b""
    await eventually(lambda: not states[0].connections)


@pytest.mark.parametrize("sent", [b"", PREFACE[:-1]])
@pytest.mark.parametrize("how", ["write_eof", "close"])
async def test_who_leaves_before_it_is_known_is_forgotten(
    house: Served, states: list[State], sent: bytes, how: str
) -> None:
    async with connected(house.port) as client:
        client.writer.write(sent)
        await eventually(lambda: states and states[0].connections)
        getattr(client.writer, how)()
        await eventually(lambda: not states[0].connections)


# With TLS


@pytest.fixture
async def secure(app: App, tmp_path: Path) -> AsyncIterator[Served]:
    async with served(app, BOTH, *map(Path, certificate(tmp_path))) as one:
        yield one


async def test_what_tls_agreed_on_is_spoken(secure: Served, app: App) -> None:
    async with connected(secure.port, trusting("http/1.1", "h2")) as client:
        client.writer.write((speaker := Speaker()).ask())
        assert (await speaker.hear(client)).status == 200
    async with connected(secure.port, trusting("http/1.1")) as client:
        client.writer.write(request() + last())
        assert [one.status for one in answers(await client.rest())] == [200] * 2
    assert [(scope["http_version"], scope["scheme"]) for scope in app.scopes] == [("2", "https")] + [
        ("1.1", "https")
    ] * 2


async def test_where_it_agreed_on_nothing_the_first_bytes_say(secure: Served, app: App) -> None:
    async with connected(secure.port, trusting()) as client:
        await send(client, (speaker := Speaker()).ask(), 10)
        assert (await speaker.hear(client)).status == 200
    async with connected(secure.port, trusting()) as client:
        await send(client, request() + last(), 10)
        assert [one.status for one in answers(await client.rest())] == [200] * 2
    assert [scope["http_version"] for scope in app.scopes] == ["2", "1.1", "1.1"]


async def test_a_client_that_speaks_otherwise_than_agreed_is_not_heard(secure: Served, app: App) -> None:
    async with connected(secure.port, trusting("h2")) as client:
        client.writer.write(request())
        assert not (await client.rest()).startswith(b"HTTP/1.1")
    assert app.scopes == []


# By an upgrade


@pytest.mark.parametrize("pieces", [1, 1000])
@pytest.mark.parametrize("before", [b"", request("/", body=b"abc", method="POST")])
async def test_a_request_may_ask_to_go_on_in_http_2(house: Served, app: App, before: bytes, pieces: int) -> None:
    app.stay = app.read  # type: ignore[attr-defined]
    async with connected(house.port) as client:
        if before:
            client.writer.write(before)
            await client.until(b"\r\n\r\n3")
        speaker = Speaker(upgraded=True)
        await send(client, request("/read/%61?b", *UPGRADE, "X-Mine: c"), pieces)
        switching = await client.until(b"\r\n\r\n")
        assert switching.startswith(b"HTTP/1.1 101")
        assert b"upgrade: h2c" in switching
        assert (await speaker.hear(client)).body == b"0"
        client.writer.write(speaker.ask("/stay", b"abcd"))
        assert (await speaker.hear(client)).body == b"4"
    first, second = app.scopes[-2:]
    assert (first["http_version"], first["method"], first["path"], first["query_string"]) == (
        "2",
        "GET",
        "/read/a",
        b"b",
    )
    assert {(b"x-mine", b"c"), (b"host", b"x")} <= set(first["headers"])
    assert second["http_version"] == "2"


async def test_what_comes_right_behind_it_is_http_2(house: Served) -> None:
    async with connected(house.port) as client:
        speaker = Speaker(upgraded=True)
        client.writer.write(request("/", *UPGRADE) + speaker.ask("/", b"abcd"))
        await client.until(b"\r\n\r\n")
        assert {(await speaker.hear(client)).body for _ in range(2)} == {b"0", b"4"}


async def test_with_a_body_or_behind_others_it_stays_http_1_1(house: Served, app: App) -> None:
    said = await talk(house.port, request("/", *UPGRADE, method="POST", body=b"abc") + last())
    assert [one.body for one in said] == [b"3", b"0"]
    async with connected(house.port) as client:
        client.writer.write(request("/slow") + request("/", *UPGRADE) + last())
        await eventually(lambda: len(app.scopes) == 3)
        app.go_on.set()
        assert [one.status for one in answers(await client.rest())] == [200] * 3
    assert {scope["http_version"] for scope in app.scopes} == {"1.1"}


async def test_an_upgrade_with_settings_that_cannot_be_read_ends_the_connection_and_is_logged(
    house: Served, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(house.port) as client:
        client.writer.write(request("/", *UPGRADE[:2], "HTTP2-Settings: AAA"))
        assert b"\r\n\r\n" in await client.rest()
    assert [record.getMessage() for record in caplog.records] == ["Exception in an HTTP/2 connection"]
    assert len(await talk(house.port, last())) == 1


# The stop


async def test_the_stop_ends_connections_of_all_kinds(house: Served, app: App) -> None:
    async with (
        connected(house.port) as silent, connected(house.port) as begun, connected(house.port) as idle,
        connected(house.port) as idle2, connected(house.port) as busy, connected(house.port) as busy2,
    ):  # fmt: skip
        begun.writer.write(PREFACE[:7])
        idle.writer.write(request())
        await idle.until(b"\r\n\r\n0")
        idle2.writer.write((done := Speaker()).ask())
        await done.hear(idle2)
        busy.writer.write(request("/slow"))
        busy2.writer.write((waits := Speaker()).ask("/slow"))
        await eventually(lambda: len(app.scopes) == 4)
        ended = asyncio.gather(*(one.rest() for one in (silent, begun, idle, idle2)))
        ending = asyncio.gather(house.end(), ended)
        await ended
        assert not ending.done()
        app.go_on.set()
        assert (await waits.hear(busy2)).status == 200
        [said] = answers(await busy.rest())
        assert (said.status, said.headers["connection"]) == (200, "close")
        await asyncio.wait_for(ending, PATIENCE)
