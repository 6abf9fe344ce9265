"""docs/performance.md: its tables from docs/performance/table.json and growth.json, and its drawings from the latter.

The page has marks, ``<!-- table: NAME -->`` to ``<!-- end -->``; what stands between them is replaced, and nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from check import measure
from growth import exponent_table
from machine import ROOT
from report import COMPARED, Ratio, added, faults, load_results, ratio_table, ratios, rows_at, start_table, table

PAGE = ROOT / "docs/performance.md"
DATA = ROOT / "docs/performance"
BUSY = 0.1
"""Cores that unrelated processes took during a row, from which on it is not worth comparing."""
MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def conditions(results: dict) -> str:
    """A sentence or two about a run."""
    m, s = results["machine"], results["settings"]
    packages = ", ".join(f"{name} {version}" for name, version in m["packages"].items())
    pinned = "gateway and load on cores of their own" if s["pin"] else "gateway and load share the cores"
    said = (
        f"Measured {m['measured']} on {m['cores']} cores ({m['cpu']}, {m['kernel']}), {m['python']}, {packages}; "
        f"{s['seconds']:g} s a row after {s['warmup']:g} s of warming up, {pinned}."
    )
    rows = [row for report in results.get("reports", ()) for row in report["rows"]]
    rows += [point for points in results.get("axes", {}).values() for point in points]
    busy = sum((row.get("other_load") or 0) > BUSY for row in rows)
    if busy:
        said += f" **{busy} of {len(rows)} rows were measured while something else ran: they prove nothing.**"
    return said


def own_table(reports: list[dict]) -> str:
    """The project's rows, by what it is measured with and the front."""
    rows = []
    for report in (r for r in reports if r["own"]):
        for front in dict.fromkeys(row["front"] for row in report["rows"]):
            found = {(row["op"], row["concurrency"]): row for row in report["rows"] if row["front"] == front}
            rows.append([report["gateway"], front, report["backend"], *_own_cells(reports, found)])
    return table(
        "gateway|front|upstream|>calls/s at 1|>at 64|>at 256|>at 1,000|>1 MiB/s|>added ms|>p50 ms at 64|>p95 ms at 64"
        "|>CPU ms a call|>errors",
        rows,
    )


def _own_cells(reports: list[dict], found: dict[tuple[str, int], dict]) -> list[str]:
    def rate(op: str, concurrency: int) -> str:
        row = found.get((op, concurrency))
        return f"{row['rps']:,.0f}" if row else ""

    one, many = found.get(("echo", 1)), found.get(("echo", COMPARED))
    more = added(reports, one) if one else None
    return [
        *(rate("echo", concurrency) for concurrency in (1, COMPARED, 256, 1000)),
        rate("1m", 16),
        "" if more is None else f"{more:.2f}",
        *(f"{many[name]:.1f}" if many else "" for name in ("p50_ms", "p95_ms")),
        f"{many['cpu_s_per_1k']:.3f}" if many and many["cpu_s_per_1k"] else "",
        str(sum(faults(row) for row in found.values())),
    ]


def peer_table(reports: list[dict]) -> str:
    rows = [
        [
            report["gateway"], row["front"], report["backend"], f"{row['rps']:,.0f}", f"{row['p50_ms']:.1f}",
            f"{row['p95_ms']:.1f}", row.get("cpu_s_per_1k"), row.get("rss_mib"), faults(row),
        ]
        for report, row in rows_at(reports, "echo", COMPARED)
    ]  # fmt: skip
    rows.sort(key=lambda cells: -float(cells[3].replace(",", "")))
    return table("gateway|front|upstream|>calls/s|>p50 ms|>p95 ms|>CPU ms a call|>MiB|>errors", rows)


def part_table() -> str:
    """Calls of functions that a request makes, by room of the house and by library; counted now."""
    found = asyncio.run(measure())
    by_part = {name: Counter() for name in found}
    for name, calls in found.items():
        for module, number in calls.items():
            words = module.split(".")
            by_part[name][".".join(words[:2]) if words[0] == "mcp_proxy" else words[0]] += number
    everything = sum(by_part.values(), Counter())
    large = [part for part, number in everything.most_common() if number >= everything.total() / 50]
    rows = [[f"`{part}`", *(calls[part] for calls in by_part.values())] for part in large]
    rows.append(["the rest", *(sum(n for part, n in calls.items() if part not in large) for calls in by_part.values())])
    rows.append(["all", *(calls.total() for calls in by_part.values())])
    return table("calls of functions in|" + "|".join(f">`{name}`" for name in found), rows)


# --- goals


