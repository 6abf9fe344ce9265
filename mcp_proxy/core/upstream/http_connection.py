"""One HTTP/1.1 connection to an upstream, on httptools (llhttp): one request at a time, its answer piece by piece.

Which connection a request gets, and how one is made, is `http_exchange`. No content coding is asked for, and none is undone.
Source: RFC 9112.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import lru_cache
from threading import get_ident
from typing import Protocol, cast

import httptools

from mcp_proxy.core.upstream.failures import Attempt, Failure, Phase, WireError

_AT_ONCE = 256 * 1024
"""Bytes that are read at once."""
_HIGH, _LOW = 2 * 1024 * 1024, 512 * 1024
"""Bytes of an answer that wait to be read, from which on the upstream has to wait, and below which it need not."""
_PIECE = 64
"""Bytes that a piece takes beside its content: an answer may come in pieces of one byte."""
_LARGEST_HEAD = 64 * 1024
"""Also of trailers, and of what else is not content. What comes at once may be more."""
_COPIED = 64 * 1024
"""Bytes of a request's body up to which copying it is cheaper than writing twice."""
_CODINGS = frozenset({b"gzip", b"x-gzip", b"deflate", b"br", b"zstd", b"compress", b"x-compress"})
"""Anything else is taken for no coding: servers are known to name a character set where one should stand."""
_LAST_BYTES = 0.002
"""Seconds for the end of an answer of which everything that matters has been read."""


class Gone(Exception):
    """The connection ended before a byte of the answer came: the upstream may have thought it unused."""

    def __init__(self, error: WireError) -> None:
        super().__init__(error.message)
        self.error = error


class Answer:
    """An `exchange.Response` on a `Connection`, read by one task at a time."""

    def __init__(self, connection: Connection, attempt: Attempt) -> None:
        self._connection = connection
        self._attempt = attempt
        self.status = 0
        self.begun = False
        """Whether the head has come."""
        self.complete = False
        self._headers: dict[bytes, bytes] = {}
        self._pieces: deque[bytes] = deque()
        self._waiting = 0
        self._failure: str | None = None
        self._waiter: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<Answer {self.status if self.begun else 'to come'}{' complete' if self.complete else ''}>"

    # What the connection tells

    def head(self, status: int, headers: dict[bytes, bytes]) -> None:
        """The head has come. ``headers``: by their names in small letters."""
        self.status, self._headers, self.begun = status, headers, True
        self._wake()

    def piece(self, data: bytes) -> None:
        """More of the body."""
        self._pieces.append(data)
        self._waiting += len(data) + _PIECE
        if self._waiting > _HIGH:
            self._connection.pause()
        self._wake()

    def end(self) -> None:
        """The body is complete."""
        self.complete = True
        self._wake()

    def fail(self, reason: str) -> None:
        """Nothing more will come."""
        self._failure = reason
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _news(self) -> None:
        self._waiter = self._connection.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    async def beginning(self) -> None:
        """Wait for the head. Raises `WireError`, or `Gone`."""
        while not self.begun:
            if self._failure is not None:
                error = WireError(Failure.LOST, Phase.SENT, f"connection lost ({self._failure})")
                raise error if self._connection.heard else Gone(error)
            await self._news()

    # `exchange.Response`

    def header(self, name: str) -> str:
        """See `Response.header`."""
        value = self._headers.get(_key(name))
        return "" if value is None else value.rstrip(b" \t").decode("utf-8", "surrogateescape")

    async def read(self, limit: int) -> bytes:
        """See `Response.read`."""
        if not self.complete and int(self._headers.get(b"content-length", 0)) > limit:
            raise _too_large(limit)
        parts: list[bytes] = []
        size = 0
        while piece := await self._next():
            size += len(piece)
            if size > limit:
                raise _too_large(limit)
            parts.append(piece)
        return b"".join(parts)

    async def chunks(self) -> AsyncIterator[bytes]:
        """See `Response.chunks`."""
        while piece := await self._next():
            yield piece

    async def _next(self) -> bytes:
        """The next piece of the body, b"" at its end. Raises `WireError`."""
        while not self._pieces:
            if self.complete:
                return b""
            if self._failure is not None:
                reason = f"the answer broke off ({self._failure})"
                raise WireError(Failure.LOST, self._attempt.phase, reason)
            await self._news()
        self._attempt.phase = Phase.STREAMING
        if self._headers.get(b"content-encoding", b"").strip().lower() in _CODINGS:
            raise WireError(Failure.BAD_REPLY, Phase.STREAMING, "the answer is compressed, which was not asked for")
        piece = self._pieces.popleft()
        self._waiting -= len(piece) + _PIECE
        # Once this answer is complete, whatever the connection brings is another's.
        if self._waiting < _LOW and not self.complete:
            self._connection.resume()
        return piece

    async def close(self) -> None:
        """See `Response.close`."""
        if self.complete or self._failure is not None:
            return
        try:
            # After a last event the end of the body usually is there already, or about to be: then the connection can
            # be used again.
            self._pieces.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_BYTES):
                    await self._news()
        finally:
            if not self.complete:
                self._connection.abort()


class Owner(Protocol):
    """Whose connections these are."""

    def free(self, connection: Connection) -> None:
        """It can be used again."""
        ...

    def ended(self, connection: Connection) -> None:
        """It cannot be used any more."""
        ...


