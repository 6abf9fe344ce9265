from __future__ import annotations

from typing import Any

import pytest

from mcp_proxy.config.model import RetryRules
from mcp_proxy.core.retry import RetryBudget, RetryBudgets, is_idempotent, may_retry
from mcp_proxy.core.upstream.failures import Failure, Phase, WireError
from tests.unit.core.fakes import FakeClock, tool

# The matrix: failure -> (not sent, sent) for a tool that is idempotent, and the same for one that is not.
# "Sent" holds for `SENT` and `STREAMING` alike.
MATRIX: dict[Failure, tuple[bool, bool, bool, bool]] = {
    Failure.UNREACHABLE: (True, True, True, False),
    Failure.LOST: (True, True, True, False),
    Failure.SESSION_LOST: (True, True, True, False),
    Failure.RESTING: (True, True, True, False),
    Failure.FULL: (True, True, True, False),
    Failure.BUSY: (True, True, True, False),
    Failure.TIMEOUT: (False, False, False, False),
    Failure.BAD_REPLY: (True, False, True, False),
    Failure.TOO_LARGE: (True, False, True, False),
    Failure.HTTP: (True, False, True, False),
}


def allowed(failure: Failure, phase: Phase, idempotent: bool) -> bool:
    return may_retry(WireError(failure, phase, "x"), idempotent=idempotent)


def test_the_matrix_has_a_row_for_every_failure() -> None:
    assert set(MATRIX) == set(Failure)


@pytest.mark.parametrize("failure", Failure)
def test_each_cell_of_the_matrix(failure: Failure) -> None:
    not_sent_idempotent, sent_idempotent, not_sent_other, sent_other = MATRIX[failure]
    assert allowed(failure, Phase.NOT_SENT, True) is not_sent_idempotent
    assert allowed(failure, Phase.NOT_SENT, False) is not_sent_other
    for phase in (Phase.SENT, Phase.STREAMING):
        assert allowed(failure, phase, True) is sent_idempotent
        assert allowed(failure, phase, False) is sent_other


@pytest.mark.parametrize("failure", Failure)
@pytest.mark.parametrize("phase", [Phase.SENT, Phase.STREAMING])
def test_what_may_have_been_executed_is_never_sent_twice_unless_idempotent(failure: Failure, phase: Phase) -> None:
    assert not allowed(failure, phase, idempotent=False)


@pytest.mark.parametrize(
    ("rules", "annotations", "expected"),
    [
        (RetryRules(), {"readOnlyHint": True}, False),
        (RetryRules(), {}, False),
        (RetryRules(trust_annotations=True), {"readOnlyHint": True}, True),
        (RetryRules(trust_annotations=True), {"idempotentHint": True}, True),
        (RetryRules(trust_annotations=True), {}, False),
        (RetryRules(idempotent=("get_*",)), {}, True),
        (RetryRules(idempotent=("GET_*", "set_*")), {}, False),
    ],
)
def test_a_tool_is_idempotent_by_configuration_or_by_a_word_that_is_trusted(
    rules: RetryRules, annotations: dict[str, Any], expected: bool
) -> None:
    assert is_idempotent(tool("get_time", annotations=annotations), rules) is expected


# The budget


def taken(budget: RetryBudget, asked: int) -> int:
    return sum(budget.take() for _ in range(asked))


def test_three_retries_are_always_there() -> None:
    assert taken(RetryBudget(FakeClock()), 10) == 3


def test_a_fifth_of_the_calls_may_be_retried() -> None:
    budget = RetryBudget(FakeClock())
    for _ in range(100):
        budget.count_call()
    assert taken(budget, 100) == 20


def test_retries_come_back_after_ten_seconds() -> None:
    clock = FakeClock()
    budget = RetryBudget(clock)
    assert taken(budget, 5) == 3
    clock.advance(10)
    assert taken(budget, 5) == 0
    clock.advance(0.1)
    assert taken(budget, 5) == 3


def test_the_calls_of_the_window_before_still_count() -> None:
    clock = FakeClock()
    budget = RetryBudget(clock)
    for _ in range(100):
        budget.count_call()
    clock.advance(11)
    budget.count_call()
    assert taken(budget, 100) == 20


def test_calls_of_long_ago_do_not_count() -> None:
    clock = FakeClock()
    budget = RetryBudget(clock)
    for _ in range(100):
        budget.count_call()
    clock.advance(25)
    budget.count_call()
    assert taken(budget, 100) == 3


def test_retries_towards_one_server_use_up_nobody_elses() -> None:
    budgets = RetryBudgets(FakeClock())
    assert taken(budgets.of("dead"), 10) == 3
    assert budgets.of("other").take()
    assert not budgets.of("dead").take()


def test_budgets_of_servers_that_are_long_gone_are_dropped() -> None:
    clock = FakeClock()
    budgets = RetryBudgets(clock)
    for number in range(1024):
        budgets.of(f"gone-{number}")
    clock.advance(30)
    busy = budgets.of("gone-1023")
    busy.count_call()
    budgets.of("new")
    assert budgets.of("gone-1023") is busy
    assert len(budgets._budgets) == 2
