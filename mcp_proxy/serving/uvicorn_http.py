"""A connection of uvicorn's that speaks HTTP/1.1: what is read, in which order it is answered, and how it ends.

Around uvicorn's own: bounds on heads, on what waits in line and on slow clients, refusals of what httptools takes, errors
in our shape, a close that lets the client see its answer. httptools (llhttp) is strict about framing: two lengths, a
length beside an encoding, bare line feeds and the like are its errors. One request is `uvicorn_exchange`.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Sized
from typing import Any, cast
from urllib.parse import unquote

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from mcp_proxy.base.errors import BAD_REQUEST, REQUEST_TIMEOUT, ProxyError
from mcp_proxy.edge.types import Scope
from mcp_proxy.serving.refusal import refusal
from mcp_proxy.serving.terms import KEEP_ALIVE, MAX_HEAD
from mcp_proxy.serving.uvicorn_exchange import Exchange
from mcp_proxy.serving.uvicorn_state import State

MAX_LINE = 100
"""Requests of one client that are read before the first of them is answered."""
LINGER = 2.0
"""Seconds that what a client still sends is read and dropped: a connection closed on unread data is reset, and its client
may not see the answer (RFC 9112 §9.6)."""


class _Flow(FlowControl):
    """Reading stops while a request waits for the one before it, whatever that one's handler wants to know."""

    def __init__(self, transport: asyncio.Transport, line: Sized) -> None:
        super().__init__(transport)
        self._line = line

    def resume_reading(self) -> None:
        if len(self._line) < 2 and not self._transport.is_closing():
            super().resume_reading()


