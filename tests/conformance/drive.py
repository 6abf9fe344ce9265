"""The client when the suite plays the server: a client of the SDK, and the proxy between the two.

    python -m tests.conformance.drive [--alone] URL

is run by the suite, which says more in MCP_CONFORMANCE_… variables; with --alone there is no proxy.

What the proxy sends to the suite's server is what is judged; the client here only does what the scenario is about.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import warnings
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any

import mcp_types as t
from mcp import Client

from tests.harness import ProxyProcess

TIMEOUT = 50
"""Seconds for everything: a little less than the suite gives a scenario, so that the proxy never outlives it."""
SAMPLES: dict[str, Any] = {"integer": 5, "number": 3, "boolean": False, "object": {}, "array": [], "null": None}


@dataclass(frozen=True, slots=True)
class Scenario:
    """What the suite says of itself."""

    name: str
    revision: str
    context: Mapping[str, Any]

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Scenario:
        """As the variables of the suite's command have it."""
        context = json.loads(environment.get("MCP_CONFORMANCE_CONTEXT") or "{}")
        return cls(environment["MCP_CONFORMANCE_SCENARIO"], environment["MCP_CONFORMANCE_PROTOCOL_VERSION"], context)


async def drive(url: str, scenario: Scenario) -> None:
    """Start a proxy in front of ``url`` and use all that it offers."""
    entry = {"url": url, "transport": "streamable-http"}
    async with ProxyProcess("--no-auth", servers={"ref": entry}) as proxy, asyncio.timeout(TIMEOUT - 10):
        address = f"{proxy.base_url}/mcp".replace("127.0.0.1", "localhost")
        try:
            await use(address, scenario)
        finally:
            print(proxy.stderr()[-4000:], file=sys.stderr)  # the suite keeps it, and shows it when this fails


async def use(url: str, scenario: Scenario) -> None:
    """Connect in the scenario's era, list and call."""
    mode = "2026-07-28" if scenario.revision == "2026-07-28" else "legacy"
    async with Client(
        url,
        mode=mode,
        elicitation_callback=elicited,
        sampling_callback=sampled,
        list_roots_callback=roots,
        read_timeout_seconds=30,
        cache=None,
    ) as client:
        tools = (await client.list_tools()).tools
        await call_tools(client, tools, scenario)
        if scenario.name == "http-standard-headers":
            await read_all(client)


async def call_tools(client: Client, tools: list[t.Tool], scenario: Scenario) -> None:
    """The calls that the suite asks for, else a schema for the tool that echoes it, else each tool once, together."""
    named = {tool.name: tool for tool in tools}
    if "toolCalls" in scenario.context:
        for call in scenario.context["toolCalls"]:
            await attempt(call["name"], client.call_tool(call["name"], call["arguments"]))
    elif "json_schema_echo" in named:
        schema = named["json_schema_2020_12_tool"].input_schema
        await attempt("echo", client.call_tool("json_schema_echo", {"schema": schema}))
    else:
        calls = (attempt(name, client.call_tool(name, stub(tool.input_schema))) for name, tool in named.items())
        await asyncio.gather(*calls)


async def read_all(client: Client) -> None:
    """Every resource and every prompt once."""
    for resource in (await client.list_resources()).resources:
        await attempt(str(resource.uri), client.read_resource(resource.uri))
    for prompt in (await client.list_prompts()).prompts:
        await attempt(prompt.name, client.get_prompt(prompt.name, {}))


async def attempt(what: str, call: Awaitable[Any]) -> None:
    """Do it; some scenarios refuse some calls, and one that is refused must not hide the others."""
    try:
        await call
    except Exception as error:  # noqa: BLE001 - whatever it is, the suite sees what was sent and judges
        print(f"{what}: {error!r}", file=sys.stderr)


def stub(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The least arguments that satisfy the ``required`` of a flat schema."""
    properties = schema.get("properties", {})
    return {name: SAMPLES.get(properties.get(name, {}).get("type"), "x") for name in schema.get("required", [])}


# What the client answers


async def elicited(context: Any, params: Any) -> t.ElicitResult:
    """Accepts with the defaults of the form, and says yes where there is none."""
    fields = (getattr(params, "requested_schema", None) or {}).get("properties", {})
    content: dict[str, Any] = {name: True for name, field in fields.items() if field.get("type") == "boolean"}
    content |= {name: field["default"] for name, field in fields.items() if "default" in field}
    return t.ElicitResult(action="accept", content=content)


async def sampled(context: Any, params: Any) -> t.CreateMessageResult:
    """A model that always says ok."""
    return t.CreateMessageResult(role="assistant", model="stub", content=t.TextContent(type="text", text="ok"))


async def roots(context: Any) -> t.ListRootsResult:
    """No roots."""
    return t.ListRootsResult(roots=[])


def main() -> None:
    warnings.simplefilter("ignore")  # the SDK warns of what the newest revision deprecates, which the older ones need
    work = use if "--alone" in sys.argv else drive
    asyncio.run(asyncio.wait_for(work(sys.argv[-1], Scenario.of(os.environ)), TIMEOUT))


if __name__ == "__main__":
    main()
