"""Comparing results with what is expected of them, both ways, and showing them as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tests.conformance.suite import Outcome


def surprises(outcomes: Iterable[Outcome], expected_failures: Mapping[str, str], count: int) -> list[str]:
    """What is not as expected, a line each; empty: all is well.

    Of the scored scenarios there must be ``count``, and those in ``expected_failures`` (with why) fail, no others: one
    that has begun to pass is to be taken off the list.
    """
    scored = {outcome.scenario: outcome for outcome in outcomes if outcome.unscored is None}
    lines = [f"{len(scored)} scored scenarios, not {count}"] if len(scored) != count else []
    lines += [f"{name}: not in the results, and expected to fail" for name in expected_failures if name not in scored]
    for name, outcome in scored.items():
        if name not in expected_failures:
            lines += [f"{name}: {reason}" for reason in outcome.reasons]
        elif outcome.passed:
            lines.append(f"{name}: passes, and was expected to fail ({expected_failures[name]})")
    return lines


def table(outcomes: Iterable[Outcome]) -> str:
    """Scenario, result and reason, a line each (further reasons below the first); for people."""
    rows = [(one.scenario, _word(one), list(one.reasons)) for one in outcomes]
    widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
    lines = []
    for scenario, result, reasons in rows:
        first, *others = reasons or [""]
        lines.append(f"{scenario:{widths[0]}}  {result:{widths[1]}}  {first}".rstrip())
        lines += [" " * (sum(widths) + 4) + reason for reason in others]
    return "\n".join(lines)


def summary(outcomes: Iterable[Outcome]) -> str:
    """How many of the scored scenarios passed."""
    scored = [outcome for outcome in outcomes if outcome.unscored is None]
    return f"{sum(outcome.passed for outcome in scored)} of {len(scored)} scored scenarios passed"


def _word(outcome: Outcome) -> str:
    word = "passed" if outcome.passed else "FAILED"
    return word if outcome.unscored is None else f"{word.lower()} (not scored: {outcome.unscored})"
