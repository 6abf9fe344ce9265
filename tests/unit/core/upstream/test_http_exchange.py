"""`http_exchange` where the reference is no help: who gives up and when, TLS, addresses, memory, and what is sent."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

import pytest

from mcp_proxy.core.admission.guard import AddressGuard
from mcp_proxy.core.upstream import http_exchange
from mcp_proxy.core.upstream.aiohttp_exchange import AiohttpExchange
from mcp_proxy.core.upstream.exchange import Exchange, Response
from mcp_proxy.core.upstream.failures import Attempt, Failure, Phase, WireError
from mcp_proxy.core.upstream.http_exchange import HttpExchange
from tests.unit.core.upstream.certificates import Authority
from tests.unit.core.upstream.scripted_peer import Ending, Script, ScriptedPeer, reset, turns

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\n"
TWO = OK + b"Content-Length: 2\r\n\r\n{}"
SILENT = Script(())
MIB = 1024 * 1024


@pytest.fixture(scope="session", params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """The program runs on uvloop where that is installed, whose transports are not quite asyncio's."""
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def trusted(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[Authority]:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    http_exchange._context.cache_clear()
    yield authority
    http_exchange._context.cache_clear()


async def ask(exchange: Exchange, url: str, method: str = "POST", attempt: Attempt | None = None) -> Response:
    async with asyncio.timeout(10):
        return await exchange.open(method, url, {}, b"{}" if method == "POST" else None, attempt or Attempt())


async def answered(exchange: Exchange, url: str, method: str = "POST") -> bytes:
    response = await ask(exchange, url, method)
    try:
        async with asyncio.timeout(10):
            return await response.read(100 * MIB)
    finally:
        await response.close()


async def refusal(exchange: Exchange, url: str) -> WireError:
    with pytest.raises(WireError) as raised:
        await answered(exchange, url)
    return raised.value


def begun(work: Awaitable[object]) -> asyncio.Task[object]:
    async def run() -> object:
        return await work

    return asyncio.get_running_loop().create_task(run())


async def given_up(task: asyncio.Task[object]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def soon(done: Callable[[], bool]) -> None:
    """Wait for it, but not for ever: both sides run in this loop."""
    for _ in range(100_000):
        if done():
            return
        await asyncio.sleep(0)
    raise AssertionError("it did not come to that")


def close(transport: asyncio.Transport) -> None:
    transport.close()


async def nothing_is_left(exchange: HttpExchange, peer: ScriptedPeer) -> None:
    async with asyncio.timeout(10):
        await peer.deserted()
    await soon(lambda: repr(exchange) == "<HttpExchange 0 connections>")


# Who gives up


async def test_giving_up_before_the_head_ends_the_connection() -> None:
    exchange = HttpExchange(1.0)
    async with ScriptedPeer(SILENT) as peer:
        attempt = Attempt()
        task = begun(ask(exchange, peer.url, attempt=attempt))
        await peer.asked.wait()
        await given_up(task)
        assert attempt.phase is Phase.SENT
        await nothing_is_left(exchange, peer)


async def test_giving_up_in_the_body_ends_the_connection() -> None:
    exchange = HttpExchange(1.0)
    async with ScriptedPeer(Script((OK + b"Content-Length: 9\r\n\r\n{",))) as peer:
        response = await ask(exchange, peer.url)
        task = begun(response.read(100))
        await turns()
        await given_up(task)
        await response.close()
        await nothing_is_left(exchange, peer)


async def test_giving_up_while_closing_ends_the_connection() -> None:
    exchange = HttpExchange(1.0)
    async with ScriptedPeer(Script((OK + b"Content-Length: 9\r\n\r\n{",))) as peer:
        response = await ask(exchange, peer.url)
        task = begun(response.close())
        await asyncio.sleep(0)
        await given_up(task)
        await nothing_is_left(exchange, peer)


async def test_giving_up_while_connecting_leaves_nothing() -> None:
    exchange = HttpExchange(5.0)
    held: list[socket.socket] = []
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as mute:
        mute.setblocking(False)
        url = f"https://127.0.0.1:{mute.getsockname()[1]}/"
        for _ in range(20):
            attempt = Attempt()
            task = begun(ask(exchange, url, attempt=attempt))
            held.append((await loop.sock_accept(mute))[0])
            await turns()
            await given_up(task)
            assert attempt.phase is Phase.NOT_SENT
        for accepted in held:
            accepted.setblocking(False)
            async with asyncio.timeout(5):
                while await loop.sock_recv(accepted, 65536):
                    pass
            accepted.close()
    gc.collect()  # a socket that nobody closed would warn


async def test_one_who_gives_up_does_not_touch_the_others() -> None:
    exchange = HttpExchange(1.0)
    async with ScriptedPeer(SILENT, scripted=5) as peer:
        for _ in range(5):
            peer.asked.clear()
            task = begun(ask(exchange, f"{peer.url}/mcp"))
            await peer.asked.wait()
            good = begun(answered(exchange, f"{peer.url}/probe"))
            await given_up(task)
            assert await good == b"probe"
    await exchange.close()


async def test_answers_that_come_at_the_same_time_do_not_mix(trusted: Authority) -> None:
    exchange = HttpExchange(5.0)
    async with AsyncExitStack() as peers:
        asked = []
        for number in range(16):
            body = bytes([97 + number]) * 300_000
            pieces = OK + b"Content-Length: 300000\r\n\r\n", *([body[:30_000]] * 10)
            tls = trusted.server("localhost") if number % 4 == 0 else None
            peer = await peers.enter_async_context(ScriptedPeer(Script(pieces), tls=tls))
            asked.append((body, answered(exchange, peer.url if tls is None else peer.url.replace("http:", "https:"))))
        outcomes = await asyncio.gather(*(answer for _, answer in asked))
        assert outcomes == [body for body, _ in asked]
    await exchange.close()


# Closing the exchange


async def test_closing_ends_what_is_under_way_and_nothing_is_tried_again() -> None:
    exchange = HttpExchange(1.0)
    async with ScriptedPeer(SILENT, scripted=100) as peer:
        assert await answered(exchange, f"{peer.url}/probe") == b"probe"
        kept = begun(answered(exchange, peer.url, "GET"))
        fresh = [begun(answered(exchange, peer.url)) for _ in range(5)]
        await soon(lambda: len(peer.requests) == 7)
        connections = len(peer.connections)
        await exchange.close()
        outcomes = await asyncio.gather(kept, *fresh, return_exceptions=True)
        assert [getattr(outcome, "failure", outcome) for outcome in outcomes] == [Failure.LOST] * 6
        await nothing_is_left(exchange, peer)
        assert (len(peer.requests), len(peer.connections)) == (7, connections)


async def test_closing_ends_an_answer_that_is_being_read() -> None:
    exchange = HttpExchange(1.0)
    async with ScriptedPeer(Script((OK + b"\r\n{",))) as peer:
        response = await ask(exchange, peer.url)
        chunks = response.chunks()
        assert await anext(chunks) == b"{"
        task = begun(anext(chunks))
        await turns()
        await exchange.close()
        with pytest.raises(WireError):
            await task
        await response.close()


async def test_closing_while_connecting_sends_nothing() -> None:
    resolved = asyncio.Event()

    async def resolve(host: str) -> list[str]:
        await resolved.wait()
        return ["127.0.0.1"]

    exchange = HttpExchange(5.0, AddressGuard(["127.0.0.0/8"], resolve))
    async with ScriptedPeer(SILENT) as peer:
        task = begun(refusal(exchange, f"http://name.example:{peer.port}/"))
        await turns()
        await exchange.close()
        resolved.set()
        error = await task
        assert isinstance(error, WireError)
        assert (error.failure, error.phase) == (Failure.LOST, Phase.NOT_SENT)
        await nothing_is_left(exchange, peer)
        assert peer.requests == []


async def test_idle_connections_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_exchange, "KEEP_ALIVE", 0.02)
    exchange = HttpExchange(1.0)
    async with ScriptedPeer(SILENT) as peer:
        assert await answered(exchange, f"{peer.url}/probe") == b"probe"
        await nothing_is_left(exchange, peer)
        assert await answered(exchange, f"{peer.url}/probe") == b"probe"
        assert len(peer.connections) == 2
    await exchange.close()


# Connections that end while they are used


async def test_a_post_is_never_sent_twice_whenever_its_connection_ends() -> None:
    exchange = HttpExchange(1.0)
    async with ScriptedPeer(SILENT) as peer:
        for turn in range(60):
            assert await answered(exchange, f"{peer.url}/probe") == b"probe"
            before = len(peer.requests)
            (reset if turn % 2 else close)(peer.connections[-1].transport)
            for _ in range(turn % 5):
                await asyncio.sleep(0)
            outcome = (await asyncio.gather(answered(exchange, f"{peer.url}/probe"), return_exceptions=True))[0]
            assert outcome == b"probe" or (isinstance(outcome, WireError) and outcome.failure is Failure.LOST)
            assert len(peer.requests) - before <= 1
            assert (outcome == b"probe") == (len(peer.requests) - before == 1)
    await exchange.close()


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_what_may_be_repeated_survives_every_such_end(method: str) -> None:
    exchange = HttpExchange(1.0)
    async with ScriptedPeer(SILENT) as peer:
        for turn in range(60):
            assert await answered(exchange, f"{peer.url}/probe") == b"probe"
            (reset if turn % 2 else close)(peer.connections[-1].transport)
            for _ in range(turn % 5):
                await asyncio.sleep(0)
            assert await answered(exchange, f"{peer.url}/probe", method) == b"probe"
    await exchange.close()


async def test_a_connection_that_ends_as_soon_as_it_is_made_is_lost() -> None:
    class Slammer(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport) or transport is not None
            reset(transport)  # type: ignore[arg-type]

    server = await asyncio.get_running_loop().create_server(Slammer, "127.0.0.1", 0)
    exchange = HttpExchange(1.0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    for _ in range(20):
        assert (await refusal(exchange, url)).failure in (Failure.LOST, Failure.UNREACHABLE)
    assert repr(exchange) == "<HttpExchange 0 connections>"
    server.close()
    await exchange.close()


# Memory


async def test_a_slow_reader_makes_the_upstream_wait() -> None:
    sent = 0
    whole = 50 * MIB

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + b"Content-Length: %d\r\n\r\n" % whole)
        while sent < whole:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    exchange = HttpExchange(1.0)
    response = await ask(exchange, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", "GET")
    before = -1
    while before != sent:  # until the server can send no more
        before = sent
        for _ in range(200):
            await asyncio.sleep(0)
    assert sent < 20 * MIB
    read = 0
    async with asyncio.timeout(20):
        async for chunk in response.chunks():
            read += len(chunk)
            assert sent - read < 20 * MIB
    assert read == whole
    await response.close()
    await exchange.close()
    server.close()


# Addresses


async def test_of_several_addresses_one_that_answers_is_enough() -> None:
    async def resolve(host: str) -> list[str]:
        return ["127.0.0.9", "10.1.1.1", "127.0.0.1"]

    exchange = HttpExchange(5.0, AddressGuard(["127.0.0.0/8"], resolve))
    async with ScriptedPeer(SILENT) as peer:
        assert await answered(exchange, f"http://name.example:{peer.port}/probe") == b"probe"
        assert b"\r\nHost: name.example:%d\r\n" % peer.port in peer.requests[0]
    await exchange.close()


async def test_no_address_that_is_not_permitted_is_called() -> None:
    async def resolve(host: str) -> list[str]:
        return ["127.0.0.1"]

    exchange = HttpExchange(5.0, AddressGuard((), resolve))
    async with ScriptedPeer(SILENT) as peer:
        for host in ("name.example", "127.0.0.1", "127.1", "2130706433"):
            error = await refusal(exchange, f"http://{host}:{peer.port}/")
            assert (error.failure, error.phase) == (Failure.UNREACHABLE, Phase.NOT_SENT)
            assert "--allow-network" in error.message
        assert peer.connections == []


async def test_a_name_that_takes_too_long_is_given_up() -> None:
    async def resolve(host: str) -> list[str]:
        await asyncio.Event().wait()
        raise AssertionError

    error = await refusal(HttpExchange(0.05, AddressGuard((), resolve)), "http://name.example/")
    assert (error.failure, error.phase) == (Failure.UNREACHABLE, Phase.NOT_SENT)
    assert error.message == "no connection within the connect timeout"


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
async def test_an_address_of_version_6() -> None:
    exchange = HttpExchange(1.0)
    async with ScriptedPeer(SILENT, host="::1") as peer:
        assert await answered(exchange, f"http://[::1]:{peer.port}/probe") == b"probe"
        assert b"\r\nHost: [::1]:%d\r\n" % peer.port in peer.requests[0]
    await exchange.close()


# TLS


@pytest.mark.parametrize("host", ["localhost", "localhost.", "127.0.0.1"])
async def test_tls_with_a_good_certificate(trusted: Authority, host: str) -> None:
    async def resolve(host: str) -> list[str]:
        return ["127.0.0.1"]

    exchange = HttpExchange(5.0, AddressGuard(["127.0.0.0/8"], resolve))
    async with ScriptedPeer(SILENT, tls=trusted.server("localhost")) as peer:
        for _ in range(3):
            assert await answered(exchange, f"https://{host}:{peer.port}/probe") == b"probe"
        assert len(peer.connections) == 1
        await exchange.close()
        await nothing_is_left(exchange, peer)


async def test_giving_up_at_any_moment_of_a_handshake_leaves_nothing(trusted: Authority) -> None:
    exchange = HttpExchange(5.0)
    async with ScriptedPeer(SILENT, scripted=100, tls=trusted.server("localhost")) as peer:
        peer.asked.clear()
        moments = 1
        while not peer.asked.is_set():
            task = begun(ask(exchange, f"https://127.0.0.1:{peer.port}/"))
            for _ in range(moments):
                await asyncio.sleep(0)
            await given_up(task)
            moments += 1
        await nothing_is_left(exchange, peer)
    await exchange.close()


@pytest.mark.parametrize("ending", [Ending.CLOSE, Ending.RESET])
@pytest.mark.parametrize("whole", [True, False])
async def test_answers_end_over_tls_as_they_do_without(trusted: Authority, ending: Ending, whole: bool) -> None:
    exchange = HttpExchange(5.0)
    script = Script((OK + b"Content-Length: %d\r\n\r\n{}" % (2 if whole else 3),), ending)
    async with ScriptedPeer(script, tls=trusted.server("localhost")) as peer:
        outcome = (await asyncio.gather(answered(exchange, f"https://localhost:{peer.port}/"), return_exceptions=True))[
            0
        ]
        assert outcome == b"{}" if whole else isinstance(outcome, WireError) and outcome.failure is Failure.LOST
        await nothing_is_left(exchange, peer)
    await exchange.close()


async def test_a_large_request_and_answer_over_tls(trusted: Authority) -> None:
    exchange = HttpExchange(5.0)
    body = b"x" * 5 * MIB
    script = Script((OK + b"Content-Length: %d\r\n\r\n" % len(body) + body,))
    async with ScriptedPeer(script, tls=trusted.server("localhost")) as peer, asyncio.timeout(20):
        response = await exchange.open("POST", f"https://localhost:{peer.port}/", {}, body, Attempt())
        assert await response.read(len(body)) == body
        await response.close()
        assert peer.requests[0].endswith(body)
    await exchange.close()


@pytest.mark.parametrize("make", [HttpExchange, AiohttpExchange])
async def test_a_certificate_that_nobody_vouches_for_is_refused(
    authority: Authority, make: Callable[[float], Exchange]
) -> None:
    exchange = make(5.0)
    async with ScriptedPeer(SILENT, tls=authority.server("localhost")) as peer:
        error = await refusal(exchange, f"https://localhost:{peer.port}/")
        assert (error.failure, error.phase) == (Failure.UNREACHABLE, Phase.NOT_SENT)
        assert error.message == "the TLS certificate or handshake was not accepted"
        assert peer.requests == []
    await exchange.close()


async def test_a_certificate_of_another_name_is_refused(trusted: Authority) -> None:
    exchange = HttpExchange(5.0)
    async with ScriptedPeer(SILENT, tls=trusted.server("other.example", address="127.0.0.2")) as peer:
        for host in ("localhost", "127.0.0.1"):
            error = await refusal(exchange, f"https://{host}:{peer.port}/")
            assert (error.failure, error.phase) == (Failure.UNREACHABLE, Phase.NOT_SENT)
            assert error.message == "the TLS certificate or handshake was not accepted"
        assert peer.requests == []
        await nothing_is_left(exchange, peer)


async def test_a_handshake_that_hangs_is_given_up() -> None:
    exchange = HttpExchange(0.05)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        error = await refusal(exchange, f"https://127.0.0.1:{mute.getsockname()[1]}/")
    assert (error.failure, error.phase) == (Failure.UNREACHABLE, Phase.NOT_SENT)
    assert error.message == "no connection within the connect timeout"


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"\x15\x03\x01\x00\x02\x02\x28"])
async def test_what_does_not_speak_tls_is_refused(answer: bytes) -> None:
    class NoTls(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(answer)  # type: ignore[attr-defined]
            self.transport.close()

    exchange = HttpExchange(5.0)
    server = await asyncio.get_running_loop().create_server(NoTls, "127.0.0.1", 0)
    error = await refusal(exchange, f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    assert (error.failure, error.phase) == (Failure.UNREACHABLE, Phase.NOT_SENT)
    assert error.message == "the TLS certificate or handshake was not accepted"
    server.close()


# What is sent


REQUESTS = [
    ("POST", "/mcp", {}, b"{}"),
    ("POST", "/mcp", {"Content-Type": "application/json", "Authorization": "Bearer x"}, b"{}"),
    ("POST", "", {}, b""),
    ("POST", "/mcp", {"User-Agent": "own", "accept-encoding": "gzip"}, b"{}"),
    ("POST", "/mcp", {"X-Utf-8": "schön"}, b"{}"),
    ("POST", "/a b/ü?q=1&r=a%2Fb&s=%20ö#fragment", {}, b"{}"),
    ("POST", "/mcp?", {}, b"{}"),
    ("POST", "//mcp/../x", {}, b"{}"),
    ("GET", "/mcp", {"Accept": "text/event-stream", "Last-Event-ID": "1"}, None),
    ("GET", "/mcp", {"Host": "other.example"}, None),
    ("DELETE", "/mcp", {"Mcp-Session-Id": "abc"}, None),
]
_ONLY_THE_REFERENCE = {"accept": "*/*", "content-type": "application/octet-stream", "content-length": "0"}
"""What it adds by itself when nothing else is said; a DELETE needs no length (RFC 9110 §8.6)."""


@pytest.mark.parametrize(("method", "path", "headers", "body"), REQUESTS)
async def test_the_same_request_is_sent(method: str, path: str, headers: dict[str, str], body: bytes | None) -> None:
    async with ScriptedPeer(Script((TWO,)), scripted=2) as peer:
        for make in (HttpExchange, AiohttpExchange):
            exchange: Exchange = make(1.0)
            response = await exchange.open(method, peer.url + path, headers, body, Attempt())
            assert await response.read(10) == b"{}"
            await response.close()
            await exchange.close()
        ours, reference = map(parts, peer.requests)
    given = {name.lower() for name in headers}
    added = [
        header
        for header in _ONLY_THE_REFERENCE.items()
        if header[0] not in given and header in reference[1] and header not in ours[1]
    ]
    assert (ours[0], sorted(ours[1] + added), ours[2]) == (reference[0], sorted(reference[1]), reference[2])


def parts(request: bytes) -> tuple[str, list[tuple[str, str]], bytes]:
    head, _, body = request.partition(b"\r\n\r\n")
    line, *headers = head.decode().split("\r\n")
    pairs = (header.partition(": ") for header in headers)
    return line, [(name.lower(), value) for name, _, value in pairs], body


@pytest.mark.parametrize("headers", [{"X": "a\r\nY: b"}, {"X": "a\n"}, {"X\r\nY": "a"}, {"X": "a\0"}, {"X": "a\r"}])
async def test_a_header_that_would_be_two_is_not_sent(headers: dict[str, str]) -> None:
    exchange = HttpExchange(1.0)
    async with ScriptedPeer(SILENT) as peer:
        with pytest.raises(ValueError, match="line break"):
            await exchange.open("POST", peer.url, headers, b"{}", Attempt())
        assert peer.connections == []


def test_the_context_for_tls_checks_names() -> None:
    context = http_exchange._context()
    assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)
