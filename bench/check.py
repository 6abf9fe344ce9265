#!/usr/bin/env python3
"""Does a call cost more than it did? Counts what it makes Python do, and compares that with bench/baseline.json.

scripts/bench --check             what it is now beside what it was; exit code 1 when something is over the margin
scripts/bench --check --renew     what it is now becomes what it was

Counted are the calls of functions, Python's and C's, that one request makes inside the application: a number that is the
same on every machine, however busy, and within a few percent from Python 3.11 to 3.13, so that it can be asserted. Not
seen: HTTP server and network (the table has those), and what a single call into C costs. Nor may a request leave objects
that refer to each other: the garbage collector, which frees them, holds up all calls meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from inside import CALL, LEGACY, Inside, inside
from load import META, MODERN

BASELINE = Path(__file__).with_name("baseline.json")
MARGIN = 0.25
"""How much more than in the baseline is let pass."""
WARM, COUNTED = 50, 101
OURS = {"__main__", "check", "inside", "json", "json.encoder"}
"""Modules of the benchmark, and what only they use."""

Request = Callable[[], Awaitable[tuple[int, dict, bytes]]]


def rpc(method: str, params: dict) -> dict:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


async def requests(app: Inside) -> dict[str, Request]:
    """The calls that are counted."""
    hello = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
    _, answered, _ = await app.post("/mcp", rpc("initialize", hello))
    session = {"mcp-protocol-version": LEGACY, "mcp-session-id": answered["mcp-session-id"]}
    await app.post("/mcp", {"jsonrpc": "2.0", "method": "notifications/initialized"}, session)
    modern = {"mcp-protocol-version": MODERN, "mcp-method": "tools/call", "mcp-name": "echo"}
    return {
        "POST /tools": lambda: app.post("/tools", {"method": "echo", "args": CALL["arguments"]}),
        "/mcp modern": lambda: app.post("/mcp", rpc("tools/call", {**CALL, "_meta": META}), modern),
        "/mcp legacy": lambda: app.post("/mcp", rpc("tools/call", CALL), session),
    }


async def count(request: Request) -> Counter[str]:
    """Calls of functions that one request makes, by module: that of the function, for functions of C that of the caller.

    Raises `RuntimeError` when a request is not answered as it should be.
    """
    calls: Counter[str] = Counter()

    def profile(frame, event: str, argument) -> None:
        if event in ("call", "c_call"):
            calls[frame.f_globals.get("__name__", "")] += 1

    counted = []
    for turn in range(WARM + COUNTED):
        calls = Counter()
        sys.setprofile(profile if turn >= WARM else None)
        try:
            status, _, body = await request()
        finally:
            sys.setprofile(None)
        if status != 200 or b'"isError":true' in body or b'"text":"1"' not in body:
            raise RuntimeError(f"answered with {status}: {body[:300]!r}")
        for module in OURS & calls.keys():
            del calls[module]
        counted.append(calls)
    # What runs in the background falls into single ones.
    return sorted(counted[WARM:], key=Counter.total)[COUNTED // 2]


async def garbage(request: Request) -> float:
    """Objects that one request leaves to the garbage collector."""
    await request()
    gc.collect()
    gc.disable()
    try:
        for _ in range(COUNTED):
            await request()
        return gc.collect() / COUNTED
    finally:
        gc.enable()


async def measure() -> dict[str, Counter[str]]:
    """What `count` finds, by the name of the request."""
    async with inside() as app:
        return {name: await count(request) for name, request in (await requests(app)).items()}


async def measure_garbage() -> dict[str, float]:
    """What `garbage` finds, by the name of the request."""
    async with inside() as app:
        return {name: await garbage(request) for name, request in (await requests(app)).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--baseline", type=Path, default=BASELINE, help="another file to compare with")
    parser.add_argument("--renew", action="store_true", help="write the baseline")
    given = parser.parse_args()
    found = {name: calls.total() for name, calls in asyncio.run(measure()).items()}
    if given.renew:
        given.baseline.write_text(json.dumps(found, indent=2) + "\n")
    before = json.loads(given.baseline.read_text())
    print("Calls of functions that one request makes:")
    for name, calls in found.items():
        print(f"  {name:12} {calls:5}   baseline {before[name]:5}   {calls / before[name] - 1:+.1%}")
    left = [f"{name} ({objects:.1f})" for name, objects in asyncio.run(measure_garbage()).items() if objects >= 1]
    if left:
        sys.exit(f"Objects left to the garbage collector by each request: {', '.join(left)}")
    if over := [name for name, calls in found.items() if calls > before[name] * (1 + MARGIN)]:
        sys.exit(f"More than {MARGIN:.0%} above the baseline: {', '.join(over)}")


if __name__ == "__main__":
    main()
