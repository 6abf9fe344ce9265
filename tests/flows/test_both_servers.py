"""The core of what the running program does, with and without HTTP/2.

All other tests of it run under one (`harness.SERVER`).
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from tests.faults.harness import FaultyCommand
from tests.flows.mcp_client import KINDS, open_client
from tests.flows.test_cli import run
from tests.flows.test_connections import (
    FEW,
    LARGE,
    MANY,
    PATIENCE,
    PROC,
    Client,
    SecureProxy,
    call,
    certificate,
    connect,
    descriptors,
    read_all,
    trusting,
)
from tests.flows.test_stop import stopping
from tests.harness import ProxyProcess, eventually, make_token

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def proxy(server: str, child: FaultyCommand) -> AsyncIterator[ProxyProcess]:
    async with ProxyProcess(servers={"calc": child.entry}, env={"MCP_PROXY_SERVER": server}) as one:
        await one.connected("calc")
        yield one
        assert await one.terminate() == 0
        assert not one.log_lines(level="error")
        assert one.log_lines(event="stopped")
        assert one.stdout() == ""


def exchange(port: int, *parts: bytes) -> bytes:
    """What is answered until the server closes."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        for part in parts:
            client.sendall(part)
        return read_all(client)


async def test_calls_are_answered_over_kept_connections(proxy: ProxyProcess):
    for _ in range(3):
        reply = await proxy.call("echo", {"text": "é"})
        assert (reply.status, reply.json["content"][0]["text"]) == (200, "é")
        assert "server" not in reply.headers
        assert reply.headers["date"].endswith("GMT")
    assert (await proxy.call("none")).json["error"]["type"] == "tool_not_found"
    assert (await proxy.get("/tools", token="x")).status == 401


@pytest.mark.parametrize("kind", KINDS)
async def test_mcp_clients_of_both_eras_and_all_transports_are_served(proxy: ProxyProcess, kind: str):
    async with open_client(kind, proxy.base_url) as client:
        assert "echo" in await client.names()
        assert (await client.call("echo", {"text": "x" * 100_000})).text == "x" * 100_000


async def test_a_stream_is_sent_as_it_comes_and_let_go_with_its_client(proxy: ProxyProcess):
    mine = {"event": "request", "path": "/sse", "user_agent": "who stays"}
    headers = {"Authorization": f"Bearer {make_token()}", "Accept": "text/event-stream", "User-Agent": "who stays"}
    async with proxy.session.get(f"{proxy.base_url}/sse", headers=headers) as stream:
        assert stream.content_type == "text/event-stream"
        assert await asyncio.wait_for(stream.content.readline(), PATIENCE) == b"event: endpoint\n"
        assert not proxy.log_lines(**mine)
    await eventually(lambda: proxy.log_lines(**mine), what="it has ended")


async def test_the_log_is_sent_over_a_websocket_as_it_is_written(proxy: ProxyProcess):
    url, protocols = (
        f"{proxy.base_url}/ws?last=0&tool=count",
        ("mcp-proxy-log", f"bearer.{make_token(scope='logs:read')}"),
    )
    async with proxy.session.ws_connect(url, protocols=protocols) as socket:
        reply = await proxy.call("count")
        line = json.loads(await socket.receive_str(timeout=PATIENCE))
        assert (socket.protocol, line["request_id"]) == ("mcp-proxy-log", reply.json["request_id"])
        await socket.send_str("x" * 70_000)
        assert (await socket.receive(PATIENCE)).type == aiohttp.WSMsgType.CLOSE
        assert socket.close_code == 1009
    with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
        await proxy.session.ws_connect(url, headers={"Authorization": f"Bearer {make_token()}"})


