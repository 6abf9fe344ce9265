"""The fixture server passes the whole suite with nothing before it, so that a broken fixture is not taken for a broken door."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.suite import run_server
from tests.conformance.upstreams import fixture_over_http
from tests.conformance.verdict import surprises

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("revision", "count"), [("2025-11-25", 30), ("2026-07-28", 37)])
async def test_the_fixture_server_passes_every_scored_scenario(revision: str, count: int, tmp_path: Path) -> None:
    async with fixture_over_http("both") as url:
        outcomes = await run_server(url.replace("127.0.0.1", "localhost"), revision, tmp_path)
    wrong = surprises(outcomes, {}, count)
    assert not wrong, "\n".join(wrong)
