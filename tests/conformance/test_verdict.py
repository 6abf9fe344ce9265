"""A result that is not as expected is a surprise, whichever way."""

from __future__ import annotations

from tests.conformance.suite import Outcome
from tests.conformance.verdict import summary, surprises, table

GOOD = Outcome("ping", True, checks=2)
BAD = Outcome("caching", False, ("hints: missing ttlMs", "hints: missing cacheScope"), 3)
EXTENSION = Outcome("tasks-lifecycle", False, ("tasks: none",), 1, "extension")


def test_nothing_is_said_of_what_passes_and_of_what_fails_as_expected() -> None:
    assert surprises([GOOD, BAD, EXTENSION], {"caching": "cannot be had"}, 2) == []


def test_an_unexpected_failure_is_reported_with_every_reason() -> None:
    wrong = surprises([GOOD, BAD], {}, 2)
    assert wrong == ["caching: hints: missing ttlMs", "caching: hints: missing cacheScope"]


def test_passing_though_expected_to_fail_is_a_surprise() -> None:
    assert surprises([GOOD], {"ping": "why"}, 1) == ["ping: passes, and was expected to fail (why)"]


def test_a_scenario_that_is_missing_is_a_surprise() -> None:
    wrong = surprises([GOOD], {"caching": "why"}, 2)
    assert wrong == ["1 scored scenarios, not 2", "caching: not in the results, and expected to fail"]


def test_the_table_shows_result_and_reasons() -> None:
    assert table([GOOD, BAD, EXTENSION]).splitlines() == [
        "ping             passed",
        "caching          FAILED                          hints: missing ttlMs",
        "                                                 hints: missing cacheScope",
        "tasks-lifecycle  failed (not scored: extension)  tasks: none",
    ]
    assert summary([GOOD, BAD, EXTENSION]) == "1 of 2 scored scenarios passed"
