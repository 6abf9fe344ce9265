"""How many are inside, and the moment when nobody is: what gates, bulkheads and connections have in common."""

from __future__ import annotations

import asyncio


class Occupancy:
    """Counts those inside. Whoever enters adds to ``inside``, after having looked whether there is room."""

    def __init__(self) -> None:
        self.inside = 0
        self._empty: asyncio.Event | None = None
        """There only while somebody waits: most who leave are not waited for."""

    def leave(self) -> None:
        """One has left."""
        self.inside -= 1
        if self._empty is not None and not self.inside:
            self._empty.set()
            self._empty = None

    async def emptied(self) -> None:
        """Until nobody is inside."""
        while self.inside:
            self._empty = self._empty or asyncio.Event()
            await self._empty.wait()
