"""A server with every fixture that the conformance suite calls by name, in either era or in both.

    python -m tests.conformance.fixture_server --port 3001 [--era both|legacy|modern]   streamable HTTP on /mcp
    python -m tests.conformance.fixture_server --stdio                                  stdio, both eras

What the fixtures do is in `fixtures`; how tests start this is in `upstreams`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import warnings
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import mcp_types as t
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from tests.conformance.fixtures.content import Json
from tests.conformance.fixtures.server import build

Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


class Events(EventStore):
    """As much of an event store as resuming a stream needs: all events of this process, in order."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, Any]] = []

    async def store_event(self, stream_id: str, message: Any) -> str:
        self._rows.append((stream_id, message))
        return str(len(self._rows))

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        seen = int(last_event_id)
        stream = self._rows[seen - 1][0]
        for number, (other, message) in enumerate(self._rows[seen:], seen + 1):
            if other == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


def of_one_era(inner: App, era: str) -> App:
    """``inner``, answering requests of the other era as a server that never heard of it."""

    async def app(scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            version = dict(scope["headers"]).get(b"mcp-protocol-version", b"").decode()
            if (version in MODERN_PROTOCOL_VERSIONS) != (era == "modern"):
                await _refuse(send, _wrong_era(era, version))
                return
        await inner(scope, receive, send)

    return app


def _wrong_era(era: str, version: str) -> Json:
    if era == "legacy":
        return {"code": t.INVALID_REQUEST, "message": "Bad Request: Missing session ID"}
    versions = {"supported": list(MODERN_PROTOCOL_VERSIONS), "requested": version or "2025-11-25"}
    return {"code": t.UNSUPPORTED_PROTOCOL_VERSION, "message": "Unsupported version", "data": versions}


async def _refuse(send: Callable[[Message], Awaitable[None]], error: Json) -> None:
    body = json.dumps({"jsonrpc": "2.0", "id": None, "error": error}).encode()
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def serve_stdio() -> None:
    """Serve on stdin and stdout until stdin ends."""
    server = build()
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


def serve_http(port: int, era: str) -> None:
    """Serve on a port of the loopback until a signal comes."""
    import uvicorn  # not above: over stdio every session of a client may be a process, and each would load it

    app: App = build().streamable_http_app(event_store=Events(), retry_interval=100)
    served = app if era == "both" else of_one_era(app, era)
    uvicorn.run(served, host="127.0.0.1", port=port, log_level="warning", timeout_graceful_shutdown=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stdio", action="store_true")
    parser.add_argument("--port", type=int, default=3001)
    parser.add_argument("--era", choices=("both", "legacy", "modern"), default="both")
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # the SDK warns of what the newest revision deprecates, which the older ones need
    if args.stdio:
        asyncio.run(serve_stdio())
    else:
        serve_http(args.port, args.era)


if __name__ == "__main__":
    main()
