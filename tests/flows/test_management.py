"""Servers that come, change and go while the service runs: over the API, and by files."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.harness import FaultyUpstream, faulty_http
from tests.flows.inside import Inside, error_of, serving
from tests.harness import ProxyProcess, eventually, make_token

pytestmark = pytest.mark.anyio

LOOPBACK = {"allow_network": ("127.0.0.0/8",)}
ADMIN = make_token(scope="admin")
DEMO = {"command": sys.executable, "args": ["-m", "mcp_proxy.demo"]}


@pytest.fixture
async def upstream() -> AsyncIterator[FaultyUpstream]:
    async with faulty_http() as one:
        yield one


async def add(inside: Inside, **servers: Any) -> Any:
    return await inside.post("/servers", {"mcpServers": servers}, token=ADMIN)


async def names(inside: Inside) -> list[str]:
    rows = (await inside.get("/api/instances", token=ADMIN)).json
    return [row["name"] for row in rows]


async def test_a_server_is_added_called_and_removed(upstream: FaultyUpstream):
    async with serving(**LOOPBACK) as inside:
        reply = await add(inside, calc={"url": upstream.url})
        assert (reply.status, reply.json) == (201, {"added": ["calc"]})
        assert (await inside.call("calc.add", {"a": 1, "b": 2})).status == 200
        reply = await inside.request("DELETE", "/servers/calc", token=ADMIN)
        assert (reply.status, reply.json) == (200, {"removed": "calc"})
        assert await names(inside) == []
        assert error_of(await inside.call("add", server="calc"))["type"] == "server_not_found"


async def test_several_are_added_at_once_or_none(upstream: FaultyUpstream):
    async with serving(**LOOPBACK) as inside:
        reply = await add(inside, good={"url": upstream.url}, bad={"url": "ftp://127.0.0.1/x"})
        assert reply.status == 422
        assert await names(inside) == []


async def test_a_name_that_is_taken_is_a_conflict(upstream: FaultyUpstream):
    async with serving({"calc": {"url": upstream.url}}, **LOOPBACK) as inside:
        reply = await add(inside, calc={"url": upstream.url})
        assert error_of(reply)["type"] == "conflict"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"mcpServers": {}}, 400),
        ({"mcpServers": []}, 400),
        ({"mcpServers": {"a": {"url": "http://127.0.0.1:9/"}}, "more": 1}, 400),
        ({"mcpServers": {"a": {}}}, 422),
        ({"mcpServers": {"a": {"url": "http://127.0.0.1:9/", "colour": "red"}}}, 422),
        ({"mcpServers": {"../etc": {"url": "http://127.0.0.1:9/"}}}, 422),
        ({"mcpServers": {"mcp": {"url": "http://127.0.0.1:9/"}}}, 422),
        ({"mcpServers": {"a": {"url": "http://user:pw@127.0.0.1:9/"}}}, 422),
        ({"mcpServers": {"a": {"command": "python"}}}, 403),
    ],
)
async def test_what_cannot_be_added_is_refused_and_changes_nothing(body: dict[str, Any], status: int):
    async with serving(**LOOPBACK) as inside:
        reply = await inside.post("/servers", body, token=ADMIN)
        assert reply.status == status, reply
        error_of(reply)
        assert await names(inside) == []


async def test_an_address_that_is_not_public_is_refused_unless_its_network_is_allowed():
    async with serving() as inside:
        assert error_of(await add(inside, a={"url": "http://127.0.0.1:9/mcp"}))["type"] == "url_not_allowed"


async def test_variables_in_bodies_stay_as_they_are(upstream: FaultyUpstream, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("THE_SECRET", "leaked")
    async with serving(**LOOPBACK) as inside:
        await add(inside, calc={"url": upstream.url, "headers": {"X-Key": "${THE_SECRET}"}})
        await inside.in_state(calc="connected")
        assert inside.app.runtime.manager.specs["calc"].headers == {"X-Key": "${THE_SECRET}"}


async def test_who_may_only_read_may_change_nothing(upstream: FaultyUpstream):
    async with serving({"calc": {"url": upstream.url}}) as inside:
        for method, path in (
            ("POST", "/servers"), ("DELETE", "/servers/calc"), ("POST", "/api/instances"),
            ("PATCH", "/api/instances/calc"), ("DELETE", "/api/instances/calc"),
            ("POST", "/api/instances/calc/disable"), ("POST", "/api/instances/calc/enable"),
        ):  # fmt: skip
            reply = await inside.request(method, path, json={"disabled": True})
            assert error_of(reply)["type"] == "insufficient_scope", (method, path)
        assert await names(inside) == ["calc"]


async def test_a_patch_is_merged_and_masked_secrets_are_kept(upstream: FaultyUpstream):
    async with serving(**LOOPBACK) as inside:
        entry = {"name": "calc", "url": upstream.url, "headers": {"X-Key": "s3cret", "X-Other": "o"}}
        reply = await inside.post("/api/instances", entry, token=ADMIN)
        assert reply.status == 201
        assert "s3cret" not in reply.body.decode()
        shown = reply.json["config"]
        patch = {"headers": {**shown["headers"], "X-Other": None}, "description": "adds"}
        reply = await inside.request("PATCH", "/api/instances/calc", json=patch, token=ADMIN)
        assert (reply.status, reply.json["config"]["description"]) == (200, "adds")
        assert inside.app.runtime.manager.specs["calc"].headers == {"X-Key": "s3cret"}


async def test_an_edit_of_what_has_changed_since_it_was_read_is_a_conflict(upstream: FaultyUpstream):
    async with serving(**LOOPBACK) as inside:
        await add(inside, calc={"url": upstream.url})
        tag = (await inside.get("/api/instances/calc", token=ADMIN)).headers["etag"]

        async def patch(description: str) -> int:
            reply = await inside.request(
                "PATCH",
                "/api/instances/calc",
                json={"description": description},
                token=ADMIN,
                headers={"If-Match": tag},
            )
            return reply.status

        assert await patch("first") == 200
        assert await patch("second") == 409
        assert (await inside.get("/api/instances/calc", token=ADMIN)).json["config"]["description"] == "first"


async def test_a_server_of_a_file_is_switched_off_and_on_but_not_removed(upstream: FaultyUpstream):
    async with serving({"calc": {"url": upstream.url}}) as inside:
        reply = await inside.request("DELETE", "/api/instances/calc", token=ADMIN)
        assert error_of(reply)["type"] == "conflict"
        reply = await inside.post("/api/instances/calc/disable", token=ADMIN)
        assert (reply.status, reply.json["state"]) == (200, "disabled")
        assert (await inside.call("calc.add", {"a": 1, "b": 1})).status == 503
        reply = await inside.request("PATCH", "/api/instances/calc", json={"disabled": False}, token=ADMIN)
        assert reply.status == 200
        assert (await inside.call("calc.add", {"a": 1, "b": 1})).status == 200


async def test_a_call_in_flight_ends_well_though_its_server_is_removed(upstream: FaultyUpstream):
    async with serving(**LOOPBACK) as inside:
        await add(inside, calc={"url": upstream.url})
        await inside.in_state(calc="connected")
        async with asyncio.TaskGroup() as group:
            call = group.create_task(inside.call("count", {"fault": "slow", "ms": 500}))
            await eventually(lambda: upstream.ledger.count() == 1, what="the call has arrived")
            reply = await inside.request("DELETE", "/servers/calc", token=ADMIN)
            assert not call.done()
        assert (reply.status, call.result().status) == (200, 200)
        assert await names(inside) == []


async def test_calls_of_one_instance_and_lists_of_its_tools(upstream: FaultyUpstream):
    async with serving({"calc": {"url": upstream.url}}) as inside:
        reply = await inside.post("/api/call", {"instance": "calc", "tool": "add", "params": {"a": 2, "b": 3}})
        assert (reply.status, reply.json["server"]) == (200, "calc")
        grouped = (await inside.get("/api/tools")).json
        assert list(grouped) == ["calc"]
        assert (await inside.get("/api/tools/calc")).json == grouped["calc"]
        assert (await inside.get("/api/tools/nobody")).status == 404


async def test_the_configuration_is_shown_without_its_secrets(upstream: FaultyUpstream):
    servers = {"calc": {"url": upstream.url, "headers": {"Authorization": "Bearer s3cret"}}}
    async with serving(servers) as inside:
        reply = await inside.get("/api/config", token=ADMIN)
        assert reply.json["servers"][0]["origin"] == "variable"
        assert "s3cret" not in reply.body.decode()
        assert reply.json["settings"]["JWT_SECRET"] is True


# Files, and what outlives the process


def written(directory: Path, provider: str, **entry: Any) -> Path:
    """A file of the directory, replaced at once as editors do."""
    place = directory / provider / "mcp_settings.json"
    place.parent.mkdir(exist_ok=True)
    fresh = place.with_suffix(".new")
    fresh.write_text(json.dumps(entry))
    os.replace(fresh, place)
    return place


async def test_files_are_followed_and_a_broken_one_changes_nothing(tmp_path: Path):
    written(tmp_path, "acme", name="calc", type="stdio", isActive=True, **DEMO)
    async with ProxyProcess("--no-auth", "--config-dir", str(tmp_path)) as proxy:

        async def states() -> dict[str, str]:
            found: dict[str, str] = (await proxy.get("/health")).json["servers"]
            return found

        async def calc_is(state: str) -> bool:
            return (await states()).get("calc") == state

        await eventually(lambda: calc_is("connected"))
        place = written(tmp_path, "other", name="more", type="stdio", **DEMO)

        async def both() -> bool:
            return sorted(await states()) == ["calc", "more"]

        await eventually(both)
        place.write_text("{broken")

        async def reported() -> bool:
            problems = (await proxy.get("/api/config")).json["problems"]
            return [one["source"] for one in problems] == [str(place)]

        await eventually(reported)
        assert sorted(await states()) == ["calc", "more"]
        written(tmp_path, "acme", name="calc", type="stdio", isActive=False, **DEMO)
        await eventually(lambda: calc_is("disabled"))


async def test_what_the_api_added_is_there_after_a_kill(upstream: FaultyUpstream):
    args = ("--no-auth", "--allow-network", "127.0.0.0/8")
    async with ProxyProcess(*args, servers={"file": {**DEMO}}) as proxy:
        reply = await proxy.post("/servers", {"mcpServers": {"calc": {"url": upstream.url}}})
        assert reply.status == 201
        await proxy.post("/api/instances/file/disable")
        await proxy.kill()
        await proxy.start()
        found = {row["name"]: row["state"] for row in (await proxy.get("/servers")).json["servers"]}
        assert set(found) == {"file", "calc"}
        assert found["file"] == "disabled"


async def test_what_is_shown_of_a_server_can_be_sent_back(upstream: FaultyUpstream):
    async with serving(**LOOPBACK) as inside:
        await add(inside, calc={"url": upstream.url, "headers": {"X-Key": "s3cret"}})
        shown = (await inside.get("/api/instances/calc", token=ADMIN)).json["config"]
        reply = await inside.request(
            "PATCH",
            "/api/instances/calc",
            data=json.dumps({**shown, "description": "adds"}).encode(),
            headers={"Content-Type": "application/merge-patch+json"},
            token=ADMIN,
        )
        assert (reply.status, reply.json["config"]["description"]) == (200, "adds"), reply
        assert inside.app.runtime.manager.specs["calc"].headers == {"X-Key": "s3cret"}
