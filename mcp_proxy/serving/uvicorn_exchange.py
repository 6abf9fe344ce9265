"""One request and its answer, between a connection of uvicorn's and the application: ``receive`` and ``send``.

In place of uvicorn's own, which loses answers to clients that have closed their side only, keeps a connection whose next
bytes may be the rest of a body, and writes to the log of clients that left.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from mcp_proxy.edge.respond import CLOSE
from mcp_proxy.edge.types import App, Header, Message, Scope

if TYPE_CHECKING:
    from mcp_proxy.serving.uvicorn_http import HttpConnection

_LOGGER = logging.getLogger("uvicorn.error")
_LEFT: Message = {"type": "http.disconnect"}
_COPIED = 64 * 1024
"""Bytes up to which copying a body is cheaper than writing twice."""


class Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, connection: HttpConnection, *, keep_alive: bool, waits_to_go_on: bool) -> None:
        """``waits_to_go_on``: for ``100 Continue`` (RFC 9110 §10.1.1)."""
        self.scope = scope
        self.keep_alive = keep_alive
        self.waits_to_go_on = waits_to_go_on
        self.body = bytearray()
        """What has come of it and was not given yet."""
        self.more_body = True
        self.left = False
        """The client has closed its side. It may still read its answer; to the application it has left."""
        self.disconnected = False
        """Nothing can be said to it any more."""
        self.response_started = self.response_complete = False
        self.message_event = asyncio.Event()
        self._connection = connection
        self._given = False
        self._head = b""
        """Of the answer, for as long as it waits to be written together with what follows."""
        self._bodiless = self._chunked = False
        self._due: int | None = None

    def leave(self, *, half: bool) -> None:
        """The client has closed the connection, or half of it: its own side."""
        self.left = True
        self.disconnected = self.disconnected or not half
        self.message_event.set()

    async def run_asgi(self, app: App) -> None:
        """Have it answered. An answer that stays incomplete ends the connection, which is how its client can tell."""
        try:
            await app(self.scope, self.receive, self.send)
        except Exception as error:  # boundary: the edge answers what it can; this is what is left
            _LOGGER.error("Exception in ASGI application", exc_info=error)
        finally:
            if not (self.response_complete or self.disconnected):
                self._write(b"")
                self._connection.transport.close()

    async def receive(self) -> Message:
        """What comes of the body, then that the client has left or been answered."""
        while not (self.disconnected or self.response_complete):
            if self.body or not (self.more_body or self._given):
                self._given = not self.more_body
                body, self.body = bytes(self.body), bytearray()
                return {"type": "http.request", "body": body, "more_body": self.more_body}
            if self.left:
                break
            if self.waits_to_go_on:
                self.waits_to_go_on = False
                self._connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._connection.flow.resume_reading()
            self.message_event.clear()
            await self.message_event.wait()
        return _LEFT

    async def send(self, message: Message) -> None:
        """Send; to a client that has left, nothing. Raises `RuntimeError` for what would not be a sound answer."""
        connection = self._connection
        if connection.flow.write_paused:
            await connection.flow.drain()
        if self.disconnected or connection.transport.is_closing():
            return
        if not self.response_started:
            self._start(message)
        else:
            self._go_on(message.get("body", b""), more=message.get("more_body", False))

    def _start(self, message: Message) -> None:
        status = message["status"]
        fields: list[Header] = [*self._connection.server_state.headers(), *message.get("headers", ())]
        named = dict(fields)
        closes = b"close" in named.get(b"connection", b"").lower()
        if (length := named.get(b"content-length")) is not None:
            self._due = int(length)
        # A body that is not here may still be sent or, where the client waited to go on, never: what comes next
        # cannot be told from it.
        self.keep_alive = self.keep_alive and not closes and not self.more_body
        self._bodiless = self.scope["method"] == "HEAD" or status in (204, 304)
        if length is None and not self._bodiless and self.scope["http_version"] == "1.1":
            self._chunked = True
            fields.append((b"transfer-encoding", b"chunked"))
        if not self.keep_alive and not closes:
            fields.append(CLOSE)
        head = STATUS_LINE[status] + b"\r\n".join((*map(b": ".join, fields), b"", b""))
        if not head.count(b"\r") == head.count(b"\n") == len(fields) + 2:
            raise RuntimeError("a header of the answer holds a line break")
        self.response_started = True
        self._head = head
        self._connection.loop.call_soon(self._write, b"")  # No later: what follows may take its time.

    def _go_on(self, body: bytes, *, more: bool) -> None:
        if self._bodiless:
            body = b""
        elif self._chunked:
            body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + (b"" if more else b"0\r\n\r\n")
        elif self._due is not None:
            self._due -= len(body)
            if self._due < 0 or (self._due and not more):
                raise RuntimeError("the answer is not as long as its Content-Length")
        self._write(body)
        if not more:
            self.response_complete = True
            self.message_event.set()
            self._connection.on_response_complete()

    def _write(self, body: bytes) -> None:
        """Write a piece of the answer, behind its head."""
        head, self._head = self._head, b""
        transport = self._connection.transport
        if not head or len(body) < _COPIED:
            body = head + body
        else:
            transport.write(head)
        if body and not transport.is_closing():
            transport.write(body)
