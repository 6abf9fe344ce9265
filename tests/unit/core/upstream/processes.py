"""Waiting, with a bound, until processes have ended."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path


def _running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


async def gone(pid: int, seconds: float = 10) -> None:
    """Until the process has ended (a zombie has)."""
    async with asyncio.timeout(seconds):
        while _running(pid):  # noqa: ASYNC110 - nobody is told of the end of a process that is not a child
            await asyncio.sleep(0.01)


async def group_gone(group: int, seconds: float = 10) -> None:
    """Until no process of the group is running."""
    members = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    for pid in members:
        try:
            if os.getpgid(pid) == group:
                await gone(pid, seconds)
        except ProcessLookupError:
            continue
