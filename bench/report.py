#!/usr/bin/env python3
"""The results as people read them: a line a measurement while it runs, tables at the end, and the ratios to peers.

bench/report.py --markdown      fills docs/performance.md from the JSON beside its drawings, and draws those anew (`page`)
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

FASTMCP = "fastmcp"  # what its documentation calls its proxy: create_proxy(config); in front of stdio, fastmcp-stdio
COMPARED = 64  # in parallel: where ratios are taken


def line(row: dict) -> str:
    bad = ""
    if row["errors"] or row["stuck"] or row["foreign"]:
        bad = f"  !! {row['errors']} errors, {row['stuck']} stuck, {row['foreign']} foreign: {row['error'][:160]}"
    return (
        f"{row['gateway']:24} {row['front']:7} {row['op']:5} c={row['concurrency']:<4}{row['rps']:>9} /s  "
        f"p50 {row['p50_ms']:>8} p95 {row['p95_ms']:>8} p99 {row['p99_ms']:>8} ms  rss {row.get('rss_mib', '-'):>6} MiB  "
        f"cpu/1k {row.get('cpu_s_per_1k')} s (load {row.get('cpu_load')}, others {row.get('other_load')}){bad}"
    )


def load_results(path: str) -> dict:
    """What a run has written: ``machine``, ``settings``, ``reports``."""
    with open(path) as f:
        return json.load(f)


def faults(row: dict) -> int:
    """Calls of a measurement that were not answered as they should have been."""
    return row["errors"] + row["stuck"] + row["foreign"]


def table(head: str, rows: list[list]) -> str:
    """Markdown. ``head``: the titles, with ``>`` before those of numbers."""
    titles = head.split("|")
    out = ["| " + " | ".join(title.lstrip(">") for title in titles) + " |"]
    out.append("|" + "|".join("--:" if title.startswith(">") else "---" for title in titles) + "|")
    return "\n".join(out + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


# --- ratios


@dataclass(frozen=True, slots=True)
class Ratio:
    """Calls a second of one of the project's rows against those of others in the same run. None: there is no such row.

    ``peer`` is the fastest of all with the same kind of upstream (HTTP or stdio) and the same front, or with any front
    where no peer has that one. FastMCP's proxy has no REST; its modern front, which has no session either, stands for it.
    """

    gateway: str
    front: str
    upstream: str
    rps: float
    peer: str | None
    to_peer: float | None
    to_fastmcp: float | None


def kind(backend: str) -> str:
    return "stdio" if backend == "stdio" else "HTTP"


def rows_at(reports: list[dict], op: str, concurrency: int) -> Iterator[tuple[dict, dict]]:
    for report in reports:
        for row in report["rows"]:
            if (row["op"], row["concurrency"]) == (op, concurrency) and row["calls"]:
                yield report, row


def ratios(reports: list[dict], op: str = "echo", concurrency: int = COMPARED) -> list[Ratio]:
    found = list(rows_at(reports, op, concurrency))
    peers = [(r, row) for r, row in found if not r["own"] and r["gateway"] != "direct"]
    return [_ratio(report, row, peers) for report, row in found if report["own"]]


def _ratio(report: dict, row: dict, peers: list[tuple[dict, dict]]) -> Ratio:
    upstream, front = kind(report["backend"]), row["front"]
    alike = [(r, other) for r, other in peers if kind(r["backend"]) == upstream]
    same = [(r, other) for r, other in alike if other["front"] == front] or alike
    fastest = max(same, key=lambda one: one[1]["rps"], default=None)
    name = FASTMCP if upstream == "HTTP" else f"{FASTMCP}-stdio"
    wanted = "legacy" if front in ("legacy", "sse") else "modern"
    proxy = [other["rps"] for r, other in alike if (r["gateway"], other["front"]) == (name, wanted)]
    return Ratio(
        report["gateway"], front, upstream, row["rps"],
        f"{fastest[0]['gateway']}, {fastest[1]['front']}" if fastest else None,
        row["rps"] / fastest[1]["rps"] if fastest else None,
        row["rps"] / proxy[0] if proxy else None,
    )  # fmt: skip


def times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.1f}"


def ratio_table(reports: list[dict]) -> str:
    return table(
        "gateway|front|upstream|>calls/s|fastest peer|>times as fast|>times FastMCP's proxy",
        [
            [r.gateway, r.front, r.upstream, f"{r.rps:,.0f}", r.peer or "", times(r.to_peer), times(r.to_fastmcp)]
            for r in ratios(reports)
        ],
    )


# --- everything, for the terminal


def added(reports: list[dict], row: dict) -> float | None:
    """Milliseconds at the median over no gateway at all. REST has no direct counterpart; the modern MCP call is the same
    work without a session."""
    front = "modern" if row["front"] == "rest" else row["front"]
    base = (other for report, other in rows_at(reports, row["op"], row["concurrency"]) if report["gateway"] == "direct")
    found = next((other for other in base if other["front"] == front), None)
    return row["p50_ms"] - found["p50_ms"] if found else None


def show(reports: list[dict]) -> str:
    measured = []
    for r in reports:
        for row in r["rows"]:
            more = added(reports, row) if row["calls"] and r["gateway"] != "direct" else None
            measured.append([
                r["gateway"], row["front"], r["backend"], row["op"], row["concurrency"], f"{row['rps']:.0f}",
                f"{row['p50_ms']:.2f}", f"{row['p95_ms']:.2f}", f"{row['p99_ms']:.2f}",
                "" if more is None else f"{more:.2f}", faults(row), row.get("cpu_s_per_1k"), row.get("rss_mib"),
            ])  # fmt: skip
    return "\n\n".join([
        table("gateway|front|backend|op|>c|>calls/s|>p50 ms|>p95 ms|>p99 ms|>added p50 ms|>errors|>CPU s/1k|>RSS MiB", measured),
        f"Small calls, {COMPARED} in parallel:\n\n" + ratio_table(reports),
        start_table(reports),
    ])  # fmt: skip


def start_table(reports: list[dict]) -> str:
    return table(
        "gateway|version|upstream|>start s|>idle MiB|>start s with 20|>idle MiB with 20|note",
        [
            [
                r["gateway"], r["version"] or "", r["backend"], r.get("cold_start_s", ""), r.get("idle_rss_mib", ""),
                r.get("many_start_s", ""), r.get("many_idle_rss_mib", ""),
                r.get("failed", r["note"])[:120].replace("\n", " ").replace("|", "/"),
            ]
            for r in reports
        ],
    )  # fmt: skip


if __name__ == "__main__":
    from page import main

    main()
