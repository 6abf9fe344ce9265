"""What users of the earlier programs do, call by call as those were documented: the proxy API, the gateway, the router.

Where an answer differs today, the README says so; it is then today's answer that is expected here. Names of tools, naming,
errors and tokens as such have tests of their own.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.faults.harness import UPSTREAM, FaultyUpstream, faulty_http
from tests.flows.inside import error_of
from tests.harness import ProxyProcess, Reply, eventually, make_token

pytestmark = pytest.mark.anyio

COMMAND = {"command": sys.executable, "args": [str(UPSTREAM), "stdio"]}
DEMO = {"command": sys.executable, "args": ["-m", "mcp_proxy.demo"]}
ADMIN = make_token(ttl=3600, scope="admin")
ROUTER_TOKEN = "the-routers-token-0123456789-0123456789"
INSTANCE = {"name", "transport", "era", "protocol_version", "state", "group", "disabled", "tools", "last_error"}


@pytest.fixture(scope="module")
async def upstreams() -> AsyncIterator[tuple[FaultyUpstream, FaultyUpstream]]:
    async with faulty_http() as one, faulty_http() as other:
        yield one, other


# The proxy API: several URLs, JWTs, POST /tools


@pytest.fixture(scope="module")
async def several(upstreams: tuple[FaultyUpstream, FaultyUpstream]) -> AsyncIterator[ProxyProcess]:
    """Started with ``MCP_URLS``, two of its kind: HTTP+SSE."""
    one, other = upstreams
    env = {"MCP_URLS": f"{one.sse_url},{other.sse_url}", "MCP_URL": "http://127.0.0.1:9/sse", "LOG_LEVEL": "INFO"}
    async with ProxyProcess(env={**env, "MCP_PROXY_LOG_BODIES": "on"}) as proxy:
        await proxy.connected()
        yield proxy


async def test_a_tool_is_called_with_method_and_args(several: ProxyProcess):
    reply = await several.post("/tools", {"method": "echo", "args": {"text": "value1"}})
    assert reply.status == 200
    assert reply.json["content"] == [{"type": "text", "text": "value1"}]
    assert reply.json["isError"] is False


async def test_a_server_is_named_by_its_url(several: ProxyProcess, upstreams: tuple[FaultyUpstream, FaultyUpstream]):
    for upstream in upstreams:
        before = upstream.ledger.count()
        reply = await several.post("/tools", {"method": "add", "args": {"a": 1, "b": 2}, "server": upstream.sse_url})
        assert reply.status == 200
        assert str(upstream.port) in reply.json["server"]
        assert upstream.ledger.count() == before + 1


async def test_tools_are_listed_with_the_servers_that_have_them(several: ProxyProcess):
    tools = {tool["name"]: tool for tool in (await several.get("/tools/list")).json["tools"]}
    assert {"echo", "add", "count"} <= set(tools)
    assert len(tools["echo"]["servers"]) == 2
    assert tools["add"]["inputSchema"]["required"] == ["a", "b"]


async def test_the_list_is_filtered_by_the_url_of_a_server(
    several: ProxyProcess, upstreams: tuple[FaultyUpstream, FaultyUpstream]
):
    reply = await several.get("/tools/list", params={"server": upstreams[0].sse_url})
    assert [len(tool["servers"]) for tool in reply.json["tools"]] == [1, 1, 1]
    error = error_of(await several.get("/tools/list", params={"server": "http://127.0.0.1:9/sse"}))
    assert (error["code"], error["type"]) == (404, "server_not_found")


async def test_servers_are_listed_with_their_state(
    several: ProxyProcess, upstreams: tuple[FaultyUpstream, FaultyUpstream]
):
    rows = (await several.get("/servers")).json["servers"]
    assert [row["url"] for row in rows] == [upstream.sse_url for upstream in upstreams]
    assert {row["state"] for row in rows} == {"connected"}
    assert {row["tools"] for row in rows} == {3}


async def test_the_single_url_is_ignored_beside_several_and_that_is_said(several: ProxyProcess):
    assert "MCP_URL" in json.dumps(several.log_lines(event="setting_ignored"))


async def test_a_single_url_is_enough(upstreams: tuple[FaultyUpstream, FaultyUpstream]):
    async with ProxyProcess(env={"MCP_URL": upstreams[0].sse_url}) as proxy:
        await proxy.connected()
        assert (await proxy.call("echo", {"text": "x"})).status == 200


async def test_health_needs_no_token_and_has_every_server(several: ProxyProcess):
    reply = await several.get("/health", token=None)
    assert (reply.status, reply.json["status"]) == (200, "ok")
    assert list(reply.json["servers"].values()) == ["connected", "connected"]


async def test_a_token_comes_in_the_header_or_in_the_address(several: ProxyProcess):
    payload = {"sub": None, "user_id": "test_user", "iss": "mcp-proxy"}
    token = make_token(**payload)
    assert (await several.get("/tools/list", token=token)).status == 200
    assert (await several.get(f"/tools/list?token={token}", token=None)).status == 200
    assert token not in several.stderr()
    await eventually(lambda: len(several.log_lines(path="/tools/list", principal="test_user")) == 2, what="both lines")


@pytest.mark.parametrize(
    "token",
    [
        None,
        "not.a.token",
        make_token(exp=None),
        make_token(exp=int(time.time()) - 3600),
        make_token("another-secret-of-32-characters-or-more"),
        make_token(nbf=int(time.time()) + 3600),
    ],
    ids=["none", "no token", "no exp", "expired", "another secret", "not yet"],
)
@pytest.mark.parametrize("path", ["/tools/list", "/servers"])
async def test_without_a_good_token_it_is_401(several: ProxyProcess, token: str | None, path: str):
    error = error_of(await several.get(path, token=token))
    assert error["code"] == 401
    assert (await several.post("/tools", {"method": "echo"}, token=token)).status == 401


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"args": {}}, 400),
        ({"method": "add", "args": {"a": "one"}}, 400),
        ({"method": "add", "args": [1, 2]}, 400),
        ({"method": "no_such_tool", "args": {}}, 404),
        ({"method": "echo", "args": {"text": "x"}, "server": "http://127.0.0.1:9/nowhere"}, 404),
    ],
)
async def test_errors_have_message_and_code(several: ProxyProcess, body: dict[str, Any], status: int):
    error = error_of(await several.post("/tools", body))
    assert error["code"] == status
    assert error["message"]


async def test_a_server_that_is_down_is_503():
    async with ProxyProcess(env={"MCP_URLS": "http://127.0.0.1:9/sse"}) as proxy:
        reply = await proxy.call("echo", server="http://127.0.0.1:9/sse")
        assert error_of(reply)["code"] == 503
        assert (await proxy.get("/health", token=None)).status == 503


async def test_every_request_is_one_line_of_json_with_what_was_documented(several: ProxyProcess):
    reply = await several.request("POST", "/tools", json={"method": "echo", "args": {"text": "logged"}}, headers={"User-Agent": "curl/7.68.0"})  # fmt: skip
    assert reply.status == 200
    line = await eventually(lambda: several.log_lines(request_id=reply.headers["x-request-id"]))
    fields = line[0]
    assert fields["timestamp"].endswith("Z")
    assert fields["request"]["args"] == {"text": "logged"}
    assert "logged" in json.dumps(fields["response"])
    assert fields["status_code"] == 200
    assert fields["execution_time_ms"] > 0
    assert fields["remote_addr"] == "127.0.0.1"
    assert fields["user_agent"] == "curl/7.68.0"


# The gateway: an mcpServers file, names with prefixes, servers over HTTP


@pytest.fixture(scope="module")
async def gateway(upstreams: tuple[FaultyUpstream, FaultyUpstream]) -> AsyncIterator[ProxyProcess]:
    """The three kinds of backend, in the documented form."""
    servers = {
        "calculator": {"transport": "stdio", **COMMAND},
        "remote-echo": {"transport": "sse", "url": upstreams[0].sse_url},
        "remote-http": {
            "transport": "streamable-http",
            "url": upstreams[1].url,
            "headers": {"Authorization": "Bearer x"},
        },
    }
    async with ProxyProcess("--allow-network", "127.0.0.0/8", servers=servers) as proxy:
        await proxy.connected()
        yield proxy


async def test_tools_carry_the_name_of_their_server(gateway: ProxyProcess):
    names = {tool["name"] for tool in (await gateway.get("/tools")).json["tools"]}
    assert {"calculator.add", "calculator.echo", "remote-echo.echo", "remote-http.count"} <= names
    assert {row["transport"] for row in (await gateway.get("/servers")).json["servers"]} == {
        "stdio", "sse", "streamable-http",
    }  # fmt: skip
    for server in ("calculator", "remote-echo", "remote-http"):
        reply = await gateway.call(f"{server}.add", {"a": 1, "b": 2})
        assert (reply.status, reply.json["server"]) == (200, server)


async def test_servers_are_added_in_the_form_of_the_file_and_removed_by_name(
    gateway: ProxyProcess, upstreams: tuple[FaultyUpstream, FaultyUpstream]
):
    entry = {"transport": "streamable-http", "url": upstreams[0].url}
    reply = await gateway.post("/servers", {"mcpServers": {"more": entry}}, token=ADMIN)
    assert (reply.status, reply.json) == (201, {"added": ["more"]})
    assert (await gateway.call("more.echo", {"text": "x"})).json["server"] == "more"
    assert "more" in (await gateway.get("/health", token=None)).json["servers"]
    reply = await gateway.request("DELETE", "/servers/more", token=ADMIN)
    assert (reply.status, reply.json) == (200, {"removed": "more"})
    assert not any(tool["server"] == "more" for tool in (await gateway.get("/tools")).json["tools"])
    assert error_of(await gateway.request("DELETE", "/servers/more", token=ADMIN))["code"] == 404


async def test_a_server_of_the_file_is_not_removed_over_http(gateway: ProxyProcess):
    reply = await gateway.request("DELETE", "/servers/calculator", token=ADMIN)
    assert error_of(reply)["code"] == 409


async def test_commands_over_http_need_the_operators_leave(gateway: ProxyProcess):
    reply = await gateway.post("/servers", {"mcpServers": {"shell": {"transport": "stdio", **COMMAND}}}, token=ADMIN)
    assert error_of(reply)["type"] == "command_not_allowed"


# The router: a directory of providers, /api, plain requests at /mcp


@pytest.fixture(scope="module")
async def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``data/{provider}/mcp_settings.json``."""
    root = tmp_path_factory.mktemp("data")
    provide(root, "example", name="example_instance", isActive=True)
    provide(root, "idle", name="idle_instance", isActive=False)
    return root


