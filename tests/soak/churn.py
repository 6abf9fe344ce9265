"""A server that comes, is called, and goes, again and again: what the process holds must not grow with that.

In this process, where tasks can be counted and garbage collected. Names are new each time: what is kept by name shows.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import tempfile
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from tests.faults.harness import faulty_http
from tests.flows.inside import Inside, serving
from tests.harness import eventually, make_token
from tests.soak.measures import Held, held
from tests.soak.written import command

Cycle = Callable[[Inside, int], Awaitable[None]]
_TAKE_EVERY = 10
"""Parts that a run is measured in."""
_ENOUGH = 300
"""Cycles below which memory is shown and not judged: the allocator's first few hundred KiB would be all there is to see."""
_FIRST = 3
"""Cycles before the first measurement."""


@dataclass
class Churned:
    """What was held: before anything, and after each part of the run."""

    title: str
    cycles: int
    first: Held
    parts: list[Held] = field(default_factory=list)

    @property
    def last(self) -> Held:
        return self.parts[-1]

    @property
    def grown(self) -> float:
        """KiB that a cycle has added: the second half of the run beside the first, by their medians."""
        half = len(self.parts) // 2
        first, second = ([part.rss for part in parts] for parts in (self.parts[:half], self.parts[half:]))
        return (median(second) - median(first)) / (self.cycles / 2)

    def faults(self, kib_per_cycle: float | None = None) -> list[str]:
        """What grew, in words. Memory counts where a bound is given, and from `_ENOUGH` cycles on."""
        found = [
            f"{self.title}: {word} {getattr(self.first, word)} at first, {getattr(self.last, word)} after {self.cycles} cycles"
            for word in ("files", "threads", "children", "tasks")
            if getattr(self.last, word) > getattr(self.first, word)
        ]
        if kib_per_cycle is not None and self.cycles >= _ENOUGH and self.grown > kib_per_cycle:
            found.append(f"{self.title}: {self.grown:.2f} KiB more with each cycle")
        return found

    def __str__(self) -> str:
        memory = " ".join(f"{part.rss / 1024:.1f}" for part in self.parts)
        held = f"  first  {self.first}\n  last   {self.last}\n  MiB    {memory} ({self.grown:+.2f} KiB a cycle)"
        return f"{self.title}: {self.cycles} cycles\n{held}"


async def churn_over_http(cycles: int) -> Churned:
    """Added with ``POST /servers``, called at both doors, removed with ``DELETE``; the upstream is one over HTTP."""
    async with faulty_http(args=("--lifetime", "86400")) as upstream:

        async def cycle(inside: Inside, number: int) -> None:
            name, token = f"come-and-go-{number + _FIRST}", make_token(scope="admin")
            added = await inside.post("/servers", {"mcpServers": {name: {"url": upstream.url}}}, token=token)
            assert added.status == 201, added
            await _use(inside, name, token)
            assert (await inside.request("DELETE", f"/servers/{name}", token=token)).status == 200

        async with serving(allow_network=("127.0.0.0/8",), log_level="ERROR") as inside:
            return await _measured("HTTP, by the API", inside, cycle, cycles)


async def churn_commands(cycles: int) -> Churned:
    """Written to ``--config-dir`` and taken away again; each time a process is started and ended."""
    with tempfile.TemporaryDirectory(prefix="churn-") as directory:
        root = Path(directory)

        async def cycle(inside: Inside, number: int) -> None:
            name = f"come-and-go-{number + _FIRST}"
            path = root / name / "mcp_settings.json"
            path.parent.mkdir()
            path.write_text(json.dumps({"name": name, "type": "stdio", **command(str(root / "mark.jsonl"))}))
            await eventually(lambda: _there(inside, name), what=f"{name} is there")
            await _use(inside, name, make_token(scope="admin"))
            path.unlink()
            path.parent.rmdir()
            await eventually(lambda: _gone(inside, name), what=f"{name} is gone")

        async with serving(config_dir=root, log_level="ERROR") as inside:
            return await _measured("commands, by files", inside, cycle, cycles)


async def churn_hastily(cycles: int) -> Churned:
    """Commands that are removed while they are being started, at every moment of that."""
    with tempfile.TemporaryDirectory(prefix="churn-") as directory:
        entry = command(str(Path(directory) / "mark.jsonl"))
        template = " ".join(entry["command"] if i == 0 else w for i, w in enumerate(["", *entry["args"][:-1]]))

        async def cycle(inside: Inside, number: int) -> None:
            name, token = f"hasty-{number + _FIRST}", make_token(scope="admin")
            await inside.post("/servers", {"mcpServers": {name: entry}}, token=token)
            await asyncio.sleep(number % 40 * 0.005)
            assert (await inside.request("DELETE", f"/servers/{name}", token=token)).status == 200

        async with serving(api_commands=(f"{template} {{mark}}",), log_level="ERROR") as inside:
            return await _measured("commands, hastily", inside, cycle, cycles)


async def _use(inside: Inside, name: str, token: str) -> None:
    """A call at each door."""
    reply = await inside.call("add", {"a": 1, "b": 2}, server=name, token=token)
    assert reply.status == 200, reply
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    reply = await inside.post("/mcp", message, token=token)
    assert name in reply.body.decode(), reply


async def _there(inside: Inside, name: str) -> bool:
    return name in await inside.states()


async def _gone(inside: Inside, name: str) -> bool:
    return name not in await inside.states()


async def _measured(title: str, inside: Inside, cycle: Cycle, cycles: int) -> Churned:
    """Measure, after a few cycles that make what is made once; then the others, measured in between."""
    await _fill_threads()
    idle = len(asyncio.all_tasks())
    for number in range(_FIRST):
        await cycle(inside, number - _FIRST)
    await eventually(lambda: len(asyncio.all_tasks()) <= idle, what="all that was begun has ended")
    found = Churned(title, cycles, held(os.getpid(), idle))
    for part in range(_TAKE_EVERY):
        for number in range(cycles * part // _TAKE_EVERY, cycles * (part + 1) // _TAKE_EVERY):
            await cycle(inside, number + 1)
        found.parts.append(await _at_rest(found.first))
    return found


async def _fill_threads() -> None:
    """Have the loop start all the threads that `asyncio.to_thread` may use, so that none is taken for a leak."""
    most = min(32, (os.cpu_count() or 1) + 4)
    together = threading.Barrier(most)
    await asyncio.gather(*(asyncio.to_thread(together.wait, 10) for _ in range(most)))


async def _at_rest(first: Held) -> Held:
    """What is held when all that is ending has ended; at most a few seconds later."""
    least = held(os.getpid(), len(asyncio.all_tasks()))

    def probe() -> bool:
        nonlocal least
        gc.collect()
        least = held(os.getpid(), len(asyncio.all_tasks()))
        return all(getattr(least, word) <= getattr(first, word) for word in ("files", "threads", "children", "tasks"))

    with suppress(AssertionError):  # what is still held is the finding
        await eventually(probe, 6, pause=0.1)
    return least


RUNS: dict[str, Callable[[int], Awaitable[Churned]]] = {
    "http": churn_over_http,
    "commands": churn_commands,
    "hasty": churn_hastily,
}
