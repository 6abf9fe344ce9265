from __future__ import annotations

import pytest

from mcp_proxy.api.openapi_routes import ROUTES
from mcp_proxy.core.auth.principal import Scope as Right
from mcp_proxy.edge.doors import door_of, is_management, serves
from mcp_proxy.settings import DOORS
from tests.unit.edge.conftest import MakeEdge, http, websocket

ABOVE_CALLERS = (Right.SERVERS_WRITE, Right.LOGS_READ, Right.ADMIN)
MAIN, ADMIN = {"server": ("127.0.0.1", 5000)}, {"server": ("127.0.0.1", 5900)}


@pytest.mark.parametrize(
    ("path", "door"),
    [
        ("/", None), ("/health", None), ("/health/ready", None), ("/.well-known/oauth-protected-resource/mcp", None),
        ("/mcp", "mcp"), ("/mcp/search", "mcp"), ("//mcp/", "mcp"), ("/sse", "sse"), ("/messages/", "sse"),
        ("/ws", "ws"), ("/tools", "rest"), ("/api/call", "rest"), ("/docs", "rest"), ("/openapi.json", "rest"),
        ("/mcpx", "rest"), ("/healthy", "rest"), ("http://a.example/mcp", "mcp"), ("", None),
    ],
)  # fmt: skip
def test_a_path_belongs_to_a_door_or_to_none(path: str, door: str | None) -> None:
    assert door_of(path) == door


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_management_is_what_callers_of_tools_have_no_right_to_and_the_configuration(route: object) -> None:
    method, path, scope = route.method, route.path, route.scope  # type: ignore[attr-defined]

    assert is_management(method, path.replace("{", "").replace("}", "")) is (
        scope in ABOVE_CALLERS or path == "/api/config"
    )


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "//servers"), ("POST", "/servers/"), ("DELETE", "/servers//one"), ("PUT", "/servers"),
        ("POST", "http://127.0.0.1:5000/servers"), ("PATCH", "https://x/api/instances/one?y"), ("HEAD", "/api/config"),
        ("GET", "/ws"), ("POST", "/api//tokens/revoke"), ("POST", "http://x/servers;a=b"), ("POST", "http://x/ser\tvers"),
        ("POST", "servers"), ("POST", "http://x//servers"),
    ],
)  # fmt: skip
def test_no_way_of_writing_a_path_makes_management_something_else(method: str, path: str) -> None:
    assert is_management(method, path)


@pytest.mark.parametrize(("method", "path"), [("GET", "/servers"), ("HEAD", "/api/instances"), ("POST", "/serversx")])
def test_reading_about_servers_is_no_management(method: str, path: str) -> None:
    assert not is_management(method, path)


@pytest.mark.parametrize(
    ("method", "path", "main", "admin"),
    [
        ("POST", "/tools", True, False), ("POST", "/mcp", True, False), ("GET", "/", True, False),
        ("GET", "/openapi.json", True, False), ("GET", "/servers", True, False), ("POST", "/servers", False, True),
        ("GET", "/api/config", False, True), ("GET", "/ws", False, True), ("GET", "/health", True, True),
        ("GET", "/health/live", True, True),
    ],
)  # fmt: skip
def test_each_port_serves_its_own_and_both_serve_probes(method: str, path: str, main: bool, admin: bool) -> None:
    assert serves(method, path, doors=DOORS, admin=False) is main
    assert serves(method, path, doors=DOORS, admin=True) is admin
    assert serves(method, path, doors=DOORS, admin=None)


def test_a_door_that_is_shut_is_shut_on_both_ports() -> None:
    assert not serves("POST", "/servers", doors=("ws",), admin=True)
    assert not serves("GET", "/ws", doors=("rest",), admin=True)
    assert serves("GET", "/health", doors=("mcp",), admin=True)


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/tools", "/openapi.json", "/docs", "/sse", "/messages/x"])
async def test_behind_a_door_that_is_shut_there_is_nothing(make_edge: MakeEdge, path: str) -> None:
    edge = make_edge(no_auth=True, doors=("mcp",))

    answer = await edge.send(http(path))

    assert (answer.status, answer.error["type"]) == (404, "not_found")
    assert edge.requests[-1]["error"] == "not_found"
    assert edge.scopes == []


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/mcp", "/mcp/search", "/", "/health", "/.well-known/oauth-protected-resource"])
async def test_what_belongs_to_an_open_door_or_to_none_goes_on(make_edge: MakeEdge, path: str) -> None:
    edge = make_edge(no_auth=True, doors=("mcp",))

    assert (await edge.send(http(path))).status == 200


@pytest.mark.anyio
@pytest.mark.parametrize(("arrived", "status"), [(MAIN, 404), (ADMIN, 200), ({"server": None}, 404), ({}, 404)])
async def test_management_is_served_only_where_it_is_known_to_have_come_to_its_port(
    make_edge: MakeEdge, arrived: dict[str, object], status: int
) -> None:
    edge = make_edge(no_auth=True, admin_port=5900)
    scope = {name: value for name, value in http("/servers", method="POST").items() if name != "server"} | arrived

    assert (await edge.send(scope)).status == status


@pytest.mark.anyio
@pytest.mark.parametrize("settings", [{"doors": ("rest",)}, {"admin_port": 5900}])
async def test_a_websocket_at_a_door_that_is_shut_or_on_the_wrong_port_is_refused(
    make_edge: MakeEdge, settings: dict[str, object]
) -> None:
    edge = make_edge(no_auth=True, **settings)

    await edge.send(websocket() | {"path": "/ws"} | MAIN)

    assert edge.scopes == []
    assert edge.requests[-1]["error"] == "not_found"
