"""A connection of which nothing is known: what TLS has agreed on (ALPN), or else its first bytes, say who speaks with it.

A client of HTTP/2 begins with a preface (RFC 9113 §3.4) that is no request of HTTP/1.1's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mcp_proxy.serving.uvicorn_http import HttpConnection
from mcp_proxy.serving.uvicorn_state import TakeOver

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class FirstBytes(asyncio.Protocol):
    """Hands its transport on. Until then the connection is one of HTTP/1.1, which has the time limit and hears of the stop."""

    _transport: asyncio.Transport
    _http1: HttpConnection

    def __init__(self, http1: Callable[[], HttpConnection], http2: TakeOver) -> None:
        self._make_http1 = http1
        self._http2 = http2
        self._read = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() == "h2":
            self._http2(transport, b"")
            return
        self._transport = transport
        self._http1 = self._make_http1()
        self._http1.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._read += data
        if self._read.startswith(PREFACE):
            self._http1.hand_over()
            self._http2(self._transport, self._read)
        elif not PREFACE.startswith(self._read):
            self._transport.set_protocol(self._http1)
            self._http1.data_received(self._read)

    def connection_lost(self, exc: Exception | None) -> None:
        self._http1.connection_lost(exc)
