"""The share of one upstream: so many calls at once, so many waiting, then no more.

Keeps a slow upstream from taking everything; says so at once instead of queueing without end.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from mcp_proxy.base.occupancy import Occupancy
from mcp_proxy.core.upstream.failures import Failure, Phase, WireError


class Bulkhead(Occupancy):
    """``async with bulkhead:`` holds one place. First come, first served. ``inside`` are calls in flight or waiting."""

    def __init__(self, *, limit: int, concurrency: int | None) -> None:
        super().__init__()
        self._limit = limit
        self._slots = asyncio.Semaphore(concurrency) if concurrency is not None and concurrency < limit else None

    def __repr__(self) -> str:
        return f"<Bulkhead {self.inside}/{self._limit}>"

    @property
    def is_full(self) -> bool:
        """Whether the next call would be refused."""
        return self.inside >= self._limit

    async def __aenter__(self) -> None:
        if self.inside >= self._limit:
            raise WireError(Failure.FULL, Phase.NOT_SENT, "too many calls in flight or waiting", retry_after=1)
        self.inside += 1
        if self._slots is not None:
            try:
                await self._slots.acquire()
            except BaseException:
                self.leave()
                raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.leave()
        if self._slots is not None:
            self._slots.release()

    async def wait_empty(self, seconds: float) -> bool:
        """Whether everybody has left within that time."""
        try:
            async with asyncio.timeout(seconds):
                await self.emptied()
        except TimeoutError:
            return False
        return True