def provide(root: Path, provider: str, **fields: Any) -> None:
    entry = {"provider": provider, "type": "stdio", **COMMAND, "env": {}, **fields}
    (root / provider).mkdir(exist_ok=True)
    (root / provider / "mcp_settings.json").write_text(json.dumps(entry))


@pytest.fixture(scope="module")
async def router(data: Path) -> AsyncIterator[ProxyProcess]:
    """With one fixed token, as ``security.bearer_token`` was."""
    env = {
        "MCP_PROXY_API_TOKENS": f"router:{ROUTER_TOKEN}:admin",
        "MCP_PROXY_ALLOW_NETWORK": "127.0.0.0/8",
    }
    async with ProxyProcess("--config-dir", str(data), env=env) as proxy:
        await proxy.connected("example_instance")
        yield proxy


async def as_router(proxy: ProxyProcess, method: str, path: str, body: Any = None) -> Reply:
    more = {} if body is None else {"json": body}
    return await proxy.request(method, path, token=ROUTER_TOKEN, **more)


async def test_instances_are_listed_and_shown(router: ProxyProcess):
    rows = (await as_router(router, "GET", "/api/instances")).json
    assert {row["name"]: row["state"] for row in rows} == {"example_instance": "connected", "idle_instance": "disabled"}
    assert all(set(row) >= INSTANCE for row in rows)
    row = (await as_router(router, "GET", "/api/instances/example_instance")).json
    assert row["config"]["command"] == COMMAND["command"]
    assert error_of(await as_router(router, "GET", "/api/instances/nobody"))["code"] == 404


