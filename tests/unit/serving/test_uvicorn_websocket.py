"""WebSockets that uvicorn serves: what the application is told of them, what they may be, and how they end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from mcp_proxy.serving.choosing import server_named
from tests.unit.serving.raw import PATIENCE, Handler, Served, request, served, talk

pytestmark = pytest.mark.anyio

HANDSHAKE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


@asynccontextmanager
async def quietly_served(app: Handler, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Served]:
    """Nothing may be said to the log of the library."""
    with caplog.at_level(logging.WARNING):
        async with served(app) as one:
            yield one
    assert [record.getMessage() for record in caplog.records] == []


@asynccontextmanager
async def joined(port: int, **more: Any) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    async with aiohttp.ClientSession() as session, session.ws_connect(f"http://127.0.0.1:{port}/ws", **more) as one:
        yield one


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Sends back what it gets, until the client leaves."""
    await receive()
    await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
    while (message := await receive())["type"] != "websocket.disconnect":
        await send({"type": "websocket.send", "text": message["text"]})


def keeping(seen: list[Any]) -> Handler:
    """Refuses, and keeps what it was told."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        headers = [(b"content-length", b"2"), (b"x-why", b"because")]
        await send({"type": "websocket.http.response.start", "status": 403, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": b"no"})

    return app


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn"])
async def test_the_application_is_told_what_was_asked(server: str) -> None:
    seen: list[Any] = []
    protocols = ["mcp-proxy-log", "bearer.abc"]
    raw = request("/ws/%61?token=b", *HANDSHAKE, f"Sec-WebSocket-Protocol: {', '.join(protocols)}", "Authorization: c")
    async with served(keeping(seen), server_named(server)) as one:
        [said] = await talk(one.port, raw)
    assert (said.status, said.headers["x-why"], said.body) == (403, "because", b"no")
    [scope] = seen
    assert (scope.pop("client")[0], scope.pop("asgi")["version"]) == ("127.0.0.1", "3.0")
    assert "websocket.http.response" in scope.pop("extensions")
    assert sorted(scope.pop("headers")) == [
        (b"authorization", b"c"), (b"connection", b"Upgrade"), (b"host", b"x"),
        (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="), (b"sec-websocket-protocol", b"mcp-proxy-log, bearer.abc"),
        (b"sec-websocket-version", b"13"), (b"upgrade", b"websocket"),
    ]  # fmt: skip
    assert scope == {
        "type": "websocket", "http_version": "1.1", "scheme": "ws", "root_path": "", "path": "/ws/a",
        "raw_path": b"/ws/%61", "query_string": b"token=b", "subprotocols": protocols, "state": {},
        "server": ("127.0.0.1", one.port),
    }  # fmt: skip


async def test_messages_come_and_go_until_the_client_closes(caplog: pytest.LogCaptureFixture) -> None:
    async with quietly_served(echo, caplog) as house, joined(house.port) as one:
        for text in ("a", "é" * 20_000, ""):
            await one.send_str(text)
            assert await one.receive_str(timeout=PATIENCE) == text
        await one.close()
        assert one.close_code == 1000


async def test_a_message_of_more_than_64_kib_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    async with quietly_served(echo, caplog) as house, joined(house.port, compress=15) as one:
        await one.send_str("x" * 65_536)
        assert len(await one.receive_str(timeout=PATIENCE)) == 65_536
        await one.send_str("x" * 65_537)
        assert (await one.receive(PATIENCE)).type == aiohttp.WSMsgType.CLOSE
        assert one.close_code == 1009


async def test_messages_are_not_compressed(caplog: pytest.LogCaptureFixture) -> None:
    async with quietly_served(echo, caplog) as house, joined(house.port, compress=15) as one:
        assert one.compress == 0


@pytest.mark.parametrize("left", [HANDSHAKE[2], HANDSHAKE[3]])
async def test_a_handshake_that_lacks_something_is_refused(left: str, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Any] = []
    async with quietly_served(keeping(seen), caplog) as house:
        [said] = await talk(house.port, request("/ws", *(one for one in HANDSHAKE if one != left)))
        assert said.status in (400, 426)
    assert seen == []


async def test_what_cannot_be_a_websocket_is_a_request_like_others(caplog: pytest.LogCaptureFixture) -> None:
    asked: list[tuple[str, bytes]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        asked.append((scope["type"], (await receive())["body"]))
        await send({"type": "http.response.start", "status": 426, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    post, body = request("/ws", *HANDSHAKE, method="POST"), request("/ws", *HANDSHAKE, body=b"abc")
    behind = request("/ws") + request("/ws", *HANDSHAKE)
    async with quietly_served(app, caplog) as house:
        said = await talk(house.port, post + body + behind + request("/ws", *HANDSHAKE, "Connection: close"))
    assert [one.status for one in said] == [426] * 5
    assert asked == [("http", body) for body in (b"", b"abc", b"", b"", b"")]


async def test_what_is_sent_after_the_client_has_left_goes_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    sent = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept", "headers": []})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        await send({"type": "websocket.send", "text": "a"})
        await send({"type": "websocket.close", "code": 1000})
        sent.set()

    for leave in (_close, _abort, _say_too_much):
        sent.clear()
        async with quietly_served(app, caplog) as house, joined(house.port) as one:
            await leave(one)
            await asyncio.wait_for(sent.wait(), PATIENCE)


async def _close(one: aiohttp.ClientWebSocketResponse) -> None:
    await one.close()


async def _abort(one: aiohttp.ClientWebSocketResponse) -> None:
    one._response.connection.transport.abort()  # type: ignore[union-attr]


async def _say_too_much(one: aiohttp.ClientWebSocketResponse) -> None:
    await one.send_str("x" * 70_000)


async def test_the_stop_ends_those_that_are_open(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept", "headers": []})
        heard.append(await receive())

    async with quietly_served(app, caplog) as house, joined(house.port) as one:
        await house.end()
        message = await one.receive(PATIENCE)
        assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1012)
    assert [message["type"] for message in heard] == ["websocket.disconnect"]


async def test_a_failure_of_the_application_ends_the_handshake_with_500_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("broken")

    async with served(app) as house:
        [said] = await talk(house.port, request("/ws", *HANDSHAKE))
        assert said.status == 500
    assert [record.getMessage() for record in caplog.records] == ["Exception in ASGI application\n"]
