from __future__ import annotations

import pytest

from mcp_proxy.edge.mount import Handler, Mount
from mcp_proxy.edge.types import Receive, Scope, Send
from tests.unit.edge.conftest import http, messages, websocket

pytestmark = pytest.mark.anyio


async def chosen(scope: Scope) -> str:
    """Which of the handlers, or the app, gets ``scope``."""
    seen: list[str] = []

    def named(name: str) -> Handler:
        async def handle(scope: Scope, receive: Receive, send: Send) -> None:
            seen.append(name)

        return handle

    async def nowhere(message: object) -> None:
        raise AssertionError("nothing is sent")

    mount = Mount(
        named("app"),
        {("POST", "/tools"): named("tools"), ("GET", "/sse/exact"): named("exact"), ("WS", "/ws"): named("ws")},
        under={"/mcp": named("mcp"), "/sse": named("sse")},
    )
    await mount(scope, messages(), nowhere)
    (name,) = seen
    return name


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("POST", "/tools", "tools"),
        ("GET", "/tools", "app"),
        ("GET", "/ws", "app"),
        ("POST", "/tools/", "app"),
        ("POST", "/mcp", "mcp"),
        ("DELETE", "/mcp/", "mcp"),
        ("BREW", "/mcp/math/more", "mcp"),
        ("GET", "/mcpx", "app"),
        ("GET", "/x/mcp", "app"),
        ("GET", "//mcp", "app"),
        ("GET", "mcp", "app"),
        ("GET", "/", "app"),
        ("GET", "", "app"),
        ("GET", "/sse", "sse"),
        ("GET", "/sse/exact", "exact"),
        ("POST", "/sse/exact", "sse"),
    ],
)
async def test_a_request_goes_to_its_handler(method: str, path: str, name: str) -> None:
    assert await chosen(http(path, method=method)) == name


@pytest.mark.parametrize(("path", "name"), [("/ws", "ws"), ("/ws/", "app"), ("/tools", "app"), ("/mcp", "app")])
async def test_a_websocket_goes_to_its_own_handler_or_the_app(path: str, name: str) -> None:
    assert await chosen(websocket() | {"path": path}) == name


async def test_all_that_is_no_request_goes_to_the_app() -> None:
    assert await chosen({"type": "lifespan"}) == "app"


async def test_prefixes_may_be_left_out() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["path"])

    async def nowhere(message: object) -> None:
        raise AssertionError("nothing is sent")

    await Mount(app, {})(http("/mcp"), messages(), nowhere)
    assert seen == ["/mcp"]
