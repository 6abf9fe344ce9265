"""How long to wait before the next attempt to connect. Pure; randomness is handed in."""

from __future__ import annotations

from collections.abc import Callable

FIRST = 0.5
LONGEST = 30.0
STABLE = 60.0
"""Seconds a connection must have lasted for the next failure to count as the first one."""


class Backoff:
    """Doubles from half a second to thirty, with jitter of a fifth either way."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self.failures = 0

    def next(self) -> float:
        """Seconds to wait after one more failure."""
        pause = min(FIRST * 2.0 ** min(self.failures, 16), LONGEST)
        self.failures += 1
        return pause * (0.8 + 0.4 * self._random())

    def lasted(self, seconds: float) -> None:
        """A connection has ended that lasted so long."""
        if seconds >= STABLE:
            self.failures = 0
