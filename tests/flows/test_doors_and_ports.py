"""Which ports are listened on, and what there is at each of them, seen from outside of a real process."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.flows.inside import refusal
from tests.flows.test_cli import run
from tests.flows.test_stdio_door import program
from tests.harness import SECRET, ProxyProcess, Reply, eventually, make_token, reserved_port

pytestmark = pytest.mark.anyio

INITIALIZE = {
    "jsonrpc": "2.0", "id": 1, "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}  # fmt: skip
SERVER = {"mcpServers": {"far": {"url": "https://192.0.2.1/mcp"}}}
MANAGEMENT = (
    ("POST", "/servers"), ("DELETE", "/servers/none"), ("POST", "/api/instances"), ("PATCH", "/api/instances/none"),
    ("DELETE", "/api/instances/none"), ("POST", "/api/instances/none/enable"), ("POST", "/api/tokens/revoke"),
    ("GET", "/api/config"),
)  # fmt: skip
FOR_CALLERS = (
    ("GET", "/"), ("GET", "/tools"), ("POST", "/tools"), ("GET", "/servers"), ("GET", "/api/instances"),
    ("POST", "/api/call"), ("GET", "/openapi.json"), ("GET", "/docs"), ("POST", "/mcp"),
)  # fmt: skip


class Moving(ProxyProcess):
    """A process that says itself where it listens."""

    async def _alive(self) -> bool:
        lines = self.log_lines(event="serving")
        if lines:
            self.port = port_of(lines[0]["url"])
        return bool(lines) or (self.process.returncode is not None and await super()._alive())


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


@contextmanager
def listening_on(port: int) -> Iterator[None]:
    """Somebody else who has the port."""
    with socket.create_server(("127.0.0.1", port)):
        yield


async def at(port: int, proxy: ProxyProcess, method: str, path: str, body: Any = None) -> Reply:
    """The answer of this port to one who may do everything."""
    headers = {"Authorization": f"Bearer {make_token(scope='admin')}"}
    url = f"http://127.0.0.1:{port}{path}"
    async with proxy.session.request(method, url, headers=headers, json=body) as answer:
        return Reply(answer.status, {k.lower(): v for k, v in answer.headers.items()}, await answer.read())


async def first_line(port: int, request: str) -> str:
    """The status line for these bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request.replace("\n", "\r\n").encode())
        return (await asyncio.wait_for(reader.readline(), 10)).decode()
    finally:
        writer.close()


# Ports


@pytest.mark.parametrize("how", [("--port", "auto"), ("--port", "0")])
async def test_any_free_port_is_found_and_told(how: tuple[str, ...]) -> None:
    async with Moving(*how, env={"PORT": "1"}) as proxy:  # no servers: the demo
        assert (await proxy.get("/health/live", token=None)).status == 200
        [line] = proxy.log_lines(event="serving")
        assert line["url"] == proxy.base_url
        await eventually(proxy.stdout, what="the curl command")
        assert proxy.stdout().startswith(f"curl -s {proxy.base_url}/tools ")


async def test_the_variable_has_the_word_too() -> None:
    async with Moving(servers={}, env={"PORT": "auto"}) as proxy:
        assert (await proxy.get("/health/live", token=None)).status == 200


async def test_a_port_in_use_gives_way_to_the_next_free_one_which_is_told() -> None:
    proxy = Moving("--auto-port", servers={})
    asked = proxy.port
    with listening_on(asked):
        async with proxy:
            assert asked < proxy.port <= asked + 100
            assert (await proxy.get("/health/live", token=None)).status == 200
            [line] = proxy.log_lines(event="port_in_use")
            assert (line["setting"], line["asked"], line["port"]) == ("PORT", asked, proxy.port)


async def test_a_free_port_is_taken_as_asked_for() -> None:
    async with ProxyProcess("--auto-port", servers={}) as proxy:
        assert (await proxy.get("/health/live", token=None)).status == 200
        assert proxy.log_lines(event="port_in_use") == []


async def test_programs_that_start_at_once_with_one_port_all_get_one() -> None:
    with reserved_port() as place:
        env = {"PORT": str(place.getsockname()[1])}
        async with AsyncExitStack() as stack:
            starting = [Moving("--auto-port", servers={}, env=env) for _ in range(3)]
            await asyncio.gather(*(stack.enter_async_context(proxy) for proxy in starting))
            assert len({proxy.port for proxy in starting}) == 3
            for proxy in starting:
                assert (await proxy.get("/health/live", token=None)).status == 200


async def test_where_no_further_port_is_free_the_start_ends_in_one_line(tmp_path: Path) -> None:
    start = ("-W", "ignore::ResourceWarning", "-m", "mcp_proxy")
    env = {"MCP_URL": "http://127.0.0.1:9/", "JWT_SECRET": SECRET, "LOG_LEVEL": "OFF"}
    with listening_on(65_535):
        ended = await run("serve", "--port", "65535", "--auto-port", start=start, cwd=tmp_path, env=env)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1), ended.err
    assert "127.0.0.1:65535 is in use; choose another port with --port" in ended.err


