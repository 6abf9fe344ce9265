from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from mcp_proxy.base.errors import StartError
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.config.budget_file import MOST_TOKENS, BudgetFile, Spent
from mcp_proxy.core.auth.claims import LEEWAY
from mcp_proxy.llm.budgets import Budgets
from tests.harness import eventually
from tests.unit.core.fakes import FakeClock, RecordingLog

pytestmark = pytest.mark.anyio


def made(
    directory: Path, *, log: RecordingLog | None = None, clock: FakeClock | None = None, most: int = 10
) -> Budgets:
    return Budgets(BudgetFile(directory), clock=clock or FakeClock(), log=log or RecordingLog(), most=most)


def kept(directory: Path) -> dict[str, Spent]:
    return BudgetFile(directory).load()


async def test_a_reservation_is_set_aside_until_it_is_settled(tmp_path: Path) -> None:
    budgets = made(tmp_path)
    first, second = budgets.reserve("jti:a", 100, None), budgets.reserve("jti:a", 50, None)
    assert (budgets.spent("jti:a"), budgets.reserved("jti:a"), budgets.reserved("jti:b")) == (0, 150, 0)
    first.settle(30)
    assert (budgets.spent("jti:a"), budgets.reserved("jti:a")) == (30, 50)
    second.settle(70)
    assert (budgets.spent("jti:a"), budgets.reserved("jti:a")) == (100, 0)


async def test_what_was_spent_is_spent_after_a_restart(tmp_path: Path) -> None:
    budgets = made(tmp_path)
    budgets.reserve("jti:a", 100, 2000.0).settle(30)
    await budgets.close()
    assert kept(tmp_path) == {"jti:a": Spent(30, 2000.0)}
    assert made(tmp_path).spent("jti:a") == 30


async def test_nothing_is_written_where_nothing_was_spent(tmp_path: Path) -> None:
    budgets = made(tmp_path)
    budgets.reserve("jti:a", 100, None).settle(0)
    await budgets.close()
    assert not BudgetFile(tmp_path).path.exists()


async def test_counting_ends_at_a_number_that_can_be_kept(tmp_path: Path) -> None:
    budgets = made(tmp_path)
    for _ in range(2):
        budgets.reserve("jti:a", 1, None).settle(10**30)
    await budgets.close()
    assert made(tmp_path).spent("jti:a") == MOST_TOKENS


async def test_a_budget_is_kept_for_the_longest_of_its_tokens(tmp_path: Path) -> None:
    budgets = made(tmp_path)
    for expires in (2000.0, 3000.0, 1000.0):
        budgets.reserve("jti:a", 1, expires).settle(1)
    budgets.reserve("jti:b", 1, 2000.0).settle(1)
    budgets.reserve("jti:b", 1, None).settle(1)
    await budgets.close()
    assert kept(tmp_path) == {"jti:a": Spent(3, 3000.0), "jti:b": Spent(2, None)}


async def test_expired_budgets_make_room_and_no_others(tmp_path: Path) -> None:
    clock = FakeClock(1000.0)
    budgets = made(tmp_path, clock=clock, most=3)
    for key, expires in (("jti:old", 1500.0), ("jti:new", 9000.0), ("sub:ever", None)):
        budgets.reserve(key, 5, expires).settle(5)
    assert budgets.has_room("jti:new")
    assert not budgets.has_room("jti:more")
    clock.now = 1500.0 + LEEWAY - 1
    assert not budgets.has_room("jti:more")
    clock.now = 1500.0 + LEEWAY
    assert budgets.has_room("jti:more")
    assert (len(budgets), budgets.spent("jti:old"), budgets.spent("jti:new"), budgets.spent("sub:ever")) == (2, 0, 5, 5)


async def test_a_budget_of_which_a_completion_runs_makes_no_room(tmp_path: Path) -> None:
    clock = FakeClock(1000.0)
    budgets = made(tmp_path, clock=clock, most=1)
    running = budgets.reserve("jti:a", 5, 1500.0)
    clock.now = 9000.0
    assert not budgets.has_room("jti:b")
    running.settle(5)
    assert budgets.has_room("jti:b")


async def test_what_is_spent_is_written_by_and_by(tmp_path: Path) -> None:
    budgets, tasks = made(tmp_path), TaskSet(lambda name, error: None)
    tasks.spawn(budgets.keep(0), "budgets")
    try:
        for total in (1, 2):
            budgets.reserve("jti:a", 5, None).settle(1)
            await eventually(lambda total=total: kept(tmp_path) == {"jti:a": Spent(total)})
    finally:
        await tasks.close()


class CountingFile(BudgetFile):
    """Counts how often it is written."""

    saved = 0

    def save(self, budgets: Mapping[str, Spent]) -> None:
        self.saved += 1
        super().save(budgets)


async def test_between_two_writings_there_is_a_pause_and_the_end_does_not_wait_for_it(tmp_path: Path) -> None:
    file = CountingFile(tmp_path)
    budgets, tasks = Budgets(file, clock=FakeClock(), log=RecordingLog()), TaskSet(lambda name, error: None)
    tasks.spawn(budgets.keep(3600), "budgets")
    budgets.reserve("jti:a", 5, None).settle(1)
    await eventually(lambda: file.saved == 1)
    for _ in range(20):
        budgets.reserve("jti:a", 5, None).settle(1)
        await asyncio.sleep(0)
    await tasks.close()
    assert file.saved == 1
    await budgets.close()
    assert (file.saved, kept(tmp_path)) == (2, {"jti:a": Spent(21)})


async def test_a_writing_that_is_cancelled_is_done_at_the_end(tmp_path: Path) -> None:
    budgets, tasks = made(tmp_path), TaskSet(lambda name, error: None)
    budgets.reserve("jti:a", 5, None).settle(3)
    tasks.spawn(budgets.keep(0), "budgets")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await tasks.close()
    await budgets.close()
    assert kept(tmp_path) == {"jti:a": Spent(3)}


async def test_a_file_that_cannot_be_written_is_logged_once_and_written_when_it_can_be(tmp_path: Path) -> None:
    place, log = tmp_path / "state", RecordingLog()
    budgets = made(place, log=log)
    place.write_text("in the way")
    for _ in range(3):
        budgets.reserve("jti:a", 5, None).settle(1)
        await budgets.close()
    assert [(level, event) for level, event, _ in log.lines] == [("error", "budgets_not_kept")]
    assert "cannot be written" in log.lines[0][2]["reason"]
    assert budgets.spent("jti:a") == 3
    place.unlink()
    await budgets.close()
    assert kept(place) == {"jti:a": Spent(3)}


async def test_a_file_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "budgets.json").write_text(json.dumps({"version": 1, "budgets": 5}))
    with pytest.raises(StartError, match="mend it"):
        made(tmp_path)
