"""The official npm clients, at every kind of source: what they make of the answers, and what the model was asked.

The cases are in `npm`, one function each. The program there runs once for a kind, and tells how each of them ended.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.llm.exceptions import EXCEPTIONS
from tests.llm.kinds import KINDS
from tests.llm.npm.program import Run, run_at
from tests.llm.npm.table import CASES, LATE, LATE_STREAM, LEFT, LONGEST, MIDWAY, Case, cases_of, count

pytestmark = [pytest.mark.anyio, pytest.mark.live]


@pytest.fixture(scope="module", params=KINDS)
async def run(request: pytest.FixtureRequest) -> Run:
    """What came of all cases at a source of each kind in turn."""
    return await run_at(request.param)


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_npm_client(run: Run, case: Case) -> None:
    assert run.ended.get(case.name, "was not run") is None, run.ended.get(case.name)
    asked = run.asked.get(case.name, [])
    assert len(asked) == case.asked
    assert case.seen(asked), asked


async def test_the_program_has_no_other_cases(run: Run) -> None:
    assert sorted(run.known) == sorted(case.name for case in CASES)
    assert sorted(run.ended) == sorted(case.name for case in cases_of(run.kind))
    assert set(run.asked) <= set(run.ended)


# A modern client cannot be told; see `exceptions`.
async def test_the_model_is_told_of_everyone_who_left_or_waited_too_long(run: Run) -> None:
    assert run.cancelled == count(run.kind, LEFT, LATE, LATE_STREAM)


async def test_those_who_left_are_noted_as_gone_and_nobody_else(run: Run) -> None:
    assert len(gone(run)) == count(run.kind, LEFT, MIDWAY)


async def test_a_stream_that_was_aborted_is_not_sent_to_its_end(run: Run) -> None:
    lengths = [line["characters"] for line in gone(run) if line["output_tokens"] is None]
    assert sum(length > 0 for length in lengths) >= count(run.kind, MIDWAY)
    assert max(lengths) < LONGEST


def gone(run: Run) -> list[dict[str, Any]]:
    """What is noted of completions whose callers left."""
    return [line for line in run.log if line["error"] == "client_gone"]


async def test_what_every_complete_answer_took_is_noted(run: Run) -> None:
    complete = [line for line in run.log if line["error"] is None]
    assert len(complete) > 80
    assert [line for line in complete if not (line["input_tokens"] and line["output_tokens"])] == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_most_of_the_cases(kind: str) -> None:
    assert len(cases_of(kind)) >= 100
    assert len({case.name for case in CASES}) == len(CASES)


def test_what_a_kind_cannot_have_is_declared_for_the_python_clients() -> None:
    declared = {one.case for one in EXCEPTIONS}
    assert [case.name for case in CASES if case.like is not None and case.like not in declared] == []
