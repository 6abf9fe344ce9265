"""`Exchange` of our own on httptools: a few microseconds a request where a general client takes many.

Knows HTTP/1.1 and TLS, keeps connections, and nothing else: no redirects, cookies or proxies. What one connection does is
`http_connection`; the reference, which also stands in where httptools is not installed, is `aiohttp_exchange`.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import aiohappyeyeballs
from yarl import URL

from mcp_proxy.core.admission.guard import AddressGuard
from mcp_proxy.core.upstream.addresses import AddressRefused, permitted, refuse_address
from mcp_proxy.core.upstream.exchange import KeptHeaders, Response
from mcp_proxy.core.upstream.failures import Attempt, Failure, Phase, WireError
from mcp_proxy.core.upstream.http_connection import Connection, Gone

KEEP_ALIVE = 4.0
"""Seconds; below the 5 s after which common servers close an idle connection, so that none is reused while dying."""
_EYEBALLS = 0.25
"""Seconds after which another address is tried beside one that does not answer (RFC 8305)."""
_REPEATABLE = frozenset({"GET", "DELETE"})
"""Methods that may be sent again when a kept connection turns out to be dead (RFC 9110 §9.2.2)."""
_OURS = {"user-agent": "\r\nUser-Agent: mcp-proxy-api", "accept-encoding": "\r\nAccept-Encoding: identity"}
"""What a request says unless it says otherwise itself."""

Key = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class _Target:
    """Where a URL leads. ``host`` is a name or an address."""

    url: URL
    key: Key
    path: str
    host_header: str


class HttpExchange:
    """See the module. ``guard``: connections are made to addresses it permits only; None: to any."""

    def __init__(self, connect_timeout: float, guard: AddressGuard | None = None) -> None:
        self._connect_timeout = connect_timeout
        self._guard = guard
        self._free: dict[Key, deque[Connection]] = defaultdict(deque)
        self._all: set[Connection] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<HttpExchange {len(self._all)} connections>"

    async def open(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, attempt: Attempt
    ) -> Response:
        """See `exchange.Exchange.open`."""
        if self._closed:
            raise WireError(Failure.LOST, Phase.NOT_SENT, "the connection has been closed")
        target = _target(url)
        head = _head(method, target, headers, body)
        connection = self._kept(target.key)
        repeatable = connection is not None and method in _REPEATABLE
        while True:
            if connection is None:
                connection = await self._connected(target)
            attempt.phase = Phase.SENT
            answer = connection.send(head, body, attempt)
            try:
                await answer.beginning()
                return answer
            except Gone as gone:
                connection.abort()
                if not repeatable or self._closed:
                    raise gone.error from None
                attempt.phase = Phase.NOT_SENT  # as good as
                connection, repeatable = None, False
            except BaseException:
                connection.abort()
                raise

    async def close(self) -> None:
        """See `exchange.Exchange.close`: what is under way is lost."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in list(self._all):
            connection.abort()
        await asyncio.sleep(0)

    # Kept connections (`http_connection.Owner`)

    def free(self, connection: Connection) -> None:
        """See `Owner.free`."""
        if self._closed:
            return connection.abort()
        connection.since = connection.loop.time()
        self._free[connection.key].append(connection)
        if self._sweep is None:
            self._sweep = connection.loop.call_later(KEEP_ALIVE, self._drop_old)
        return None

    def ended(self, connection: Connection) -> None:
        """See `Owner.ended`."""
        self._all.discard(connection)

    def _kept(self, key: Key) -> Connection | None:
        """The one that was used last: the others may grow old."""
        free = self._free.get(key)
        oldest = asyncio.get_running_loop().time() - KEEP_ALIVE
        while free:
            connection = free.pop()
            if connection.usable and connection.since > oldest:
                return connection
            connection.abort()
        return None

    def _drop_old(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweep = None
        oldest = loop.time() - KEEP_ALIVE
        for key, free in list(self._free.items()):
            while free and (free[0].since <= oldest or not free[0].usable):
                free.popleft().abort()
            if not free:
                del self._free[key]
        if self._free:
            self._sweep = loop.call_later(KEEP_ALIVE, self._drop_old)

    # New connections

    async def _connected(self, target: _Target) -> Connection:
        """A new connection. Raises `WireError`: nothing was sent."""
        try:
            async with asyncio.timeout(self._connect_timeout):
                return await self._connect(target)
        # `TimeoutError` and TLS's errors are some of them; uvloop raises `RuntimeError` for some that are the system's.
        except (OSError, ValueError, RuntimeError) as error:
            raise WireError(Failure.UNREACHABLE, Phase.NOT_SENT, _reason(error)) from None

    async def _connect(self, target: _Target) -> Connection:
        loop = asyncio.get_running_loop()
        scheme, host, port = target.key
        if self._guard is not None:
            refuse_address(target.url, self._guard)
            addresses = [str(address) for address in await permitted(self._guard, host)]
        else:
            addresses = [host]
        found = [
            info for address in addresses for info in await loop.getaddrinfo(address, port, type=socket.SOCK_STREAM)
        ]
        plain = await aiohappyeyeballs.start_connection(found, happy_eyeballs_delay=_EYEBALLS, interleave=1, loop=loop)
        connection = Connection(target.key, self)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if scheme == "https":
                await loop.create_connection(
                    lambda: connection, sock=plain, ssl=_context(), server_hostname=host.rstrip(".")
                )
            else:
                await loop.create_connection(lambda: connection, sock=plain)
        except BaseException:
            connection.abort()  # first: closing the socket beneath a transport leaves the loop with a dead descriptor
            plain.close()
            raise
        if self._closed:
            connection.abort()
            raise WireError(Failure.LOST, Phase.NOT_SENT, "the connection has been closed")
        if not connection.usable:
            raise WireError(Failure.LOST, Phase.NOT_SENT, "the connection was closed as soon as it was made")
        self._all.add(connection)
        return connection


@lru_cache(maxsize=1024)
def _target(url: str) -> _Target:
    """An upstream has one URL or two, and they come with every request. Raises `WireError` for what is none."""
    try:
        parsed = URL(url)
        host, port = parsed.raw_host, parsed.port
        if not host or not port or parsed.scheme not in ("http", "https"):
            raise ValueError(url)
        # A label that is empty or too long makes the system's resolver fail in a way of its own, much later.
        host.encode("idna")
        return _Target(
            parsed, (parsed.scheme, host, port), parsed.raw_path_qs or "/", str(parsed.host_port_subcomponent)
        )
    except ValueError:
        raise WireError(Failure.UNREACHABLE, Phase.NOT_SENT, "cannot connect (InvalidURL)") from None


def _head(method: str, target: _Target, headers: Mapping[str, str], body: bytes | None) -> bytes:
    """Request line and headers (RFC 9112 §3). Raises `ValueError` for a header that would be several."""
    if not isinstance(headers, KeptHeaders):
        start = _start(method, target, headers)
    else:
        try:
            start = headers.head
        except AttributeError:
            start = headers.head = _start(method, target, headers)
    if body is None and method != "POST":
        return start + b"\r\n\r\n"
    return b"%b\r\nContent-Length: %d\r\n\r\n" % (start, len(body or b""))


def _start(method: str, target: _Target, headers: Mapping[str, str]) -> bytes:
    """All but the length."""
    lines = "\r\n".join(["", *map(": ".join, headers.items())])
    if lines.count("\r") != len(headers) or lines.count("\n") != len(headers) or "\0" in lines:
        raise ValueError("a header holds a line break or a NUL")
    own = _own_lines(tuple(headers), target.host_header)
    return f"{method} {target.path} HTTP/1.1{own}{lines}".encode()


@lru_cache(maxsize=1024)
def _own_lines(names: tuple[str, ...], host: str) -> str:
    """What is added to headers of these names; those of an upstream's requests are always the same few."""
    given = {name.lower() for name in names}
    lines = {"host": f"\r\nHost: {host}"} | _OURS
    return "".join([line for name, line in lines.items() if name not in given])


@lru_cache(maxsize=1)
def _context() -> ssl.SSLContext:
    """Made once: reading the system's certificates takes some 20 ms."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _reason(error: Exception) -> str:
    if isinstance(error, AddressRefused):
        return "its address is not public and its network not allowed (--allow-network)"
    if isinstance(error, ssl.SSLError):
        return "the TLS certificate or handshake was not accepted"
    if isinstance(error, socket.gaierror | UnicodeError):
        return "the host name is not known"
    if isinstance(error, TimeoutError):
        return "no connection within the connect timeout"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ConnectionError):  # while the handshake was under way
        return "the TLS certificate or handshake was not accepted"
    return f"cannot connect ({type(error).__name__})"
