from __future__ import annotations

import asyncio

import pytest

from mcp_proxy.core.upstream.deadline import Deadline

pytestmark = pytest.mark.anyio


class Time:
    """The event loop's clock: it stands still until it is moved."""

    def __init__(self) -> None:
        self.now = asyncio.get_running_loop().time()

    def time(self) -> float:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
async def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", time.time)
    return time


async def test_it_is_over_after_its_seconds(time: Time) -> None:
    assert Deadline(60, 600).at == time.now + 60


async def test_time_in_which_the_client_is_asked_does_not_count(time: Time) -> None:
    deadline = Deadline(60, 600)
    before = deadline.at
    time.passes(10)
    with deadline.paused():
        time.passes(100)
    assert deadline.at == pytest.approx(before + 100)
    with deadline.paused():
        time.passes(5)
    assert deadline.at == pytest.approx(before + 105)


async def test_two_questions_at_the_same_time_are_one_pause(time: Time) -> None:
    deadline = Deadline(60, 600)
    before = deadline.at
    first, second = deadline.paused(), deadline.paused()
    first.__enter__()
    time.passes(10)
    second.__enter__()
    time.passes(10)
    first.__exit__(None, None, None)  # they overlap; neither contains the other
    time.passes(10)
    assert deadline.at == before
    second.__exit__(None, None, None)
    assert deadline.at == pytest.approx(before + 30)


async def test_no_question_makes_it_longer_than_the_longest(time: Time) -> None:
    deadline = Deadline(60, 600)
    last = time.now + 600
    with deadline.paused():
        time.passes(10_000)
    assert deadline.at == last


async def test_a_question_that_fails_ends_the_pause_as_well(time: Time) -> None:
    deadline = Deadline(60, 600)
    before = deadline.at

    def fails() -> None:
        with deadline.paused():
            time.passes(7)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert deadline.at == pytest.approx(before + 7)


async def test_who_is_inside_gets_more_time_and_then_what_was_left(time: Time) -> None:
    deadline = Deadline(60, 600)
    begun = time.now
    with deadline:
        with deadline.paused():
            assert deadline.until == begun + 600
            time.passes(20)
        assert deadline.until == deadline.at == pytest.approx(begun + 80)
        await asyncio.sleep(0)


async def test_a_pause_that_outlives_the_attempt_does_no_harm(time: Time) -> None:
    deadline = Deadline(60, 600)
    pause = deadline.paused()
    with deadline:
        pause.__enter__()
        await asyncio.sleep(0)
    time.passes(3)
    pause.__exit__(None, None, None)
    assert deadline.at == pytest.approx(time.now + 60)


async def test_a_second_attempt_has_the_time_that_is_left() -> None:
    deadline = Deadline(0.05, 30)
    with deadline:
        await asyncio.sleep(0)
    with pytest.raises(TimeoutError), deadline:
        await asyncio.wait_for(asyncio.Event().wait(), 5)
    assert asyncio.get_running_loop().time() < deadline.at + 4


async def test_a_call_that_waits_for_its_client_is_not_ended_by_its_own_time() -> None:
    deadline = Deadline(0.02, 30)
    own_time = deadline.at
    async with asyncio.timeout(5):
        with deadline, deadline.paused():
            while asyncio.get_running_loop().time() < own_time + 0.03:  # noqa: ASYNC110 - real time must pass
                await asyncio.sleep(0.01)
    assert deadline.at > own_time


async def test_even_a_call_that_waits_for_its_client_ends_after_the_longest() -> None:
    deadline = Deadline(0.01, 0.02)
    with pytest.raises(TimeoutError), deadline, deadline.paused():
        await asyncio.wait_for(asyncio.Event().wait(), 5)
    assert asyncio.get_running_loop().time() < deadline.at + 4
