from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from mcp_proxy.core.upstream.aiohttp_exchange import AiohttpExchange
from mcp_proxy.core.upstream.exchange import Exchange, Response
from mcp_proxy.core.upstream.failures import Attempt, Failure, Phase, WireError
from mcp_proxy.core.upstream.http_exchange import HttpExchange

pytestmark = pytest.mark.anyio

Handler = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


class Peer:
    """A server on loopback that answers each request with the bytes of a handler."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self.closed = asyncio.Event()
        self.handler: Handler = self.says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        self.server: asyncio.Server | None = None

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    @property
    def url(self) -> str:
        assert self.server is not None
        return f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/mcp"

    def says(self, *chunks: bytes, close: bool = False, hang: bool = False) -> Handler:
        async def handler(_: bytes, writer: asyncio.StreamWriter) -> None:
            for chunk in chunks:
                writer.write(chunk)
                await writer.drain()
            if hang:
                await self.closed.wait()
            if close:
                writer.close()

        return handler

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await self._head(reader):
                self.requests.append(head)
                await self.handler(head, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def _head(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return b""
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        return head + await reader.readexactly(length)

    async def stop(self) -> None:
        self.closed.set()
        assert self.server is not None
        self.server.close()
        await asyncio.sleep(0)


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    peer = Peer()
    await peer.start()
    yield peer
    await peer.stop()


@pytest.fixture(scope="session", params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """The program runs on uvloop where that is installed, whose transports are not quite asyncio's."""
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture(params=[AiohttpExchange, HttpExchange])
async def exchange(request: pytest.FixtureRequest) -> AsyncIterator[Exchange]:
    exchange: Exchange = request.param(1.0)
    yield exchange
    await exchange.close()


async def ask(exchange: Exchange, url: str, attempt: Attempt | None = None) -> Response:
    async with asyncio.timeout(10):
        return await exchange.open("POST", url, {"X-Own": "1"}, b"{}", attempt or Attempt())


async def read(exchange: Exchange, url: str, attempt: Attempt) -> bytes:
    response = await ask(exchange, url, attempt)
    try:
        return await response.read(100)
    finally:
        await response.close()


async def fails(exchange: Exchange, url: str) -> tuple[WireError, Attempt]:
    attempt = Attempt()
    with pytest.raises(WireError) as raised:
        await read(exchange, url, attempt)
    return raised.value, attempt


async def test_a_request_and_its_answer(peer: Peer, exchange: Exchange) -> None:
    attempt = Attempt()
    response = await ask(exchange, peer.url, attempt)
    assert attempt.phase is Phase.SENT
    assert (response.status, await response.read(2)) == (200, b"{}")
    assert attempt.phase is Phase.STREAMING
    await response.close()
    assert peer.requests[0].startswith(b"POST /mcp HTTP/1.1\r\n")
    assert b"X-Own: 1\r\n" in peer.requests[0]
    assert peer.requests[0].endswith(b"\r\n\r\n{}")


async def test_a_connection_is_used_again_when_its_answer_was_read(peer: Peer, exchange: Exchange) -> None:
    for _ in range(3):
        response = await ask(exchange, peer.url)
        await response.read(10)
        await response.close()
    assert (len(peer.requests), peer.connections) == (3, 1)


