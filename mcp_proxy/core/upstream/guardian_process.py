"""Runs as a process of its own: ends the process groups it was told about when the proxy is gone.

Started by `guardian`; standard library only, so that it stays small. It reads ``+PGID`` and ``-PGID`` lines; the end of
its input means that the proxy has ended, however that came about (also by SIGKILL).
"""

from __future__ import annotations

import os
import signal
import sys
import time


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _signal(groups: set[int], number: int) -> None:
    for group in groups:
        try:
            os.killpg(group, number)
        except (ProcessLookupError, PermissionError):
            continue


def main() -> None:
    """Read the groups until the end of input, then end those that are left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        (groups.add if line[0] == "+" else groups.discard)(group)
    _signal(groups, signal.SIGTERM)
    deadline = time.monotonic() + 2
    while any(map(_alive, groups)) and time.monotonic() < deadline:
        time.sleep(0.05)
    _signal(groups, signal.SIGKILL)


if __name__ == "__main__":
    main()
