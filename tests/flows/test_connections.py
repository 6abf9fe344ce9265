"""What the running program does with its connections: descriptors are given back, and a stop waits for nobody who is deaf."""

from __future__ import annotations

import asyncio
import datetime
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.faults.harness import faulty_stdio
from tests.flows.which_server import HTTP2
from tests.harness import ProxyProcess, Reply, descendants, eventually, make_token

pytestmark = pytest.mark.anyio

PROC = Path("/proc")
PATIENCE = 20.0
MANY, FEW = 300, 10
LARGE = 3_500_000
"""Bytes: more than the system keeps of an answer to a client that does not read, less than a request may have."""
GRACE = 3.0
"""Seconds that a stop gives to connections of which nobody knows better."""


class SecureProxy(ProxyProcess):
    """The same with TLS."""

    @property
    def base_url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    async def request(self, *args: Any, **more: Any) -> Reply:
        return await super().request(*args, ssl=False, **more)


def certificate(directory: Path) -> tuple[str, str]:
    """Files with a certificate for localhost and with its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    cert, private = directory / "cert.pem", directory / "key.pem"
    cert.write_bytes(made.public_bytes(Encoding.PEM))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return str(cert), str(private)


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., SecureProxy]:
    cert, key = certificate(tmp_path_factory.mktemp("tls"))
    return lambda **more: SecureProxy("--certfile", cert, "--keyfile", key, **more)


@pytest.fixture(scope="module")
async def proxies(secure: Callable[..., SecureProxy]) -> AsyncIterator[dict[bool, ProxyProcess]]:
    """One without and one with TLS."""
    async with ProxyProcess(servers={}) as plain, secure(servers={}) as encrypted:
        yield {False: plain, True: encrypted}


def trusting(*protocols: str) -> ssl.SSLContext:
    """For clients that look at no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


class Client:
    """One connection on which one thing is asked."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, protocol: str) -> None:
        self.reader, self.writer, self._protocol = reader, writer, protocol

    @classmethod
    async def enter(cls, port: int, protocol: str, *, tls: bool = False) -> Client:
        context = trusting(protocol) if tls else None
        return cls(*await asyncio.open_connection("127.0.0.1", port, ssl=context), protocol)

    async def get(self, path: str) -> bytes:
        """The answer's body, read whole."""
        return await asyncio.wait_for(self._get_h2(path) if self._protocol == "h2" else self._get_h11(path), PATIENCE)

    async def _get_h11(self, path: str) -> bytes:
        self.writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        return await self.reader.readexactly(int(head.partition("content-length:")[2].split()[0]))

    async def _get_h2(self, path: str) -> bytes:
        client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        client.initiate_connection()
        fields = {":method": "GET", ":path": path, ":scheme": "https", ":authority": "localhost"}
        client.send_headers(1, list(fields.items()), end_stream=True)
        body, ended = b"", False
        while not ended:
            self.writer.write(client.data_to_send())
            for event in client.receive_data(await self.reader.read(65536)):
                body += event.data if isinstance(event, h2.events.DataReceived) else b""
                ended = ended or isinstance(event, h2.events.StreamEnded)
        return body


def descriptors(proxy: ProxyProcess) -> int:
    """Of all its processes: with workers, connections are theirs."""
    return sum(len(list((PROC / str(pid) / "fd").iterdir())) for pid in descendants(proxy.pid))


@pytest.mark.skipif(not (PROC / "self" / "fd").is_dir(), reason="open files are counted in /proc")
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("protocol", ["http/1.1", HTTP2])
async def test_connections_that_clients_have_closed_are_given_back(
    proxies: dict[bool, ProxyProcess], protocol: str, tls: bool
):
    proxy = proxies[tls]
    before = descriptors(proxy)
    clients = await asyncio.gather(*(Client.enter(proxy.port, protocol, tls=tls) for _ in range(MANY)))
    bodies = await asyncio.gather(*(client.get("/health/live") for client in clients))
    assert descriptors(proxy) > before + MANY - FEW
    assert {json.loads(body)["status"] for body in bodies} == {"ok"}
    for client in clients:
        client.writer.close()
    await eventually(lambda: descriptors(proxy) < before + FEW, 1, what="as many files are open as before")


@pytest.mark.parametrize("protocol", ["http/1.1", HTTP2])
async def test_a_connection_whose_client_has_closed_its_own_side_is_ended(
    proxies: dict[bool, ProxyProcess], protocol: str
):
    client = await Client.enter(proxies[False].port, protocol)
    await client.get("/health/live")
    client.writer.write_eof()
    await asyncio.wait_for(client.reader.read(), PATIENCE)
    client.writer.close()


def call(text: str) -> bytes:
    """A request whose answer has the same text in it."""
    body = json.dumps({"method": "echo", "args": {"text": text}}).encode()
    head = f"Authorization: Bearer {make_token()}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"POST /tools HTTP/1.1\r\nHost: localhost\r\n{head}\r\n".encode() + body


def connect(proxy: ProxyProcess, keeps: int) -> socket.socket:
    """A client whose system keeps so many bytes of what it does not read."""
    client = socket.socket()
    client.settimeout(PATIENCE)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, keeps)
    client.connect(("127.0.0.1", proxy.port))
    return trusting().wrap_socket(client) if isinstance(proxy, SecureProxy) else client


def read_all(client: socket.socket) -> bytes:
    """What comes until the server ends the connection."""
    parts = [part := client.recv(65536)]
    while part:
        parts.append(part := client.recv(65536))
    return b"".join(parts)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_stop_waits_for_those_who_read_and_is_prompt_and_quiet_about_who_does_not(
    secure: Callable[..., SecureProxy], tls: bool
):
    async with faulty_stdio() as child, (secure if tls else ProxyProcess)(servers={"calc": child.entry}) as proxy:
        await proxy.connected("calc")
        with connect(proxy, 4096) as deaf, connect(proxy, 128 * 1024) as late:
            for client in (deaf, late):
                await asyncio.to_thread(client.sendall, call("x" * LARGE))
            await eventually(lambda: child.ledger.count() == 2, what="the calls were executed")
            proxy.process.terminate()
            await eventually(lambda: proxy.log_lines(event="stopping"), what="it heard the signal")
            answer = await asyncio.to_thread(read_all, late)
            assert await asyncio.wait_for(proxy.process.wait(), PATIENCE) == 0
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["content"][0]["text"] == "x" * LARGE
        assert not proxy.log_lines(level="error")
        [began], [ended] = (proxy.log_lines(event=event) for event in ("stopping", "stopped"))
        took = datetime.datetime.fromisoformat(ended["timestamp"]) - datetime.datetime.fromisoformat(began["timestamp"])
        assert took.total_seconds() < GRACE
