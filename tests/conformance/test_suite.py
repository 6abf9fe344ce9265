"""A run of the suite ends: with results when there are any, with a reason when there are none, and it leaves nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.conformance.suite import SuiteError, run_client, run_server
from tests.harness import alive, eventually

pytestmark = pytest.mark.anyio

WRITES_ITS_PID_AND_HANGS = "import os,sys,time; open(sys.argv[1],'w').write(str(os.getpid())); time.sleep(600)"

ANY_ERROR_WILL_DO = {"input-required-result-missing-input-response", "input-required-result-ignore-extra-params"}
"""Scenarios that take whatever goes wrong for the refusal they look for; by themselves they prove nothing."""


async def test_a_client_that_hangs_is_ended_with_the_run(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    command = [sys.executable, "-c", WRITES_ITS_PID_AND_HANGS, str(pid)]
    with pytest.raises(SuiteError, match=r"not done within 3 s: conformance client"):
        await run_client(command, "2026-07-28", "tools_call", tmp_path, timeout=3)
    await eventually(lambda: not alive(int(pid.read_text())), what="the client is gone")


async def test_a_client_that_does_nothing_has_not_passed(tmp_path: Path) -> None:
    outcome = await run_client([sys.executable, "-c", "pass"], "2026-07-28", "tools_call", tmp_path)
    assert not outcome.passed
    assert outcome.reasons


async def test_a_server_that_is_not_there_has_passed_nothing_that_needs_an_answer(tmp_path: Path) -> None:
    outcomes = await run_server("http://localhost:9/mcp", "2026-07-28", tmp_path, timeout=60)
    assert len(outcomes) == 50
    assert {outcome.scenario for outcome in outcomes if outcome.passed} == ANY_ERROR_WILL_DO
    assert all(outcome.reasons for outcome in outcomes if not outcome.passed)


async def test_a_scenario_that_the_suite_does_not_have_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="no scenario ran"):
        await run_server("http://localhost:9/mcp", "2026-07-28", tmp_path, scenario="no-such-scenario")
