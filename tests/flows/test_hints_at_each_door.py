"""What an error tells its reader to do next is something that reader can do: an address over REST, a method over MCP."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest

from tests.flows.inside import error_of
from tests.flows.mcp_client import KINDS, House, Message, reachable
from tests.flows.mcp_upstream import upstream
from tests.harness import make_token

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def house() -> AsyncIterator[House]:
    async with upstream(name="one") as one, upstream(name="off") as off:
        servers = {"one": {"url": one.url}, "off": {"url": off.url, "disabled": True}}
        async with reachable(servers, meta_tools="on") as made:
            yield made


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"method": "nope"}, "there is no tool called 'nope'; GET /tools/list lists them"),
        ({"method": "nope", "server": "one"}, "one has no tool called 'nope'; GET /tools/list lists them"),
        ({"method": "echo", "server": "two"}, "there is no server called 'two'; GET /servers lists them"),
        ({"method": "off.echo"}, "off is disabled; POST /api/instances/off/enable switches it on"),
    ],
)
async def test_over_rest_an_error_names_the_address_that_helps(house: House, body: Message, said: str):
    assert error_of(await house.inside.post("/tools", body))["message"] == said


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("method", "params", "said"),
    [
        ("tools/call", {"name": "nope"}, "there is no tool called 'nope'; tools/list lists them"),
        ("tools/call", {"name": "off.echo"}, "off is disabled"),
        ("prompts/get", {"name": "nope"}, "there is no prompt called 'nope'; prompts/list lists them"),
        (
            "tools/call",
            {"name": "mcp.router.call", "arguments": {"tool_name": "echo", "instance_name": "off"}},
            "off is disabled",
        ),
    ],
)
async def test_over_mcp_it_names_the_method_that_helps_or_none(
    house: House, kind: str, method: str, params: Message, said: str
):
    async with house.client(kind) as client:
        assert (await client.request(method, params)).error["message"] == said


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("word", ["call", "use", "help", "remove", "enable"])
async def test_no_error_of_a_meta_tool_names_an_address(kind: str, word: str):
    given = {"instance_name": "zzz", **({"tool_name": "zzz"} if word == "call" else {})}
    async with (
        upstream(name="one") as one,
        reachable({"one": {"url": one.url}}, meta_tools="on", allow_instance_management=True) as house,
        house.client(kind, token=make_token(scope="admin")) as client,
    ):
        answer = await client.call(f"mcp.router.{word}", given)
        assert answer.error["data"]["type"] == "server_not_found"
        assert re.search(r"(GET|POST) /", answer.error["message"]) is None
