"""What holds at every door alike, over a socket: security headers, bounds of headers and bodies, requests a minute."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.flows.mcp_client import JSON, LEGACY, PATIENCE, House, events, reachable
from tests.flows.mcp_upstream import upstream
from tests.harness import make_token

pytestmark = pytest.mark.anyio

PAGE = "https://app.example"
LIMIT = 64 * 1024
PLACES = [
    ("GET", "/"), ("GET", "/health"), ("GET", "/tools"), ("POST", "/tools"), ("POST", "/api/call"), ("POST", "/servers"),
    ("GET", "/openapi.json"), ("GET", "/docs"), ("POST", "/mcp"), ("GET", "/mcp"), ("DELETE", "/mcp"),
    ("POST", "/mcp/one"), ("GET", "/sse"), ("POST", "/messages/"), ("GET", "/.well-known/oauth-protected-resource"),
    ("GET", "/nowhere"),
]  # fmt: skip
READ = [
    "/tools",
    "/tools/one/echo",
    "/api/call",
    "/servers",
    "/api/instances",
    "/api/tokens/revoke",
    "/mcp",
    "/mcp/one",
]
"""Where bodies are read."""
BROWSERS_HEED = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
HELLO = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "door", "version": "1"}}


@pytest.fixture(scope="module")
async def house() -> AsyncIterator[House]:
    """One server behind every door."""
    async with (
        upstream(name="one") as one,
        reachable({"one": {"url": one.url}}, max_body=LIMIT, cors_origin=(PAGE,)) as made,
    ):
        yield made


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE)) as session:
        yield session


def bearer(**claims: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {make_token(**claims)}"}


def rpc(method: str, params: Any = None) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}


def assert_safe_in_browsers(answer: aiohttp.ClientResponse) -> None:
    for name, value in BROWSERS_HEED.items():
        assert answer.headers.getall(name, []) == [value], (answer.method, answer.url, name)
    assert len(answer.headers.getall("content-security-policy", [])) == 1
    caching = answer.headers.getall("cache-control", [])
    assert len(caching) == 1
    assert "no-store" in caching[0] or "no-cache" in caching[0]
    assert "server" not in answer.headers


# Security headers


@pytest.mark.parametrize(("method", "path"), PLACES)
@pytest.mark.parametrize("token", [True, False])
async def test_every_answer_has_the_headers_that_browsers_heed(
    house: House, http: aiohttp.ClientSession, method: str, path: str, token: bool
):
    headers = {**JSON, **(bearer() if token else {})}
    async with http.request(
        method, house.base + path, headers=headers, data=b"{}" if method == "POST" else None
    ) as got:
        assert_safe_in_browsers(got)


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (400, {"Content-Length": "x"}), (401, {"Authorization": "Bearer bad"}), (403, {"Origin": "https://evil.example"}),
        (413, {"Content-Length": "99999999"}), (421, {"Host": "evil.example"}),
        (204, {"Origin": PAGE, "Access-Control-Request-Method": "POST"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/tools", "/mcp", "/messages/", "/sse"])
async def test_so_have_refusals_of_the_edge_and_preflights(
    house: House, path: str, status: int, headers: dict[str, str]
):
    method = "OPTIONS" if status == 204 else "POST"
    answer = await house.inside.request(method, path, token=None, headers={"Host": "localhost", **headers})
    assert answer.status == status
    assert {name: answer.headers.get(name) for name in BROWSERS_HEED} == BROWSERS_HEED
    assert answer.headers["cache-control"] == "no-store"


async def test_streams_and_answers_of_a_session_have_them_too(house: House, http: aiohttp.ClientSession):
    async with http.post(house.base + "/mcp", json=rpc("initialize", HELLO), headers={**JSON, **bearer()}) as hello:
        assert hello.status == 200
        assert_safe_in_browsers(hello)
        session = {"Mcp-Session-Id": hello.headers["Mcp-Session-Id"], "MCP-Protocol-Version": LEGACY, **bearer()}
    params = {"name": "progress", "arguments": {}, "_meta": {"progressToken": 1}}
    async with http.post(house.base + "/mcp", json=rpc("tools/call", params), headers={**JSON, **session}) as call:
        assert (call.status, call.content_type) == (200, "text/event-stream")
        assert_safe_in_browsers(call)
        await call.read()
    async with http.get(house.base + "/mcp", headers={"Accept": "text/event-stream", **session}) as standing:
        assert (standing.status, standing.content_type) == (200, "text/event-stream")
        assert_safe_in_browsers(standing)
    note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    async with http.post(house.base + "/mcp", json=note, headers={**JSON, **session}) as taken:
        assert taken.status == 202
        assert_safe_in_browsers(taken)
    async with http.delete(house.base + "/mcp", headers=session) as ended:
        assert ended.status == 204
        assert_safe_in_browsers(ended)
    async with http.get(house.base + "/sse", headers={"Accept": "text/event-stream", **bearer()}) as stream:
        assert (stream.status, stream.content_type) == (200, "text/event-stream")
        assert_safe_in_browsers(stream)


# Bounds


@pytest.mark.parametrize(("method", "path"), PLACES)
@pytest.mark.parametrize(
    "headers", [{f"X-{number}": "v" for number in range(101)}, {f"X-{number}": "v" * 4096 for number in range(9)}]
)
async def test_too_many_and_too_long_headers_are_refused(
    house: House, http: aiohttp.ClientSession, method: str, path: str, headers: dict[str, str]
):
    async with http.request(method, house.base + path, headers={**headers, **bearer()}) as answer:
        assert (answer.status, (await answer.json())["error"]["type"]) == (400, "bad_request")
        assert_safe_in_browsers(answer)


@pytest.mark.parametrize("path", READ)
@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_over_the_limit_is_refused_whether_its_length_is_declared_or_not(
    house: House, http: aiohttp.ClientSession, path: str, declared: bool
):
    whole = json.dumps({"x": "x" * LIMIT}).encode()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(whole), 8192):
            yield whole[start : start + 8192]

    headers = {**JSON, **bearer(scope="admin")}
    async with http.post(house.base + path, data=whole if declared else pieces(), headers=headers) as answer:
        assert (answer.status, (await answer.json())["error"]["type"]) == (413, "payload_too_large")


async def test_a_body_over_the_limit_is_refused_on_an_event_stream_which_goes_on(
    house: House, http: aiohttp.ClientSession
):
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(9):
            yield b" " * 8192

    async with http.get(house.base + "/sse", headers={"Accept": "text/event-stream", **bearer()}) as stream:
        heard = events(stream)
        place = house.base + (await anext(heard))[1]
        async with http.post(place, data=pieces(), headers={**JSON, **bearer()}) as answer:
            assert (answer.status, (await answer.json())["error"]["type"]) == (413, "payload_too_large")
        async with http.post(place, json=rpc("ping"), headers={**JSON, **bearer()}) as answer:
            assert answer.status == 202
        assert (await anext(heard))[1]["result"] == {}


# Requests a minute

EACH = [
    ("GET", "/tools"), ("POST", "/tools"), ("GET", "/servers"), ("POST", "/mcp"), ("POST", "/mcp/one"), ("GET", "/mcp"),
    ("GET", "/sse"), ("POST", "/messages/?session_id=x"), ("GET", "/openapi.json"), ("GET", "/nowhere"),
]  # fmt: skip


async def ask(http: aiohttp.ClientSession, house: House, method: str, path: str, token: dict[str, str]) -> int:
    """The status of a request; a 429 must look like every other error."""
    async with http.request(method, house.base + path, headers={**JSON, **token}) as answer:
        if answer.status == 429:
            error = (await answer.json())["error"]
            assert (error["type"], error["code"]) == ("rate_limited", 429)
            assert error["request_id"] == answer.headers["X-Request-Id"]
            assert 1 <= int(answer.headers["Retry-After"]) <= 60
            assert "WWW-Authenticate" not in answer.headers
            assert_safe_in_browsers(answer)
        return answer.status


@pytest.mark.parametrize("callers", [{"rate": 10}, {"rate_address": 10}], ids=["a principal", "an address"])
async def test_all_doors_share_one_count(http: aiohttp.ClientSession, callers: dict[str, int]):
    token = bearer() if "rate" in callers else {}
    async with reachable(**callers) as house:
        statuses = [await ask(http, house, method, path, token) for method, path in EACH]
        assert 429 not in statuses
        assert {await ask(http, house, method, path, token) for method, path in EACH} == {429}
        for probe in ("/health", "/health/live", "/health/ready"):
            assert await ask(http, house, "GET", probe, token) in (200, 503)
        other = bearer(sub="other") if token else bearer()
        assert await ask(http, house, "GET", "/tools", other) == 200


async def test_guessing_tokens_is_slowed_down_at_every_door_and_good_tokens_are_not(http: aiohttp.ClientSession):
    bad = {"Authorization": "Bearer " + make_token("another-secret-0123456789-0123456789-0123456789")}
    async with reachable(rate_address=len(EACH)) as house:
        assert {await ask(http, house, method, path, bad) for method, path in EACH} == {401}
        assert {await ask(http, house, method, path, bad) for method, path in EACH} == {429}
        assert await ask(http, house, "GET", "/tools", bearer()) == 200
        assert all(line["principal"] is None for line in house.inside.lines(event="request", status_code=429))


async def test_a_stream_that_is_open_goes_on_when_its_caller_is_over_the_limit(http: aiohttp.ClientSession):
    async with (
        reachable(rate=2) as house,
        asyncio.timeout(PATIENCE),
        http.get(house.base + "/sse", headers={"Accept": "text/event-stream", **bearer()}) as stream,
    ):
        heard = events(stream)
        place = (await anext(heard))[1]
        async with http.post(house.base + place, json=rpc("ping"), headers={**JSON, **bearer()}) as answer:
            assert answer.status == 202
        assert await ask(http, house, "POST", place, bearer()) == 429
        assert (await anext(heard))[1]["result"] == {}
