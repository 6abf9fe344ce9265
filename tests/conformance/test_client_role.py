"""The official suite as the upstream: what the proxy sends to servers, in every client scenario but those of OAuth."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.conformance.suite import REVISIONS, requirements, run_client

pytestmark = pytest.mark.anyio

DRIVE = [sys.executable, "-m", "tests.conformance.drive"]
RUNS = [
    ("2025-11-25", "initialize"),
    ("2025-11-25", "tools_call"),
    ("2025-11-25", "elicitation-sep1034-client-defaults"),
    ("2025-11-25", "sse-retry"),
    ("2025-11-25", "json-schema-2020-12-preservation"),
    ("2026-07-28", "tools_call"),
    ("2026-07-28", "request-metadata"),
    ("2026-07-28", "sep-2322-client-request-state"),
    ("2026-07-28", "http-standard-headers"),
    ("2026-07-28", "http-custom-headers"),
    ("2026-07-28", "http-invalid-tool-headers"),
    ("2026-07-28", "json-schema-ref-no-deref"),
    ("2026-07-28", "json-schema-2020-12-preservation"),
]


@pytest.mark.parametrize(("revision", "scenario"), RUNS)
async def test_a_client_scenario_passes(revision: str, scenario: str, tmp_path: Path) -> None:
    outcome = await run_client(DRIVE, revision, scenario, tmp_path)
    assert outcome.passed, "\n".join(outcome.reasons)


@pytest.mark.parametrize("revision", REVISIONS)
def test_no_client_scenario_but_those_of_oauth_is_left_out(revision: str) -> None:
    listed = requirements(revision, "client")
    ours = {name for name in [*listed.scored, *listed.unscored] if not name.startswith("auth/")}
    assert {name for run, name in RUNS if run == revision} == ours