class Connection(asyncio.BufferedProtocol):
    """One connection. ``key``: what it leads to."""

    def __init__(self, key: tuple[str, str, int], owner: Owner) -> None:
        self.key = key
        self.loop = asyncio.get_running_loop()
        self.since = 0.0
        """Loop time at which it was last freed."""
        self.heard = False
        """Whether anything has come since the last request."""
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._parser = _parser(self)
        self._read = _read_buffer(get_ident())
        self._answer: Answer | None = None
        self._headers: dict[bytes, bytes] = {}
        """Of the head that is coming."""
        self._again = False
        """Whether the answer that has come whole leaves the connection open."""
        self._idle_bytes = 0
        """How many have come since there last was content."""
        self._paused = False
        self._ended = False

    def __repr__(self) -> str:
        state = "ended" if self._ended else "busy" if self._answer is not None else "free"
        return f"<Connection {self.key[1]}:{self.key[2]} {state}>"

    @property
    def usable(self) -> bool:
        """Whether a request can be sent on it."""
        return not self._ended and self._transport is not None and not self._transport.is_closing()

    def send(self, head: bytes, body: bytes | None, attempt: Attempt) -> Answer:
        """Send a request; the answer is to come."""
        assert self._transport is not None
        assert self._answer is None
        self.heard = False
        self._idle_bytes = 0
        self._answer = answer = Answer(self, attempt)
        if not body:
            self._transport.write(head)
        elif len(body) < _COPIED:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))
        return answer

    def abort(self, reason: str = "closed") -> None:
        """End it at once."""
        if self._ended:
            return
        self._ended = True
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.fail(reason)
        if self._transport is not None:
            self._transport.abort()
        self._owner.ended(self)

    def pause(self) -> None:
        """Let the upstream wait."""
        if not self._paused and self.usable and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Let it go on."""
        if self._paused and self.usable and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    # asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are of no class of asyncio's

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._read

    def buffer_updated(self, nbytes: int) -> None:
        answer = self._answer
        if answer is None:
            return self.abort("an answer that nobody asked for")
        self.heard = True
        self._idle_bytes += nbytes
        try:
            self._parser.feed_data(self._read[:nbytes])
        except httptools.HttpParserCallbackError as error:
            return self.abort(f"not HTTP: {error.__context__}")
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            return self.abort(f"not HTTP: {type(error).__name__}")
        if self._idle_bytes > _LARGEST_HEAD:
            self.abort("too much that is not content")
        elif answer.complete:  # not sooner: something that nobody asked for may have come right behind the answer
            self._let_go()
        return None

    def _let_go(self) -> None:
        """The answer has come whole."""
        self.resume()
        transport = self._transport
        # While some of the request is still to be sent, the upstream may not want it any more.
        if self._again and self.usable and transport is not None and not transport.get_write_buffer_size():
            self._owner.free(self)
        else:
            self.abort()

    def eof_received(self) -> None:
        # At once: closing would first wait until the rest of the request has been sent.
        self._closed_by_upstream()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None:
            self._closed_by_upstream()
        else:
            self.abort(type(exc).__name__)

    def _closed_by_upstream(self) -> None:
        answer = self._answer
        if answer is not None and answer.begun and self._until_the_end:
            self._answer = None
            answer.end()
        self.abort("closed by the upstream")

    @property
    def _until_the_end(self) -> bool:
        """Whether the end of the connection is that of the answer (RFC 9112 §6.3, rules 4 and 8)."""
        last = self._headers.get(b"transfer-encoding", b"").rpartition(b",")[2]
        return b"content-length" not in self._headers and last.strip().lower() != b"chunked"

    # httptools

    def on_message_begin(self) -> None:
        if self._answer is None:
            raise ValueError("an answer that nobody asked for")
        self._headers = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._answer is None or self._answer.begun:  # a trailer
            return
        name = name.lower()
        if name == b"transfer-encoding":
            self._headers[name] = value  # of several the last says where the answer ends
        else:
            self._headers.setdefault(name, value)  # of several the first counts

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status == 101:
            raise ValueError("another protocol")
        if self._answer is not None and not 100 <= status < 200:  # after those the real one follows (RFC 9110 §15.2)
            self._idle_bytes = 0
            self._answer.head(status, self._headers)

    def on_body(self, body: bytes) -> None:
        self._idle_bytes = 0
        if self._answer is not None:
            self._answer.piece(body)

    def on_message_complete(self) -> None:
        answer = self._answer
        if answer is not None and answer.begun:
            self._answer = None
            self._again = self._parser.should_keep_alive()
            answer.end()


@lru_cache(maxsize=8)
def _read_buffer(thread: int) -> memoryview:
    """One for all connections of a thread's event loop: what is read is parsed, and so copied, before the next is."""
    return memoryview(bytearray(_AT_ONCE))


@lru_cache(maxsize=64)
def _key(name: str) -> bytes:
    """As headers are kept. We ask for a few only."""
    return name.lower().encode()


def _parser(connection: Connection) -> httptools.HttpResponseParser:
    """As lenient as common clients: lines may end in LF (RFC 9112 §2.2), spaces follow a chunk's size (§7.1.1)."""
    parser = httptools.HttpResponseParser(connection)
    parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True)
    return parser


def _too_large(limit: int) -> WireError:
    return WireError(Failure.TOO_LARGE, Phase.STREAMING, f"the answer is larger than {limit} bytes")
