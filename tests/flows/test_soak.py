"""Short forms of the long runs of `tests.soak`: live management under load, over and over, and cut short.

Each is a process of its own, as it is by hand: they count what their process holds.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress

import pytest

from tests.harness import ROOT

LIMIT = 180
"""Seconds that one run may take; none needs more than a tenth of it where nothing else goes on."""


def soaked(*arguments: str) -> subprocess.CompletedProcess[str]:
    """One run, at its end. Raises `TimeoutExpired`."""
    argv = [sys.executable, "-m", "tests.soak", "--seed", "2", *arguments]
    process = subprocess.Popen(
        argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        said, _ = process.communicate(timeout=LIMIT)
    finally:
        with suppress(ProcessLookupError):  # with all that it has started
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return subprocess.CompletedProcess(argv, process.returncode, said)


@pytest.mark.parametrize(
    "arguments",
    [
        # How fast it is, is not asked here, where other tests run beside it.
        pytest.param(
            "edits --seconds 8 --edits 22 --quiet 1 --rate 100 --least-rate 1 --within 60", id="edits by files and API"
        ),
        pytest.param("churn --form http --cycles 60", id="servers that come and go"),
        pytest.param("churn --form hasty --cycles 45", id="servers that go while they come"),
        pytest.param("kills --kills 2", id="kills amid changes"),
    ],
)
def test_calls_changes_and_what_is_held_are_as_they_should_be(arguments: str) -> None:
    run = soaked(*arguments.split())
    assert run.returncode == 0, run.stdout
    assert run.stdout.endswith("as it should be\n"), run.stdout