async def test_an_administrators_port_in_use_is_named_by_its_own_flag(tmp_path: Path) -> None:
    start = ("-W", "ignore::ResourceWarning", "-m", "mcp_proxy")
    env = {"MCP_URL": "http://127.0.0.1:9/", "JWT_SECRET": SECRET, "LOG_LEVEL": "OFF"}
    with reserved_port() as place:
        port = place.getsockname()[1]
        place.listen()
        ended = await run("serve", "--port", "0", "--admin-port", str(port), start=start, cwd=tmp_path, env=env)
    assert (ended.code, ended.err.count("\n")) == (2, 1), ended.err
    assert f"127.0.0.1:{port} is in use; choose another port with --admin-port" in ended.err


async def test_beside_the_stdio_door_any_free_port_is_found_too(tmp_path: Path) -> None:
    args = ("--port", "auto", "--admin-port", "auto", "--doors", "mcp,rest")
    async with program(tmp_path, *args, servers={}, JWT_SECRET=SECRET) as one:
        [line] = await eventually(lambda: one.log(event="serving"), 20)
        assert line["doors"] == ["stdio", "rest", "mcp"]
        assert port_of(line["url"]) != port_of(line["admin_url"])
        assert "200" in await first_line(port_of(line["url"]), "GET /health/live HTTP/1.1\nHost: localhost\n\n")


# Doors


@pytest.fixture(scope="module")
async def only_mcp() -> AsyncIterator[ProxyProcess]:
    async with ProxyProcess("--doors", "mcp", servers={}) as proxy:
        yield proxy


@pytest.fixture(scope="module")
async def only_rest() -> AsyncIterator[ProxyProcess]:
    async with ProxyProcess(servers={}, env={"MCP_PROXY_DOORS": "rest"}) as proxy:
        yield proxy


@pytest.mark.parametrize(("method", "path"), [*FOR_CALLERS[1:-1], *MANAGEMENT, ("GET", "/sse"), ("GET", "/ws")])
async def test_behind_doors_that_are_shut_there_is_nothing(only_mcp: ProxyProcess, method: str, path: str) -> None:
    answer = await only_mcp.request(method, path)
    unknown = await only_mcp.get("/nowhere")

    assert refusal(answer) == refusal(unknown) == (404, "not_found")
    assert answer.json["error"]["message"] == unknown.json["error"]["message"].replace("/nowhere", path)


async def test_the_door_that_is_open_works_and_so_does_what_belongs_to_none(only_mcp: ProxyProcess) -> None:
    hello = await only_mcp.post("/mcp", INITIALIZE)

    assert hello.json["result"]["serverInfo"]["name"] == "mcp-proxy-api"
    assert (await only_mcp.get("/health/live", token=None)).status == 200
    assert (await only_mcp.get("/health/ready", token=None)).status == 200
    assert (await only_mcp.get("/.well-known/oauth-protected-resource/mcp", token=None)).status == 200


async def test_the_front_page_and_the_log_name_the_doors_that_are_open(
    only_mcp: ProxyProcess, only_rest: ProxyProcess
) -> None:
    for proxy, doors in ((only_mcp, ["mcp"]), (only_rest, ["rest"])):
        assert (await proxy.get("/", token=None)).json["doors"] == doors
        assert [line["doors"] for line in proxy.log_lines(event="serving")] == [doors]


@pytest.mark.parametrize("path", ["/mcp", "/mcp/far", "/sse", "/messages/", "/ws"])
async def test_rest_can_stand_alone(only_rest: ProxyProcess, path: str) -> None:
    assert refusal(await only_rest.post(path, INITIALIZE)) == (404, "not_found")
    assert (await only_rest.get("/tools")).status == 200


async def test_a_shut_door_still_asks_who_sends_a_bad_token(only_rest: ProxyProcess) -> None:
    assert refusal(await only_rest.post("/mcp", INITIALIZE, token="x")) == (401, "unauthorized")


async def test_no_curl_command_is_shown_for_a_door_that_is_shut() -> None:
    async with ProxyProcess("--doors", "mcp") as proxy:
        await proxy.connected("demo")
        assert await proxy.terminate() == 0
        assert proxy.stdout() == ""


async def test_an_unknown_door_stops_the_start_in_one_line(tmp_path: Path) -> None:
    ended = await run("serve", "--doors", "rest,web", cwd=tmp_path)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "--doors is 'rest,web'; accepted: one or more of rest, mcp, sse, llm, ws" in ended.err


# A port for management


