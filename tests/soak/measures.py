"""What a process holds, as /proc has it, and how long calls took. Figures only; who runs is `edits`, `churn`, `kills`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.harness import alive, command_line, descendants

GUARDIAN = "guardian_process"


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds: memory in KiB, and numbers of open files, threads, asyncio tasks and child processes."""

    rss: int
    files: int
    threads: int
    children: int
    tasks: int = 0

    def __str__(self) -> str:
        mib = f"{self.rss / 1024:.1f} MiB"
        return f"{mib}, {self.files} files, {self.threads} threads, {self.children} children, {self.tasks} tasks"


def held(pid: int, tasks: int = 0) -> Held:
    """What the process holds now. The proxy's guardian is not counted among the children."""
    proc = Path(f"/proc/{pid}")
    return Held(resident(pid), _entries(proc / "fd"), _entries(proc / "task"), len(children(pid)), tasks)


def resident(pid: int) -> int:
    """Resident memory in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise ValueError(f"process {pid} has no memory")


def children(pid: int) -> dict[int, str]:
    """Processes that descend from this one, with their command lines; without the guardian and what has just ended."""
    found = {child: command_line(child) for child in descendants(pid) - {pid} if alive(child)}
    return {child: line for child, line in found.items() if line and GUARDIAN not in line}


def quantile(sorted_values: Sequence[float], share: float) -> float:
    """The value below which this share lies; NaN of nothing."""
    if not sorted_values:
        return math.nan
    return sorted_values[min(len(sorted_values) - 1, int(share * len(sorted_values)))]


def _entries(directory: Path) -> int:
    return sum(1 for _ in directory.iterdir())
