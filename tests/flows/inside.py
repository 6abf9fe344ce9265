"""The whole application in this process, between real upstreams and its ASGI front: `serving` for as long as a block.

Counterpart of `harness.ProxyProcess`, which is for what only a process has: signals, a command line, streams.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mcp_proxy.app import ProxyApp, create_app
from mcp_proxy.base.clock import SystemClock
from mcp_proxy.config.loader import combine, load_servers, parse_servers
from mcp_proxy.settings import Settings
from mcp_proxy.telemetry.logs import configure
from tests.harness import SECRET, Reply, eventually, make_token

SETTLED = ("connected", "degraded", "down", "disabled", "failed")


class Inside:
    """A running application, asked as `ProxyProcess` is. Its log is kept in memory."""

    def __init__(self, app: ProxyApp, log: io.StringIO) -> None:
        self.app, self._log = app, log
        self._client = app.test_client()

    async def request(
        self, method: str, path: str, *, token: str | None = "", headers: Mapping[str, str] | None = None, **more: Any
    ) -> Reply:
        """Any request. ``token``: "" makes an ordinary one, None sends none. ``more``: json=, data= (bytes)."""
        named = dict(headers or {})
        if token is not None:
            named.setdefault("Authorization", f"Bearer {token or make_token()}")
        answer = await self._client.open(path, method=method, headers=named, **more)
        body = await answer.get_data(as_text=False)
        return Reply(answer.status_code, {k.lower(): v for k, v in answer.headers.items()}, body)

    async def get(self, path: str, **more: Any) -> Reply:
        """GET; see `request`."""
        return await self.request("GET", path, **more)

    async def post(self, path: str, body: Any = None, **more: Any) -> Reply:
        """POST ``body`` as JSON; see `request`."""
        return await self.request("POST", path, json=body, **more)

    async def send(self, body: bytes, path: str = "/tools", kind: str = "application/json") -> Reply:
        """POST these bytes as they are."""
        return await self.request("POST", path, data=body, headers={"Content-Type": kind})

    async def call(self, tool: str, args: Mapping[str, Any] | None = None, **more: Any) -> Reply:
        """``POST /tools``. ``server`` is a field of the body; the rest as for `request`."""
        body: dict[str, Any] = {"method": tool, "args": dict(args or {})}
        if "server" in more:
            body["server"] = more.pop("server")
        return await self.post("/tools", body, **more)

    async def states(self) -> dict[str, str]:
        """Each server's state, as /health says."""
        found: dict[str, str] = (await self.get("/health", token=None)).json["servers"]
        return found

    async def in_state(self, **wanted: str) -> None:
        """Wait until these servers are in these states."""

        async def probe() -> bool:
            found = await self.states()
            return all(found[name] == state for name, state in wanted.items())

        await eventually(probe, what=f"states {wanted}")

    async def settled(self) -> None:
        """Wait until the first attempt to connect to every server has ended."""

        async def probe() -> bool:
            return all(state in SETTLED for state in (await self.states()).values())

        await eventually(probe, what="every server has been tried")

    @property
    def log(self) -> str:
        return self._log.getvalue()

    def lines(self, **fields: Any) -> list[dict[str, Any]]:
        """The log's lines that have these fields."""
        found = [json.loads(line) for line in self.log.splitlines()]
        return [line for line in found if all(line.get(name) == value for name, value in fields.items())]


@asynccontextmanager
async def serving(
    servers: Mapping[str, Any] | None = None, *, settle: bool = True, **settings: Any
) -> AsyncIterator[Inside]:
    """The application with these servers, as a configuration file has them, beside those of the settings.

    ``settle``: begin when every server has been tried. ``settings`` are fields of `Settings`; a secret is given.
    """
    with tempfile.TemporaryDirectory(prefix="inside-") as directory:
        made = Settings(**{"jwt_secret": SECRET, "state_dir": Path(directory), **settings})
        file = parse_servers({"mcpServers": dict(servers or {})}, "servers.json", {}, "servers")
        stream = io.StringIO()
        log = configure(made, stream=stream, clock=SystemClock())
        app = create_app(made, combine([load_servers(made, {}), file]), log)
        async with app.test_app():
            inside = Inside(app, stream)
            if settle:
                await inside.settled()
            yield inside


def error_of(reply: Reply) -> dict[str, Any]:
    """The error of an answer, which has the one shape that errors have here."""
    assert reply.headers["content-type"] == "application/json", reply
    assert set(reply.json) == {"error"}, reply
    error: dict[str, Any] = reply.json["error"]
    assert (
        {"message", "code", "type", "request_id"} <= set(error) <= {"message", "code", "type", "request_id", "details"}
    )
    assert error["code"] == reply.status
    assert error["request_id"] == reply.headers["x-request-id"]
    assert isinstance(error["message"], str)
    assert error["message"]
    return error


def refusal(reply: Reply) -> tuple[int, str]:
    """Status and type of an error."""
    return reply.status, error_of(reply)["type"]
