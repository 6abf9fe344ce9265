"""One walk through a server, the same for all clients written in Python: list, call, get, read, and answer.

A plan: {"calls": [[name, args], …], "prompts": [[name, args], …], "resources": [URI, …], "lists": [kind, …] (all when
absent), "elicitation": {…}, "sampling": text, "root": URI, "thinking": seconds before the root is told (none when absent)}.
A report: {"about": [protocol version, server], "tools" and so on: [name, …], "called": {name: [isError, text]},
"got": {prompt: text}, "read": {URI: text}, "progress": {name: [n, …]}, "asked": [[kind, text], …],
"failed": {step: what it raised}}.

Run by the interpreters of several environments, so it imports the standard library only. `walk.mjs` is its twin.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

Progress = Callable[[float, "float | None", "str | None"], Awaitable[None]]
STEP = 30  # seconds that one request may take


class Peer(Protocol):
    """A connected client, in the words of the walk. Lists are names, or URIs for resources and templates."""

    async def about(self) -> tuple[str, str]: ...  # protocol version, the server's name
    async def tools(self) -> list[str]: ...
    async def prompts(self) -> list[str]: ...
    async def resources(self) -> list[str]: ...
    async def templates(self) -> list[str]: ...
    async def call(self, name: str, args: dict[str, Any], progress: Progress) -> tuple[bool, str]: ...  # isError, text
    async def prompt(self, name: str, args: dict[str, str]) -> str: ...
    async def read(self, uri: str) -> str: ...


class Seen:
    """What the server asked its client for, in order, and the answers that the plan gives."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.asked: list[list[str]] = []

    def elicitation(self, message: str) -> dict[str, Any]:
        """Content of the accepted form."""
        self.asked.append(["elicitation", message])
        return dict(self.plan["elicitation"])

    def sampling(self, text: str) -> str:
        """What the model says."""
        self.asked.append(["sampling", text])
        return str(self.plan["sampling"])

    async def roots(self) -> str:
        """URI of the only root, after as long as the plan has the client think."""
        self.asked.append(["roots", ""])
        await asyncio.sleep(self.plan.get("thinking", 0))
        return str(self.plan["root"])


def told() -> argparse.Namespace:
    """The command line: url, stdio (argv or None), transport, era, token, plan (a dict)."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--plan", type=json.loads, required=True)
    parser.add_argument("--transport", choices=("http", "sse", "stdio"), default="http")
    parser.add_argument("--era", choices=("legacy", "modern", "auto"), default="legacy")
    parser.add_argument("--token")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--url")
    where.add_argument("--stdio", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    args.headers = {"Authorization": f"Bearer {args.token}"} if args.token else {}
    return args


async def walk(peer: Peer, seen: Seen) -> dict[str, Any]:
    """Carry out the plan. A step that raises is noted under "failed", and the next one is tried."""
    report: dict[str, Any] = {"failed": {}, "called": {}, "got": {}, "read": {}, "progress": {}, "asked": seen.asked}

    async def step(into: dict[str, Any], key: str, doing: Awaitable[Any]) -> None:
        try:
            into[key] = await asyncio.wait_for(doing, STEP)
        except Exception as error:  # noqa: BLE001 - the report is where it is told
            report["failed"][key] = f"{type(error).__name__}: {error}"

    await step(report, "about", peer.about())
    for kind in seen.plan.get("lists", ("tools", "prompts", "resources", "templates")):
        await step(report, kind, getattr(peer, kind)())
    for name, args in seen.plan["calls"]:
        steps = report["progress"].setdefault(name, [])

        async def progress(done: float, total: float | None, message: str | None, steps: list[float] = steps) -> None:
            steps.append(done)

        await step(report["called"], name, peer.call(name, args, progress))
    for name, args in seen.plan["prompts"]:
        await step(report["got"], name, peer.prompt(name, args))
    for uri in seen.plan["resources"]:
        await step(report["read"], uri, peer.read(uri))
    return report


def run(main: Callable[[argparse.Namespace, Seen], Awaitable[dict[str, Any]]]) -> None:
    """Run a script's ``main`` with its command line, print the report, and exit."""
    args = told()

    async def bounded() -> dict[str, Any]:
        return await asyncio.wait_for(main(args, Seen(args.plan)), 4 * STEP)

    report = asyncio.run(bounded())
    print(json.dumps(report, ensure_ascii=False))
    sys.exit(1 if report["failed"] else 0)


def text_of(parts: list[Any]) -> str:
    """The texts among the contents of a result (objects with ``text``), one line each."""
    return "\n".join(part.text for part in parts if getattr(part, "text", None) is not None)
