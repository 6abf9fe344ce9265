"""The share of one upstream: so many calls at once, so many waiting, then no more.

Keeps a slow upstream from taking everything; says so at once instead of queueing without end.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from mcp_proxy.core.upstream.failures import Failure, Phase, WireError


class Bulkhead:
    """``async with bulkhead:`` holds one place. First come, first served."""

    def __init__(self, *, limit: int, concurrency: int | None) -> None:
        self._limit = limit
        self._slots = asyncio.Semaphore(concurrency) if concurrency is not None and concurrency < limit else None
        self.inside = 0
        """Calls in flight or waiting."""
        self._empty = asyncio.Event()
        self._empty.set()

    def __repr__(self) -> str:
        return f"<Bulkhead {self.inside}/{self._limit}>"

    @property
    def is_full(self) -> bool:
        """Whether the next call would be refused."""
        return self.inside >= self._limit

    async def __aenter__(self) -> None:
        if self.is_full:
            raise WireError(Failure.FULL, Phase.NOT_SENT, "too many calls in flight or waiting", retry_after=1)
        self.inside += 1
        self._empty.clear()
        if self._slots is not None:
            try:
                await self._slots.acquire()
            except BaseException:
                self._leave()
                raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._leave()
        if self._slots is not None:
            self._slots.release()

    def _leave(self) -> None:
        self.inside -= 1
        if not self.inside:
            self._empty.set()

    async def wait_empty(self, seconds: float) -> bool:
        """Whether everybody has left within that time."""
        try:
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True
