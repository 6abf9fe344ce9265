"""``python -m tests.soak``: long runs against live management, with figures; exit code 1 when something is not as it should be."""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from tests.soak.churn import RUNS
from tests.soak.editing import Report, soak
from tests.soak.kills import kill_again_and_again
from tests.soak.measures import quantile

HELP = """\
edits   calls at a steady rate on three servers while others are added, edited, renamed, switched and removed
churn   a server comes and goes again and again: memory, files, threads, tasks and children must stay flat
kills   the proxy is killed in the middle of changes over the API: what was answered with 2xx must be there

Run from the root of the repository; scripts/test must have set things up.
"""


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak", description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1, help="of everything that is random (default: %(default)s)")
    runs = parser.add_subparsers(dest="run", required=True)
    edits = runs.add_parser("edits", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    edits.add_argument("--seconds", type=float, default=60, help="that the edits are spread over")
    edits.add_argument("--edits", type=int, default=100, help="changes")
    edits.add_argument("--rate", type=float, default=200, help="calls a second")
    edits.add_argument("--least-rate", type=float, default=100, help="calls a second that must be managed")
    edits.add_argument("--within", type=float, default=1, help="seconds in which the last change must show")
    edits.add_argument(
        "--quiet", type=float, default=10, help="seconds of calls before the first edit, to compare with"
    )
    edits.set_defaults(go=run_edits)
    churn = runs.add_parser("churn", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    churn.add_argument("--cycles", type=int, default=1000, help="of the HTTP form; commands, which are slower, a third")
    churn.add_argument("--form", action="append", choices=RUNS, help="repeatable; all of them unless given")
    churn.add_argument("--kib", type=float, default=2.0, help="memory that a cycle may add, in KiB, from 300 cycles on")
    churn.set_defaults(go=run_churn)
    kills = runs.add_parser("kills", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    kills.add_argument("--kills", type=int, default=30, help="how often")
    kills.set_defaults(go=run_kills)
    return parser.parse_args(given)


async def run_edits(given: argparse.Namespace) -> list[str]:
    report = await soak(seconds=given.seconds, rate=given.rate, edits=given.edits, quiet=given.quiet, seed=given.seed)
    show(report)
    made = sum(report.made.kinds.values())
    missing = [] if made == given.edits else [f"{made} of {given.edits} changes were made"]
    return missing + report.faults(min(given.least_rate, given.rate * 0.95), given.within)


async def run_churn(given: argparse.Namespace) -> list[str]:
    faults = []
    for form in given.form or RUNS:
        found = await RUNS[form](given.cycles if form == "http" else max(10, given.cycles // 3))
        print(found, flush=True)
        faults += found.faults(given.kib)
    return faults


async def run_kills(given: argparse.Namespace) -> list[str]:
    found = await kill_again_and_again(given.kills, given.seed)
    print(found)
    return found.faults if found.answered else [*found.faults, "no change was answered"]


def show(report: Report) -> None:
    """The figures."""
    made = report.made
    print(f"calls before the edits   {report.quiet}")
    print(f"calls during the edits   {report.busy}")
    print(f"  by kind                {dict(report.busy.by_kind)}")
    print(f"calls to changing ones   {dict(report.others)}")
    print(f"changes                  {sum(made.kinds.values())}: {dict(sorted(made.kinds.items()))}")
    for title, seconds in (
        ("files, until shown", made.file_seconds),
        ("API, until shown", made.api_seconds),
        ("then, until commands ran", made.child_seconds),
    ):
        ordered = sorted(seconds) or [math.nan]
        print(
            f"{title:<25}p50 {quantile(ordered, 0.5):.2f} s, p95 {quantile(ordered, 0.95):.2f} s, max {ordered[-1]:.2f} s"
        )
    print(f"last change until shown  {report.last_seconds:.2f} s")
    print(f"the proxy held before    {report.before}")
    print(f"               after     {report.after}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print, and say whether all was well."""
    given = arguments(argv)
    go: Callable[[argparse.Namespace], Coroutine[Any, Any, list[str]]] = given.go
    faults = asyncio.run(go(given))
    for fault in faults[:20]:
        print(f"FAULT: {fault}", file=sys.stderr)
    print("as it should be" if not faults else f"{len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
