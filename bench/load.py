"""Closed-loop HTTP load driver: raw asyncio.Protocol + httptools, one request in flight per connection.

Fronts: `rest` (POST JSON to a tool endpoint), `modern` (MCP 2026-07-28, stateless POSTs), `legacy` (MCP
streamable HTTP with an initialize handshake and one session per connection), `sse` (2024-11-05 HTTP+SSE).
Every call carries a fresh number that the answer must contain, so a gateway that mixes up concurrent
answers is counted as failing, not as fast.
"""

from __future__ import annotations

import asyncio
import gc
import json
import time
from array import array
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import httptools

MARK = "1234567890"  # replaced in every request by a ten-digit number, so lengths never change
MODERN = "2026-07-28"
PATIENCE = 6  # times the seconds of a row, at the most, to hear from every connection
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


@dataclass
class Target:
    """Where and how to call one tool. For `rest`, `body` is the JSON to post; for MCP, `tool` and `args` are used."""

    host: str
    port: int
    front: str
    path: str
    tool: str = "echo"
    args: dict = field(default_factory=dict)
    body: dict | None = None
    headers: dict[str, str] = field(default_factory=dict)
    legacy_version: str = "2025-06-18"
    expect: int = 0  # bytes of payload that the answer must at least hold; 0: it must echo the number


@dataclass
class Result:
    front: str = ""
    concurrency: int = 0
    op: str = ""
    calls: int = 0
    seconds: float = 0.0
    rps: float = 0.0
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0
    errors: int = 0
    stuck: int = 0
    reconnects: int = 0
    foreign: int = 0  # answers that arrived on a stream whose client had not asked for them
    error: str = ""

    def as_dict(self) -> dict:
        return asdict(self)


class Template:
    """A request as bytes, with holes for the ten-digit number."""

    def __init__(self, target: Target, path: str, body: dict, headers: dict[str, str]) -> None:
        data = json.dumps(body).replace(f'"id": {MARK}', f'"id":{MARK}').encode()
        head = {
            "Host": f"{target.host}:{target.port}",
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            **headers,
            **target.headers,
        }
        lines = "".join(f"{k}: {v}\r\n" for k, v in head.items())
        self.parts = f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + data
        self.parts = self.parts.split(MARK.encode())

    def fill(self, number: int) -> bytes:
        return (b"%d" % number).join(self.parts)


class Connection(asyncio.Protocol):
    """One keep-alive connection; `on_done(status, body)` fires when a response is complete."""

    def __init__(self, on_done: Callable, on_lost: Callable, on_chunk: Callable | None = None) -> None:
        self.on_done, self.on_lost, self.on_chunk = on_done, on_lost, on_chunk

    def connection_made(self, transport) -> None:
        self.transport = transport
        self.parser = httptools.HttpResponseParser(self)
        self.chunks: list[bytes] = []
        self.session: str | None = None

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass
        except Exception as exc:
            self.on_lost(exc)

    def connection_lost(self, exc) -> None:
        self.on_lost(exc or ConnectionError("closed by the server"))

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(name) == 14 and name.lower() == b"mcp-session-id":
            self.session = value.decode()

    def on_body(self, body: bytes) -> None:
        if self.on_chunk is not None:
            self.on_chunk(body)
        else:
            self.chunks.append(body)

    def on_message_complete(self) -> None:
        status, body = self.parser.get_status_code(), b"".join(self.chunks)
        keep = self.parser.should_keep_alive()
        self.chunks = []
        self.on_done(status, body, keep)


