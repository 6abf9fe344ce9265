"""Tokens that name servers see these servers, whole, and nothing of the others; names are not decided too early."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mcp_proxy.app import create_app
from mcp_proxy.base.errors import StartError
from mcp_proxy.config.model import Servers
from mcp_proxy.settings import Settings
from tests.faults.harness import FaultyUpstream, faulty_http
from tests.flows.inside import serving
from tests.harness import make_token

pytestmark = pytest.mark.anyio


async def test_a_groups_tools_are_listed_when_any_member_is_visible(upstream: FaultyUpstream) -> None:
    pair: dict[str, Any] = {name: {"url": upstream.url, "group": "pair"} for name in ("a", "b")}
    async with serving(pair) as inside:
        for token in (make_token(servers=["b"]), make_token(servers=["pair"]), make_token()):
            rows = (await inside.get("/tools", token=token)).json["tools"]
            assert {(row["name"], row["server"]) for row in rows} == {
                (name, "pair") for name in ("echo", "add", "count")
            }
        rows = (await inside.get("/tools?server=b")).json["tools"]
        assert len(rows) == 3


async def test_problems_of_servers_outside_the_token_are_not_told(upstream: FaultyUpstream) -> None:
    servers = {"mine": {"url": upstream.url}, "payroll": {"command": "x", "env": {"KEY": "${PAYROLL_KEY}"}}}
    async with serving(servers) as inside:
        narrow = (await inside.get("/health", token=make_token(servers=["mine"]))).json
        assert narrow["config_problems"] == []
        assert "PAYROLL_KEY" in str((await inside.get("/health")).json["config_problems"])


async def test_a_refused_server_says_why_however_it_is_named() -> None:
    async with serving({"notes": {"command": "x", "env": {"KEY": "${NOTES_KEY}"}}}) as inside:
        for asked in ({"method": "notes.find"}, {"method": "find", "server": "notes"}):
            answer = await inside.post("/tools", asked)
            assert answer.status == 503, answer.json
            assert "NOTES_KEY" in answer.json["error"]["message"]
            assert answer.json["error"]["details"] == {"server": "notes"}


async def test_a_bare_name_waits_for_servers_that_may_make_it_ambiguous(upstream: FaultyUpstream) -> None:
    async with faulty_http("slow-start", args=("--option", "ms=700")) as late:
        servers = {"early": {"url": upstream.url, "type": "http"}, "late": {"url": late.url, "type": "http"}}
        async with serving(servers, settle=False) as inside:
            await inside.in_state(early="connected")
            bare, full = await asyncio.gather(inside.call("count"), inside.call("early.count"))
            assert full.status == 200
            # Nothing was decided while `late` was still being connected; had it stayed away, one server would be left.
            states = await inside.states()
            assert (bare.status, states["late"]) in {(409, "connected"), (200, "down")}, bare.json


def test_an_application_without_tokens_cannot_be_made_for_everybody() -> None:
    with pytest.raises(StartError, match="loopback"):
        create_app(Settings(no_auth=True, host="0.0.0.0"), Servers())
