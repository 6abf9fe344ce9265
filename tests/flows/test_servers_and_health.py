"""``/servers``, ``/health`` and the front page: they tell the truth, and to strangers not more than they need."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_proxy.base.version import VERSION
from tests.faults.harness import FaultyUpstream, faulty_http, faulty_stdio
from tests.flows.inside import Inside, refusal, serving
from tests.harness import make_token

pytestmark = pytest.mark.anyio

FIELDS = {
    "name", "transport", "era", "protocol_version", "state", "group", "disabled", "tools", "last_error", "latency_ms",
    "source", "withheld",
}  # fmt: skip


async def rows(inside: Inside, **more: Any) -> dict[str, dict[str, Any]]:
    """The rows of ``GET /servers`` by name."""
    return {row["name"]: row for row in (await inside.get("/servers", **more)).json["servers"]}


async def test_each_server_is_shown_as_it_turned_out(upstream: FaultyUpstream):
    async with faulty_http("legacy-only") as old, faulty_stdio() as child:
        servers = {
            "modern": {"url": upstream.url, "group": "web"},
            "legacy": {"url": old.url},
            "sse": {"url": upstream.sse_url, "type": "sse"},
            "child": child.entry,
            "off": {"url": "http://127.0.0.1:9/mcp", "disabled": True},
        }
        async with serving(servers) as inside:
            await inside.call("modern.add", {"a": 1, "b": 1})
            found = await rows(inside)
        shown = {name: (row["transport"], row["era"], row["state"], row["tools"]) for name, row in found.items()}
        assert shown == {
            "modern": ("streamable-http", "modern", "connected", 3),
            "legacy": ("streamable-http", "legacy", "connected", 3),
            "sse": ("sse", "legacy", "connected", 3),
            "child": ("stdio", "modern", "connected", 3),
            "off": (found["off"]["transport"], None, "disabled", 0),
        }
        assert set(found["modern"]) == FIELDS | {"url"}
        assert set(found["child"]) - {"args"} == FIELDS | {"command"}
        assert (found["modern"]["url"], found["modern"]["group"]) == (upstream.url, "web")
        assert found["modern"]["protocol_version"] == "2026-07-28"
        assert found["legacy"]["protocol_version"] == "2025-11-25"
        assert found["modern"]["latency_ms"] > 0
        assert found["off"]["disabled"] is True
        assert found["child"]["source"].startswith("servers.json")


async def test_credentials_of_servers_are_shown_to_nobody():
    servers = {
        "web": {
            "url": "http://user:s3cr3t-one@127.0.0.1:9/mcp?api_key=s3cr3t-two",
            "headers": {"X-Key": "s3cr3t-three"},
        },
        "child": {"command": "/nonexistent", "args": ["--token", "s3cr3t-four"], "env": {"API_KEY": "s3cr3t-five"}},
    }
    async with serving(servers) as inside:
        seen = [await inside.get(path, token=make_token(scope="admin")) for path in ("/servers", "/health", "/")]
        assert all(b"s3cr3t" not in reply.body for reply in seen)
        assert "s3cr3t" not in inside.log
        assert len(await rows(inside)) == 2


async def test_a_token_that_is_narrowed_to_servers_sees_only_those(upstream: FaultyUpstream):
    servers = {"one": {"url": upstream.url}, "two": {"url": upstream.url}, "bad": {"url": "${UNSET_VARIABLE}"}}
    async with serving(servers) as inside:
        assert set(await rows(inside)) == {"one", "two", "bad"}
        assert set(await rows(inside, token=make_token(servers=["o*"]))) == {"one"}


async def test_all_connected_is_ok(calc: Inside):
    reply = await calc.get("/health", token=None)
    assert (reply.status, reply.json) == (
        200,
        {"status": "ok", "servers": {"calc": "connected"}, "config_error": False},
    )


async def test_some_connected_is_degraded_and_none_is_503(upstream: FaultyUpstream):
    down = {"url": "http://127.0.0.1:9/mcp"}
    async with serving({"calc": {"url": upstream.url}, "gone": down}) as inside:
        reply = await inside.get("/health", token=None)
        assert (reply.status, reply.json["status"]) == (200, "degraded")
        assert reply.json["servers"] == {"calc": "connected", "gone": "down"}
    async with serving({"gone": down}) as inside:
        reply = await inside.get("/health", token=None)
        assert (reply.status, reply.json["servers"]) == (503, {"gone": "down"})
        assert [(await inside.get(f"/health/{word}")).status for word in ("live", "ready")] == [200, 200]


@pytest.mark.parametrize("servers", [{}, {"off": {"url": "http://127.0.0.1:9/mcp", "disabled": True}}])
async def test_a_service_that_has_no_server_to_connect_to_is_well(servers: dict[str, Any]):
    async with serving(servers) as inside:
        reply = await inside.get("/health")
        assert (reply.status, reply.json["status"]) == (200, "ok")
        assert (await inside.get("/tools/list")).json["tools"] == []


async def test_reasons_are_for_those_who_may_read_servers(upstream: FaultyUpstream):
    servers = {
        "calc": {"url": upstream.url},
        "gone": {"url": "http://127.0.0.1:9/mcp"},
        "bad": {"url": "http://${NO_HOST}/"},
    }
    async with serving(servers) as inside:
        stranger = await inside.get("/health", token=None)
        lesser = await inside.get("/health", token=make_token(scope="tools:call"))
        for reply in (stranger, lesser):
            assert set(reply.json) == {"status", "servers", "config_error"}
            assert reply.json["config_error"] is True
        told = (await inside.get("/health")).json
        assert told["errors"]["gone"] == "connection refused"
        (problem,) = told["config_problems"]
        assert (problem["server"], "NO_HOST" in problem["reason"]) == ("bad", True)
        assert told["servers"]["bad"] == "failed"


async def test_a_refused_server_is_failed_and_a_call_to_it_says_why(upstream: FaultyUpstream):
    servers = {"calc": {"url": upstream.url}, "bad": {"url": "http://${NO_HOST}/"}}
    async with serving(servers) as inside:
        reply = await inside.call("add", {"a": 1, "b": 1}, server="bad")
        assert refusal(reply) == (503, "upstream_unavailable")
        assert (await rows(inside))["bad"]["state"] == "failed"
        assert (await inside.call("calc.add", {"a": 1, "b": 1})).status == 200


async def test_a_server_that_dies_and_comes_back_is_followed():
    async with faulty_http() as one, serving({"calc": {"url": one.url}}, health_interval=0.2) as inside:
        await one.kill()
        await inside.in_state(calc="down")
        assert (await inside.get("/health")).status == 503
        assert (await rows(inside))["calc"]["last_error"]
        await one.start()
        await inside.in_state(calc="connected")
        assert (await inside.get("/health")).json["status"] == "ok"
        assert (await rows(inside))["calc"]["last_error"] is None
        assert (await inside.call("add", {"a": 1, "b": 1})).status == 200


async def test_a_stdio_child_that_dies_is_started_again():
    async with faulty_stdio() as child, serving({"calc": child.entry}) as inside:
        assert refusal(await inside.call("count", {"fault": "die"})) == (502, "outcome_unknown")
        await inside.in_state(calc="connected")
        assert (await inside.call("count")).status == 200
        assert len(child.pids()) == 2
    assert child.running() == []


async def test_the_front_page_names_the_service_its_version_and_its_doors(calc: Inside):
    reply = await calc.get("/", token=None)
    assert (reply.status, reply.json) == (
        200,
        {"name": "mcp-proxy-api", "version": VERSION, "doors": ["rest", "mcp", "sse", "ws"]},
    )


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
async def test_the_probes_need_no_token(calc: Inside, path: str):
    assert (await calc.get(path, token=None)).status == 200