async def test_an_instance_lives_from_post_to_delete(
    router: ProxyProcess, upstreams: tuple[FaultyUpstream, FaultyUpstream]
):
    body = {"name": "fresh", "type": "http", "url": upstreams[0].url}
    reply = await as_router(router, "POST", "/api/instances", body)
    assert (reply.status, reply.json["name"]) == (201, "fresh")
    assert error_of(await as_router(router, "POST", "/api/instances", body))["code"] == 409
    reply = await as_router(router, "PATCH", "/api/instances/fresh", {"description": "patched"})
    assert (reply.status, reply.json["config"]["description"]) == (200, "patched")
    reply = await as_router(router, "POST", "/api/instances/fresh/disable")
    assert (reply.status, reply.json["state"]) == (200, "disabled")
    reply = await as_router(router, "POST", "/api/instances/fresh/enable")
    assert (reply.status, reply.json["disabled"]) == (200, False)
    call = {"instance": "fresh", "tool": "echo", "params": {"text": "there"}}
    assert (await as_router(router, "POST", "/api/call", call)).status == 200
    assert (await as_router(router, "DELETE", "/api/instances/fresh")).status == 200
    assert error_of(await as_router(router, "GET", "/api/instances/fresh"))["code"] == 404


async def test_the_form_of_the_providers_file_is_taken_by_the_api_too(
    router: ProxyProcess, upstreams: tuple[FaultyUpstream, FaultyUpstream]
):
    body = {"provider": "p", "isActive": True, "name": "as_file", "type": "sse", "url": upstreams[0].sse_url}
    reply = await as_router(router, "POST", "/api/instances", body)
    assert reply.status == 201, reply
    assert (await as_router(router, "DELETE", "/api/instances/as_file")).status == 200


