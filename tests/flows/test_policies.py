"""Claims that narrow a token: ``scope`` is in `test_tokens_at_the_door`, here are ``servers``, ``tools`` and ``rate``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.faults.harness import FaultyUpstream
from tests.flows.inside import Inside, refusal, serving
from tests.harness import make_token

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def house(upstream: FaultyUpstream) -> AsyncIterator[Inside]:
    servers = {
        "calc": {"url": upstream.url},
        "files": {"url": upstream.url},
        "a": {"url": upstream.url, "group": "pair"},
        "b": {"url": upstream.url, "group": "pair"},
    }
    async with serving(servers) as inside:
        yield inside


async def allowed(inside: Inside, **claims: Any) -> set[str]:
    """``server.tool`` of everything that a token with these claims can call, out of all there is."""
    token, found = make_token(**claims), set()
    args = {"a": 1, "b": 1, "text": "x"}
    for server in ("calc", "files", "a", "b"):
        for tool in ("add", "echo", "count"):
            reply = await inside.call(tool, args, server=server, token=token)
            if reply.status == 200:
                found.add(f"{server}.{tool}")
            else:
                assert refusal(reply) in [(404, "server_not_found"), (404, "tool_not_found")]
    return found


async def listed(inside: Inside, **claims: Any) -> set[str]:
    """The same, as `GET /tools/list` says."""
    rows = (await inside.get("/tools/list", token=make_token(**claims))).json["tools"]
    return {f"{server}.{row['name']}" for row in rows for server in row["servers"]}


def each(*servers: str) -> set[str]:
    return {f"{server}.{tool}" for server in servers for tool in ("add", "echo", "count")}


CLAIMS: list[tuple[dict[str, Any], set[str]]] = [
    ({}, each("calc", "files", "a", "b")),
    ({"servers": ["calc"]}, each("calc")),
    ({"servers": ["c*", "fil?s"]}, each("calc", "files")),
    ({"servers": ["pair"]}, each("a", "b")),
    ({"servers": ["a"]}, each("a")),
    ({"servers": []}, set()),
    ({"servers": ["CALC"]}, set()),
    ({"tools": ["add"]}, {"calc.add", "files.add", "a.add", "b.add"}),
    ({"tools": ["calc.*"]}, each("calc")),
    ({"tools": ["pair.add", "files.e*"]}, {"a.add", "b.add", "files.echo"}),
    ({"tools": []}, set()),
    ({"servers": ["calc", "files"], "tools": ["files.add", "echo"]}, {"calc.echo", "files.add", "files.echo"}),
]


@pytest.mark.parametrize(("claims", "expected"), CLAIMS)
async def test_a_token_can_call_what_its_claims_name_and_sees_just_that(
    house: Inside, claims: dict[str, Any], expected: set[str]
):
    assert await allowed(house, **claims) == expected
    assert await listed(house, **claims) == expected
    rows = (await house.get("/tools", token=make_token(**claims))).json["tools"]
    namespaces = {name.replace("a.", "pair.", 1) if name.startswith("a.") else name for name in expected}
    namespaces = {name.replace("b.", "pair.", 1) if name.startswith("b.") else name for name in namespaces}
    assert {row["name"] for row in rows} == namespaces


async def test_what_a_token_may_not_see_is_answered_like_what_does_not_exist(house: Inside):
    token = make_token(servers=["calc"])
    for method in ("files.add", "files__add"):
        hidden, absent = await house.call(method, token=token), await house.call("nobody.add", token=token)
        assert refusal(hidden) == refusal(absent) == (404, "tool_not_found")
    hidden, absent = (
        await house.call("add", server="files", token=token),
        await house.call("add", server="no", token=token),
    )
    assert refusal(hidden) == refusal(absent) == (404, "server_not_found")
    assert refusal(await house.get("/tools?server=files", token=token)) == (404, "server_not_found")


async def test_a_bare_name_is_unique_if_the_token_sees_only_one(house: Inside):
    assert refusal(await house.call("add", {"a": 1, "b": 1})) == (409, "ambiguous_tool")
    reply = await house.call("add", {"a": 1, "b": 1}, token=make_token(servers=["files"]))
    assert (reply.status, reply.json["server"]) == (200, "files")


async def test_a_group_is_called_only_at_the_members_that_the_token_names(house: Inside):
    token = make_token(servers=["b"])
    served = {(await house.call("count", server=name, token=token)).json["server"] for name in ("pair", "b") * 4}
    assert served == {"b"}


async def test_a_rate_is_kept_and_says_when_to_come_back(house: Inside):
    token = make_token(sub="hasty", rate=3)
    replies = [await house.call("count", server="calc", token=token) for _ in range(5)]
    assert [reply.status for reply in replies] == [200, 200, 200, 429, 429]
    assert refusal(replies[-1]) == (429, "rate_limited")
    assert 1 <= int(replies[-1].headers["retry-after"]) <= 60


async def test_a_rate_counts_one_caller_and_only_calls(house: Inside):
    token = make_token(sub="slow", rate=1)
    assert (await house.call("count", server="calc", token=token)).status == 200
    assert (await house.get("/tools", token=token)).status == 200
    assert (await house.call("count", server="calc", token=token)).status == 429
    assert (await house.call("count", server="calc", token=make_token(sub="other", rate=1))).status == 200
    assert (await house.call("count", server="calc", token=make_token(sub="slow"))).status == 200
