"""Keeps the promise that no child outlives the proxy, not even when the proxy is killed.

One small process for all stdio upstreams, started with the first of them. Stopping a child in the ordinary way is
`child`'s business.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process

from mcp_proxy.core.upstream import guardian_process


class Guardian:
    """Tells the guardian process which process groups are ours."""

    def __init__(self) -> None:
        self._process: Process | None = None
        self._lock = asyncio.Lock()
        self._groups: set[int] = set()

    async def start(self) -> None:
        """Start the process if it is not running; a new one learns of all groups. Called before a child is started."""
        async with self._lock:
            if self._process is not None and self._process.returncode is None:
                return
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", guardian_process.__file__,
                stdin=PIPE, stdout=DEVNULL, stderr=DEVNULL, start_new_session=True,
            )  # fmt: skip
            for group in self._groups:
                self._tell(f"+{group}\n")

    def watch(self, group: int) -> None:
        """From now on ``group`` ends with the proxy."""
        self._groups.add(group)
        self._tell(f"+{group}\n")

    def forget(self, group: int) -> None:
        """The group has ended; its number may come back for somebody else's."""
        self._groups.discard(group)
        self._tell(f"-{group}\n")

    def _tell(self, line: str) -> None:
        if self._process is not None and self._process.stdin is not None and not self._process.stdin.is_closing():
            self._process.stdin.write(line.encode())

    async def close(self) -> None:
        """End the process; groups still watched are ended by it."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            await self._process.wait()