async def test_tools_are_listed_by_instance_and_called(router: ProxyProcess):
    grouped = (await as_router(router, "GET", "/api/tools")).json
    assert [tool["name"] for tool in grouped["example_instance"]] == ["echo", "add", "count"]
    assert (await as_router(router, "GET", "/api/tools/example_instance")).json == grouped["example_instance"]
    call = {"instance": "example_instance", "tool": "count", "params": {}}
    reply = await as_router(router, "POST", "/api/call", call)
    assert (reply.status, reply.json["isError"]) == (200, False)


async def test_without_the_token_the_api_is_shut(router: ProxyProcess):
    for method, path in (
        ("GET", "/api/instances"),
        ("POST", "/api/call"),
        ("GET", "/api/config"),
        ("GET", "/api/tools"),
    ):
        assert (await router.request(method, path, token=None)).status == 401, path
        assert (await router.request(method, path, token="your-token")).status == 401, path


async def test_status_health_and_configuration(router: ProxyProcess):
    assert {"name", "version", "doors"} <= set((await router.get("/", token=None)).json)
    health = (await router.get("/health", token=None)).json
    assert health["servers"] == {"example_instance": "connected", "idle_instance": "disabled"}
    config = (await as_router(router, "GET", "/api/config")).json
    assert [one["name"] for one in config["servers"]] == ["example_instance", "idle_instance"]
    assert ROUTER_TOKEN not in json.dumps(config)