class Client:
    """One closed-loop caller: its own connection and, in the session-based fronts, its own MCP session."""

    def __init__(self, load: "Load", index: int) -> None:
        self.load, self.target = load, load.target
        self.number = 1_000_000_000 + index * 1_000_000  # ten digits with up to 9,000 clients
        self.started = 0.0
        self.busy = self.ready = False
        self.waiter: asyncio.Future | None = None
        self.conn: Connection | None = None
        self.stream: Connection | None = None

    # --- connecting

    async def connect(self) -> None:
        loop, t = asyncio.get_running_loop(), self.target
        self.ready = False
        _, self.conn = await loop.create_connection(lambda: Connection(self._done, self._lost), t.host, t.port)
        if t.front == "rest":
            self.template = Template(t, t.path, t.body or {}, {})
        elif t.front == "modern":
            call = self._rpc("tools/call", {"name": t.tool, "arguments": t.args, "_meta": META})
            headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/call", "Mcp-Name": t.tool}
            self.template = Template(t, t.path, call, {"Accept": "application/json, text/event-stream", **headers})
        else:
            await self._handshake()
        self.ready = True

    async def _handshake(self) -> None:
        t = self.target
        headers, path = {"Accept": "application/json, text/event-stream"}, t.path
        if t.front == "sse":
            path = await self._open_stream()
        params = {"protocolVersion": t.legacy_version, "capabilities": {}}
        params["clientInfo"] = {"name": "bench", "version": "1"}
        await self._ask(Template(t, path, self._rpc("initialize", params), headers))
        if t.front == "legacy":
            if self.conn.session:
                headers["Mcp-Session-Id"] = self.conn.session
            headers["MCP-Protocol-Version"] = t.legacy_version
        note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        await self._ask(Template(t, path, note, headers), reply=False)
        call = self._rpc("tools/call", {"name": t.tool, "arguments": t.args})
        self.template = Template(t, path, call, headers)

    async def _open_stream(self) -> str:
        """The 2024-11-05 transport: hold a GET stream open; its first event names the POST endpoint."""
        loop, t = asyncio.get_running_loop(), self.target
        self.events, self.posted, self.answered = bytearray(), True, None
        endpoint = loop.create_future()
        self.endpoint = endpoint
        _, self.stream = await loop.create_connection(
            lambda: Connection(lambda *a: None, self._lost, self._on_stream), t.host, t.port
        )
        extra = "".join(f"{k}: {v}\r\n" for k, v in t.headers.items())
        get = f"GET {t.path} HTTP/1.1\r\nHost: {t.host}:{t.port}\r\nAccept: text/event-stream\r\n{extra}\r\n"
        self.stream.transport.write(get.encode())
        url = await asyncio.wait_for(endpoint, 20)
        return url if url.startswith("/") else "/" + url.split("/", 3)[3]

    @staticmethod
    def _rpc(method: str, params: dict) -> dict:
        return {"jsonrpc": "2.0", "id": int(MARK), "method": method, "params": params}

    async def _ask(self, template: Template, reply: bool = True) -> bytes:
        self.waiter = asyncio.get_running_loop().create_future()
        self.waiting_reply = reply
        self.number += 1
        self.conn.transport.write(template.fill(self.number))
        status, body = await asyncio.wait_for(self.waiter, 60)
        self.waiter = None
        if status not in (200, 202, 204):
            raise RuntimeError(f"handshake refused: {status} {body[:300]!r}")
        return body

    # --- the loop

    def send(self) -> None:
        if self.load.stopping:
            self.busy = False
            return
        if not self.ready or self.conn.transport.is_closing():
            return  # lost meanwhile: it is dialled again, and goes on then
        self.number += 1
        self.busy = True
        if self.stream is not None:
            self.posted, self.answered = False, None
        self.started = time.perf_counter()
        self.conn.transport.write(self.template.fill(self.number))

    def _done(self, status: int, body: bytes, keep: bool) -> None:
        if self.waiter is not None:
            if self.stream is None or not self.waiting_reply or status >= 300:
                if not self.waiter.done():
                    self.waiter.set_result((status, body))
            return
        if self.stream is not None and status < 300:
            self.posted = True
            return self._maybe_next()
        self._score(status, body)
        if keep:
            self.send()
        else:  # the server closes after each answer: dial again, without counting it as an error
            self.busy = False
            self.conn.on_lost = lambda exc: None
            self.conn.transport.close()
            self.load.redial(self)

    def _on_stream(self, data: bytes) -> None:
        start = max(0, len(self.events) - 3)  # an event's end may straddle two reads
        self.events += data
        while True:
            ends = [(i, len(mark)) for mark in (b"\r\n\r\n", b"\n\n") if (i := self.events.find(mark, start)) >= 0]
            if not ends:
                return
            end, width = min(ends)
            event, start = bytes(self.events[:end]), 0
            del self.events[: end + width]
            lines = [line.strip(b"\r") for line in event.split(b"\n")]
            text = b"".join(line[5:].strip() for line in lines if line.startswith(b"data:"))
            if any(line.startswith(b"event:") and b"endpoint" in line for line in lines):
                if not self.endpoint.done():
                    self.endpoint.set_result(text.decode())
            elif text and b"%d" % self.number not in text:
                if b'"id"' in text and b'"method"' not in text[:200]:
                    self.load.foreign += 1
            elif text and self.waiter is not None:
                if not self.waiter.done():
                    self.waiter.set_result((200, text))
            elif text:
                self.answered = text
                self._maybe_next()

    def _maybe_next(self) -> None:
        if self.posted and self.answered is not None:
            self._score(200, self.answered)
            self.send()

    def _score(self, status: int, body: bytes) -> None:
        load, took = self.load, time.perf_counter() - self.started
        ok = status == 200
        if ok:
            if self.target.expect:
                ok = len(body) >= self.target.expect
            else:
                ok = body.count(b"%d" % self.number) >= load.marks
            if ok and (b'"isError":true' in body[-400:] or b'"error":' in body[:120]):
                ok = False
        if load.recording:
            if ok:
                load.latencies.append(took)
            else:
                load.errors += 1
        if not ok and not load.error:
            load.error = f"HTTP {status}: {body[:300]!r}"

    def _lost(self, exc) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_exception(exc if isinstance(exc, Exception) else ConnectionError(str(exc)))
            return
        if self.load.stopping or not self.ready:
            return
        if self.busy and self.load.recording:
            self.load.errors += 1
        if not self.load.error:
            self.load.error = f"connection lost: {exc!r}"
        self.busy = self.ready = False
        self.load.redial(self)

    def close(self) -> None:
        for conn in (self.conn, self.stream):
            if conn is not None:
                conn.transport.abort()


