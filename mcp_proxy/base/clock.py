"""Time as a value that is handed in. Timers use ``monotonic``; only tokens and logs use ``time``."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Both clocks, in seconds."""

    def monotonic(self) -> float: ...

    def time(self) -> float: ...


class SystemClock:
    """The machine's clocks. Looked at several times for each request: without a function of ours in between."""

    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)
