"""The log as an operator reads it: a JSON line a request with the contract's fields, and no secret in any."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.harness import FaultyUpstream, faulty_stdio
from tests.flows.inside import Inside, serving
from tests.harness import SECRET, ProxyProcess, eventually, make_token

pytestmark = pytest.mark.anyio

FIELDS = [
    "timestamp", "level", "event", "request_id", "method", "path", "status_code", "execution_time_ms", "remote_addr",
    "user_agent", "principal", "door", "tool", "server", "error",
]  # fmt: skip


def line_of(inside: Inside, request_id: str) -> dict[str, Any]:
    (line,) = inside.lines(event="request", request_id=request_id)
    return line


async def test_a_request_is_one_line_with_the_contracts_fields_in_their_order(calc: Inside):
    reply = await calc.call("add", {"a": 1, "b": 1}, headers={"User-Agent": "a test/1"})
    line = line_of(calc, reply.headers["x-request-id"])
    assert list(line) == FIELDS
    assert line["execution_time_ms"] > 0
    del line["timestamp"], line["execution_time_ms"], line["request_id"], line["remote_addr"]
    assert line == {
        "level": "info",
        "event": "request",
        "method": "POST",
        "path": "/tools",
        "status_code": 200,
        "user_agent": "a test/1",
        "principal": "tester",
        "door": "rest",
        "tool": "add",
        "server": "calc",
        "error": None,
    }


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ({"path": "/tools"}, {"status_code": 200, "tool": None, "server": None, "error": None, "principal": "tester"}),
        ({"path": "/nothing"}, {"status_code": 404, "error": "not_found"}),
        ({"path": "/tools", "method": "PUT"}, {"status_code": 405, "error": "method_not_allowed"}),
        ({"path": "/tools", "token": None}, {"status_code": 401, "error": "unauthorized", "principal": None}),
        ({"path": "/tools", "headers": {"Host": "evil.example"}}, {"status_code": 421, "error": "unknown_host"}),
        ({"path": "/health/live", "token": None}, {"status_code": 200, "path": "/health/live", "principal": None}),
        (
            {"path": "/tools", "method": "POST", "json": {"method": "calc.add", "args": {}}},
            {"status_code": 400, "tool": "add", "error": "invalid_arguments"},
        ),
        (
            {"path": "/tools", "method": "POST", "json": {"method": "nothing"}},
            {"status_code": 404, "tool": "nothing", "server": None, "error": "tool_not_found"},
        ),
        (
            {"path": "/tools/calc/echo", "method": "POST", "json": {"text": "x", "fault": "error"}},
            {"status_code": 502, "tool": "echo", "server": "calc", "error": "upstream_error", "level": "warning"},
        ),
        ({"path": "/tools", "method": "POST", "data": b"{"}, {"status_code": 415, "error": "unsupported_media_type"}),
    ],
)
async def test_whatever_comes_of_it_a_request_has_exactly_one_line(
    calc: Inside, asked: dict[str, Any], shown: dict[str, Any]
):
    reply = await calc.request(**{"method": "GET", **asked})
    line = line_of(calc, reply.headers["x-request-id"])
    assert list(line) == FIELDS
    assert line | shown == line


async def test_nothing_secret_is_logged(upstream: FaultyUpstream):
    token, other = make_token(), make_token(ttl=-600)
    servers = {"calc": {"url": upstream.url, "headers": {"Authorization": "Bearer of-the-upstream-1234"}}}
    async with serving(servers, log_level="DEBUG", log_bodies=True) as inside:
        await inside.call("echo", {"text": "x", "password": "hunter2-hunter2"}, token=token)
        await inside.get(f"/tools?token={token}", token=None)
        await inside.get(f"/tools?token={other}", token=None)
        await inside.get("/tools", headers={"User-Agent": f"x Bearer {token}"})
        await inside.call("echo", {"text": f"Authorization: Bearer {token}"}, token=token)
        found = inside.log
    for secret in (token, token.rpartition(".")[2], other, SECRET, "of-the-upstream", "hunter2"):
        assert secret not in found


async def test_line_breaks_and_controls_make_no_second_line(calc: Inside):
    before = len(calc.log.splitlines())
    name = 'a\r\n{"event":"request","status_code":200}\x1b[31m\u2028\u202e'
    reply = await calc.call(name)
    assert reply.status == 404
    assert len(calc.log.splitlines()) == before + 1
    assert "\x1b" not in calc.log


async def test_bodies_are_logged_when_asked_for_and_only_then(calc: Inside, upstream: FaultyUpstream):
    plain = await calc.call("echo", {"text": "a-text-of-the-body"})
    assert plain.status == 200
    assert "a-text-of-the-body" not in calc.log
    async with serving({"calc": {"url": upstream.url}}, log_bodies=True) as inside:
        good = line_of(inside, (await inside.call("add", {"a": 2, "b": 3})).headers["x-request-id"])
        bad = line_of(inside, (await inside.call("add", {"a": "two", "b": 3})).headers["x-request-id"])
        bare = line_of(inside, (await inside.get("/tools")).headers["x-request-id"])
    assert list(good) == [*FIELDS, "request", "response"]
    assert good["request"] == {"method": "add", "args": {"a": 2, "b": 3}, "server": None}
    assert (good["response"]["structuredContent"], good["response"]["server"]) == ({"sum": 5}, "calc")
    assert bad["response"]["error"]["type"] == "invalid_arguments"
    assert set(bare) >= set(FIELDS)


@pytest.mark.parametrize(("level", "logged"), [("WARNING", False), ("ERROR", False), ("INFO", True), ("OFF", False)])
async def test_levels_leave_out_what_is_below_them(upstream: FaultyUpstream, level: str, logged: bool):
    async with serving({"calc": {"url": upstream.url}}, log_level=level) as inside:
        assert (await inside.call("count")).status == 200
        assert bool(inside.lines(event="request", path="/tools")) is logged
        assert level != "OFF" or inside.log == ""


async def test_the_process_logs_json_on_stderr_and_nothing_on_stdout():
    async with faulty_stdio("noise") as child, ProxyProcess(servers={"calc": child.entry}) as proxy:
        await proxy.connected("calc")
        reply = await proxy.call("count")
        wanted = {"event": "request", "request_id": reply.json["request_id"]}
        (line,) = await eventually(lambda: proxy.log_lines(**wanted))
        assert list(line) == FIELDS
        assert line["remote_addr"] == "127.0.0.1"
        assert await proxy.terminate() == 0
        assert len(proxy.log_lines()) == len(proxy.stderr().splitlines())
        assert len(proxy.log_lines(**wanted)) == 1
        assert SECRET not in proxy.stderr()
        assert proxy.stdout() == ""


async def test_off_is_silent_from_start_to_stop():
    async with faulty_stdio() as child:
        env = {"LOG_LEVEL": "OFF"}
        async with ProxyProcess(servers={"calc": child.entry}, env=env) as proxy:
            await proxy.connected("calc")
            await proxy.call("count", {"fault": "die"})
            assert await proxy.terminate() == 0
            assert (proxy.stderr(), proxy.stdout()) == ("", "")
