from __future__ import annotations

import time

from mcp_proxy.base.clock import SystemClock


def test_the_system_clock_reads_both_clocks_of_the_machine() -> None:
    clock = SystemClock()
    before = (time.monotonic(), time.time())
    read = (clock.monotonic(), clock.time())
    assert before[0] <= read[0] <= time.monotonic()
    assert before[1] <= read[1] <= time.time()
