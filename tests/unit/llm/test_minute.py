from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mcp_proxy.llm.minute import Minute


def test_what_was_taken_counts_for_a_minute_and_no_longer() -> None:
    minute = Minute()
    minute.take(100.0, 7)
    assert [minute.used(now) for now in (100.0, 159.9, 160.0)] == [7, 7, 0]
    assert len(minute) == 0


def test_it_says_when_so_much_fits_again() -> None:
    minute = Minute()
    minute.take(0.0, 4)
    minute.take(20.0, 4)
    assert minute.wait(30.0, 2, 10) == 0.0
    assert minute.wait(30.0, 3, 10) == 30.0
    assert minute.wait(30.0, 6, 10) == 30.0
    assert minute.wait(30.0, 7, 10) == 50.0
    assert minute.empty_in(30.0) == 50.0
    assert Minute().empty_in(30.0) == 0.0


def test_less_is_given_back_where_it_was_taken_and_more_counts_when_it_is_known() -> None:
    minute = Minute()
    small, large = minute.take(0.0, 10), minute.take(0.0, 10)
    small.settle(30.0, 4)
    large.settle(30.0, 15)
    assert minute.used(30.0) == 19
    assert minute.used(60.0) == 5
    assert minute.used(90.0) == 0


def test_what_is_given_back_after_its_minute_changes_nothing() -> None:
    minute = Minute()
    taken = minute.take(0.0, 10)
    minute.take(61.0, 3)
    taken.settle(62.0, 0)
    assert minute.used(62.0) == 3


def test_what_was_wholly_given_back_does_not_keep_the_minute_from_being_empty() -> None:
    minute = Minute()
    minute.take(0.0, 10).settle(1.0, 0)
    assert minute.empty_in(1.0) == 0.0


def test_what_is_taken_together_counts_until_the_last_of_it_is_over() -> None:
    minute = Minute()
    minute.take(0.0, 1)
    minute.take(0.75, 1)
    minute.take(1.0, 1)
    assert len(minute) == 2
    assert [minute.used(now) for now in (60.5, 60.75, 61.0)] == [3, 1, 0]


def test_however_often_is_taken_some_sixty_entries_are_kept() -> None:
    minute = Minute()
    for tick in range(10_000):
        minute.take(tick / 50, 1)
    assert len(minute) <= 62


Takings = st.lists(st.tuples(st.integers(0, 3) | st.integers(0, 80), st.integers(1, 20)), max_size=60)
"""Quarters of a second, exact as floats, since the one before; and how much."""


@given(Takings, st.integers(20, 60))
def test_no_sixty_seconds_ever_hold_more_than_the_limit(takings: list[tuple[int, int]], limit: int) -> None:
    minute, now, taken = Minute(), 0.0, list[tuple[float, int]]()
    for pause, amount in takings:
        now += pause / 4
        if minute.wait(now, amount, limit) == 0.0:
            minute.take(now, amount)
            taken.append((now, amount))
        assert sum(much for at, much in taken if at > now - 60) <= limit


@given(Takings, st.integers(20, 60), st.integers(1, 20))
def test_what_does_not_fit_fits_after_the_time_that_was_named_and_not_before(
    takings: list[tuple[int, int]], limit: int, amount: int
) -> None:
    minute, now = Minute(), 0.0
    for pause, much in takings:
        now += pause / 4
        minute.take(now, much)
    wait = minute.wait(now, amount, limit)
    if wait:
        assert minute.wait(now + wait - 1 / 4, amount, limit) > 0
    assert minute.wait(now + wait, amount, limit) == 0.0


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), max_size=30))
def test_within_the_minute_exactly_what_was_settled_counts(settled: list[tuple[int, int]]) -> None:
    minute = Minute()
    taken = [(minute.take(number / 4, reserved), amount) for number, (reserved, amount) in enumerate(settled)]
    for one, amount in reversed(taken):
        one.settle(8.0, amount)
    assert minute.used(8.0) == sum(amount for _, amount in settled)
