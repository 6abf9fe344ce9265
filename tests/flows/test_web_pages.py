"""Web pages as clients: those of listed origins use every door, those of others none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from tests.flows.inside import error_of
from tests.flows.mcp_client import PATIENCE, House, Modern, answer_all, events, reachable
from tests.flows.mcp_upstream import upstream
from tests.harness import make_token

pytestmark = pytest.mark.anyio

PAGE, OTHER = "https://app.example", "https://evil.example"
NEEDED = "authorization,content-type,mcp-protocol-version,mcp-session-id,last-event-id"


class Browser:
    """fetch() of a page: asks before it sends, and shows the page only what it is allowed to."""

    def __init__(self, house: House, origin: str, http: aiohttp.ClientSession) -> None:
        self._base, self._origin, self._http = house.base, origin, http

    async def fetch(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], str]:
        """Status, the headers that the page is shown, and the whole text."""
        async with self.open(method, path, body, **headers) as (answer, shown):
            return answer.status, shown, await answer.text()

    @asynccontextmanager
    async def open(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, dict[str, str]]]:
        """The answer as soon as it begins, so that a stream can be read on; and the headers that the page is shown."""
        sent = {"Authorization": f"Bearer {make_token()}", "Content-Type": "application/json", **headers}
        asks = {
            "Origin": self._origin,
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": ",".join(sorted(map(str.lower, sent))),
        }
        async with self._http.options(self._base + path, headers=asks) as answer:
            self._check(answer)
            assert method in answer.headers["Access-Control-Allow-Methods"].split(", ")
            allowed = set(answer.headers["Access-Control-Allow-Headers"].split(","))
            assert {name.lower() for name in sent} <= allowed
        data = None if body is None else json.dumps(body)
        async with self._http.request(
            method, self._base + path, data=data, headers={**sent, "Origin": self._origin}
        ) as answer:
            self._check(answer)
            exposed = {name.strip() for name in answer.headers["Access-Control-Expose-Headers"].split(",")}
            shown = {name.lower(): value for name, value in answer.headers.items() if name.lower() in exposed}
            yield answer, shown

    def _check(self, answer: aiohttp.ClientResponse) -> None:
        if answer.headers.get("Access-Control-Allow-Origin") != self._origin:
            raise PermissionError(answer.status)


async def test_a_page_of_a_listed_origin_uses_rest_and_mcp():
    async with (
        upstream(name="one", era="legacy") as one,
        reachable({"one": {"url": one.url}}, cors_origin=(PAGE,)) as house,
        aiohttp.ClientSession() as http,
    ):
        page = Browser(house, PAGE, http)
        status, shown, text = await page.fetch("POST", "/tools", {"method": "echo", "args": {"text": "hi"}})
        assert (status, json.loads(text)["content"][0]["text"]) == (200, "one echo hi")
        assert "x-request-id" in shown

        hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "page", "version": "1"}}
        accept = "application/json, text/event-stream"
        status, shown, _ = await page.fetch(
            "POST", "/mcp", {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}, Accept=accept
        )
        assert status == 200
        session = {"Mcp-Session-Id": shown["mcp-session-id"], "Mcp-Protocol-Version": "2025-11-25", "Accept": accept}
        params = {"name": "progress", "arguments": {}, "_meta": {"progressToken": "p"}}
        call = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params}
        status, _, text = await page.fetch("POST", "/mcp", call, **session)
        assert (status, text.count("notifications/progress")) == (200, 3)
        assert (await page.fetch("DELETE", "/mcp", **session))[0] in (200, 204)


async def test_a_page_is_told_what_it_lacks():
    async with reachable(cors_origin=(PAGE,)) as house, aiohttp.ClientSession() as http:
        status, shown, _ = await Browser(house, PAGE, http).fetch("POST", "/mcp", {}, Authorization="Bearer bad")
        assert (status, "resource_metadata" in shown["www-authenticate"]) == (401, True)


async def test_a_page_learns_where_to_get_a_token_and_how_long_to_wait():
    async with reachable(cors_origin=(PAGE,), rate=3) as house, aiohttp.ClientSession() as http:
        page = Browser(house, PAGE, http)
        where = "/.well-known/oauth-protected-resource/mcp"
        status, _, text = await page.fetch("GET", where, **{"Mcp-Protocol-Version": "2025-11-25"})
        assert (status, json.loads(text)["resource"]) == (200, f"{house.base}/mcp")
        for _ in range(2):
            assert (await page.fetch("GET", "/tools"))[0] == 200
        status, shown, text = await page.fetch("POST", "/mcp", {})
        assert (status, json.loads(text)["error"]["type"]) == (429, "rate_limited")
        assert 1 <= int(shown["retry-after"]) <= 60


async def test_a_page_reads_a_stream_while_it_is_open():
    async with (
        upstream(name="one") as one,
        reachable({"one": {"url": one.url}}, cors_origin=(PAGE,)) as house,
        aiohttp.ClientSession() as http,
        asyncio.timeout(PATIENCE),
    ):
        page = Browser(house, PAGE, http)
        as_modern = Modern(house.http(), {}, answer_all, "/mcp")
        params = as_modern.envelope({"notifications": {"toolsListChanged": True}})
        headers = as_modern.headers("subscriptions/listen", params) | {"Mcp-Param-Region": "eu"}
        await as_modern.leave()
        message = {"jsonrpc": "2.0", "id": "l", "method": "subscriptions/listen", "params": params}
        async with page.open("POST", "/mcp", message, **headers) as (stream, shown):
            assert (stream.status, stream.content_type, "x-request-id" in shown) == (200, "text/event-stream", True)
            heard = events(stream)
            assert (await anext(heard))[1]["method"] == "notifications/subscriptions/acknowledged"
            admin = f"Bearer {make_token(scope='admin')}"
            assert (await page.fetch("POST", "/api/instances/one/disable", {}, Authorization=admin))[0] == 200
            assert (await anext(heard))[1]["method"] == "notifications/tools/list_changed"


async def test_a_page_uses_the_older_transport():
    async with (
        reachable(cors_origin=(PAGE,)) as house, aiohttp.ClientSession() as http, asyncio.timeout(PATIENCE),
    ):  # fmt: skip
        page = Browser(house, PAGE, http)
        async with page.open("GET", "/sse", Accept="text/event-stream") as (stream, _):
            heard = events(stream)
            name, place = await anext(heard)
            assert name == "endpoint"
            assert (await page.fetch("POST", place, {"jsonrpc": "2.0", "id": 7, "method": "ping"}))[0] == 202
            assert (await anext(heard))[1]["id"] == 7


@pytest.mark.parametrize("origins", [(), (PAGE,)])
@pytest.mark.parametrize("path", ["/tools", "/mcp", "/messages/", "/api/instances"])
async def test_a_page_of_another_origin_is_refused(path: str, origins: tuple[str, ...]):
    async with reachable(cors_origin=origins) as house, aiohttp.ClientSession() as http:
        with pytest.raises(PermissionError, match="403"):
            await Browser(house, OTHER, http).fetch("POST", path, {})


# What a page can send without asking (Fetch standard, simple requests)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
@pytest.mark.parametrize("path", ["/tools", "/servers", "/api/instances", "/api/call", "/api/tokens/revoke", "/mcp"])
async def test_what_a_form_can_send_changes_nothing(path: str, kind: str):
    async with reachable(no_auth=True) as house:
        for origin in ({}, {"Origin": OTHER}, {"Origin": "null"}):
            headers = {"Content-Type": kind, **origin}
            reply = await house.inside.request("POST", path, token=None, data=b"{}", headers=headers)
            assert reply.status == (403 if origin else 415), (path, origin, reply)
            if path != "/mcp":
                error_of(reply)


async def test_a_form_without_a_body_switches_nothing_off():
    async with upstream(name="one") as one, reachable({"one": {"url": one.url}}, no_auth=True) as house:
        for path in ("/api/instances/one/disable", "/api/instances/one/pins/approve"):
            reply = await house.inside.request("POST", path, token=None, headers={"Origin": OTHER})
            assert error_of(reply)["type"] == "origin_not_allowed"
        assert (await house.inside.states())["one"] == "connected"


@pytest.mark.parametrize(("method", "path"), [("GET", "/sse"), ("GET", "/mcp"), ("POST", "/mcp"), ("GET", "/docs")])
async def test_every_door_has_the_headers_that_browsers_heed(method: str, path: str):
    async with reachable() as house:
        reply = await house.inside.request(method, path, token=None)
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["referrer-policy"] == "no-referrer"
        assert reply.headers["x-frame-options"] == "DENY"
