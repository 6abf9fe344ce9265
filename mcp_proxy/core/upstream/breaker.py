"""The circuit breaker of one upstream. Plain state over an injected clock; knows no I/O.

Opens after five failures in a row, or half of the last twenty; lets one request through after a pause that doubles
from 5 s to 60 s. What counts as a failure is decided by the caller: transport and protocol faults, never a tool's error.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum

from mcp_proxy.base.clock import Clock

_ROW = 5
_WINDOW = 20
_SHARE = 0.5
_PAUSE = 5.0
_LONGEST = 60.0


class BreakerState(StrEnum):
    """``HALF_OPEN``: the pause is over, one request may try."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """Decides whether a request may go to the upstream."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._row = 0
        self._recent: deque[bool] = deque(maxlen=_WINDOW)
        self._pause = _PAUSE
        self._open_until: float | None = None
        self._probing = False

    def __repr__(self) -> str:
        return f"<Breaker {self.state}>"

    @property
    def state(self) -> BreakerState:
        if self._open_until is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if self._clock.monotonic() < self._open_until else BreakerState.HALF_OPEN

    @property
    def allows(self) -> bool:
        """Whether a request may go out now; in ``HALF_OPEN`` only while no other is trying."""
        if self._open_until is None:
            return True
        return not self._probing and self._clock.monotonic() >= self._open_until

    def retry_after(self) -> float:
        """Seconds until the next request may try."""
        return max(0.0, (self._open_until or 0.0) - self._clock.monotonic())

    def begin(self) -> bool:
        """A request goes out. Whether it is the one that tries in ``HALF_OPEN``: then `ended` must follow it."""
        if self._open_until is not None:
            self._probing = True
            return True
        return False

    def succeeded(self) -> None:
        self._row = 0
        self._recent.append(True)
        if self._open_until is not None:
            self._reset()

    def failed(self) -> None:
        self._row += 1
        self._recent.append(False)
        if self.state is BreakerState.OPEN:
            return  # it was sent before the breaker opened and tells nothing new
        if self._open_until is not None:
            self._pause = min(self._pause * 2, _LONGEST)
            self._trip()
        elif self._row >= _ROW or self._too_many():
            self._trip()

    def ended(self) -> None:
        """The request that tried has ended, whether or not it told anything about the upstream."""
        self._probing = False

    def _too_many(self) -> bool:
        return len(self._recent) == _WINDOW and self._recent.count(False) >= _WINDOW * _SHARE

    def _trip(self) -> None:
        self._open_until = self._clock.monotonic() + self._pause
        self._probing = False

    def _reset(self) -> None:
        self._open_until = None
        self._probing = False
        self._pause = _PAUSE
        self._row = 0
        self._recent.clear()

    def reset(self) -> None:
        """A new connection starts with a clean slate."""
        self._reset()