def goal_table(reports: list[dict]) -> str:
    """What the project is to reach in any run, on any machine, and what it has reached in this one."""
    rows = []
    for server, suffix, fastest, fastmcp in (
        ("The default server", "", 1.5, 12),
        ("`--server uvicorn`", "-uvicorn", 5, 40),
    ):
        for upstream in ("HTTP", "stdio"):
            own = "mcp-proxy-api" + ("-stdio" if upstream == "stdio" else "") + suffix
            mine = [r for r in ratios(reports) if r.gateway == own and r.front != "sse"]
            under = f"{server}, {upstream} upstream"
            rows.append(
                [f"{under}: times as fast as the fastest peer", f"≥ {fastest}", *_least(mine, "to_peer", fastest)]
            )
            rows.append([f"{under}: times FastMCP's proxy", f"≥ {fastmcp}", *_least(mine, "to_fastmcp", fastmcp)])
    own_rows = [(r, row) for r in reports if r["own"] for row in r["rows"] if row["calls"]]
    at = [(r, row) for r, row in own_rows if (row["op"], row["concurrency"]) == ("echo", COMPARED)]
    rows += [
        _most("p95 over p50, 64 in parallel", "< 2", at, lambda row: row["p95_ms"] / row["p50_ms"], 2),
        _most("errors at 256 and 1,000 in parallel", "0", [o for o in own_rows if o[1]["concurrency"] > 200], faults, 0.5),
        _most(
            "ms added at the median, 1 in flight", "< 0.4",
            [o for o in own_rows if (o[1]["op"], o[1]["concurrency"]) == ("echo", 1) and added(reports, o[1]) is not None],
            lambda row: added(reports, row), 0.4,
        ),
    ]  # fmt: skip
    idle = [(r["idle_rss_mib"], r["gateway"]) for r in reports if r["own"] and "idle_rss_mib" in r]
    if idle:
        rows.append(
            ["memory of an idle proxy, MiB", "≤ 90", f"{max(idle)[0]} ({max(idle)[1]})", _verdict(max(idle)[0] <= 90)]
        )
    return table("what|goal|the worst here|", rows)


def _least(found: list[Ratio], name: str, goal: float) -> list[str]:
    values = [(value, ratio.front) for ratio in found if (value := getattr(ratio, name)) is not None]
    return (
        [f"{min(values)[0]:.1f} ({min(values)[1]})", _verdict(min(values)[0] >= goal)]
        if values
        else ["", "not measured"]
    )


def _most(what: str, goal: str, found: list[tuple[dict, dict]], value: Callable, limit: float) -> list[str]:
    if not found:
        return [what, goal, "", "not measured"]
    report, row = max(found, key=lambda one: value(one[1]))
    return [what, goal, f"{value(row):.2g} ({report['gateway']}, {row['front']})", _verdict(value(row) < limit)]


def _verdict(good: bool) -> str:
    return "reached" if good else "**missed**"


# --- the page


def tables(measured: dict | None, growing: dict | None) -> dict[str, Callable[[], str]]:
    """By name, what makes it; those that there are results for."""
    made: dict[str, Callable[[], str]] = {"parts": part_table}
    if measured is not None:
        reports = measured["reports"]
        versions = ", ".join(f"{r['gateway']} {r['version']}" for r in reports if r["version"] and not r["own"])
        made |= {
            "conditions": lambda: conditions(measured) + (f" Peers: {versions}." if versions else ""),
            "goals": lambda: goal_table(reports),
            "own": lambda: own_table(reports),
            "ratios": lambda: ratio_table(reports),
            "peers": lambda: peer_table(reports),
            "starts": lambda: start_table(reports),
        }
    if growing is not None:
        made |= {"growing": lambda: conditions(growing), "exponents": lambda: exponent_table(growing["axes"])}
    return made


def filled(page: str, made: dict[str, Callable[[], str]]) -> str:
    """``page`` with these tables in the place of those that it had."""
    return MARKED.sub(lambda m: f"{m[1]}{made[m[2]]()}\n{m[3]}" if m[2] in made else m[0], page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markdown", type=Path, nargs="?", const=PAGE, required=True, help="the page")
    parser.add_argument("--data", type=Path, default=DATA, help="where the JSON is, and the drawings go")
    given = parser.parse_args()
    loaded = [
        load_results(str(path)) if path.exists() else None
        for path in (given.data / "table.json", given.data / "growth.json")
    ]
    given.markdown.write_text(filled(given.markdown.read_text(), tables(*loaded)))
    if loaded[1] is not None:
        from draw import draw  # a heavy import, for this alone

        for path in draw(loaded[1]["axes"], given.data):
            print(path)