class Apart(ProxyProcess):
    """A process with a port for management."""

    def __init__(self, *args: str, **more: Any) -> None:
        super().__init__(*args, **more)
        self.admin_port: int = self._stack.enter_context(reserved_port()).getsockname()[1]
        self.args += ["--admin-port", str(self.admin_port)]


@pytest.fixture(scope="module")
async def apart() -> AsyncIterator[Apart]:
    async with Apart(servers={}) as proxy:
        yield proxy


@pytest.mark.parametrize(("method", "path"), MANAGEMENT)
async def test_management_is_at_its_own_port_only(apart: Apart, method: str, path: str) -> None:
    main = await at(apart.port, apart, method, path)
    admin = await at(apart.admin_port, apart, method, path)

    assert refusal(main) == (404, "not_found")
    assert main.json["error"]["message"] == f"there is nothing at {path}"
    assert admin.status != 404 or admin.json["error"]["type"] == "server_not_found"


@pytest.mark.parametrize(("method", "path"), FOR_CALLERS)
async def test_the_port_for_management_serves_nothing_else(apart: Apart, method: str, path: str) -> None:
    assert refusal(await at(apart.admin_port, apart, method, path)) == (404, "not_found")
    assert (await at(apart.port, apart, method, path)).status != 404


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
async def test_both_ports_answer_probes(apart: Apart, path: str) -> None:
    assert (await at(apart.port, apart, "GET", path)).status == 200
    assert (await at(apart.admin_port, apart, "GET", path)).status == 200


@pytest.mark.parametrize("target", ["http://127.0.0.1/servers", "//servers", "/servers/", "/%73ervers", "/./servers"])
async def test_no_way_of_writing_the_path_reaches_management_at_the_main_port(apart: Apart, target: str) -> None:
    body = json.dumps(SERVER)
    request = (
        f"POST {target} HTTP/1.1\nHost: 127.0.0.1\nAuthorization: Bearer {make_token(scope='admin')}\n"
        f"Content-Type: application/json\nContent-Length: {len(body)}\n\n{body}"
    )

    assert "404" in await first_line(apart.port, request)
    assert (await apart.get("/servers")).json["servers"] == []


async def test_a_server_added_at_the_one_port_is_seen_at_the_other() -> None:
    async with Apart("--allow-network", "192.0.2.0/24", servers={}) as proxy:
        assert (await at(proxy.admin_port, proxy, "POST", "/servers", SERVER)).status == 201
        assert [row["name"] for row in (await proxy.get("/servers")).json["servers"]] == ["far"]
        assert (await at(proxy.admin_port, proxy, "DELETE", "/servers/far")).status == 200
        assert await proxy.terminate() == 0


async def test_the_handshake_of_a_websocket_is_refused_at_the_main_port(apart: Apart, only_rest: ProxyProcess) -> None:
    headers = {"Authorization": f"Bearer {make_token(scope='admin')}"}
    for proxy in (apart, only_rest):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await proxy.session.ws_connect(f"{proxy.base_url}/ws", headers=headers)
        assert refused.value.status == 404


async def test_the_live_log_is_at_the_port_for_management(apart: Apart) -> None:
    headers = {"Authorization": f"Bearer {make_token(scope='logs:read')}"}
    async with apart.session.ws_connect(f"http://127.0.0.1:{apart.admin_port}/ws", headers=headers) as socket:
        assert not socket.closed


async def test_a_token_is_needed_at_the_port_for_management(apart: Apart) -> None:
    async with apart.session.get(f"http://127.0.0.1:{apart.admin_port}/api/config") as answer:
        assert answer.status == 401


async def test_the_description_leaves_out_what_is_served_at_the_other_port(
    apart: Apart, only_rest: ProxyProcess
) -> None:
    def operations(document: Any) -> set[tuple[str, str]]:
        return {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}

    narrowed = operations((await apart.get("/openapi.json")).json)
    whole = operations((await only_rest.get("/openapi.json")).json)

    assert narrowed < whole
    assert {("POST", "/servers"), ("GET", "/api/config"), ("POST", "/api/tokens/revoke")} <= whole - narrowed
    assert {("GET", "/servers"), ("GET", "/api/instances/{name}"), ("POST", "/tools")} <= narrowed


async def test_the_log_tells_where_management_is(apart: Apart) -> None:
    [line] = apart.log_lines(event="serving")
    assert line["url"] == apart.base_url
    assert line["admin_url"] == f"http://127.0.0.1:{apart.admin_port}"


async def test_any_free_port_will_do_for_management_too() -> None:
    async with Moving("--port", "auto", "--admin-port", "auto", servers={}) as proxy:
        admin = port_of(proxy.log_lines(event="serving")[0]["admin_url"])
        assert (await at(admin, proxy, "GET", "/api/config")).status == 200
        assert (await at(admin, proxy, "GET", "/servers")).status == 404
        assert (await at(proxy.port, proxy, "GET", "/api/config")).status == 404
