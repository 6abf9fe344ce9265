from __future__ import annotations

import pytest

from mcp_proxy.core.upstream.breaker import Breaker, BreakerState
from tests.unit.core.fakes import FakeClock

CLOSED, OPEN, HALF = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN

# s: a success, f: a failure, a: a caller that left; a digit run: so many seconds pass; b: a request goes out.
TABLE = [
    ("", CLOSED, True),
    ("ffff", CLOSED, True),
    ("fffff", OPEN, False),
    ("ffff s ffff", CLOSED, True),
    ("ffff a f", OPEN, False),
    ("fffff 4", OPEN, False),
    ("fffff 5", HALF, True),
    ("fffff 5 b", HALF, False),
    ("fffff 5 b a", HALF, True),
    ("fffff 5 b s", CLOSED, True),
    ("fffff 5 b s ffff", CLOSED, True),
    ("fffff 5 b f", OPEN, False),
    ("fffff 5 b f 9", OPEN, False),
    ("fffff 5 b f 10", HALF, True),
    ("fffff 5 b f 10 b f 19", OPEN, False),
    ("fffff 5 b f 10 b f 20", HALF, True),
    ("fffff 5 b f 10 b s fffff 5", HALF, True),
    ("fffff ffffffffff 5", HALF, True),
    ("sf sf sf sf sf sf sf sf sf sf", OPEN, False),
    ("ssf ssf ssf ssf ssf ssf ssf ssf", CLOSED, True),
    ("sf sf sf sf sf sf sf sf sf s", CLOSED, True),
    ("sf sf sf sf sf sf sf sf sf sf 5 b s ffff", CLOSED, True),
    ("fffff s", CLOSED, True),
]


def played(script: str) -> tuple[Breaker, FakeClock]:
    clock = FakeClock()
    breaker = Breaker(clock)
    for word in script.split():
        if word.isdigit():
            clock.advance(int(word))
            continue
        for letter in word:
            {"s": breaker.succeeded, "f": breaker.failed, "a": breaker.ended, "b": breaker.begin}[letter]()
    return breaker, clock


@pytest.mark.parametrize(("script", "state", "allows"), TABLE)
def test_the_breaker_follows_its_table(script: str, state: BreakerState, allows: bool) -> None:
    breaker, _ = played(script)
    assert (breaker.state, breaker.allows) == (state, allows)
    assert repr(breaker) == f"<Breaker {state}>"


def test_the_pause_doubles_to_a_minute_and_no_further() -> None:
    breaker, clock = played("fffff")
    pauses = []
    for _ in range(6):
        pauses.append(breaker.retry_after())
        clock.advance(breaker.retry_after())
        assert breaker.allows
        breaker.begin()
        breaker.failed()
    assert pauses == [5, 10, 20, 40, 60, 60]


def test_failures_of_calls_that_were_in_flight_when_it_opened_do_not_lengthen_the_pause() -> None:
    breaker, _ = played("fffff " + "f" * 100)
    assert breaker.retry_after() == 5


def test_a_closed_breaker_asks_for_no_pause() -> None:
    assert played("")[0].retry_after() == 0


def test_only_one_request_tries_at_a_time() -> None:
    breaker, _ = played("fffff 5")
    assert breaker.allows
    breaker.begin()
    assert not breaker.allows


def test_a_new_connection_starts_with_a_clean_slate() -> None:
    breaker, _ = played("fffff 5 b f")
    breaker.reset()
    assert (breaker.state, breaker.retry_after()) == (CLOSED, 0)
    for _ in range(5):
        breaker.failed()
    assert breaker.retry_after() == 5
