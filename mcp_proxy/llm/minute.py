"""A sliding minute: how much was taken in the last sixty seconds, exactly enough that it is never more than allowed.

The `limits` library keeps one entry for each unit and cannot take back: both are needed where the units are tokens. Times
are monotonic seconds, handed in and never earlier than before.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

SECONDS = 60.0
_STEP = 1.0
"""What is taken within so many seconds is one entry: at most some sixty of them, however much is taken."""


@dataclass(eq=False, slots=True)
class _Entry:
    """What was taken from ``first`` to ``last``; all of it counts for a minute from ``last``."""

    first: float
    last: float
    amount: int


class Minute:
    """What one caller has taken."""

    def __init__(self) -> None:
        self._entries: deque[_Entry] = deque()

    def __len__(self) -> int:
        """How many entries are kept."""
        return len(self._entries)

    def used(self, now: float) -> int:
        """How much counts at ``now``."""
        while self._entries and self._entries[0].last + SECONDS <= now:
            self._entries.popleft()
        return sum(entry.amount for entry in self._entries)

    def wait(self, now: float, amount: int, limit: int) -> float:
        """Seconds until ``amount``, which is ``limit`` at most, can be taken too; 0.0 when it can be now."""
        excess, wait = self.used(now) + amount - limit, 0.0
        for entry in self._entries:
            if excess <= 0:
                break
            excess, wait = excess - entry.amount, entry.last + SECONDS - now
        return wait

    def empty_in(self, now: float) -> float:
        """Seconds until nothing counts any more."""
        self.used(now)
        return max((entry.last + SECONDS - now for entry in self._entries if entry.amount), default=0.0)

    def take(self, now: float, amount: int) -> Taken:
        """Count ``amount``, whatever the limit is."""
        self.used(now)
        newest = self._entries[-1] if self._entries else None
        if newest is None or now - newest.first >= _STEP:
            newest = _Entry(now, now, 0)
            self._entries.append(newest)
        newest.last = now
        newest.amount += amount
        return Taken(self, newest, amount)


@dataclass(frozen=True, slots=True)
class Taken:
    """What was taken before it was known how much it would be."""

    _minute: Minute
    _entry: _Entry
    _amount: int

    def settle(self, now: float, amount: int) -> None:
        """It was ``amount``. Less is given back where it was taken; more counts from now on, when it is known."""
        if amount > self._amount:
            self._minute.take(now, amount - self._amount)
        else:
            self._entry.amount -= self._amount - amount
