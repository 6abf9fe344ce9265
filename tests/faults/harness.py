"""Starting misbehaving upstreams in tests, ordering them about, and counting in their ledgers what really happened.

What faults there are, and their options: ``python tests/faults/upstream.py --help``.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.harness import alive, command_line

UPSTREAM = Path(__file__).with_name("upstream.py")


class Ledger:
    """What an upstream's processes wrote down: a JSON line an event, each with ``event``, ``pid`` and ``time``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def events(self, word: str) -> list[dict[str, Any]]:
        """Events of that name, in order: executed, received, list, started, cancelled, disconnected, grandchild."""
        text = self.path.read_text() if self.path.exists() else ""
        return [line for line in map(json.loads, text.splitlines()) if line["event"] == word]

    def calls(self, tool: str | None = None, **arguments: Any) -> list[dict[str, Any]]:
        """Executed calls: of that tool, with those arguments among theirs."""
        return [
            line
            for line in self.events("executed")
            if tool in (None, line["tool"])
            and all(line["arguments"].get(name) == value for name, value in arguments.items())
        ]

    def count(self, tool: str | None = None, **arguments: Any) -> int:
        """How many calls were executed; arguments as for `calls`."""
        return len(self.calls(tool, **arguments))


class FaultyUpstream:
    """One over HTTP. ``url`` (streamable HTTP) or ``sse_url`` (HTTP+SSE) is what a proxy is given."""

    def __init__(self, args: list[str], ledger: Path) -> None:
        self._args, self.ledger = args, Ledger(ledger)
        self.port = self._control = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    @property
    def sse_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/sse"

    @property
    def pid(self) -> int:
        return self.process.pid

    async def start(self) -> None:
        """Start it, on the same port as before if it ran before."""
        argv = [sys.executable, str(UPSTREAM), "http", "--ledger", str(self.ledger.path), "--port", str(self.port)]
        self.process = await asyncio.create_subprocess_exec(*argv, *self._args, stdout=asyncio.subprocess.PIPE)
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), 20)
        assert line, f"the upstream did not start: {self._args}"
        where = json.loads(line)
        self.port, self._control = where["port"], where["control"]

    async def order(self, *mode: str, times: int | None = None, **options: Any) -> None:
        """From now on these faults (none: behave), each ``times`` times (None: always)."""
        order = {"mode": list(mode), "times": times, "options": options}
        url = f"http://127.0.0.1:{self._control}/_control"
        async with aiohttp.ClientSession() as session, session.post(url, json=order) as answer:
            assert answer.status == 200, await answer.text()

    async def state(self) -> dict[str, Any]:
        """Modes in force, calls executed, requests seen."""
        url = f"http://127.0.0.1:{self._control}/_control"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            found: dict[str, Any] = await answer.json()
            return found

    async def kill(self) -> None:
        """The end without warning; `start` brings it back."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
        await self.process.wait()


@asynccontextmanager
async def faulty_http(*mode: str, args: tuple[str, ...] = ()) -> AsyncIterator[FaultyUpstream]:
    """An upstream over HTTP with these faults, for as long as the block. ``args``: further ones for its command."""
    with tempfile.TemporaryDirectory(prefix="faulty-") as directory:
        modes = [word for name in mode for word in ("--mode", name)]
        upstream = FaultyUpstream([*modes, *args], Path(directory) / "ledger.jsonl")
        await upstream.start()
        try:
            yield upstream
        finally:
            await upstream.kill()
            stop_grandchildren(upstream.ledger)


class FaultyCommand:
    """One that the proxy itself starts, over stdio. ``entry`` is its entry in a configuration file."""

    def __init__(self, directory: Path, args: tuple[str, ...]) -> None:
        self.ledger = Ledger(directory / "ledger.jsonl")
        self._orders = directory / "orders.json"
        files = ["--ledger", str(self.ledger.path), "--control", str(self._orders)]
        self.argv = [sys.executable, str(UPSTREAM), "stdio", *files, *args]

    @property
    def entry(self) -> dict[str, Any]:
        return {"command": self.argv[0], "args": self.argv[1:]}

    def order(self, *mode: str, times: int | None = None, **options: Any) -> None:
        """Faults for a running child from its next message on, and for the start of the next child."""
        fresh = self._orders.with_suffix(".new")
        fresh.write_text(json.dumps({"mode": list(mode), "times": times, "options": options}))
        fresh.replace(self._orders)

    def pids(self) -> list[int]:
        """Every process that was started, in order."""
        return [line["pid"] for line in self.ledger.events("started")]

    def running(self) -> list[int]:
        """Those of them that live."""
        return [pid for pid in self.pids() if alive(pid) and str(self.ledger.path) in command_line(pid)]


@asynccontextmanager
async def faulty_stdio(*mode: str, args: tuple[str, ...] = ()) -> AsyncIterator[FaultyCommand]:
    """A command for an upstream over stdio with these faults, its ledger, and a file to order it about."""
    with tempfile.TemporaryDirectory(prefix="faulty-") as directory:
        upstream = FaultyCommand(Path(directory), args)
        if mode:
            upstream.order(*mode)
        try:
            yield upstream
        finally:
            stop_grandchildren(upstream.ledger)


def stop_grandchildren(ledger: Ledger) -> list[int]:
    """End what the fault `grandchild` left. Returns those that still ran: a proxy should have ended them."""
    left = [line["child"] for line in ledger.events("grandchild") if command_line(line["child"]).startswith("sleep ")]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return left
