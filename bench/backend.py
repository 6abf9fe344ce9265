#!/usr/bin/env python3
"""A deliberately fast MCP backend, so that a gateway in front of it is the bottleneck.

    python backend.py http --port 9000     # see "paths" below
    python backend.py stdio                # newline-delimited JSON-RPC on stdin/stdout

HTTP paths (an arbitrary prefix is allowed, e.g. /b7/mcp, so one process can pose as many servers):
    /mcp         streamable HTTP, both eras (2026-07-28 per-request, and handshake sessions)
    /mcp-modern  2026-07-28 only   (`initialize` is refused)
    /mcp-legacy  handshake only    (`server/discover` is refused)
    /sse         the 2024-11-05 HTTP+SSE transport (POST endpoint: /messages)

Like the reference SDK, modern calls are answered with application/json and handshake-era calls with a
one-event text/event-stream; --legacy-json answers JSON in both. Tools: echo(text), payload(bytes), sleep(ms).
Hand-written on asyncio.Protocol + httptools (uvloop and orjson are used when present).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import threading
import uuid

try:
    import orjson

    loads, dumps = orjson.loads, orjson.dumps
except ImportError:
    import json

    loads = json.loads

    def dumps(obj) -> bytes:
        return json.dumps(obj, separators=(",", ":"), ensure_ascii=False).encode()


MODERN = "2026-07-28"
LEGACY = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
SERVER_INFO = {"name": "bench-backend", "version": "1.0"}
META = {"io.modelcontextprotocol/serverInfo": SERVER_INFO}


def _tool(name: str, description: str, prop: str, kind: str) -> dict:
    schema = {"type": "object", "properties": {prop: {"type": kind}}, "required": [prop]}
    return {"name": name, "description": description, "inputSchema": schema}


TOOLS = [
    _tool("echo", "Return the text", "text", "string"),
    _tool("payload", "Return N bytes of text", "bytes", "integer"),
    _tool("sleep", "Answer after N milliseconds", "ms", "integer"),
]
_payload_cache: dict[int, str] = {}


def _payload(n: int) -> str:
    if n not in _payload_cache:
        _payload_cache[n] = ("0123456789abcdef" * (n // 16 + 1))[:n]
    return _payload_cache[n]


def answer(msg: dict, *, modern: bool, eras: str) -> tuple[dict | None, float]:
    """One JSON-RPC message in, (reply or None, delay in seconds) out."""
    method, rid = msg.get("method"), msg.get("id")
    if method is None or rid is None:  # a notification, or a client's response
        return None, 0.0
    delay = 0.0
    params = msg.get("params") or {}
    if method == "tools/call":
        args = params.get("arguments") or {}
        name = params.get("name")
        if name == "echo":
            text = args.get("text", "")
        elif name == "payload":
            text = _payload(int(args.get("bytes", 0)))
        elif name == "sleep":
            delay = float(args.get("ms", 0)) / 1000
            text = "slept"
        else:
            return {"jsonrpc": "2.0", "id": rid, "error": {"code": -32602, "message": f"unknown tool {name}"}}, 0.0
        result = {"content": [{"type": "text", "text": text}], "isError": False}
    elif method == "tools/list":
        result = {"tools": TOOLS}
        if modern:
            result |= {"ttlMs": 60000, "cacheScope": "public"}
    elif method == "server/discover" and eras != "legacy":
        result = {"supportedVersions": [MODERN], "capabilities": {"tools": {}}, "ttlMs": 60000, "cacheScope": "public"}
        modern = True
    elif method == "initialize" and eras != "modern":
        asked = params.get("protocolVersion")
        result = {
            "protocolVersion": asked if asked in LEGACY else LEGACY[0],
            "capabilities": {"tools": {}},
            "serverInfo": SERVER_INFO,
        }
    elif method == "ping":
        result = {}
    else:
        return {"jsonrpc": "2.0", "id": rid, "error": {"code": -32601, "message": f"Method not found: {method}"}}, 0.0
    if modern:
        result["resultType"] = "complete"
        result["_meta"] = META
    return {"jsonrpc": "2.0", "id": rid, "result": result}, delay


# ---------------------------------------------------------------- HTTP

_STATUS = {200: b"OK", 202: b"Accepted", 400: b"Bad Request", 404: b"Not Found", 405: b"Method Not Allowed"}
_SSE_START = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n%s\r\n"
)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _event(body: bytes, name: bytes = b"message") -> bytes:
    return b"event: %b\r\ndata: %b\r\n\r\n" % (name, body)


class HttpBackend(asyncio.Protocol):
    streams: dict[str, "HttpBackend"] = {}  # HTTP+SSE session id -> the connection holding the event stream
    legacy_json = False

    def __init__(self, parser_type) -> None:
        self.parser_type = parser_type

    def connection_made(self, transport) -> None:
        self.transport = transport
        self.parser = self.parser_type(self)
        self.sse_id: str | None = None

    def connection_lost(self, exc) -> None:
        if self.sse_id:
            self.streams.pop(self.sse_id, None)

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except Exception:
            self.transport.close()

    # httptools callbacks
    def on_message_begin(self) -> None:
        self.url, self.body, self.session, self.version = b"", [], b"", b""

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(name) in (14, 20):
            low = name.lower()
            if low == b"mcp-session-id":
                self.session = value
            elif low == b"mcp-protocol-version":
                self.version = value

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        path, _, query = self.url.partition(b"?")
        leaf = path[path.rfind(b"/") :]
        method = self.parser.get_method()
        if leaf in (b"/mcp", b"/mcp-modern", b"/mcp-legacy"):
            if method == b"POST":
                self.streamable({b"/mcp": "both", b"/mcp-modern": "modern", b"/mcp-legacy": "legacy"}[leaf])
            elif method == b"GET" and self.session:
                self.transport.write(_SSE_START % b"")
            elif method == b"DELETE":
                self.reply(200)
            else:
                self.reply(405)
        elif leaf == b"/sse" and method == b"GET":
            self.sse_id = uuid.uuid4().hex
            self.streams[self.sse_id] = self
            target = path[: -len(b"/sse")] + b"/messages?session_id=" + self.sse_id.encode()
            self.transport.write(_SSE_START % b"" + _chunk(_event(target, b"endpoint")))
        elif leaf == b"/messages" and method == b"POST":
            stream = self.streams.get(query.partition(b"=")[2].decode())
            self.reply(202 if stream else 404)
            if stream:
                out, delay = answer(loads(b"".join(self.body)), modern=False, eras="legacy")
                if out:
                    later(delay, stream.transport.write, _chunk(_event(dumps(out))))
        elif leaf == b"/health":
            self.reply(200, b"ok", b"text/plain")
        else:
            self.reply(404)

    def reply(self, status: int, body: bytes = b"", kind: bytes = b"application/json", extra: bytes = b"") -> None:
        self.transport.write(
            b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n%b\r\n%b"
            % (status, _STATUS[status], kind, len(body), extra, body)
        )

    def streamable(self, eras: str) -> None:
        try:
            msg = loads(b"".join(self.body))
        except ValueError:
            return self.reply(400)
        modern = self.version == MODERN.encode()
        if modern and eras == "legacy":
            error = {"code": -32022, "message": "Unsupported protocol version"}
            error["data"] = {"supported": list(LEGACY), "requested": MODERN}
            return self.reply(400, dumps({"jsonrpc": "2.0", "id": msg.get("id"), "error": error}))
        out, delay = answer(msg, modern=modern, eras=eras)
        if out is None:
            return self.reply(202)
        body = dumps(out)
        if modern:
            return later(delay, self.reply, 404 if out.get("error", {}).get("code") == -32601 else 200, body)
        extra = b""
        if msg.get("method") == "initialize":
            extra = b"mcp-session-id: %b\r\n" % uuid.uuid4().hex.encode()
        if self.legacy_json:
            return later(delay, self.reply, 200, body, b"application/json", extra)
        later(delay, self.transport.write, _SSE_START % extra + _chunk(_event(body)) + b"0\r\n\r\n")


def later(delay: float, fn, *args) -> None:
    if delay:
        asyncio.get_running_loop().call_later(delay, fn, *args)
    else:
        fn(*args)


async def serve_http(host: str, port: int, legacy_json: bool) -> None:
    import httptools

    HttpBackend.legacy_json = legacy_json
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: HttpBackend(httptools.HttpRequestParser), host, port, backlog=2048, reuse_address=True
    )
    await server.serve_forever()


# ---------------------------------------------------------------- stdio


def serve_stdio(eras: str) -> None:
    """A blocking loop: the quickest a Python child can turn a line around."""
    out, lock = sys.stdout.buffer, threading.Lock()

    def write(body: bytes) -> None:
        with lock:
            out.write(body + b"\n")
            out.flush()

    modern_peer = False
    for line in sys.stdin.buffer:
        if not line.strip():
            continue
        msg = loads(line)
        meta = (msg.get("params") or {}).get("_meta") or {}
        modern_peer = meta.get("io.modelcontextprotocol/protocolVersion") == MODERN and eras != "legacy"
        reply, delay = answer(msg, modern=modern_peer, eras=eras)
        if reply is None:
            continue
        if delay:
            threading.Timer(delay, write, (dumps(reply),)).start()
        else:
            write(dumps(reply))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("transport", choices=("http", "stdio"))
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--legacy-json", action="store_true")
    parser.add_argument("--tools", type=int, default=0, help="so many further tools, which do nothing")
    parser.add_argument("--eras", choices=("both", "modern", "legacy"), default=os.environ.get("BACKEND_ERAS", "both"))
    args = parser.parse_args()
    TOOLS.extend(_tool(f"tool_{i}", f"Do nothing, number {i}", "text", "string") for i in range(args.tools))
    if args.transport == "stdio":
        return serve_stdio(args.eras)
    try:
        import uvloop

        uvloop.install()
    except ImportError:
        pass
    try:
        asyncio.run(serve_http(args.host, args.port, args.legacy_json))
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