async def test_a_connection_is_dropped_when_its_answer_was_not_read(peer: Peer, exchange: Exchange) -> None:
    peer.handler = peer.says(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx", hang=True)
    await (await ask(exchange, peer.url)).close()
    await (await ask(exchange, peer.url)).close()
    assert peer.connections == 2


async def test_redirects_are_not_followed(peer: Peer, exchange: Exchange) -> None:
    peer.handler = peer.says(b"HTTP/1.1 307 X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")
    response = await ask(exchange, peer.url)
    assert (response.status, response.header("location")) == (307, "http://127.0.0.1:1/")
    await response.close()
    assert len(peer.requests) == 1


async def test_cookies_are_not_kept(peer: Peer, exchange: Exchange) -> None:
    peer.handler = peer.says(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nContent-Length: 0\r\n\r\n")
    for _ in range(2):
        await (await ask(exchange, peer.url)).close()
    assert b"cookie" not in peer.requests[-1].lower()


async def test_a_refused_connection_sent_nothing(exchange: Exchange) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        error, attempt = await fails(exchange, f"http://127.0.0.1:{free.getsockname()[1]}/")
    assert (error.failure, error.phase, attempt.phase) == (Failure.UNREACHABLE, Phase.NOT_SENT, Phase.NOT_SENT)
    assert error.message == "connection refused"


async def test_a_tls_failure_sent_nothing(peer: Peer, exchange: Exchange) -> None:
    error, attempt = await fails(exchange, peer.url.replace("http:", "https:"))
    assert (error.failure, attempt.phase) == (Failure.UNREACHABLE, Phase.NOT_SENT)


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..example"])
async def test_a_name_that_no_resolver_takes_sent_nothing(exchange: Exchange, host: str) -> None:
    error, attempt = await fails(exchange, f"http://{host}/mcp")
    assert (error.failure, error.phase, attempt.phase) == (Failure.UNREACHABLE, Phase.NOT_SENT, Phase.NOT_SENT)


@pytest.mark.parametrize("url", ["http://", "ftp://127.0.0.1/", "http://127.0.0.1:99999/", "nonsense"])
async def test_a_url_that_is_none_sent_nothing(exchange: Exchange, url: str) -> None:
    error, attempt = await fails(exchange, url)
    assert (error.failure, attempt.phase) == (Failure.UNREACHABLE, Phase.NOT_SENT)


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 20", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"],
)
async def test_a_connection_closed_without_an_answer_was_sent(peer: Peer, exchange: Exchange, answer: bytes) -> None:
    peer.handler = peer.says(answer, close=True)
    error, attempt = await fails(exchange, peer.url)
    assert (error.failure, error.phase, attempt.phase) == (Failure.LOST, Phase.SENT, Phase.SENT)
    assert len(peer.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
    ],
)
async def test_an_answer_that_breaks_off_is_lost(peer: Peer, exchange: Exchange, answer: bytes) -> None:
    peer.handler = peer.says(answer, close=True)
    error, attempt = await fails(exchange, peer.url)
    assert error.failure is Failure.LOST
    assert attempt.phase is not Phase.NOT_SENT


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n80\r\n" + b"x" * 128 + b"\r\n",
    ],
)
async def test_an_answer_over_the_limit_is_given_up_as_soon_as_that_shows(
    peer: Peer, exchange: Exchange, answer: bytes
) -> None:
    peer.handler = peer.says(answer, hang=True)
    assert (await fails(exchange, peer.url))[0].failure is Failure.TOO_LARGE


async def test_a_compressed_answer_is_not_asked_for(peer: Peer, exchange: Exchange) -> None:
    await (await ask(exchange, peer.url)).close()
    assert b"accept-encoding: identity" in peer.requests[0].lower()


async def test_chunks_come_as_they_are_sent(peer: Peer, exchange: Exchange) -> None:
    peer.handler = peer.says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n", hang=True)
    response = await ask(exchange, peer.url)
    async with asyncio.timeout(5):
        assert await anext(response.chunks()) == b"one"
    await response.close()


async def test_one_lost_answer_does_not_touch_the_others(peer: Peer, exchange: Exchange) -> None:
    good = peer.handler
    turn = iter(range(20))

    async def handler(head: bytes, writer: asyncio.StreamWriter) -> None:
        await (peer.says(close=True) if next(turn) % 2 else good)(head, writer)

    peer.handler = handler

    async def one() -> bytes:
        response = await ask(exchange, peer.url)
        try:
            return await response.read(10)
        finally:
            await response.close()

    outcomes = await asyncio.gather(*(one() for _ in range(20)), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["WireError"] * 10 + ["bytes"] * 10


async def test_after_closing_nothing_is_sent(peer: Peer, exchange: Exchange) -> None:
    await (await ask(exchange, peer.url)).close()
    await exchange.close()
    error, attempt = await fails(exchange, peer.url)
    assert (error.failure, error.phase, attempt.phase) == (Failure.LOST, Phase.NOT_SENT, Phase.NOT_SENT)
    assert len(peer.requests) == 1


async def test_an_exchange_that_was_never_used_closes_and_stays_closed(peer: Peer) -> None:
    unused = AiohttpExchange(1.0)
    await unused.close()
    await fails(unused, peer.url)
    assert peer.connections == 0
