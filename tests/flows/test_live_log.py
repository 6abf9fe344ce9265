"""The live log as an operator watches it: ``WS /ws``, in this process and through a real port."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from quart.testing.connections import WebsocketResponseError

from tests.faults.harness import FaultyUpstream, faulty_stdio
from tests.flows.inside import Inside, error_of, refusal, serving
from tests.harness import ProxyProcess, eventually, make_token

pytestmark = pytest.mark.anyio

PATIENCE = 10.0
WATCHER: dict[str, Any] = {"scope": "logs:read", "sub": "watcher"}


class Watcher:
    """One connection. `lines` is everything it was sent so far."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket

    async def next(self) -> Any:
        return json.loads(await asyncio.wait_for(self._socket.receive(), PATIENCE))

    async def until(self, **fields: Any) -> list[Any]:
        """What comes up to and with the first message that has these fields."""
        found = [await self.next()]
        while not all(found[-1].get(name) == value for name, value in fields.items()):
            found.append(await self.next())
        return found

    async def ask(self, message: Any) -> Any:
        """Send a message (text as it is), and return what it is answered."""
        text = message if isinstance(message, (str, bytes)) else json.dumps(message)
        await self._socket.send(text)
        while "event" in (found := await self.next()):
            pass
        return found


@asynccontextmanager
async def watching(inside: Inside, query: str = "", **claims: Any) -> AsyncIterator[Watcher]:
    """A connection in this process; ``claims`` beside those of `WATCHER`."""
    headers = {"Authorization": f"Bearer {make_token(**{**WATCHER, **claims})}"}
    async with inside.app.test_client().websocket(f"/ws{query}", headers=headers) as socket:
        yield Watcher(socket)


async def refused(inside: Inside, path: str, **headers: str) -> tuple[int, str]:
    """Status and type of the error that a handshake is answered."""
    with pytest.raises(WebsocketResponseError) as caught:
        async with inside.app.test_client().websocket(path, headers=headers) as socket:
            await asyncio.wait_for(socket.receive(), PATIENCE)
    response = caught.value.response
    return response.status_code, json.loads(await response.get_data())["error"]["type"]


async def test_lines_come_as_they_are_written_and_are_those_of_the_log(calc: Inside):
    async with watching(calc, "?last=0") as watcher:
        reply = await calc.call("add", {"a": 1, "b": 2})
        line = await watcher.next()
    assert (line["event"], line["request_id"], line["tool"]) == ("request", reply.json["request_id"], "add")
    assert calc.lines(request_id=line["request_id"]) == [line]
    [ended] = await eventually(lambda: calc.lines(event="request", path="/ws")[-1:])
    assert (ended["status_code"], ended["door"], ended["principal"]) == (101, "ws", "watcher")


async def test_a_connection_begins_with_recent_lines_that_pass_its_filters(calc: Inside):
    for _ in range(3):
        await calc.call("count")
        await calc.call("nothing")
    async with watching(calc, "?tool=count&last=2") as watcher:
        await calc.call("count")
        found = [await watcher.next() for _ in range(3)]
    assert found == calc.lines(event="request", tool="count")[-3:]


async def test_filters_hold_together_and_leave_out_the_rest(calc: Inside):
    wanted = {"server": "calc", "tool": "count", "principal": "ada", "event": "request"}
    query = "?last=0&level=info&" + "&".join(f"{name}={value}" for name, value in wanted.items())
    async with watching(calc, query) as watcher:
        await calc.call("count")
        await calc.call("add", {"a": 1, "b": 2}, token=make_token(sub="ada"))
        await calc.call("count", token=make_token(sub="ada"))
        assert (await watcher.next()) | wanted == calc.lines(event="request", tool="count")[-1]


async def test_a_level_shows_what_is_as_grave_or_graver(calc: Inside):
    async with watching(calc, "?last=0&level=WARNING") as watcher:
        await calc.call("count")
        await calc.call("echo", {"text": "x", "fault": "error"})
        line = await watcher.next()
        assert (line["level"], line["error"]) == ("warning", "upstream_error")


