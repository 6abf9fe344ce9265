from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mcp_proxy.core.upstream.backoff import FIRST, LONGEST, STABLE, Backoff


def test_the_pause_doubles_from_half_a_second_to_thirty() -> None:
    backoff = Backoff(lambda: 0.5)
    assert [backoff.next() for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert backoff.failures == 9


@given(st.floats(0, 1), st.integers(0, 60))
def test_jitter_is_a_fifth_either_way(chance: float, failures: int) -> None:
    backoff = Backoff(lambda: chance)
    backoff.failures = failures
    pause = min(FIRST * 2**failures, LONGEST)
    assert pause * 0.799 <= backoff.next() <= pause * 1.201


def test_a_stable_connection_starts_it_over_and_a_short_one_does_not() -> None:
    backoff = Backoff(lambda: 0.5)
    backoff.next()
    backoff.next()
    backoff.lasted(STABLE - 1)
    assert backoff.next() == 2
    backoff.lasted(STABLE)
    assert backoff.next() == 0.5


def test_ten_thousand_failures_do_not_overflow() -> None:
    backoff = Backoff(lambda: 1.0)
    backoff.failures = 10_000
    assert LONGEST <= backoff.next() <= LONGEST * 1.201
