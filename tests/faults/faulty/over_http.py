"""The HTTP wire: streamable HTTP in both eras, HTTP+SSE of 2024-11-05, and what can go wrong with connections.

POST|GET|DELETE /mcp           streamable HTTP
GET /sse, POST /messages?s=…   HTTP+SSE
POST /_control, GET /_control  modes; also on a port of its own, which no fault touches
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import uuid
from collections import deque
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from .faults import Reply
from .server import MODERN, Server

Writer = asyncio.StreamWriter


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: str
    headers: dict[str, str]  # names in lower case
    body: bytes


class Closed(Exception):
    """The connection is over, by our will or the client's."""


class Http:
    def __init__(self, server: Server, shape: str = "auto") -> None:
        self._server = server
        self._shape = shape
        self._sessions: set[str] = set()
        self._streams: dict[str, Writer] = {}  # of HTTP+SSE
        self._open: set[Writer] = set()
        self._seen: deque[dict[str, Any]] = deque(maxlen=200)
        self._listener: asyncio.Server | None = None
        self._crowd: list[socket.socket] = []  # fills the accept queue of a black hole

    async def start(self, port: int) -> dict[str, int]:
        """The ports: of the service (which may be refusing) and of the control."""
        self._place = _bound(port)  # bound for good, so that nobody takes the port while we refuse
        self._port = self._place.getsockname()[1]
        control = await asyncio.start_server(self._control_connection, sock=_bound(0))
        return {"port": self._port, "control": control.sockets[0].getsockname()[1]}

    async def listen(self) -> None:
        """As the modes in force want it."""
        hole = self._server.has("blackhole")
        refuse = self._server.has("refuse") or hole
        for member in self._crowd:
            member.close()
        self._crowd = []
        if refuse and self._listener is not None:
            self._listener.close()
            self._listener = None
            for writer in list(self._open):
                writer.transport.abort()
        elif not refuse and self._listener is None:
            self._listener = await asyncio.start_server(self._connection, sock=_bound(self._port), backlog=512)
        if hole:
            self._crowd = _crowd(self._port)

    # --- connections

    async def _connection(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        self._open.add(writer)
        try:
            if self._server.take("close-on-accept"):
                return
            if self._server.take("hang-on-connect"):
                while await reader.read(65536):
                    pass
                return
            while (request := await _read(reader)) is not None:
                await self._turn(request, reader, writer)
        except (Closed, ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._open.discard(writer)
            for session in [s for s, stream in self._streams.items() if stream is writer]:
                del self._streams[session]
            writer.transport.abort() if writer.transport.get_write_buffer_size() == 0 else writer.close()

    async def _control_connection(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while (request := await _read(reader)) is not None:
                await self._control(request, writer)
        writer.close()

    async def _turn(self, request: Request, reader: asyncio.StreamReader, writer: Writer) -> None:
        if any(map(self._server.has, ("close-on-accept", "refuse", "blackhole"))):
            raise Closed  # a connection that was kept alive
        if request.path != "/_control":
            self._seen.append({"method": request.method, "path": request.path, "headers": request.headers})
        path = "/nowhere" if request.path == "/mcp" and self._server.has("sse-only") else request.path
        match request.method, path:
            case (("POST" | "GET"), "/_control"):
                await self._control(request, writer)
            case "POST", "/mcp":
                await self._streamable(request, reader, writer)
            case "GET", "/mcp" if request.headers.get("mcp-session-id") in self._sessions:
                await self._event_stream(reader, writer)
            case "DELETE", "/mcp":
                self._sessions.discard(request.headers.get("mcp-session-id", ""))
                _write(writer, 200)
            case "GET", "/sse":
                session = uuid.uuid4().hex
                self._streams[session] = writer
                await self._event_stream(
                    reader, writer, b"event: endpoint\ndata: /messages?s=%b\n\n" % session.encode()
                )
            case "POST", "/messages":
                await self._message(request, reader, writer)
            case _, ("/mcp" | "/sse" | "/messages"):
                _write(writer, 405)
            case _:
                _write(writer, 404)

    async def _control(self, request: Request, writer: Writer) -> None:
        try:
            if request.method == "POST":
                self._server.control(json.loads(request.body))
        except ValueError as problem:
            return _write(writer, 400, str(problem).encode(), "text/plain")
        state = self._server.state() | {"requests": list(self._seen), "sessions": sorted(self._sessions)}
        if writer not in self._open:  # on the port of its own: in force when it is answered
            await self.listen()
        _write(writer, 200, json.dumps(state).encode())
        await self.listen()
        return None

    async def _event_stream(self, reader: asyncio.StreamReader, writer: Writer, first: bytes = b"") -> None:
        """Open until the client leaves."""
        _start_stream(writer, {})
        if first:
            _chunk(writer, first)
        await reader.read()
        raise Closed

    # --- streamable HTTP

    async def _streamable(self, request: Request, reader: asyncio.StreamReader, writer: Writer) -> None:
        message = json.loads(request.body)
        method = message.get("method")
        modern = request.headers.get("mcp-protocol-version") == MODERN
        headers = {}
        if not modern and method == "initialize":
            session = uuid.uuid4().hex
            self._sessions.add(session)
            headers["Mcp-Session-Id"] = session
        elif not modern and method != "server/discover" and (status := self._session_problem(request, method)):
            error = {"code": -32600, "message": "Session not found" if status == 404 else "Missing session ID"}
            return _write(writer, status, json.dumps({"jsonrpc": "2.0", "id": None, "error": error}).encode())
        reply = self._server.answer(message, modern=modern)
        if reply is None:
            return _write(writer, 202)
        reply.headers |= headers
        usual = self._shape if self._shape != "auto" else "json" if modern else "sse"
        sse = (reply.shape or usual) == "sse" and reply.status == 200
        return await (self._send_sse if sse else self._send_json)(reply, reader, writer)

    def _session_problem(self, request: Request, method: str) -> int | None:
        session = request.headers.get("mcp-session-id")
        if method == "tools/call" and self._server.take("lose-session"):
            self._sessions.clear()
        if session is None:
            return 400
        return None if session in self._sessions else 404

    async def _send_json(self, reply: Reply, reader: asyncio.StreamReader, writer: Writer) -> None:
        await self._end(reply, reader)
        body = reply.body()
        head = _head(
            reply.status, {"Content-Type": reply.content_type, "Content-Length": str(len(body)), **reply.headers}
        )
        if reply.cut:
            await _finish(writer, head + body[: len(body) // 2])
        writer.write(head)
        await _trickle(body, reply.drip, writer.write)
        await writer.drain()

    async def _send_sse(self, reply: Reply, reader: asyncio.StreamReader, writer: Writer) -> None:
        if reply.end and not reply.before:
            await self._end(reply, reader)
        _start_stream(writer, reply.headers)
        await self._send_events(reply, reader, writer)
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def _send_events(self, reply: Reply, reader: asyncio.StreamReader, writer: Writer) -> None:
        for message in reply.before:
            _chunk(writer, _event(json.dumps(message).encode()))
        await writer.drain()
        await self._end(reply, reader)
        if reply.junk:
            _chunk(writer, b": " + reply.junk + b"\n\n")
        event = (reply.frame or _event)(reply.body())
        if reply.cut:
            _chunk(writer, event[: len(event) // 2])
            await _finish(writer, b"")
        for _ in range(reply.copies):
            await _trickle(event, reply.drip, lambda data: _chunk(writer, data))
            await writer.drain()

    async def _end(self, reply: Reply, reader: asyncio.StreamReader) -> None:
        """What comes instead of an answer; else only the delay."""
        if reply.end == "hang":
            await reader.read()
            self._server.ledger.write("disconnected")
            raise Closed
        if reply.end == "close":
            raise Closed
        if reply.end == "die":
            os._exit(3)
        await asyncio.sleep(reply.delay)

    # --- HTTP+SSE

    async def _message(self, request: Request, reader: asyncio.StreamReader, writer: Writer) -> None:
        stream = self._streams.get(request.query.removeprefix("s="))
        if stream is None:
            return _write(writer, 404)
        message = json.loads(request.body)
        if message.get("method") == "tools/call" and self._server.take("lose-session"):
            stream.transport.abort()
            return _write(writer, 404)
        reply = self._server.answer(message, modern=False)
        if reply is None or reply.end == "hang":
            return _write(writer, 202)
        if reply.end == "close":
            stream.close()
            raise Closed
        if reply.status != 200:
            return await self._send_json(reply, reader, writer)
        _write(writer, 202)
        await writer.drain()
        with contextlib.suppress(Closed, ConnectionError):  # of the stream; this connection lives on
            await self._send_events(reply, reader, stream)
        return None


# --- bytes


def _bound(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    return listener


def _crowd(port: int) -> list[socket.socket]:
    """A listener that accepts nobody, and enough clients for its queue to be full: who comes next hangs."""
    listener = _bound(port)
    listener.listen(0)
    clients = [socket.socket() for _ in range(4)]
    for client in clients:
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", port))
    return [listener, *clients]


async def _read(reader: asyncio.StreamReader) -> Request | None:
    """The next request; None at the end of the connection."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    start, *lines = head.rstrip().split("\r\n")
    method, target, _ = start.split(" ", 2)
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = b""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readuntil(b"\r\n")
    elif length := int(headers.get("content-length", 0)):
        body = await reader.readexactly(length)
    path, _, query = target.partition("?")
    return Request(method, path, query, headers, body)


def _head(status: int, headers: dict[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{lines}\r\n".encode()


def _write(writer: Writer, status: int, body: bytes = b"", kind: str = "application/json") -> None:
    writer.write(_head(status, {"Content-Type": kind, "Content-Length": str(len(body))}) + body)


def _start_stream(writer: Writer, headers: dict[str, str]) -> None:
    fixed = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "Transfer-Encoding": "chunked"}
    writer.write(_head(200, fixed | headers))


def _chunk(writer: Writer, data: bytes) -> None:
    writer.write(b"%x\r\n%b\r\n" % (len(data), data))


def _event(body: bytes) -> bytes:
    return b"event: message\ndata: " + body.replace(b"\n", b"\ndata: ") + b"\n\n"


async def _finish(writer: Writer, data: bytes) -> None:
    """The last bytes of a connection."""
    writer.write(data)
    with contextlib.suppress(ConnectionError):
        await writer.drain()
    writer.close()
    raise Closed


async def _trickle(data: bytes, seconds: float, write: Any) -> None:
    if not seconds:
        return write(data)
    for byte in data:
        write(bytes((byte,)))
        await asyncio.sleep(seconds / len(data))
    return None
