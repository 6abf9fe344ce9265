"""The official suite as a client of the door, at each revision, in front of each kind of upstream.

Exactly the scenarios that no proxy can pass fail; they are named here with why.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.suite import run_server
from tests.conformance.upstreams import KINDS, upstream
from tests.conformance.verdict import surprises
from tests.harness import ProxyProcess

pytestmark = pytest.mark.anyio

SCORED = {"2025-11-25": 30, "2026-07-28": 37}
EXPECTED_FAILURES = {
    ("legacy-only", "2026-07-28"): {
        "input-required-result-basic-elicitation": "it demands the key `user_name`; a legacy server's requests have none",
        "input-required-result-multiple-input-requests": (
            "it demands three requests in one result; a legacy server asks one after the other"
        ),
    },
}


@pytest.mark.parametrize("revision", SCORED)
@pytest.mark.parametrize("kind", KINDS)
async def test_every_scenario_passes_that_can_be_passed(kind: str, revision: str, tmp_path: Path) -> None:
    async with upstream(kind) as entry, ProxyProcess("--no-auth", servers={"ref": entry}) as proxy:
        await proxy.connected("ref")
        outcomes = await run_server(f"http://localhost:{proxy.port}/mcp", revision, tmp_path)
        said = proxy.stderr()[-3000:]
    wrong = surprises(outcomes, EXPECTED_FAILURES.get((kind, revision), {}), SCORED[revision])
    assert not wrong, "\n".join([*wrong, "", "The proxy said at the end:", said])