async def test_a_client_may_change_its_filter_and_is_told_which_is_in_force(calc: Inside):
    async with watching(calc, "?last=0") as watcher:
        assert await watcher.ask({"filter": {"tool": "add", "level": "INFO"}}) == {
            "filter": {"level": "info", "tool": "add"}
        }
        await calc.call("count")
        await calc.call("add", {"a": 1, "b": 2})
        assert (await watcher.next())["tool"] == "add"
        assert await watcher.ask({"filter": {}}) == {"filter": {}}
        await calc.call("count")
        assert (await watcher.next())["tool"] == "count"


@pytest.mark.parametrize(
    "message", ["", "{", "[]", {"filter": 1}, {"filter": {"level": "loud"}}, {"filters": {}}, b'{"filter": {}}']
)
async def test_a_message_that_means_nothing_is_answered_and_the_filter_stays(calc: Inside, message: Any):
    async with watching(calc, "?last=0&tool=count") as watcher:
        answer = await watcher.ask(message)
        assert answer["error"]["code"] in (400, 422)
        await calc.call("add", {"a": 1, "b": 2})
        await calc.call("count")
        assert (await watcher.next())["tool"] == "count"


@pytest.mark.parametrize(
    ("path", "token", "said"),
    [
        ("/ws", None, (401, "unauthorized")),
        ("/ws", make_token(scope="tools:read tools:call servers:read servers:write"), (403, "insufficient_scope")),
        ("/ws", make_token(ttl=-600), (401, "unauthorized")),
        ("/ws?level=loud", make_token(**WATCHER), (400, "bad_request")),
        ("/ws?last=1001", make_token(**WATCHER), (400, "bad_request")),
        ("/ws?levle=info", make_token(**WATCHER), (422, "unprocessable")),
        (f"/ws?token={make_token(**WATCHER)}", make_token(**WATCHER), (400, "bad_request")),
    ],
)
async def test_who_may_not_watch_or_asks_for_nonsense_is_answered_like_anybody(
    calc: Inside, path: str, token: str | None, said: tuple[int, str]
):
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    assert await refused(calc, path, **headers) == said


async def test_pages_of_other_origins_do_not_watch(calc: Inside):
    said = await refused(calc, f"/ws?token={make_token(**WATCHER)}", Origin="https://evil.example")
    assert said == (403, "origin_not_allowed")


async def test_what_is_no_websocket_is_told_that_this_is_one(calc: Inside):
    reply = await calc.get("/ws", token=make_token(**WATCHER))
    assert refusal(reply) == (400, "bad_request")
    assert "WebSocket" in error_of(reply)["message"]


async def test_a_narrowed_token_sees_lines_of_its_servers_alone(upstream: FaultyUpstream):
    async with serving({"calc": {"url": upstream.url}, "other": {"url": upstream.url}}) as inside:
        async with watching(inside, "?last=1000", servers=["calc"]) as narrow, watching(inside) as wide:
            await inside.call("count", server="other")
            await inside.get("/tools")
            reply = await inside.call("count", server="calc")
            wanted = {"request_id": reply.json["request_id"]}
            seen, everything = await narrow.until(**wanted), await wide.until(**wanted)
        assert {line["server"] for line in seen} == {"calc"}
        assert {line["event"] for line in seen} == {"upstream_connected", "request"}
        assert {line.get("server") for line in everything} == {"calc", "other", None}


async def test_nothing_secret_is_shown(upstream: FaultyUpstream):
    token = make_token()
    servers = {"calc": {"url": upstream.url}}
    async with (
        serving(servers, log_level="DEBUG", log_bodies=True) as inside,
        watching(inside, "?last=1000") as watcher,
    ):
        await inside.call("echo", {"text": f"Bearer {token}", "password": "hunter2"}, token=token)
        found = json.dumps(await watcher.until(event="request", tool="echo"))
    assert "***" in found
    assert token not in found
    assert "hunter2" not in found