class HttpConnection(HttpToolsProtocol):
    """One connection, until it ends, becomes a WebSocket or goes on in HTTP/2."""

    server_state: State
    cycle: Exchange  # type: ignore[assignment]

    def __init__(self, config: Config, server_state: State, app_state: dict[str, Any]) -> None:
        super().__init__(config, server_state, app_state)
        self._line: deque[Exchange] = deque()
        """What is being answered, and what was read behind it."""
        self._in_head = False
        self._unread = 0
        """Bytes since something was understood as a whole."""
        self._deaf = False
        """What comes is dropped."""
        self._left = False
        self._until = 0.0
        """When the client's time is over. The timer is not set anew for each request, which would take as long as all
        the reading does: it looks here."""

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _Flow(transport, self._line)
        self._wait(KEEP_ALIVE)

    def connection_lost(self, exc: Exception | None) -> None:
        self._unset_keepalive_if_required()
        for exchange in self._line:
            exchange.leave(half=False)
        super().connection_lost(exc)

    def hand_over(self) -> None:
        """From now on the transport is another's."""
        self._deaf = True
        self._unset_keepalive_if_required()
        self.connections.discard(self)

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client has closed its side, and may still read: what it has asked for is answered."""
        if self._deaf or not self._line or self.scheme == "https":
            return False
        self._deaf = self._left = True
        self._line[-1].keep_alive = False
        for exchange in self._line:
            exchange.leave(half=True)
        return True

    def timeout_keep_alive_handler(self) -> None:
        """The client has taken its time, for a whole head or for nothing."""
        if (left := self._until - self.loop.time()) > 0:
            self._wake(min(left, KEEP_ALIVE))
        elif self._in_head and not self._deaf:
            self._refuse(ProxyError(REQUEST_TIMEOUT, "the headers of the request did not arrive in time"))
        else:
            self.transport.close()

    def _wait(self, seconds: float) -> None:
        self._until = self.loop.time() + seconds
        self._wake(seconds)

    def _wake(self, seconds: float) -> None:
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _end(self, *, unread: bool) -> None:
        """Nothing more is answered. ``unread``: the client may be sending on, and has to read its answer all the same."""
        self._deaf = True
        self._line.clear()
        if self._left or not (unread or self.transport.can_write_eof()):
            self.transport.close()
            return
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._wait(LINGER)

    # Reading

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        try:
            while data and not self._deaf:
                data = self._read(data)
        except httptools.HttpParserError as error:
            known = error.__context__
            if isinstance(known, ProxyError):
                self._misread(known)
            elif isinstance(error, httptools.HttpParserCallbackError):
                raise
            else:
                self._misread(_unacceptable(f"it is not HTTP/1.1 ({error})"))

    def _read(self, data: bytes) -> bytes:
        """Read a piece, or up to a request for an upgrade, and return what is to be read next.

        Raises `httptools.HttpParserError`.
        """
        piece = data[:MAX_HEAD]
        self._unread += len(piece)
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            return self._upgrade(data[upgrade.args[0] :])
        if self._unread > MAX_HEAD:
            self._misread(_unacceptable(f"more than {MAX_HEAD} bytes of headers"))
        return data[MAX_HEAD:]

    def _upgrade(self, behind: bytes) -> bytes:
        """Go on as what the request asks for. Returns what is to be read next: it may stay HTTP/1.1 (RFC 9110 §7.8)."""
        http2 = self.server_state.http2
        match self._upgrade_asked_for():
            case b"websocket" if self.scope["method"] == "GET":
                self.hand_over()
                self.handle_websocket_upgrade()
            case b"h2c" if http2 is not None:
                self.hand_over()
                http2(self.transport, self._head() + behind)
            case _:  # httptools has not looked for a body.
                self.parser = httptools.HttpRequestParser(self)
                return self._head(without=b"upgrade") + behind
        return b""

    def _upgrade_asked_for(self) -> bytes | None:
        """By a request of the right form, without a body, and not before earlier ones are answered."""
        framed = {b"content-length", b"transfer-encoding"}.intersection(dict(self.headers))
        refused = framed or self._line or self.scope["http_version"] != "1.1"
        return None if refused else self._get_upgrade()

    def _head(self, *, without: bytes = b"") -> bytes:
        """The request's, as it can be read once more."""
        scope = self.scope
        fields = b"".join(b"%b: %b\r\n" % field for field in self.headers if field[0] != without)
        line = (scope["method"].encode(), self.url, scope["http_version"].encode())
        return b"%b %b HTTP/%b\r\n" % line + fields + b"\r\n"

    def _misread(self, error: ProxyError) -> None:
        """Say so, unless answers to what came before are due: behind these, the connection ends."""
        self._deaf = True
        broken = self._line.pop() if self._line and self._line[-1].more_body else None
        if self._line:
            self._line[-1].keep_alive = False
            return
        if broken is not None:
            broken.leave(half=False)
        if broken is not None and broken.response_started:
            self.transport.close()
        else:
            self._refuse(error)

    def _refuse(self, error: ProxyError) -> None:
        """Answer what cannot be read, and end the connection."""
        request_id = self.server_state.ids()
        self.server_state.log.info(
            "request_malformed", request_id=request_id, remote_addr=self.client[0] if self.client else "",
            status_code=error.status, reason=error.message,
        )  # fmt: skip
        self.transport.write(refusal(error, request_id, self.server_state.headers()))
        self._end(unread=True)

    # What the parser finds

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # A trailer among the headers would count for more than it is (RFC 9110 §6.5.1).
            self.headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._unread = 0
        parser, headers = self.parser, dict(self.headers)
        version, method = parser.get_http_version(), parser.get_method().decode("ascii")
        if (fault := self._fault(version, method, headers)) is not None:
            raise _unacceptable(fault)
        # The target as it was sent, a whole URL too: as Hypercorn has it, and the edge knows it.
        path, _, query = self.url.partition(b"?")
        self.scope |= {"method": method, "http_version": version, "raw_path": path, "query_string": query}
        self.scope["path"] = unquote(path.decode("ascii"))
        if parser.should_upgrade():
            return  # See `_read`.
        self.cycle = Exchange(
            cast(Scope, self.scope), self,
            keep_alive=version == "1.1" and parser.should_keep_alive(),
            waits_to_go_on=version == "1.1" and headers.get(b"expect", b"").lower() == b"100-continue",
        )  # fmt: skip
        self._line.append(self.cycle)
        if len(self._line) > 1:
            self.flow.pause_reading()
        else:
            self._until = math.inf
            self._start_asgi_task(cast(Any, self.cycle), self.app)

    def _fault(self, version: str, method: str, headers: dict[bytes, bytes]) -> str | None:
        """Why a request is refused that httptools takes."""
        coding = headers.get(b"transfer-encoding")
        if version not in ("1.1", "1.0") or method == "CONNECT":
            return "it is not HTTP/1.1, or asks for a tunnel"
        if version == "1.1" and b"host" not in headers:
            return "the Host header is missing"
        if coding is not None and (version == "1.0" or coding.lower() != b"chunked"):
            return "a Transfer-Encoding that is not known"
        return f"more than {MAX_LINE} before it are not answered" if len(self._line) == MAX_LINE else None

    def on_body(self, body: bytes) -> None:
        self._unread = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unread = 0
        if not self.parser.should_upgrade():
            self.cycle.more_body = False
            self.cycle.message_event.set()

    # Answering

    def on_response_complete(self) -> None:
        """Go on with what has waited for this answer."""
        answered = self._line.popleft()
        if not answered.keep_alive:
            self._end(unread=answered.more_body or bool(self._line))
        elif self._line:
            self._start_asgi_task(cast(Any, self._line[0]), self.app)
        else:
            self.flow.resume_reading()
            self._until = self.loop.time() + KEEP_ALIVE


def _unacceptable(what: str) -> ProxyError:
    return ProxyError(BAD_REQUEST, f"the request is not acceptable: {what}")
