"""Bounds that hold for all calls together: how many at once, how many a minute a caller may make, and the end of service.

The share of one upstream is `upstream.bulkhead`; sizes are checked where bytes are read.
"""

from __future__ import annotations

import asyncio
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, Protocol

from mcp_proxy.base.clock import Clock
from mcp_proxy.base.errors import DRAINING, OVERLOADED, RATE_LIMITED, ProxyError
from mcp_proxy.base.occupancy import Occupancy
from mcp_proxy.core.auth.principal import Principal

if TYPE_CHECKING:
    from limits.aio.strategies import RateLimiter as _Strategy


MOST_COUNTED = 16_384
"""Principals, and addresses, whose requests are counted at once: some megabytes when there are as many."""


class Gate(Occupancy):
    """Counts calls in flight; closed while the program stops."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit
        self.not_ready = False
        """Set when a stop has been asked for: still serving, but no place for new work."""
        self.draining = False

    def __repr__(self) -> str:
        return f"<Gate {self.inside}/{self._limit}{' draining' if self.draining else ''}>"

    @property
    def inflight(self) -> int:
        """Calls that have entered and not left."""
        return self.inside

    def enter(self) -> None:
        """One more call. Raises `ProxyError` (``draining``, ``overloaded``)."""
        if self.draining:
            raise ProxyError(DRAINING, "the service is stopping; try again in a moment", retry_after=5)
        if self.inside >= self._limit:
            raise ProxyError(OVERLOADED, "too many calls in flight; try again in a moment", retry_after=1)
        self.inside += 1

    async def drain(self, seconds: float) -> bool:
        """Let nothing new in, and wait for what is in flight; whether it all ended in time."""
        self.not_ready = self.draining = True
        try:
            async with asyncio.timeout(seconds):
                await self.emptied()
        except TimeoutError:
            return False
        return True


class RequestRates:
    """Requests a minute over all doors: of each principal, and of each address that shows no token which is accepted.

    On the `limits` library, within this process; what is not limited costs nothing.
    """

    def __init__(
        self, clock: Clock, *, per_principal: int | None, per_address: int | None, most: int = MOST_COUNTED
    ) -> None:
        """``most``: how many principals, and how many addresses, are remembered at once."""
        self._clock = clock
        self._most = most
        self._per_principal = per_principal
        self._per_address = per_address
        # Apart, so that a flood from many addresses makes no principal's count forgotten.
        self._principals: _Strategy | None = None
        self._addresses: _Strategy | None = None

    async def take(self, principal: Principal | None, address: str | None) -> None:
        """Count one request. Raises `ProxyError` (``rate_limited``, with the seconds to wait)."""
        if principal is not None:
            if self._per_principal is not None:
                self._principals = self._principals or _counting(self._clock, self._most)
                await self._hit(self._principals, self._per_principal, principal.who, "this caller")
        elif self._per_address is not None:
            self._addresses = self._addresses or _counting(self._clock, self._most)
            where = _network_of(address)
            await self._hit(self._addresses, self._per_address, where, "this address, without a token,")

    async def _hit(self, strategy: _Strategy, rate: int, key: str, who: str) -> None:
        from limits import RateLimitItemPerMinute

        item = RateLimitItemPerMinute(rate)
        if not await strategy.hit(item, key):
            stats = await strategy.get_window_stats(item, key)
            wait = max(1.0, stats.reset_time - self._clock.monotonic())
            raise ProxyError(RATE_LIMITED, f"{who} may send {rate} requests a minute", retry_after=wait)


def _network_of(address: str | None) -> str:
    """An IPv6 address counts by its /64, which is what one customer is given; an IPv4 one in IPv6 clothes as itself."""
    try:
        parsed = ip_address(address or "")
    except ValueError:
        return address or "unknown"  # a Unix socket has none
    if isinstance(parsed, IPv6Address):
        return str(parsed.ipv4_mapped or IPv6Network((int(parsed), 64), strict=False))
    return str(parsed)


class RateLimiter(Protocol):
    """Calls a minute per caller. Behind an interface, so that several processes can share one."""

    async def take(self, principal: Principal) -> None:
        """Count one call. Raises `ProxyError` (``rate_limited``, with the seconds to wait)."""
        ...


class MemoryRateLimiter:
    """`RateLimiter` within this process, on the `limits` library. Callers without a ``rate`` claim cost nothing."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._strategy: _Strategy | None = None

    async def take(self, principal: Principal) -> None:
        """See `RateLimiter.take`."""
        if principal.rate is None:
            return
        # Loaded when the first token with a rate comes: few deployments have any.
        from limits import RateLimitItemPerMinute

        if self._strategy is None:
            self._strategy = _strategy()
        item = RateLimitItemPerMinute(principal.rate)
        if not await self._strategy.hit(item, principal.subject):
            stats = await self._strategy.get_window_stats(item, principal.subject)
            raise ProxyError(
                RATE_LIMITED,
                f"this token may make {principal.rate} calls a minute",
                retry_after=max(1.0, stats.reset_time - self._clock.time()),
            )


def _counting(clock: Clock, most: int) -> _Strategy:
    """Two numbers for each key, however many requests there are. Loaded with the first request that is to be counted."""
    from limits.aio.strategies import FixedWindowRateLimiter

    from mcp_proxy.core.windows import Windows

    return FixedWindowRateLimiter(Windows(clock, most))


def _strategy() -> _Strategy:
    from limits.aio.storage import MemoryStorage
    from limits.aio.strategies import MovingWindowRateLimiter

    return MovingWindowRateLimiter(MemoryStorage())
