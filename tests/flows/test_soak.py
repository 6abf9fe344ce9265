"""Short forms of the long runs of `tests.soak`: live management under load, over and over, and cut short."""

from __future__ import annotations

import pytest

from tests.soak.churn import RUNS
from tests.soak.editing import soak
from tests.soak.kills import kill_again_and_again

pytestmark = pytest.mark.anyio


async def test_calls_on_other_servers_do_not_notice_edits_by_files_and_api():
    report = await soak(seconds=8, rate=100, edits=22, quiet=1, seed=2)
    assert not report.faults()
    assert sum(report.made.kinds.values()) == 22
    assert len(report.busy.seconds) > 500


@pytest.mark.parametrize(("form", "cycles"), [("http", 60), ("hasty", 15)])
async def test_what_the_process_holds_does_not_grow_with_servers_that_come_and_go(form: str, cycles: int):
    found = await RUNS[form](cycles)
    assert not found.faults()


async def test_every_answered_change_outlives_kills():
    found = await kill_again_and_again(2, seed=2)
    assert not found.faults
    assert found.answered > 0
