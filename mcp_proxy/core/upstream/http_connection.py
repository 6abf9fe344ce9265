"""One HTTP/1.1 connection to an upstream, on httptools (llhttp): one request at a time, its answer piece by piece.

Which connection a request gets, and how one is made, is `http_exchange`. Source: RFC 9112.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Protocol, cast

import httptools

from mcp_proxy.core.upstream.failures import Attempt, Failure, Phase, WireError

_HIGH, _LOW = 2 * 1024 * 1024, 512 * 1024
"""Bytes of an answer that wait to be read, from which on the upstream has to wait, and below which it need not."""
_LARGEST_HEAD = 64 * 1024
_LARGEST_PIECE = 1024 * 1024
"""Bytes that a piece of a compressed answer may grow to at once."""
_LAST_BYTES = 0.002
"""Seconds for the end of an answer of which everything that matters has been read."""


class Gone(Exception):
    """The connection ended before a byte of the answer came: the upstream may have thought it unused."""

    def __init__(self, error: WireError) -> None:
        super().__init__(error.message)
        self.error = error


class Answer:
    """An `exchange.Response` on a `Connection`."""

    def __init__(self, connection: Connection, attempt: Attempt) -> None:
        self._connection = connection
        self._attempt = attempt
        self.status = 0
        self._headers: dict[str, str] = {}
        self._pieces: deque[bytes] = deque()
        self._waiting = 0
        self._complete = False
        self._begun = False
        self._failure: str | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._inflate: Callable[[bytes], bytes] | None = None

    def __repr__(self) -> str:
        return f"<Answer {self.status or 'to come'}{' complete' if self._complete else ''}>"

    # What the connection tells

    def head(self, status: int, headers: dict[str, str]) -> None:
        """The head has come."""
        self.status, self._headers, self._begun = status, headers, True
        coding = headers.get("content-encoding", "").strip().lower()
        if coding and coding != "identity":
            self._inflate = _inflating(coding)
        self._wake()

    def piece(self, data: bytes) -> None:
        """More of the body. Raises `ValueError` for what cannot be inflated."""
        if self._inflate is not None:
            data = self._inflate(data)
        if data:
            self._pieces.append(data)
            self._waiting += len(data)
            if self._waiting > _HIGH:
                self._connection.pause()
            self._wake()

    def end(self) -> None:
        """The body is complete."""
        self._complete = True
        self._wake()

    def fail(self, reason: str) -> None:
        """Nothing more will come."""
        if not self._complete:
            self._failure = reason
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _news(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    async def begun(self) -> None:
        """Wait for the head. Raises `WireError`, or `Gone`."""
        while not self._begun:
            if self._failure is not None:
                error = WireError(Failure.LOST, Phase.SENT, f"connection lost ({self._failure})")
                raise error if self._connection.heard else Gone(error)
            await self._news()

    # `exchange.Response`

    def header(self, name: str) -> str:
        """See `Response.header`."""
        return self._headers.get(name.lower(), "")

    async def read(self, limit: int) -> bytes:
        """See `Response.read`."""
        length = self._headers.get("content-length", "")
        if length.isdigit() and int(length) > limit and self._inflate is None:
            raise _too_large(limit)
        parts: list[bytes] = []
        size = 0
        async for piece in self.chunks():
            size += len(piece)
            if size > limit:
                raise _too_large(limit)
            parts.append(piece)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def chunks(self) -> AsyncIterator[bytes]:
        """See `Response.chunks`."""
        while True:
            while self._pieces:
                piece = self._pieces.popleft()
                self._waiting -= len(piece)
                if self._waiting < _LOW:
                    self._connection.resume()
                self._attempt.phase = Phase.STREAMING
                yield piece
            if self._complete:
                return
            if self._failure is not None:
                raise WireError(Failure.LOST, self._attempt.phase, f"the answer broke off ({self._failure})")
            await self._news()

    async def close(self) -> None:
        """See `Response.close`."""
        if self._complete or self._failure is not None:
            return
        try:
            # After a last event the end of the body usually is there already, or about to be: then the connection can
            # be used again.
            self._pieces.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_BYTES):
                    await self._news()
        finally:
            if not self._complete:
                self._connection.abort()


class Owner(Protocol):
    """Whose connections these are."""

    def free(self, connection: Connection) -> None:
        """It can be used again."""
        ...

    def ended(self, connection: Connection) -> None:
        """It cannot be used any more."""
        ...


class Connection(asyncio.Protocol):
    """One connection. ``key``: what it leads to."""

    def __init__(self, key: tuple[str, str, int], owner: Owner) -> None:
        self.key = key
        self.since = 0.0
        """Loop time at which it was last freed."""
        self.heard = False
        """Whether anything has come since the last request."""
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answer: Answer | None = None
        self._headers: dict[str, str] = {}
        self._size = 0
        self._interim = False
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
        self._answer = answer = Answer(self, attempt)
        if not body:
            self._transport.write(head)
        elif len(body) < 64 * 1024:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))
        return answer

    def abort(self) -> None:
        """End it at once."""
        if self._transport is not None:
            self._transport.abort()
        self._lost("closed")

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

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are of no class of asyncio's

    def data_received(self, data: bytes) -> None:
        if self._answer is None:  # nobody asked
            return self.abort()
        self.heard = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._broken("it changed the protocol")
        except httptools.HttpParserError as error:
            self._broken(f"not HTTP: {type(error.__context__ or error).__name__}")
        return None

    def eof_received(self) -> bool:
        answer = self._answer
        if answer is not None and self._until_the_end:
            self._answer = None
            answer.end()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        answer = self._answer
        if exc is None and answer is not None and self._until_the_end:
            self._answer = None
            answer.end()
        self._lost(type(exc).__name__ if exc is not None else "closed by the upstream")

    @property
    def _until_the_end(self) -> bool:
        """Whether the end of the connection is that of the answer (RFC 9112 §6.3, rule 8)."""
        if self._answer is None or not self._answer.status:
            return False
        return "content-length" not in self._headers and "transfer-encoding" not in self._headers

    def _broken(self, reason: str) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.fail(reason)
        self.abort()

    def _lost(self, reason: str) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.fail(reason)
        if not self._ended:
            self._ended = True
            self._owner.ended(self)

    # httptools

    def on_message_begin(self) -> None:
        self._headers = {}
        self._size = 0
        if self._answer is None or self._answer.status:
            raise ValueError("an answer that nobody asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._size += len(name) + len(value)
        if self._size > _LARGEST_HEAD:
            raise ValueError("the head of the answer is too large")
        # Of several the first counts.
        self._headers.setdefault(name.decode("latin-1").lower(), value.decode("utf-8", "surrogateescape"))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        self._interim = 100 <= status < 200  # the real one follows (RFC 9110 §15.2)
        if not self._interim and self._answer is not None:
            self._answer.head(status, self._headers)

    def on_body(self, body: bytes) -> None:
        if self._answer is not None:
            self._answer.piece(body)

    def on_message_complete(self) -> None:
        if self._interim or self._answer is None:
            return
        answer, self._answer = self._answer, None
        again = self._parser.should_keep_alive()
        answer.end()
        self.resume()
        if again and self.usable:
            self._owner.free(self)
        else:
            self.abort()


def _too_large(limit: int) -> WireError:
    return WireError(Failure.TOO_LARGE, Phase.STREAMING, f"the answer is larger than {limit} bytes")


def _inflating(coding: str) -> Callable[[bytes], bytes]:
    """Undoes a coding that was not asked for. Raises `ValueError` for one that is not known."""
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise ValueError("an unknown content coding")
    inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)

    def piece(data: bytes) -> bytes:
        try:
            out = inflate.decompress(data, _LARGEST_PIECE)
            while inflate.unconsumed_tail:
                if len(out) > 32 * _LARGEST_PIECE:
                    raise ValueError("the answer grows too fast")
                out += inflate.decompress(inflate.unconsumed_tail, _LARGEST_PIECE)
        except zlib.error:
            raise ValueError("the content coding is broken") from None
        return out

    return piece
