"""The benchmark itself: it runs, its reports say what they are to, and what it counts has not become more. No time is asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.harness import ROOT

BENCH = ROOT / "bench"
PAGE = "before\n<!-- table: {0} -->\nold\n<!-- end -->\nbetween\n<!-- table: nothing -->\nkept\n<!-- end -->\n"
MACHINE = {
    "measured": "2026-01-01", "cpu": "one", "cores": 2, "kernel": "Linux", "python": "CPython 3.11",
    "packages": {}, "load_before": 0.0,
}  # fmt: skip
SETTINGS = {"seconds": 5, "warmup": 1, "pin": True}


def bench(*command: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """A program of bench/, with arguments, run to its end."""
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=timeout, cwd=BENCH)


def measured(gateway: str, backend: str, own: bool = False, **rates: float) -> dict[str, Any]:
    """What a run writes of a gateway: by front, calls a second of small calls, 64 in parallel."""
    rows = [
        {
            "gateway": gateway, "front": front, "op": "echo", "concurrency": 64, "calls": 100, "rps": rate,
            "p50_ms": 1.0, "p95_ms": 1.5, "p99_ms": 1.9, "errors": 0, "stuck": 0, "foreign": 0, "cpu_s_per_1k": 0.2,
            "rss_mib": 80.0,
        }
        for front, rate in rates.items()
    ]  # fmt: skip
    return {"gateway": gateway, "version": "1", "own": own, "note": "", "backend": backend, "rows": rows}


def filled(directory: Path, table: str, *reports: dict[str, Any]) -> str:
    """A page with a mark for this table, after the command has filled it from these results."""
    results = {"machine": MACHINE, "settings": SETTINGS, "reports": reports}
    (directory / "table.json").write_text(json.dumps(results))
    page = directory / "page.md"
    page.write_text(PAGE.format(table))
    done = bench("report.py", "--markdown", str(page), "--data", str(directory))
    assert done.returncode == 0, done.stderr
    return page.read_text()


def split(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


def cells(page: str, *beginning: str) -> list[str]:
    """The row that begins with these cells."""
    rows = [split(line) for line in page.splitlines() if line.startswith("|")]
    return next(row for row in rows if row[: len(beginning)] == [*beginning])


# What a call costs


def test_a_call_makes_python_do_no_more_than_it_did() -> None:
    done = bench("check.py")

    assert done.returncode == 0, done.stdout + done.stderr


def test_a_call_that_has_become_dearer_is_reported_by_name(tmp_path: Path) -> None:
    before = json.loads((BENCH / "baseline.json").read_text())
    cheaper = tmp_path / "baseline.json"
    cheaper.write_text(json.dumps(before | {"/mcp modern": before["/mcp modern"] // 2}))

    done = bench("check.py", "--baseline", str(cheaper))

    assert (done.returncode, done.stderr) == (1, "More than 25% above the baseline: /mcp modern\n")


# It runs


def test_the_short_form_runs_without_an_error_and_writes_its_results(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    names = "direct,mcp-proxy-api,mcp-proxy-api-stdio-uvicorn"

    done = bench("bench.py", "--smoke", "--no-pin", "--gateways", names, "--out", str(out), timeout=240)

    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(out.read_text())
    assert [report["gateway"] for report in results["reports"]] == names.split(",")
    assert all(row["calls"] for report in results["reports"] for row in report["rows"])
    assert {row["front"] for row in results["reports"][1]["rows"]} == {"rest", "modern", "legacy", "sse"}


# Its reports


def test_ratios_are_taken_to_the_fastest_peer_of_the_same_front_and_upstream_and_to_fastmcp(tmp_path: Path) -> None:
    page = filled(
        tmp_path,
        "ratios",
        measured("direct", "both", modern=90_000),
        measured("mcp-proxy-api", "modern", own=True, rest=4000, modern=3000),
        measured("fastmcp", "both", modern=100),
        measured("slow", "legacy", rest=400),
        measured("quick", "stdio", rest=2000, modern=2000),
    )

    assert cells(page, "mcp-proxy-api", "rest")[2:] == ["HTTP", "4,000", "slow, rest", "10.0", "40.0"]
    assert cells(page, "mcp-proxy-api", "modern")[2:] == ["HTTP", "3,000", "fastmcp, modern", "30.0", "30.0"]


def test_a_goal_is_judged_by_the_worst_row_and_is_open_where_nothing_was_measured(tmp_path: Path) -> None:
    page = filled(
        tmp_path,
        "goals",
        measured("mcp-proxy-api", "modern", own=True, rest=4000, modern=1000),
        measured("fastmcp", "both", modern=100),
    )

    assert cells(page, "The default server, HTTP upstream: times FastMCP's proxy")[2:] == [
        "10.0 (modern)",
        "**missed**",
    ]
    assert cells(page, "The default server, HTTP upstream: times as fast as the fastest peer")[2:] == [
        "10.0 (modern)",
        "reached",
    ]
    assert cells(page, "`--server uvicorn`, stdio upstream: times FastMCP's proxy")[2:] == ["", "not measured"]


def test_a_run_on_a_busy_machine_says_so(tmp_path: Path) -> None:
    report = measured("mcp-proxy-api", "modern", own=True, rest=4000, modern=3000)
    quiet = filled(tmp_path, "conditions", report)
    report["rows"][0]["other_load"] = 0.5

    busy = filled(tmp_path, "conditions", report)

    assert "something else ran" not in quiet
    assert "1 of 2 rows were measured while something else ran" in busy


def test_only_what_stands_between_marks_is_replaced(tmp_path: Path) -> None:
    page = filled(tmp_path, "ratios", measured("mcp-proxy-api", "modern", own=True, rest=4000))

    assert "old" not in page
    assert page.startswith("before\n<!-- table: ratios -->\n| gateway |")
    assert page.endswith("<!-- end -->\nbetween\n<!-- table: nothing -->\nkept\n<!-- end -->\n")


def test_growth_that_is_more_than_linear_is_flagged_and_linear_growth_is_not() -> None:
    points = [
        {"size": size, "cpu_s_per_1k": size**2, "p50_ms": 3 + size, "start_s": 1.0, "rss_mib": 90 + size**1.5}
        for size in (1, 10, 100, 1000, 10_000)
    ]

    done = bench("-c", f"from growth import exponent_table; print(exponent_table({{'tools': {points}}}))")

    rows = {measure: rest for _, measure, *rest in map(split, done.stdout.splitlines()[2:])}
    assert rows["CPU s per 1,000 calls"][1:] == ["+2.00", "+2.00", "more than linear"]
    assert rows["p50 ms"][2:] == ["+1.00", ""]
    assert rows["start s"][1:] == ["+0.00", "+0.00", ""]
    assert rows["memory MiB"][2:] == ["+1.50", "more than linear"]
