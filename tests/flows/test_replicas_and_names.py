"""Which server a call goes to: replicas stand in for one another, servers that are named are never left."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from tests.faults.harness import FaultyUpstream, faulty_http
from tests.flows.inside import Inside, error_of, refusal, serving

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def three() -> AsyncIterator[list[FaultyUpstream]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(faulty_http()) for _ in range(3)]


@pytest.fixture(scope="module")
async def house(three: list[FaultyUpstream]) -> AsyncIterator[Inside]:
    """A group of two, ``pair``, and a server of its own with the same tools."""
    servers = {
        "a": {"url": three[0].url, "group": "pair"},
        "b": {"url": three[1].url, "group": "pair"},
        "solo": {"url": three[2].url},
    }
    async with serving(servers) as inside:
        yield inside


async def served_by(inside: Inside, method: str, times: int = 24, **more: str) -> set[str]:
    replies = [await inside.call(method, {}, **more) for _ in range(times)]
    assert {reply.status for reply in replies} == {200}
    return {reply.json["server"] for reply in replies}


@pytest.mark.parametrize(
    ("method", "server"), [("pair.count", None), ("pair__count", None), ("count", "pair"), ("pair.count", "pair")]
)
async def test_a_group_shares_its_calls_among_its_members(house: Inside, method: str, server: str | None):
    assert await served_by(house, method, **({"server": server} if server else {})) == {"a", "b"}


@pytest.mark.parametrize(
    ("method", "server"), [("a.count", None), ("a__count", None), ("count", "a"), ("pair.count", "a")]
)
async def test_a_member_that_is_named_is_preferred(house: Inside, method: str, server: str | None):
    assert await served_by(house, method, **({"server": server} if server else {})) == {"a"}


async def test_a_member_can_be_named_by_its_url(house: Inside, three: list[FaultyUpstream]):
    assert await served_by(house, "count", server=three[1].url) == {"b"}
    assert await served_by(house, "count", server=three[1].url + "/") == {"b"}


async def test_a_bare_name_of_servers_that_are_no_replicas_is_ambiguous_and_the_candidates_work(house: Inside):
    reply = await house.call("count")
    assert refusal(reply) == (409, "ambiguous_tool")
    details = error_of(reply)["details"]
    assert details == {"candidates": ["pair.count", "solo.count"], "servers": ["a", "b", "solo"]}
    assert all([(await house.call(name)).status == 200 for name in details["candidates"]])


async def test_a_full_name_at_another_server_is_unknown_there(house: Inside):
    assert refusal(await house.call("a.count", server="solo")) == (404, "tool_not_found")
    assert refusal(await house.post("/tools/solo/pair.count", {})) == (404, "tool_not_found")


async def test_a_group_goes_on_without_a_member_that_died():
    async with faulty_http() as one, faulty_http() as two:
        servers = {"a": {"url": one.url, "group": "pair"}, "b": {"url": two.url, "group": "pair"}}
        async with serving(servers) as inside:
            await one.kill()
            replies = [await inside.call("count", server=name) for name in ("pair", "a", "b") * 6]
            assert {(reply.status, reply.json["server"]) for reply in replies} == {(200, "b")}
            assert two.ledger.count() == 18


async def test_a_server_that_is_named_is_never_left_for_one_that_looks_alike():
    async with (
        faulty_http() as one,
        faulty_http() as two,
        serving({"a": {"url": one.url}, "b": {"url": two.url}}, health_interval=0.2) as inside,
    ):
        await one.kill()
        for method, server in [("a.count", None), ("count", "a"), ("count", one.url)]:
            reply = await inside.post("/tools", {"method": method, "server": server})
            assert refusal(reply) == (503, "upstream_unavailable")
        assert refusal(await inside.call("count")) == (409, "ambiguous_tool")
        assert two.ledger.count() == 0


async def test_entries_of_mcp_urls_are_replicas_for_tools_that_they_define_alike(three: list[FaultyUpstream]):
    async with faulty_http("bad-schema", "extra-tool") as other:
        urls = (three[0].url, three[1].url, other.url)
        async with serving(mcp_urls=urls) as inside:
            names = set(await inside.states())
            assert await served_by(inside, "count", 40) == names
            assert await served_by(inside, "extra", 8) == {name for name in names if str(other.port) in name}


async def test_entries_of_mcp_urls_fail_over():
    async with faulty_http() as one, faulty_http() as two, serving(mcp_urls=(one.url, two.url)) as inside:
        await one.kill()
        assert len(await served_by(inside, "count", 12)) == 1
        assert refusal(await inside.call("count", server=one.url)) == (503, "upstream_unavailable")


async def test_a_call_that_may_have_been_executed_goes_to_no_other_replica():
    async with faulty_http("close") as one, faulty_http("close") as two, serving(mcp_urls=(one.url, two.url)) as inside:
        assert refusal(await inside.call("count", {})) == (502, "outcome_unknown")
        assert one.ledger.count() + two.ledger.count() == 1


async def test_a_tool_that_is_declared_idempotent_by_the_operator_goes_to_another_replica():
    async with faulty_http("close") as one, faulty_http() as two:
        rule = {"group": "pair", "retry": {"idempotent": ["cou*"]}}
        async with serving({"a": {"url": one.url, **rule}, "b": {"url": two.url, **rule}}) as inside:
            reply = await inside.call("count", server="a")
            assert (reply.status, reply.json["server"]) == (200, "b")


async def test_one_url_of_several_and_a_file_add_up(three: list[FaultyUpstream]):
    async with serving({"named": {"url": three[1].url}}, mcp_url=three[0].url) as inside:
        made = f"127-0-0-1-{three[0].port}-mcp"
        assert set(await inside.states()) == {made, "named"}
        assert (await inside.call("count", server=made)).json["server"] == made
        assert refusal(await inside.call("count")) == (409, "ambiguous_tool")