async def test_a_providers_file_is_followed(router: ProxyProcess, data: Path):
    provide(data, "later", name="later_instance", isActive=True)
    await router.connected("later_instance")
    provide(data, "later", name="later_instance", isActive=False)

    async def off() -> bool:
        return bool((await as_router(router, "GET", "/api/instances/later_instance")).json["disabled"])

    await eventually(off)
    (data / "later" / "mcp_settings.json").unlink()

    async def gone() -> bool:
        return (await as_router(router, "GET", "/api/instances/later_instance")).status == 404

    await eventually(gone)


@pytest.fixture(scope="module")
async def local() -> AsyncIterator[ProxyProcess]:
    """For the examples without a token."""
    async with ProxyProcess("--no-auth", servers={"demo": DEMO, "other": DEMO}) as proxy:
        await proxy.connected()
        yield proxy


async def rpc(proxy: ProxyProcess, message: dict[str, Any], headers: dict[str, str] | None = None) -> Reply:
    """As ``curl`` and ``httpx`` send it: whatever comes back is welcome."""
    named = {"Content-Type": "application/json", "Accept": "*/*", **(headers or {})}
    return await proxy.request(
        "POST", "/mcp", token=None, headers=named, data=json.dumps({"jsonrpc": "2.0", **message})
    )


async def test_initialize_and_lists_work_with_plain_requests(local: ProxyProcess):
    params = {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "test", "version": "1.0.0"}}
    reply = await rpc(local, {"id": 0, "method": "initialize", "params": params})
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert reply.json["id"] == 0
    assert reply.json["result"]["protocolVersion"] == "2024-11-05"
    reply = await rpc(local, {"id": 1, "method": "tools/list", "params": {}})
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert {"demo.add", "other.add"} <= {tool["name"] for tool in reply.json["result"]["tools"]}
    reply = await rpc(local, {"id": 2, "method": "tools/call", "params": {"name": "demo.add", "arguments": {"a": 2, "b": 3}}})  # fmt: skip
    assert reply.json["result"]["content"][0]["text"] == "5"


async def test_the_sse_stream_says_where_messages_go(local: ProxyProcess):
    async with asyncio.timeout(10), local.session.get(f"{local.base_url}/sse") as stream:
        assert stream.content_type == "text/event-stream"
        assert (await stream.content.readline()).strip() == b"event: endpoint"
        where = (await stream.content.readline()).decode().removeprefix("data:").strip()
        assert where.startswith("/messages/")
        message = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
        async with local.session.post(local.base_url + where, json=message) as answer:
            assert answer.status == 202
        async for line in stream.content:
            if line.startswith(b"data:"):
                assert json.loads(line[5:])["id"] == 1
                break


async def test_a_token_is_ignored_where_none_is_needed(local: ProxyProcess):
    reply = await local.get("/api/instances", token="your-token")
    assert reply.status == 200
    call = {"instance": "demo", "tool": "add", "params": {"a": 1, "b": 2}}
    assert (await local.post("/api/call", call, token="your-token")).json["content"][0]["text"] == "3"


@pytest.mark.parametrize("path", ["/", "/health", "/api/instances", "/tools/list", "/nowhere"])
async def test_answers_carry_security_headers(local: ProxyProcess, path: str):
    headers = (await local.get(path, token=None)).headers
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"
    assert "content-security-policy" in headers


async def test_a_foreign_page_is_refused(local: ProxyProcess):
    reply = await local.get("/servers", token=None, headers={"Origin": "https://evil.example"})
    assert error_of(reply)["type"] == "origin_not_allowed"
    with pytest.raises(aiohttp.ClientResponseError):
        async with local.session.get(f"{local.base_url}/sse", headers={"Origin": "https://evil.example"}) as answer:
            answer.raise_for_status()
