"""Answers that stay open for as long as their clients want: counted, shared out among callers, and ended together.

How they are written is up to the doors that have them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from mcp_proxy.base.errors import DRAINING, OVERLOADED, ProxyError
from mcp_proxy.core.auth.principal import LOCAL, Principal

CLOSING = 2.0
"""Seconds that open streams have for ending when the service stops."""


@contextmanager
def calling_after(seconds: float | None, call: Callable[[], object]) -> Iterator[None]:
    """Make ``call`` once ``seconds`` have passed, if the block still runs then; None: never."""
    if seconds is None:
        yield
        return
    timer = asyncio.get_running_loop().call_later(max(0.0, seconds), call)
    try:
        yield
    finally:
        timer.cancel()


class Streams:
    """The streams of one transport that stay open for as long as their clients want, counted and ended together."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: set[_Open] = set()
        self._empty = asyncio.Event()
        self._closing = False

    def __len__(self) -> int:
        return len(self._open)

    @contextmanager
    def open(self, end: Callable[[], object], principal: Principal) -> Iterator[None]:
        """One more stream of this caller; ``end`` is called when the service stops, or the caller's token is revoked.

        Raises `ProxyError` (``overloaded``, ``draining``). Nobody may take more than a share of the places.
        """
        if self._closing:
            raise ProxyError(DRAINING, "the service is stopping", retry_after=5)
        if len(self._open) >= self._limit:
            raise ProxyError(OVERLOADED, "too many streams are open; try again in a moment", retry_after=5)
        share = self._limit if principal.who == LOCAL.who else max(8, self._limit // 10)
        if sum(one.principal.who == principal.who for one in self._open) >= share:
            raise ProxyError(OVERLOADED, "this caller has too many streams open", retry_after=5)
        one = _Open(end, principal)
        self._open.add(one)
        try:
            yield
        finally:
            self._open.discard(one)
            if not self._open:
                self._empty.set()

    def end_where(self, revoked: Callable[[Principal], bool]) -> None:
        """End the streams of callers whose token is no longer good."""
        for one in list(self._open):
            if revoked(one.principal):
                one.end()

    async def close(self, seconds: float = CLOSING) -> None:
        """End all streams and wait until their handlers have left, but no longer than ``seconds``."""
        self._closing = True
        for one in list(self._open):
            one.end()
        if self._open:
            self._empty.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._empty.wait()


class _Open:
    __slots__ = ("end", "principal")

    def __init__(self, end: Callable[[], object], principal: Principal) -> None:
        self.end = end
        self.principal = principal
