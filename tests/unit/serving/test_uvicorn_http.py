"""Connections that uvicorn serves: what is read, in which order it is answered, and how they end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from importlib.metadata import version
from typing import Any

import pytest

from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.edge.security_headers import SECURITY_HEADERS
from mcp_proxy.serving import uvicorn_http
from mcp_proxy.serving.choosing import server_named
from mcp_proxy.serving.listeners import Listeners
from mcp_proxy.serving.uvicorn_server import serve as uvicorn_serve
from tests.harness import eventually
from tests.unit.serving.raw import (
    PATIENCE,
    App,
    Client,
    Log,
    Served,
    answers,
    connected,
    last,
    request,
    served,
    serving,
    talk,
)

pytestmark = pytest.mark.anyio

CHUNKED = "Transfer-Encoding: chunked"
UPGRADE = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
async def house(app: App, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Served]:
    """With `App`. Nothing may be said to the log of the library, unless the test has taken it from there."""
    with caplog.at_level(logging.WARNING):
        async with served(app) as one:
            yield one
    assert [record.getMessage() for record in caplog.records] == []


def test_uvicorn_is_the_one_that_the_connections_were_made_for() -> None:
    assert version("uvicorn").startswith("0.54."), "look at what uvicorn.protocols has become"


# Requests


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (request("/a/b?c=d&e=%2f"), {"path": "/a/b", "raw_path": b"/a/b", "query_string": b"c=d&e=%2f"}),
        (request("/%61%2f%C3%A9"), {"path": "/a/é", "raw_path": b"/%61%2f%C3%A9"}),
        (request("http://x:1/a?b"), {"path": "http://x:1/a", "raw_path": b"http://x:1/a", "query_string": b"b"}),
        (request("//a//b"), {"path": "//a//b", "raw_path": b"//a//b"}),
        (request("/a#b"), {"path": "/a#b", "raw_path": b"/a#b"}),
        (request("*", method="OPTIONS"), {"method": "OPTIONS", "path": "*", "raw_path": b"*"}),
        (
            request("/", "A:  b \t", "A: c", "X-Latin: \xe9").replace("\xe9".encode(), b"\xe9"),
            {"headers": [(b"host", b"x"), (b"a", b"b"), (b"a", b"c"), (b"x-latin", b"\xe9")]},
        ),
        (request("/", version="1.0"), {"http_version": "1.0"}),
        (
            request("/", method="POST", body=b"abc"),
            {"method": "POST", "headers": [(b"host", b"x"), (b"content-length", b"3")]},
        ),
        (
            request("/", "Authorization: Bearer a", "Cookie: b=c"),
            {"headers": [(b"host", b"x"), (b"authorization", b"Bearer a"), (b"cookie", b"b=c")]},
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("server", ["uvicorn", "hypercorn"])
async def test_the_application_is_told_what_was_asked(raw: bytes, told: dict[str, Any], server: str) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        await App().closing(scope, receive, send)

    async with served(app, server_named(server)) as one:
        await talk(one.port, raw)
    [scope] = seen
    host, port = scope.pop("client")
    assert (host, port > 0, scope.pop("asgi")["version"]) == ("127.0.0.1", True, "3.0")
    assert scope == {
        "type": "http", "http_version": "1.1", "method": "GET", "scheme": "http", "root_path": "", "path": "/",
        "raw_path": b"/", "query_string": b"", "headers": [(b"host", b"x")], "state": {},
        "server": ("127.0.0.1", one.port), **told,
    }  # fmt: skip


async def test_a_body_arrives_whole_however_it_is_sent(house: Served, app: App) -> None:
    body = b"0123456789" * 30_000
    chunked = b"".join(b"%x;a=b\r\n%b\r\n" % (7000, body[at : at + 7000]) for at in range(0, 294_000, 7000))
    chunked += b"%x\r\n%b\r\n0\r\n\r\n" % (6000, body[294_000:])
    sent = request(method="POST", body=body) + request("/", CHUNKED, method="POST", body=chunked) + last()
    for pieces in (0, 1000, 65_536):
        said = await talk(house.port, sent, pieces=pieces)
        assert [one.body for one in said] == [b"300000", b"300000", b"0"]
    assert [body for _, body in app.asked] == [body, body, b""] * 3


async def test_a_request_may_come_byte_by_byte(house: Served, app: App) -> None:
    sent = b"\r\n" + request("/a", method="POST", body=b"abc") + last("/b")
    app.a = app.b = app.read  # type: ignore[attr-defined]
    assert [one.body for one in await talk(house.port, sent, pieces=1)] == [b"3", b"0"]


async def test_trailers_are_not_headers(house: Served, app: App) -> None:
    body = b"3\r\nabc\r\n0\r\nAuthorization: Bearer x\r\nX-More: y\r\n\r\n"
    assert [one.body for one in await talk(house.port, request("/", CHUNKED, body=body) + last())] == [b"3", b"0"]
    assert [sorted(name for name, _ in scope["headers"]) for scope in app.scopes] == [
        [b"host", b"transfer-encoding"],
        [b"connection", b"host"],
    ]


@pytest.mark.parametrize("pieces", [0, 1, 50])
async def test_the_body_of_a_request_that_asks_for_an_upgrade_is_its_body(house: Served, app: App, pieces: int) -> None:
    inner = request("/unread")
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(inner), inner)
    sent = request("/", *UPGRADE, method="POST", body=inner) + request("/", CHUNKED, *UPGRADE, body=chunked)
    said = await talk(house.port, sent + request("/", *UPGRADE) + last(), pieces=pieces)
    assert [one.status for one in said] == [200] * 4
    assert [body for _, body in app.asked] == [inner, inner, b"", b""]


# What is refused


@pytest.mark.parametrize(
    "raw",
    [
        request("/", "Content-Length: 3", "Content-Length: 3", body=b"abc"),
        request("/", "Content-Length: 3", "Content-Length: 4", body=b"abcd"),
        request("/", "Content-Length: 3, 3", body=b"abc"),
        request("/", "Content-Length: +3", body=b"abc"),
        request("/", "Content-Length: 0x3", body=b"abc"),
        request("/", "Content-Length: " + "9" * 30, body=b"abc"),
        request("/", "Content-Length: 3", CHUNKED, body=b"0\r\n\r\n"),
        request("/", CHUNKED, "Content-Length: 5", body=b"0\r\n\r\n"),
        request("/", CHUNKED, CHUNKED, body=b"0\r\n\r\n"),
        request("/", "Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
        request("/", "Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n"),
        request("/", "Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
        request("/", "Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n"),
        request("/", "Transfer-Encoding : chunked", body=b"0\r\n\r\n"),
        request("/", CHUNKED, body=b"0\r\n\r\n", version="1.0"),
        b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\nHost: x\n\n", b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nA: b\rc: d\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
        b"GET /\xe9 HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", b"GET / HTTP/1.2\r\nHost: x\r\n\r\n", b"GET /\r\n\r\n",
        b"get / HTTP/1.1\r\nHost: x\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00",
        request("x:1", method="CONNECT"),
    ],
)  # fmt: skip
async def test_what_is_not_a_sound_request_is_400_in_our_shape_and_nothing_is_asked(
    house: Served, app: App, raw: bytes
) -> None:
    [said] = await talk(house.port, raw + request())
    assert (said.status, said.error["code"], said.error["type"]) == (400, 400, "bad_request")
    assert said.error["request_id"] == said.headers["x-request-id"] == "id-1"
    assert (said.headers["content-type"], said.headers["connection"]) == ("application/json", "close")
    assert {name.decode() for name, _ in SECURITY_HEADERS} | {"date"} <= set(said.headers)
    assert app.scopes == []
    [(event, fields)] = house.log.lines
    assert (event, fields["request_id"], fields["status_code"]) == ("request_malformed", "id-1", 400)


@pytest.mark.parametrize(
    "body", [b"zz\r\n", b"-1\r\n", b"1\nA\n", b"1\r\nAB\r\n", b"fffffffffffffffff\r\n", b"1;\n\r\n"]
)
async def test_a_body_that_turns_out_broken_is_400_and_its_reader_is_told(house: Served, app: App, body: bytes) -> None:
    [said] = await talk(house.port, request("/", CHUNKED, body=b"3\r\nabc\r\n" + body))
    assert (said.status, said.headers["connection"]) == (400, "close")
    await eventually(lambda: app.left == 1)
    assert app.asked == []


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\r\nA: " + b"b" * 70_000,
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 12_000,
        b"GET /" + b"a" * 70_000,
        b"\r\n" * 180_000,
        request("/", CHUNKED, body=b"0\r\n" + b"A: b\r\n" * 60_000),
        request("/", CHUNKED, body=b"0\r\nA: " + b"b" * 360_000),
        request("/", CHUNKED, body=b"1;a=" + b"b" * 360_000),
    ],
    ids=["one header", "many headers", "target", "empty lines", "trailers", "one trailer", "extension"],
)
@pytest.mark.parametrize("pieces", [0, 10_000])
async def test_what_has_no_end_is_refused_at_64_kib(house: Served, app: App, raw: bytes, pieces: int) -> None:
    [said] = await talk(house.port, raw, pieces=pieces)
    assert (said.status, "65536 bytes" in said.error["message"]) == (400, True)
    assert app.asked == []


async def test_a_head_of_nearly_64_kib_is_read(house: Served, app: App) -> None:
    [said] = await talk(house.port, request("/", "Connection: close", "A: " + "b" * 63_000))
    assert said.status == 200


# Order


async def test_requests_in_line_are_answered_in_order(house: Served, app: App) -> None:
    app.a = app.b = app.read  # type: ignore[attr-defined]
    sent = request("/slow") + request("/a", method="POST", body=b"abc") + request("/b") * 90 + request("/stream")
    async with connected(house.port) as client:
        client.writer.write(sent + request("/unread", "Connection: close"))
        await eventually(lambda: app.scopes)
        app.go_on.set()
        said = answers((await client.rest()).replace(b"4\r\none \r\n3\r\ntwo\r\n0\r\n\r\n", b""))
    assert [one.body for one in said[:92]] == [b"0", b"3"] + [b"0"] * 90
    assert [path for path, _ in app.asked] == ["/slow", "/a"] + ["/b"] * 90
    assert (len(said), said[-1].status) == (93, 200)


@pytest.mark.parametrize("behind", [request() * 20_000, b"nonsense\r\n\r\n" + request()], ids=["too many", "nonsense"])
async def test_what_waits_in_line_is_answered_and_what_is_not_taken_behind_it_ends_the_connection(
    house: Served, app: App, behind: bytes
) -> None:
    before = uvicorn_http.MAX_LINE if behind.startswith(b"GET") else 3
    async with connected(house.port) as client:
        client.writer.write(request("/slow") + request() * (before - 1) + behind)
        await eventually(lambda: app.scopes)
        app.go_on.set()
        said = answers(await client.rest())
    assert [one.status for one in said] == [200] * before
    assert [one.headers.get("connection") for one in said] == [None] * (before - 1) + ["close"]
    assert len(app.asked) == before


async def test_nothing_more_is_read_while_a_request_waits_in_line(
    house: Served, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[uvicorn_http.HttpConnection] = []
    begin = uvicorn_http.HttpConnection.connection_made
    monkeypatch.setattr(
        uvicorn_http.HttpConnection,
        "connection_made",
        lambda self, transport: (made.append(self), begin(self, transport)),
    )
    paused = []

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        with suppress(TimeoutError):
            await asyncio.wait_for(receive(), 0.01)  # As handlers do that want to know when their client leaves.
        paused.append(made[0].flow.read_paused)
        await App().unread(scope, receive, send)

    app.__dict__["watched"] = watched
    said = await talk(house.port, request("/watched") * 3 + last("/watched"))
    assert len(said) == 4
    assert paused == [True, True, True, False]


async def test_nothing_behind_the_last_request_is_looked_at(house: Served, app: App) -> None:
    for close in (last(), request(version="1.0"), request("/", "Connection: keep-alive", version="1.0")):
        [said] = await talk(house.port, close + request() + b"nonsense\r\n\r\n")
        assert (said.status, said.headers["connection"]) == (200, "close")
    assert len(app.asked) == 3


# Answers


async def test_a_client_of_http_1_0_gets_no_chunks(house: Served) -> None:
    [said] = await talk(house.port, request("/stream", version="1.0"))
    assert (said.body, "transfer-encoding" in said.headers) == (b"one two", False)
    [said] = await talk(house.port, last("/stream"))
    assert (said.body, said.headers["transfer-encoding"]) == (b"4\r\none \r\n3\r\ntwo\r\n0\r\n\r\n", "chunked")


async def test_answers_have_a_date_and_do_not_name_the_server(house: Served) -> None:
    [said] = await talk(house.port, last())
    assert said.headers["date"].endswith(" GMT")
    assert "server" not in said.headers


async def test_a_client_that_waits_is_told_to_go_on_when_its_body_is_read(house: Served) -> None:
    async with connected(house.port) as client:
        client.writer.write(request("/", "Expect: 100-continue", "Content-Length: 3", method="POST"))
        assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.writer.write(b"abc" + last())
        assert [one.body for one in answers(await client.rest())] == [b"3", b"0"]


async def test_one_that_is_not_told_to_gets_its_answer_and_the_end(house: Served, app: App) -> None:
    head = request("/unread", "Expect: 100-continue", "Content-Length: 45", method="POST")
    [said] = await talk(house.port, head + request())
    assert (said.body, said.headers["connection"]) == (b"unread", "close")
    assert len(app.scopes) == 1


async def test_http_1_0_is_not_told_to_go_on(house: Served) -> None:
    [said] = await talk(house.port, request("/", "Expect: 100-continue", method="POST", body=b"abc", version="1.0"))
    assert said.body == b"3"


@pytest.mark.parametrize("path", ["/closing", "/unread"])
async def test_a_client_sees_its_answer_although_it_sends_on(house: Served, path: str) -> None:
    async with connected(house.port) as client:
        client.writer.write(request(path, method="POST", body=b"x" * 20_000_000) + request())
        [said] = answers(await client.rest())
        assert (said.body, said.headers["connection"]) == (path[1:].encode(), "close")


async def test_one_that_sends_on_for_ever_is_left(house: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvicorn_http, "LINGER", 0.1)
    for path in ("/closing", "/unread"):
        async with connected(house.port) as client:
            client.writer.write(request(path, CHUNKED))

            def sent_on(client: Client = client) -> bool:
                client.writer.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
                return client.writer.transport.is_closing()

            await eventually(sent_on, what="the connection is gone")


async def test_an_answer_that_breaks_off_ends_the_connection(house: Served, caplog: pytest.LogCaptureFixture) -> None:
    async with connected(house.port) as client:
        client.writer.write(request("/broken"))
        assert (await client.rest()).endswith(b"\r\n\r\nhalf")
    await eventually(lambda: caplog.records)
    assert [record.getMessage() for record in caplog.records] == ["Exception in ASGI application"]
    caplog.clear()


# Clients that leave


@pytest.mark.parametrize("path", ["/", "/waiting"])
async def test_a_client_that_has_closed_its_own_side_gets_its_answer_and_then_the_end(
    house: Served, app: App, path: str
) -> None:
    [said] = await talk(house.port, request(path, method="POST", body=b"abc"), half_closed=True)
    assert len(said.body) == (1 if path == "/" else 100_000)


async def test_so_do_all_that_it_has_asked_for(house: Served, app: App) -> None:
    async with connected(house.port) as client:
        client.writer.write(request("/slow") + request() * 2)
        client.writer.write_eof()
        await eventually(lambda: app.scopes)
        app.go_on.set()
        assert [one.status for one in answers(await client.rest())] == [200] * 3


@pytest.mark.parametrize("sent", [b"", b"GET / HT", request(method="POST", body=b"abc")[:-1]])
async def test_what_it_has_not_sent_whole_is_not_answered(house: Served, app: App, sent: bytes) -> None:
    assert await talk(house.port, sent or b"\r\n", half_closed=True) == []
    assert app.asked == []


async def test_a_handler_hears_that_its_client_has_left_and_may_go_on_to_send(house: Served, app: App) -> None:
    for path in ("/waiting", "/large", "/"):
        async with connected(house.port) as client:
            client.writer.write(request(path, "Content-Length: 10", method="POST"))
            await eventually(lambda: app.scopes)
            app.scopes.clear()
            client.writer.transport.abort()
    await eventually(lambda: app.left == 2)


# Time


async def test_a_head_that_does_not_come_in_time_is_408(house: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvicorn_http, "KEEP_ALIVE", 0.2)
    for before in (b"", request()):
        async with connected(house.port) as client:
            client.writer.write(before + b"GET / HT")
            *others, said = answers(await client.rest())
            assert (len(others), said.status, said.error["type"]) == (1 if before else 0, 408, "request_timeout")


@pytest.mark.parametrize("drip", [b"A: b\r\n", b"\r\n"])
async def test_dripping_does_not_help(house: Served, monkeypatch: pytest.MonkeyPatch, drip: bytes) -> None:
    monkeypatch.setattr(uvicorn_http, "KEEP_ALIVE", 0.2)
    async with connected(house.port) as client:
        client.writer.write(b"GET / HTTP/1.1\r\n" if drip.startswith(b"A") else b"")

        def dripped() -> bool:
            client.writer.write(drip)
            return client.reader.at_eof() or client.writer.transport.is_closing()

        await eventually(dripped, what="the connection is gone")


async def test_who_says_nothing_is_let_go_without_a_word(house: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvicorn_http, "KEEP_ALIVE", 0.1)
    async with connected(house.port) as client:
        assert await client.rest() == b""
    async with connected(house.port) as client:
        client.writer.write(request())
        assert len(answers(await client.rest())) == 1


async def test_time_does_not_run_while_an_answer_is_awaited(
    house: Served, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("KEEP_ALIVE", "LINGER"):
        monkeypatch.setattr(uvicorn_http, name, 0.05)
    async with connected(house.port) as one, connected(house.port) as other:
        one.writer.write(request("/slow"))
        await eventually(lambda: app.scopes)
        assert await other.rest() == b"", "the time of one that asks for nothing is over"
        app.go_on.set()
        assert len(answers(await one.rest())) == 1


# The stop


async def test_the_stop_ends_what_is_idle_and_waits_for_answers(house: Served, app: App) -> None:
    async with connected(house.port) as idle, connected(house.port) as begun, connected(house.port) as busy:
        idle.writer.write(request())
        await idle.until(b"\r\n\r\n0")
        begun.writer.write(b"GET / HT")
        busy.writer.write(request("/slow"))
        await eventually(lambda: len(app.scopes) == 2)
        ending = asyncio.gather(house.end(), idle.rest(), begun.rest())
        await eventually(lambda: idle.reader.at_eof() and begun.reader.at_eof())
        assert not ending.done()
        app.go_on.set()
        [said] = answers(await busy.rest())
        assert (said.status, said.headers["connection"]) == (200, "close")
        await asyncio.wait_for(ending, PATIENCE)


async def test_no_connection_is_taken_once_it_has_stopped(house: Served) -> None:
    await house.end()
    with pytest.raises(OSError, match=r"refused|[Cc]onnect"):
        await asyncio.open_connection("127.0.0.1", house.port)


async def test_an_application_that_does_not_start_is_not_served(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("no")

    async def never() -> None:
        pytest.fail("it was served")

    tasks = TaskSet(lambda name, error: None)
    with pytest.raises(RuntimeError, match="did not start"):
        await uvicorn_serve(serving(app, Listeners("127.0.0.1"), never, tasks, Log()))
    assert "ValueError: no" in caplog.text
