"""`exchange.Exchange` on aiohttp: what `http_exchange` is held against, and stands in where httptools is not installed.

Errors of the library become `WireError` here.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from functools import lru_cache

import aiohttp
from yarl import URL

from mcp_proxy.core.admission.guard import AddressGuard
from mcp_proxy.core.upstream.addresses import AddressRefused, refuse_address
from mcp_proxy.core.upstream.checked_resolver import CheckedResolver
from mcp_proxy.core.upstream.exchange import Response
from mcp_proxy.core.upstream.failures import Attempt, Failure, Phase, WireError

_WHOLE = 512 * 1024
_BROKEN = (aiohttp.ClientError, OSError, RuntimeError)
"""Reading an answer fails with one of these; the library's RuntimeError says that the connection was closed by us."""

_NOT_SENT = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
    AddressRefused,
)


class AiohttpExchange:
    """`Exchange` on one aiohttp session: no redirects, no cookies, no proxies from the environment.

    ``guard``: connections are made to addresses it permits only (servers that came over the API); None: to any.
    """

    KEEP_ALIVE = 4.0
    """Seconds; below the 5 s after which common servers close an idle connection, so that none is reused while dying."""

    def __init__(self, connect_timeout: float, guard: AddressGuard | None = None) -> None:
        self._connect_timeout = connect_timeout
        self._guard = guard
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            resolver = None if self._guard is None else CheckedResolver(self._guard)
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=self.KEEP_ALIVE, resolver=resolver)
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout),
                headers={"User-Agent": "mcp-proxy-api", "Accept-Encoding": "identity"},
                read_bufsize=1024 * 1024,
                max_line_size=32 * 1024,
                max_field_size=32 * 1024,
            )
        return self._session

    async def open(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, attempt: Attempt
    ) -> Response:
        """See `Exchange.open`. After a connection error ``attempt`` says ``NOT_SENT``, after any other ``SENT``."""
        if self._closed:
            raise WireError(Failure.LOST, Phase.NOT_SENT, "the connection has been closed")
        session = self._open_session()
        # Until the library reports a failed connection, the bytes must be taken as sent.
        attempt.phase = Phase.SENT
        try:
            target = _parsed(url)
            if self._guard is not None:
                refuse_address(target, self._guard)
            response = await session.request(
                method, target, headers=headers, data=_payload(body), allow_redirects=False
            )
        except _NOT_SENT as error:
            attempt.phase = Phase.NOT_SENT
            raise WireError(Failure.UNREACHABLE, Phase.NOT_SENT, _connect_reason(error)) from None
        except (aiohttp.ClientError, OSError) as error:
            raise WireError(Failure.LOST, Phase.SENT, f"connection lost ({type(error).__name__})") from None
        return _AiohttpResponse(response, attempt)

    async def close(self) -> None:
        self._closed = True
        if self._session is not None:
            await self._session.close()


@lru_cache(maxsize=1024)
def _parsed(url: str) -> URL:
    """An upstream has one URL or two, and they come with every request."""
    try:
        parsed = URL(url)
        # A label that is empty or too long makes the system's resolver fail in a way of its own, much later.
        (parsed.raw_host or "").encode("idna")
        return parsed
    except ValueError:
        raise aiohttp.InvalidURL(url) from None


def _payload(body: bytes | None) -> bytes | io.BytesIO | None:
    """A large body is written in pieces, so that other calls have their turn in between."""
    return io.BytesIO(body) if body is not None and len(body) > _WHOLE else body


def _connect_reason(error: Exception) -> str:
    if isinstance(getattr(error, "os_error", error), AddressRefused):
        return "its address is not public and its network not allowed (--allow-network)"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the host name is not known"
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        return "the TLS certificate or handshake was not accepted"
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return "no connection within the connect timeout"
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, ConnectionRefusedError):
        return "connection refused"
    return f"cannot connect ({type(error).__name__})"


class _AiohttpResponse:
    def __init__(self, response: aiohttp.ClientResponse, attempt: Attempt) -> None:
        self._response = response
        self._attempt = attempt

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def complete(self) -> bool:
        return self._response.closed

    def header(self, name: str) -> str:
        return self._response.headers.get(name, "")

    async def read(self, limit: int) -> bytes:
        length = self._response.content_length
        if length is not None and length > limit:
            raise WireError(Failure.TOO_LARGE, Phase.STREAMING, f"the answer is larger than {limit} bytes")
        parts: list[bytes] = []
        size = 0
        async for chunk in self.chunks():
            size += len(chunk)
            if size > limit:
                raise WireError(Failure.TOO_LARGE, Phase.STREAMING, f"the answer is larger than {limit} bytes")
            parts.append(chunk)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def chunks(self) -> AsyncIterator[bytes]:
        content = self._response.content
        try:
            while True:
                # Piece by piece as they came in: joining them is left to whoever needs the whole.
                chunk, end_of_http_chunk = await content.readchunk()
                if chunk:
                    self._attempt.phase = Phase.STREAMING
                    yield chunk
                elif not end_of_http_chunk:
                    return
        except _BROKEN as error:
            raise WireError(
                Failure.LOST, self._attempt.phase, f"the answer broke off ({type(error).__name__})"
            ) from None

    async def close(self) -> None:
        # After a last event the end of the body usually is there already; one turn of the loop lets it be read, so
        # that the connection can be used again.
        content = self._response.content
        try:
            if not content.at_eof() and not content.is_eof():
                with suppress(TimeoutError, *_BROKEN):
                    async with asyncio.timeout(0.002):
                        await content.readany()
        finally:
            self._response.release()
