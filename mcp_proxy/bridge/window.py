"""How many requests a connected model is sent at once. Pure: it learns from how the answers come.

Some clients answer all they are sent at the same time, some one after the other, and some refuse what is too much.
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise

START, MOST = 32, 256
_RUN = 5
"""Answers in a row from which it is seen that a client works on one at a time."""
_WORTH_KNOWING = 0.02
"""Seconds an answer takes at least where that matters; shorter distances come from the transport."""
_CALM = 8
"""Answers after which a client that was seen to do so is tried with one more."""


class Window:
    """The width for one client. It grows by one with each answer while it is used in full, halves on trouble, and is one
    for a client that answers one at a time."""

    def __init__(self, start: int = START, most: int = MOST) -> None:
        self.size = start
        self._most = most
        self._run: deque[tuple[float, float]] = deque(maxlen=_RUN)
        self._serial = False
        self._answers = 0

    def answered(self, sent_at: float, now: float, in_flight: int) -> None:
        """A request of that time was answered now; ``in_flight`` counts it too."""
        self._run.append((sent_at, now))
        if in_flight > 1 and self._is_one_at_a_time():
            self.size, self._serial, self._answers = 1, True, 0
            self._run.clear()
            return
        self._answers += 1
        if in_flight >= self.size and (not self._serial or self._answers % _CALM == 0):
            self.size = min(self._most, self.size + 1)

    def in_trouble(self) -> None:
        """A request was refused, or not answered in time."""
        self.size = max(1, self.size // 2)
        self._run.clear()

    def _is_one_at_a_time(self) -> bool:
        """Whether requests that were sent together were answered in their order, at even distances: as in a queue."""
        run = list(self._run)
        if len(run) < _RUN or any(later[0] < earlier[0] for earlier, later in pairwise(run)):
            return False
        gaps = [later[1] - earlier[1] for earlier, later in pairwise(run)]
        together = run[-1][0] < run[0][1]
        return together and min(gaps) >= _WORTH_KNOWING and max(gaps) <= 2 * min(gaps)
