"""Clients that try what they must not, over real connections: beyond their rights, or leaving things behind."""

from __future__ import annotations

from typing import Any

import pytest

from tests.flows.mcp_client import EVERYTHING, JSON, House, reachable
from tests.flows.mcp_upstream import Upstream, tool, upstream
from tests.harness import eventually, make_token

pytestmark = pytest.mark.anyio
ECHO = tool("echo", text="string")
SECRET = {"uriTemplate": "secret://{who}", "name": "secret"}
ARGUMENT = {"name": "who", "value": "a"}
MIRRORED = {
    "name": "where",
    "inputSchema": {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}},
}
PLAIN = tool("where", region="string")


def at(*servers: Upstream, **more: Any) -> dict[str, Any]:
    return {one.name: {"url": one.url, "type": "http", **more} for one in servers}


@pytest.mark.parametrize("kind", ["modern", "legacy"])
async def test_the_name_of_a_visible_prompt_opens_no_hidden_template(kind: str):
    async with (
        upstream(era="legacy", name="one", prompts=[{"name": "greet"}], templates=[SECRET]) as one,
        reachable(at(one)) as house,
        house.client(kind, token=make_token(tools=["greet"])) as client,
    ):
        ref = {"type": "ref/resource", "uri": "secret://{who}", "name": "greet"}
        answer = await client.request("completion/complete", {"ref": ref, "argument": ARGUMENT})
        assert "no server has the resource" in answer.error["message"]
        ref = {"type": "ref/prompt", "uri": "secret://{who}", "name": "greet"}
        await client.request("completion/complete", {"ref": ref, "argument": ARGUMENT})
        assert [one.params["ref"] for one in one.calls("completion/complete")] == [
            {"type": "ref/prompt", "name": "greet"}
        ]


async def test_a_hidden_tool_is_not_betrayed_by_its_headers():
    async with (
        upstream(era="modern", name="one", tools=[MIRRORED]) as one,
        upstream(era="modern", name="two", tools=[ECHO]) as two,
        reachable(at(one, two)) as house,
        house.client("modern", token=make_token(servers=["two"])) as client,
    ):
        answer = await client.request("tools/call", {"name": "one.where", "arguments": {"region": "eu"}})
        assert "there is no tool" in answer.error["message"]


async def test_headers_are_compared_for_the_tool_that_is_meant():
    async with (
        upstream(era="modern", name="one", tools=[MIRRORED]) as one,
        upstream(era="modern", name="two", tools=[PLAIN]) as two,
        reachable(at(one, two)) as house,
        house.client("modern", path="/mcp/one") as first,
        house.client("modern", path="/mcp/two") as second,
    ):
        call = {"name": "where", "arguments": {"region": "eu"}}
        assert (await first.request("tools/call", call)).refusal == (400, -32020)
        await second.request("tools/call", call)
        assert (one.called("where"), two.called("where")) == (0, 1)


async def test_refused_subscriptions_leave_nothing_behind():
    async with (
        upstream(era="legacy", name="one", resources=[{"uri": "one://note", "name": "note"}]) as one,
        reachable(at(one)) as house,
        house.client("legacy") as client,
    ):
        for number in range(5):
            await client.request("resources/subscribe", {"uri": f"none://{number}"})
        assert house.runtime.door.following._turns == {}


async def test_sessions_leave_nothing_behind_of_what_they_offered():
    async with upstream(era="legacy", name="one", tools=[ECHO]) as one, reachable(at(one)) as house:
        for number in range(3):
            await _come_and_go(house, {**EVERYTHING, "elicitation": {"number": number}})
        assert not house.runtime.door.notices._told


async def _come_and_go(house: House, capabilities: dict[str, Any]) -> None:
    async with house.client("legacy", capabilities=capabilities) as client:
        await client.http.send("DELETE", "/mcp", client.session_headers)


async def test_a_call_that_has_asked_its_client_is_not_begun_again_elsewhere():
    one = Upstream(era="modern", name="one", tools=[tool("ask", who="string")])
    two = Upstream(era="modern", name="two", tools=[tool("ask", who="string")])
    replicas = {one.name: one, two.name: two}
    for replica in replicas.values():
        await replica.start()

    async def goes_away(method: str, params: Any) -> Any:
        asking = next(replica for replica in replicas.values() if replica.called("ask"))
        await replicas.pop(asking.name).stop()
        return {"action": "accept", "content": {"name": "x"}}

    async with reachable(at(one, two, group="both")) as house, house.client("legacy", on_ask=goes_away) as client:
        answer = await client.call("ask", {"who": "x"})
        assert answer.error["data"]["executed"] == "unknown"
        assert len(client.asked) == 1
        assert [replica.called("ask") for replica in replicas.values()] == [0]
    for replica in replicas.values():
        await replica.stop()


async def test_true_is_no_request_id():
    async with (
        upstream(era="legacy", name="one", tools=[tool("hang")]) as one,
        reachable(at(one)) as house,
        house.client("legacy") as client,
    ):
        hanging = client.tasks.spawn(client.request("tools/call", {"name": "hang", "arguments": {}}, id=1), "hang")
        await eventually(lambda: one.called("hang") == 1, what="the call has arrived")
        await client.cancel(True)
        await client.request("ping")
        assert not hanging.done()
        assert one.cancelled == []
        await client.cancel(1)
        assert (await hanging).error["message"] == "the client cancelled the request"


async def test_a_query_of_too_many_fields_is_the_clients_fault():
    async with reachable() as house:
        http = house.http()
        query = "&".join(f"field{number}=1" for number in range(20))
        answer = await http.send("POST", f"/messages/?{query}", JSON, b"{}")
        assert answer.status == 400
        await http.close()