@pytest.mark.parametrize("framing", ["Content-Length: 20000000", "Transfer-Encoding: chunked"])
async def test_a_body_that_is_too_large_is_refused_while_it_is_sent_and_then_the_connection_ends(
    proxy: ProxyProcess, framing: str
):
    head = call("").partition(b"\r\n\r\n")[0].rpartition(b"\r\n")[0] + f"\r\n{framing}\r\n\r\n".encode()
    part = b"x" * 65_536
    body = [part] * 90 if "Length" in framing else [b"10000\r\n" + part + b"\r\n"] * 90

    def sent() -> bytes:
        with socket.create_connection(("127.0.0.1", proxy.port), PATIENCE) as client:
            with suppress(ConnectionError):
                for one in [head, *body]:
                    client.sendall(one)
            return read_all(client)

    said = await asyncio.to_thread(sent)
    head, _, body_of_answer = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413")
    assert b"connection: close" in head.lower()
    assert json.loads(body_of_answer)["error"]["type"] == "payload_too_large"


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST /tools HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * 100_000,
    ],
    ids=["nonsense", "no host", "two lengths", "length and encoding", "unknown encoding", "two hosts", "long head"],
)
async def test_what_is_not_sound_http_is_refused_and_the_connection_ends(proxy: ProxyProcess, raw: bytes):
    said = await asyncio.to_thread(exchange, proxy.port, raw)
    assert said[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 431", b"HTTP/1.1 501")
    assert len(re.findall(rb"HTTP/1\.1 \d", said)) == 1
    assert (await proxy.get("/health/live", token=None)).status == 200


async def test_requests_in_line_are_answered_in_order(proxy: ProxyProcess):
    bodies = [f"number {number}" for number in range(20)]
    end = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    said = await asyncio.to_thread(exchange, proxy.port, b"".join(map(call, bodies)) + end)
    at = [said.index(json.dumps(body).encode()) for body in bodies]
    assert at == sorted(at)
    assert said.endswith(b'{"status":"ok"}')


async def test_a_body_is_read_although_the_request_offers_http_2(proxy: ProxyProcess):
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
    first = call("as Java does").replace(b"Content-Type", offer + b"Content-Type")
    end = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    said = await asyncio.to_thread(exchange, proxy.port, first + end)
    assert b'"as Java does"' in said
    assert said.endswith(b'{"status":"ok"}')


@pytest.mark.skipif(not (PROC / "self" / "fd").is_dir(), reason="open files are counted in /proc")
async def test_connections_that_clients_have_closed_are_given_back(proxy: ProxyProcess):
    before = descriptors(proxy)
    clients = await asyncio.gather(*(Client.enter(proxy.port, "http/1.1") for _ in range(MANY)))
    await asyncio.gather(*(client.get("/health/live") for client in clients))
    assert descriptors(proxy) > before + MANY - FEW
    for client in clients:
        client.writer.close()
    await eventually(lambda: descriptors(proxy) < before + FEW, 1, what="as many files are open as before")


async def test_both_ports_are_served_with_tls(server: str, tmp_path: Path):
    cert, key = certificate(tmp_path)
    args = ("--certfile", cert, "--keyfile", key, "--admin-port", "auto")
    async with SecureProxy(*args, servers={}, env={"MCP_PROXY_SERVER": server}) as proxy:
        assert (await proxy.get("/tools")).status == 200
        [line] = proxy.log_lines(event="serving")
        for url, status in ((line["url"], 404), (line["admin_url"], 200)):
            headers = {"Authorization": f"Bearer {make_token(scope='admin')}"}
            async with proxy.session.get(f"{url}/api/config", headers=headers, ssl=False) as answer:
                assert answer.status == status
        offered = trusting("h2", "http/1.1")
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port, ssl=offered)
        chosen = writer.get_extra_info("ssl_object").selected_alpn_protocol()
        assert chosen == {"hypercorn": "h2", "uvicorn": "http/1.1"}[server]
        writer.close()
        assert await proxy.terminate() == 0
        assert not proxy.log_lines(level="error")


async def test_a_stop_lets_a_call_in_flight_end_while_nothing_new_is_taken(server: str):
    async with stopping(1000, MCP_PROXY_SERVER=server) as (proxy, child, slow):
        refused = await proxy.call("count")
        assert (refused.status, slow.done()) == (503, False)
        assert (await asyncio.wait_for(slow, PATIENCE)).json["content"][0]["text"] == "1"
        assert await asyncio.wait_for(proxy.process.wait(), PATIENCE) == 0
        assert child.running() == []
        assert not proxy.log_lines(level="error")


async def test_a_stop_is_prompt_and_quiet_about_clients_that_do_not_read_or_do_nothing(
    server: str, child: FaultyCommand
):
    env = {"MCP_PROXY_SERVER": server}
    async with ProxyProcess(servers={"calc": child.entry}, env=env) as proxy:
        await proxy.connected("calc")
        before = child.ledger.count()
        with connect(proxy, 4096) as deaf, connect(proxy, 4096) as idle, connect(proxy, 4096) as begun:
            idle.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            begun.sendall(b"GET /health/li")
            await asyncio.to_thread(deaf.sendall, call("x" * LARGE))
            await eventually(lambda: child.ledger.count() == before + 1, what="the call was executed")
            assert await proxy.terminate(PATIENCE) == 0
        assert not proxy.log_lines(level="error")
        assert not proxy.log_lines(level="warning", logger="asyncio")
        assert proxy.log_lines(event="stopped")


async def test_without_what_it_needs_it_is_refused_in_one_line(server: str, tmp_path: Path):
    (tmp_path / "httptools.py").write_text("raise ImportError('no', name='httptools')")
    start = ("-c", "import sys; sys.path.insert(0, '.'); from mcp_proxy import main; main()")
    ended = await run("serve", "--server", server, "--port", "0", start=start, cwd=tmp_path, env={"LOG_LEVEL": "OFF"})
    assert (ended.code, ended.err.count("\n")) == (2, 1), ended.err
    assert f"--server {server} needs the package httptools" in ended.err
