"""The application in this process: asked through its ASGI front, in front of an upstream that answers from memory.

For counting what a call costs apart from HTTP server and network (`check`). What is real: the edge with its token and
log line, the doors, the call path, the wire that speaks MCP. What is not: HTTP on either side.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from unittest.mock import patch

import jwt
import msgspec
from load import MODERN

from mcp_proxy.app import create_app
from mcp_proxy.base.clock import SystemClock
from mcp_proxy.config.loader import parse_servers
from mcp_proxy.settings import Settings
from mcp_proxy.telemetry.logs import configure

SECRET = "the-secret-of-the-benchmark-0123456789-0123456789"
LEGACY = "2025-11-25"
TOOL = {"name": "echo", "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}}}
STAYS = {"resultType": "complete", "ttlMs": 3_600_000, "cacheScope": "public"}
RESULTS = {
    "server/discover": {"supportedVersions": [MODERN], "capabilities": {"tools": {}}, **STAYS},
    "tools/list": {"tools": [TOOL], **STAYS},
    "tools/call": {"content": [{"type": "text", "text": "1"}], "isError": False, "resultType": "complete"},
}
CALL = {"name": "echo", "arguments": {"text": "1"}}


class Response:
    """An HTTP answer that is there already."""

    status = 200
    complete = True

    def __init__(self, body: bytes) -> None:
        self._body = body

    def header(self, name: str) -> str:
        return "application/json" if name.lower() == "content-type" else ""

    async def read(self, limit: int) -> bytes:
        return self._body

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self._body

    async def close(self) -> None:
        pass


class Scripted:
    """An `Exchange` with a modern server that has one tool."""

    async def open(self, method, url, headers, body, attempt) -> Response:
        asked = msgspec.json.decode(body)
        reply = {"jsonrpc": "2.0", "id": asked["id"], "result": RESULTS[asked["method"]]}
        return Response(msgspec.json.encode(reply))

    async def close(self) -> None:
        pass


class Inside:
    """A running application."""

    def __init__(self, app) -> None:
        self._app = app
        now = int(time.time())
        token = jwt.encode({"sub": "bench", "iat": now, "exp": now + 7200}, SECRET, "HS256")
        self._headers = {
            "host": "127.0.0.1",
            "authorization": f"Bearer {token}",
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
        }

    async def post(self, path: str, body: dict, headers: dict[str, str] | None = None):
        """(status, headers, body) of one request."""
        data = json.dumps(body).encode()
        named = {**self._headers, "content-length": str(len(data)), **(headers or {})}
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
            "path": path, "raw_path": path.encode(), "root_path": "", "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in named.items()],
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 5000), "extensions": {},
        }  # fmt: skip
        requests = iter([{"type": "http.request", "body": data, "more_body": False}])
        sent: list[dict] = []

        async def receive() -> dict:
            return next(requests)

        async def send(message: dict) -> None:
            sent.append(message)

        await self._app(scope, receive, send)
        start = next(message for message in sent if message["type"] == "http.response.start")
        return (
            start["status"],
            {name.decode(): value.decode() for name, value in start["headers"]},
            b"".join(message.get("body", b"") for message in sent),
        )


@asynccontextmanager
async def inside() -> AsyncIterator[Inside]:
    """The application with one server, connected."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as directory,
        patch("mcp_proxy.core.upstream.dial.new_exchange", lambda *_: Scripted()),
        open(os.devnull, "w") as stderr,  # a descriptor, as in use
    ):
        settings = Settings(jwt_secret=SECRET, state_dir=Path(directory))
        file = {"mcpServers": {"memory": {"type": "http", "url": "http://127.0.0.1:9/mcp"}}}
        servers = parse_servers(file, "servers.json", {}, "servers")
        log = configure(settings, stream=stderr, clock=SystemClock())
        app = create_app(settings, servers, log)
        async with app.test_app():
            yield Inside(app)
