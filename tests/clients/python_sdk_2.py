"""The client of the Python SDK 2.x (`mcp>=2`), run by the Python of the main environment. See walk.py."""

from __future__ import annotations

import argparse
from typing import Any

import httpx2
import mcp_types as types
from mcp import Client, StdioServerParameters
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from walk import Progress, Seen, run, text_of, walk

MODES = {"legacy": "legacy", "auto": "auto", "modern": "2026-07-28"}


class Peer:
    def __init__(self, client: Client) -> None:
        self.client = client

    async def about(self) -> tuple[str, str]:
        info = self.client.server_info
        return str(self.client.protocol_version), info.name if info else ""

    async def tools(self) -> list[str]:
        return [tool.name for tool in await self._all("tools", self.client.list_tools)]

    async def prompts(self) -> list[str]:
        return [prompt.name for prompt in await self._all("prompts", self.client.list_prompts)]

    async def resources(self) -> list[str]:
        return [str(resource.uri) for resource in await self._all("resources", self.client.list_resources)]

    async def templates(self) -> list[str]:
        found = await self._all("resource_templates", self.client.list_resource_templates)
        return [template.uri_template for template in found]

    async def _all(self, field: str, ask: Any) -> list[Any]:
        found, cursor = [], None
        while True:
            page = await ask(cursor=cursor)
            found += getattr(page, field)
            cursor = page.next_cursor
            if not cursor:
                return found

    async def call(self, name: str, args: dict[str, Any], progress: Progress) -> tuple[bool, str]:
        result = await self.client.call_tool(name, args, progress_callback=progress)
        return result.is_error, text_of(result.content)

    async def prompt(self, name: str, args: dict[str, str]) -> str:
        return text_of([message.content for message in (await self.client.get_prompt(name, args)).messages])

    async def read(self, uri: str) -> str:
        return text_of((await self.client.read_resource(uri)).contents)


def answers(seen: Seen) -> dict[str, Any]:
    async def elicit(_: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        return types.ElicitResult(action="accept", content=seen.elicitation(params.message))

    async def sample(_: Any, params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
        content = types.TextContent(type="text", text=seen.sampling(text_of([m.content for m in params.messages])))
        return types.CreateMessageResult(role="assistant", content=content, model="test-model")

    async def roots(_: Any) -> types.ListRootsResult:
        return types.ListRootsResult(roots=[types.Root(uri=await seen.roots())])

    return {"elicitation_callback": elicit, "sampling_callback": sample, "list_roots_callback": roots}


def target(args: argparse.Namespace, http: httpx2.AsyncClient) -> Any:
    if args.stdio:
        return StdioServerParameters(command=args.stdio[0], args=args.stdio[1:])
    if args.transport == "sse":
        return sse_client(args.url, headers=args.headers)
    return streamable_http_client(args.url, http_client=http)


async def main(args: argparse.Namespace, seen: Seen) -> dict[str, Any]:
    async with (
        httpx2.AsyncClient(headers=args.headers, timeout=30) as http,
        Client(target(args, http), mode=MODES[args.era], read_timeout_seconds=30, **answers(seen)) as client,
    ):
        return await walk(Peer(client), seen)


run(main)
