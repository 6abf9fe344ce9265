#!/usr/bin/env python3
"""How cost grows: CPU of a call, latency, start and memory as upstreams, tools, sessions and payload become more.

scripts/bench growth                                     a quarter of an hour
scripts/bench growth --axes tools --seconds 1            a part, quickly
scripts/bench growth --out docs/performance/growth.json  what docs/performance.md is filled from

Each measure gets the exponent k of cost = a * size**k: of all points (least squares on logarithms), and of the last two,
where a fixed part weighs least. 1 is linear; what is above is flagged.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import time

from accounting import Processes
from gateways import McpProxyApi, OnUvicorn, http, write
from load import Client, Load
from machine import machine
from report import table

from bench import SIZES, Bench, prepare_process, write_results

AXES = {
    "upstreams": (1, 5, 20, 50, 100, 200),
    "tools": (10, 100, 1000, 3000, 10_000),
    "sessions": (1, 10, 100, 1000, 5000),
    "payload": tuple(sorted(size for name, size in SIZES.items() if name != "1m")),
}
MEASURES = {
    "cpu_s_per_1k": "CPU s per 1,000 calls",
    "p50_ms": "p50 ms",
    "start_s": "start s",
    "rss_mib": "memory MiB",
}
MORE_THAN_LINEAR = 1.1
"""From this exponent on: what is linear comes out at 1 give or take some percent."""
OPENING = 16
"""Sessions that are opened at once."""


class Growing(McpProxyApi):
    """This project with servers from a file; it has started when every one of them is connected."""

    name = "growing"
    fronts = ("rest",)

    def command(self, run):
        servers = {b.name: {"type": "http", "url": b.url} for b in run.backends}
        config = write(run, "servers.json", json.dumps({"mcpServers": servers}))
        command = [*super().command(run), "--config", config]
        del self.env["MCP_URLS"]
        return command

    def prepare(self, run):
        end = time.monotonic() + 120
        while not self._connected(run):
            if time.monotonic() > end:
                raise RuntimeError("not all servers are connected")
            time.sleep(0.02)

    def _connected(self, run) -> bool:
        try:
            servers = http("GET", f"http://127.0.0.1:{run.port}/health")["servers"]
        except OSError:  # 503 as long as none is
            return False
        return set(servers.values()) == {"connected"}

    def rest(self, run, backend, tool, args):
        return "/tools", {"method": tool, "args": args, "server": backend}


class GrowingUvicorn(OnUvicorn, Growing):
    """The same, without HTTP/2."""

    name = "growing-uvicorn"


async def open_sessions(load: Load, count: int) -> None:
    """So many legacy sessions, which stay when their connections have gone."""
    load.tasks = set()
    load.stopping = True  # nobody redials
    gate = asyncio.Semaphore(OPENING)

    async def one(index: int) -> None:
        async with gate:
            client = Client(load, index)
            await client.connect()
            client.close()

    await asyncio.gather(*(one(index) for index in range(count)))


def point(args, axis: str, size: int) -> dict:
    """One size of one axis, measured with a proxy of its own."""
    bench = Bench(args, tools=max(0, size - 3) if axis == "tools" else 0)
    gateway = GrowingUvicorn() if args.server == "uvicorn" else Growing()
    try:
        run, process, took = bench.start(gateway, size if axis == "upstreams" else 1)
        try:
            front, op, concurrency = "rest", "echo", args.concurrency
            if axis == "payload":
                op, concurrency = next(name for name, known in SIZES.items() if known == size), 4
            if axis == "sessions":
                front = "legacy"
                asyncio.run(open_sessions(Load(bench.target(gateway, run, front, op), 1, op), size))
            idle = Processes(process.pid).usage().rss
            row = bench.measure(gateway, run, process, front, op, concurrency)
        finally:
            bench.stop(run, process)
    finally:
        bench.close()
    if row["errors"] or not row["calls"]:
        raise RuntimeError(f"{axis} {size}: {row['errors']} errors, {row['error']}")
    # What a payload leaves behind is what it takes; of the other axes, what they hold while nothing happens.
    memory = row["rss_mib"] if axis == "payload" else round(idle, 1)
    kept = ("cpu_s_per_1k", "p50_ms", "p95_ms", "rps", "other_load")
    return {"size": size, "start_s": round(took, 3), "rss_mib": memory, **{name: row[name] for name in kept}}


# --- exponents


def slope(points: list[tuple[float, float]]) -> float:
    """Of the line through the logarithms, by least squares."""
    logs = [(math.log(x), math.log(y)) for x, y in points]
    mean_x = sum(x for x, _ in logs) / len(logs)
    mean_y = sum(y for _, y in logs) / len(logs)
    return sum((x - mean_x) * (y - mean_y) for x, y in logs) / sum((x - mean_x) ** 2 for x, _ in logs)


def exponents(points: list[dict]) -> dict[str, tuple[float, float]]:
    """By measure: the exponent of all points, and that of the last two."""
    found = {}
    for name in MEASURES:
        pairs = [(point["size"], point[name]) for point in points if point[name]]
        if len(pairs) > 1:
            found[name] = (slope(pairs), slope(pairs[-2:]))
    return found


def exponent_table(axes: dict[str, list[dict]]) -> str:
    rows = []
    for axis, points in axes.items():
        for name, (overall, last) in exponents(points).items():
            flag = "more than linear" if max(overall, last) > MORE_THAN_LINEAR else ""
            first, final = points[0], points[-1]
            rows.append([
                f"{axis} {first['size']:,} → {final['size']:,}", MEASURES[name],
                f"{first[name]:.3g} → {final[name]:.3g}", f"{overall:+.2f}", f"{last:+.2f}", flag,
            ])  # fmt: skip
    return table("as these grow|this becomes|from → to|>exponent|>at the end|", rows)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--axes", default=",".join(AXES), help="some of: %(default)s")
    p.add_argument("--largest", type=int, default=0, help="leave out what is larger (0: nothing)")
    p.add_argument("--server", choices=("hypercorn", "uvicorn"), default="hypercorn")
    p.add_argument("--concurrency", type=int, default=16, help="calls in parallel (with payloads: 4)")
    p.add_argument("--seconds", type=float, default=5)
    p.add_argument("--warmup", type=float, default=1.5)
    p.add_argument("--no-pin", dest="pin", action="store_false", help="do not pin proxy and load to separate cores")
    p.add_argument("--out", default="", help="JSON")
    args = p.parse_args()
    args.backend, args.start_timeout, args.keep, args.peers = "", 120, False, os.curdir
    prepare_process()
    chosen = ("server", "concurrency", "seconds", "warmup", "pin")
    results = {"machine": machine(), "settings": {name: getattr(args, name) for name in chosen}, "axes": {}}
    for axis in args.axes.split(","):
        points = results["axes"][axis] = []
        for size in AXES[axis]:
            if args.largest and size > args.largest:
                continue
            points.append(point(args, axis, size))
            print(axis, " ".join(f"{name}={value}" for name, value in points[-1].items()), flush=True)
            if args.out:
                write_results(args.out, results)
    print("\n" + exponent_table(results["axes"]))


if __name__ == "__main__":
    main()