class Load:
    def __init__(self, target: Target, concurrency: int, op: str) -> None:
        self.target, self.concurrency, self.op = target, concurrency, op
        self.recording = self.stopping = False
        self.latencies = array("d")
        self.errors = self.reconnects = self.foreign = 0
        self.error = ""
        self.marks = 2 if target.front != "rest" else 1  # in MCP answers: the id and the echoed text

    def redial(self, client: Client) -> None:
        if self.stopping:
            return
        self.reconnects += 1
        self.tasks.add(asyncio.ensure_future(self._redial(client)))

    async def _redial(self, client: Client) -> None:
        for _ in range(50):
            try:
                await client.connect()
                return client.send()
            except Exception as exc:
                self.error = self.error or f"reconnect: {exc!r}"
                await asyncio.sleep(0.1)

    async def once(self, timeout: float) -> str:
        """One call by one client: "" if it was answered correctly, else what went wrong."""
        self.tasks = set()
        client, self.recording = Client(self, 0), True
        try:
            await asyncio.wait_for(client.connect(), timeout)
            client.send()
            self.stopping = True  # nothing after this one
            end = time.perf_counter() + timeout
            while client.busy and not self.errors and time.perf_counter() < end:
                await asyncio.sleep(0.001)
        except Exception as exc:
            self.error = self.error or repr(exc)
        finally:
            self.stopping = True
            client.close()
        await asyncio.sleep(0)
        return "" if self.latencies else self.error or "no answer in time"

    async def run(self, warmup: float, seconds: float, edge: Callable[[], None] | None = None) -> Result:
        self.tasks: set = set()
        gate = asyncio.Semaphore(16)
        clients = [Client(self, i) for i in range(self.concurrency)]

        async def dial(client: Client) -> None:
            async with gate:
                await client.connect()

        try:
            await asyncio.gather(*(dial(c) for c in clients))
        except Exception as exc:
            for c in clients:
                c.close()
            return Result(self.target.front, self.concurrency, self.op, error=f"connect: {exc!r}", errors=1)
        gc.collect()
        gc.disable()
        for c in clients:
            c.send()
        await asyncio.sleep(warmup)
        if edge:
            edge()
        self.recording, begin = True, time.perf_counter()
        await asyncio.sleep(seconds)
        # What is slow answers in lumps of all connections: at least one of those, if it comes at all.
        while len(self.latencies) + self.errors < self.concurrency and time.perf_counter() - begin < PATIENCE * seconds:
            await asyncio.sleep(0.02)
        took, self.recording = time.perf_counter() - begin, False
        if edge:
            edge()
        self.stopping = True
        gc.enable()
        deadline = time.perf_counter() + 5
        while any(c.busy for c in clients) and time.perf_counter() < deadline:
            await asyncio.sleep(0.02)
        stuck = sum(c.busy for c in clients)
        for c in clients:
            c.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.sleep(0.05)
        lat = sorted(self.latencies)
        n = len(lat)

        def pct(q: float) -> float:
            return round(lat[min(n - 1, int(n * q))] * 1000, 3) if n else 0.0

        return Result(
            self.target.front, self.concurrency, self.op, n, round(took, 3), round(n / took, 1),
            pct(0.50), pct(0.95), pct(0.99), round(lat[-1] * 1000, 2) if n else 0.0,
            self.errors, stuck, self.reconnects, self.foreign, self.error,
        )  # fmt: skip
