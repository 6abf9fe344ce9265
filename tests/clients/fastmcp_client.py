"""The client of FastMCP, run by the Python of .cache/test-servers/fastmcp. See walk.py."""

from __future__ import annotations

import argparse
from typing import Any

import mcp_types as types
from fastmcp import Client
from fastmcp.client.transports import SSETransport, StdioTransport, StreamableHttpTransport
from walk import Progress, Seen, run, text_of, walk

MODES = {"legacy": "legacy", "auto": "auto", "modern": "2026-07-28"}


class Peer:
    def __init__(self, client: Client[Any]) -> None:
        self.client = client

    async def about(self) -> tuple[str, str]:
        session = self.client.session
        return str(session.protocol_version), session.server_info.name if session.server_info else ""

    async def tools(self) -> list[str]:
        return [tool.name for tool in await self.client.list_tools()]

    async def prompts(self) -> list[str]:
        return [prompt.name for prompt in await self.client.list_prompts()]

    async def resources(self) -> list[str]:
        return [str(resource.uri) for resource in await self.client.list_resources()]

    async def templates(self) -> list[str]:
        return [template.uri_template for template in await self.client.list_resource_templates()]

    async def call(self, name: str, args: dict[str, Any], progress: Progress) -> tuple[bool, str]:
        result = await self.client.call_tool(name, args, progress_handler=progress, raise_on_error=False)
        return result.is_error, text_of(result.content)

    async def prompt(self, name: str, args: dict[str, str]) -> str:
        return text_of([message.content for message in (await self.client.get_prompt(name, args)).messages])

    async def read(self, uri: str) -> str:
        return text_of(await self.client.read_resource(uri))


def answers(seen: Seen) -> dict[str, Any]:
    async def elicit(message: str, _kind: Any, _params: Any, _context: Any) -> dict[str, Any]:
        return seen.elicitation(message)

    async def sample(messages: list[types.SamplingMessage], _params: Any, _context: Any) -> str:
        return seen.sampling(text_of([message.content for message in messages]))

    async def roots(_context: Any) -> list[str]:
        return [await seen.roots()]

    return {"elicitation_handler": elicit, "sampling_handler": sample, "roots": roots}


def transport(args: argparse.Namespace) -> Any:
    if args.stdio:
        return StdioTransport(args.stdio[0], args.stdio[1:], keep_alive=False)
    kind = SSETransport if args.transport == "sse" else StreamableHttpTransport
    return kind(args.url, headers=args.headers)


async def main(args: argparse.Namespace, seen: Seen) -> dict[str, Any]:
    async with Client(transport(args), mode=MODES[args.era], timeout=30, **answers(seen)) as client:
        return await walk(Peer(client), seen)


run(main)
