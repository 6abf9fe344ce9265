"""The client of the Python SDK 1.x (`mcp<2`), run by the Python of .cache/test-servers/legacy. See walk.py."""

from __future__ import annotations

import argparse
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
from mcp import ClientSession, StdioServerParameters, types
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from pydantic import AnyUrl, FileUrl
from walk import Progress, Seen, run, text_of, walk


class Peer:
    def __init__(self, session: ClientSession, started: types.InitializeResult) -> None:
        self.session, self.started = session, started

    async def about(self) -> tuple[str, str]:
        return str(self.started.protocolVersion), self.started.serverInfo.name

    async def tools(self) -> list[str]:
        return [tool.name for tool in await self._all("tools", self.session.list_tools)]

    async def prompts(self) -> list[str]:
        return [prompt.name for prompt in await self._all("prompts", self.session.list_prompts)]

    async def resources(self) -> list[str]:
        return [str(resource.uri) for resource in await self._all("resources", self.session.list_resources)]

    async def templates(self) -> list[str]:
        found = await self._all("resourceTemplates", self.session.list_resource_templates)
        return [template.uriTemplate for template in found]

    async def _all(self, field: str, ask: Any) -> list[Any]:
        found, cursor = [], None
        while True:
            page = await ask(params=types.PaginatedRequestParams(cursor=cursor))
            found += getattr(page, field)
            cursor = page.nextCursor
            if not cursor:
                return found

    async def call(self, name: str, args: dict[str, Any], progress: Progress) -> tuple[bool, str]:
        result = await self.session.call_tool(name, args, progress_callback=progress)
        return result.isError, text_of(result.content)

    async def prompt(self, name: str, args: dict[str, str]) -> str:
        return text_of([message.content for message in (await self.session.get_prompt(name, args)).messages])

    async def read(self, uri: str) -> str:
        return text_of((await self.session.read_resource(AnyUrl(uri))).contents)


def answers(seen: Seen) -> dict[str, Any]:
    async def elicit(_: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        return types.ElicitResult(action="accept", content=seen.elicitation(params.message))

    async def sample(_: Any, params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
        content = types.TextContent(type="text", text=seen.sampling(text_of([m.content for m in params.messages])))
        return types.CreateMessageResult(role="assistant", content=content, model="test-model")

    async def roots(_: Any) -> types.ListRootsResult:
        return types.ListRootsResult(roots=[types.Root(uri=FileUrl(await seen.roots()))])

    return {"elicitation_callback": elicit, "sampling_callback": sample, "list_roots_callback": roots}


def connect(args: argparse.Namespace, http: httpx.AsyncClient) -> AbstractAsyncContextManager[Any]:
    if args.stdio:
        return stdio_client(StdioServerParameters(command=args.stdio[0], args=args.stdio[1:]))
    if args.transport == "sse":
        return sse_client(args.url, headers=args.headers)
    return streamable_http_client(args.url, http_client=http)


async def main(args: argparse.Namespace, seen: Seen) -> dict[str, Any]:
    async with (
        httpx.AsyncClient(headers=args.headers, timeout=30) as http,
        connect(args, http) as (read, write, *_),
        ClientSession(read, write, **answers(seen)) as session,
    ):
        return await walk(Peer(session, await session.initialize()), seen)


run(main)
