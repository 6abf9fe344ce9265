"""``POST /tools`` is answered ahead of the web framework; the framework's own route to it must answer the very same."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.faults.harness import FaultyUpstream
from tests.flows.inside import Inside, serving
from tests.harness import Reply, make_token

pytestmark = pytest.mark.anyio
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
async def framework(upstream: FaultyUpstream) -> AsyncIterator[Inside]:
    """The same application as ``calc``, without the mount in front of its routes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mcp_proxy.app.Mount", lambda inner, *_: inner)
        async with serving({"calc": {"url": upstream.url}}) as inside:
            yield inside


def call(**args: Any) -> dict[str, Any]:
    return {"json": {"method": "echo", "args": {"text": "Grüße \u2028", **args}}}


ASKED: dict[str, dict[str, Any]] = {
    "a result": call(),
    "structured": {"json": {"method": "add", "args": {"a": 1, "b": 2.5}}},
    "a failed tool": call(fault="is-error"),
    "upstream error": call(fault="error", code=-32001),
    "upstream refuses the arguments": call(fault="error", code=-32602),
    "protocol broken": call(fault="garbage"),
    "outcome unknown": {"json": {"method": "count", "args": {"fault": "close"}}},
    "input required": call(fault="input-required"),
    "no token": {**call(), "token": None},
    "an expired token": {**call(), "token": make_token(ttl=-600)},
    "another scheme": {**call(), "headers": {"Authorization": "Basic Zm9vOmJhcg=="}},
    "no scope": {**call(), "token": make_token(scope="tools:read")},
    "two tokens": {**call(), "path": "/tools?token=x"},
    "query token": {**call(), "token": None, "path": f"/tools?token={make_token()}"},
    "no body": {},
    "no json": {"data": b"{", "headers": JSON},
    "not utf-8": {"data": b'{"method": "\xff"}', "headers": JSON},
    "no content type": {"data": b"{}"},
    "too large": {"data": b"{}", "headers": {**JSON, "Content-Length": "999999999"}},
    "too large to read": {"data": b" " * (4 * 1024 * 1024 + 1), "headers": JSON},
    "unknown field": {"json": {"method": "echo", "x": 1}},
    "args not object": {"json": {"method": "echo", "args": []}},
    "no method": {"json": {}},
    "bad arguments": {"json": {"method": "add", "args": {"a": "x"}}},
    "unknown tool": {"json": {"method": "nothing"}},
    "unknown server": {"json": {"method": "echo", "server": "nobody"}},
    "host": {**call(), "headers": {"Host": "evil.example"}},
    "origin": {**call(), "headers": {"Origin": "http://evil.example"}},
    "two lengths": {"data": b"{}", "headers": {**JSON, "Transfer-Encoding": "chunked", "Content-Length": "2"}},
}


def comparable(reply: Reply) -> tuple[int, dict[str, str], bytes]:
    """Everything but the request's id."""
    request_id = reply.headers["x-request-id"]
    headers = {name: value for name, value in reply.headers.items() if name != "x-request-id"}
    return reply.status, headers, reply.body.replace(request_id.encode(), b"ID")


def line_of(inside: Inside, reply: Reply) -> dict[str, Any]:
    (line,) = inside.lines(event="request", request_id=reply.headers["x-request-id"])
    return {name: value for name, value in line.items() if name not in ("timestamp", "request_id", "execution_time_ms")}


@pytest.mark.parametrize("case", ASKED)
async def test_both_ways_give_the_same_bytes_headers_and_log_line(calc: Inside, framework: Inside, case: str):
    asked = {"path": "/tools", **ASKED[case]}
    mounted, routed = await calc.request("POST", **asked), await framework.request("POST", **asked)
    assert comparable(mounted) == comparable(routed)
    assert line_of(calc, mounted) == line_of(framework, routed)


async def test_both_ways_fail_alike(upstream: FaultyUpstream, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("broken")

    replies = []
    for mounted in (True, False):
        if not mounted:
            monkeypatch.setattr("mcp_proxy.app.Mount", lambda inner, *_: inner)
        async with serving({"calc": {"url": upstream.url}}) as inside:
            monkeypatch.setattr(inside.app.runtime.manager, "resolve_tool", broken)
            replies.append(await inside.call("add"))
    assert replies[0].status == 500
    assert comparable(replies[0]) == comparable(replies[1])


async def test_the_cases_cover_many_statuses(calc: Inside):
    """The table is worth something only as long as it reaches what can happen."""
    statuses = {(await calc.request("POST", **{"path": "/tools", **asked})).status for asked in ASKED.values()}
    assert statuses >= {200, 400, 401, 403, 404, 413, 415, 421, 422, 502}