async def test_what_is_not_logged_is_not_shown():
    async with serving(log_level="WARNING") as inside, watching(inside, "?level=debug") as watcher:
        await inside.get("/tools")
        await inside.call("nothing")
        assert await watcher.ask({"filter": {}}) == {"filter": {}}
    async with serving(log_level="OFF") as inside, watching(inside) as watcher:
        await inside.call("nothing")
        assert await watcher.ask({"filter": {}}) == {"filter": {}}


async def test_a_terminals_console_does_not_keep_json_from_watchers(upstream: FaultyUpstream):
    servers = {"calc": {"url": upstream.url}}
    async with serving(servers, debug=True) as inside, watching(inside, "?event=upstream_connected") as watcher:
        assert (await watcher.next())["server"] == "calc"


# Through a real port


@pytest.fixture(scope="module")
async def proxy() -> AsyncIterator[ProxyProcess]:
    async with faulty_stdio() as child, ProxyProcess(servers={"calc": child.entry}) as made:
        await made.connected("calc")
        yield made


async def line_after(socket: aiohttp.ClientWebSocketResponse) -> Any:
    return json.loads(await socket.receive_str(timeout=PATIENCE))


@pytest.mark.parametrize("way", ["header", "query", "subprotocol"])
async def test_a_token_comes_in_a_header_the_query_or_a_subprotocol(proxy: ProxyProcess, way: str):
    token = make_token(**WATCHER)
    query = f"&token={token}" if way == "query" else ""
    headers = {"Authorization": f"Bearer {token}"} if way == "header" else {}
    protocols = ("mcp-proxy-log", f"bearer.{token}") if way == "subprotocol" else ()
    url = f"{proxy.base_url}/ws?last=0&tool=count{query}"  # the line of an earlier request may still be to come
    async with proxy.session.ws_connect(url, headers=headers, protocols=protocols) as socket:
        assert socket.protocol == ("mcp-proxy-log" if protocols else None)
        assert token not in str(socket._response.headers)
        reply = await proxy.call("count")
        assert (await line_after(socket))["request_id"] == reply.json["request_id"]
        await socket.close()
        assert socket.close_code == 1000
    await eventually(lambda: proxy.log_lines(event="request", path="/ws", status_code=101))
    assert token not in proxy.stderr()


async def test_a_handshake_is_refused_with_a_whole_answer(proxy: ProxyProcess):
    for token, status in [(None, 401), (make_token(), 403), ("nonsense", 401)]:
        protocols = ["mcp-proxy-log"] if token is None else ["mcp-proxy-log", f"bearer.{token}"]
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await proxy.session.ws_connect(f"{proxy.base_url}/ws", protocols=protocols)
        assert caught.value.status == status
        assert caught.value.headers is not None
        assert ("WWW-Authenticate" in caught.value.headers, "X-Request-Id" in caught.value.headers) == (True, True)


async def test_a_revoked_token_ends_its_connection(proxy: ProxyProcess):
    headers = {"Authorization": f"Bearer {make_token(**WATCHER, jti='doomed')}"}
    async with proxy.session.ws_connect(f"{proxy.base_url}/ws?last=0", headers=headers) as socket:
        await proxy.post("/api/tokens/revoke", {"jti": "doomed"}, token=make_token(scope="admin"))
        async with asyncio.timeout(5):
            async for _ in socket:
                pass
        assert socket.close_code == 1008


async def test_the_stop_of_the_service_ends_connections_without_being_held_up():
    async with ProxyProcess() as made:
        await made.connected("demo")
        headers = {"Authorization": f"Bearer {make_token(**WATCHER)}"}
        url = f"{made.base_url}/ws?last=0&event=stopping"
        async with made.session.ws_connect(url, headers=headers) as socket:
            assert await made.terminate(2.5) == 0
            assert (await line_after(socket))["event"] == "stopping"
            end = await socket.receive(PATIENCE)
            assert (end.type, end.data) == (aiohttp.WSMsgType.CLOSE, 1001)
        assert not made.log_lines(level="error")
