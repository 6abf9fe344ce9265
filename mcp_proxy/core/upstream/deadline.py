"""How long a call may take: its time stands still while the client is being asked something, within a longest time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mcp_proxy.base.timers import TimeLimit


class Deadline(TimeLimit):
    """One call's time, in event loop seconds. ``longest`` holds whatever the client is asked.

    ``with deadline:`` limits what is done in there, as often as it is tried.
    """

    def __init__(self, seconds: float, longest: float) -> None:
        super().__init__(seconds)
        self._last = self.at - seconds + longest
        self._paused = 0
        self._since = 0.0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time in here does not count."""
        now = self._timers.loop.time()
        self._paused += 1
        if self._paused == 1:
            self._since = now
            self.reschedule(self._last)
        try:
            yield
        finally:
            self._paused -= 1
            if not self._paused:
                self.at = min(self.at + self._timers.loop.time() - self._since, self._last)
                self.reschedule(self.at)
