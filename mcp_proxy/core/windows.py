"""Counts per key and window of time, as a storage of the `limits` library that cannot grow without end.

The library's own memory storage keeps every key until a sweep over all of them, begun anew with each request, finds it:
whoever comes from many addresses decides how much that is. Who is counted, and how often, is `limits`.
"""

from __future__ import annotations

from collections import OrderedDict

from limits.aio.storage import Storage

from mcp_proxy.base.clock import Clock


class Windows(Storage):
    """Fixed windows: each begins with the first request of its key. Times are those of the monotonic clock.

    When there are more than ``most`` keys, the one that was not seen for longest is forgotten. A key that sends on
    although it is over its limit is therefore kept, and nobody is refused because of others.
    """

    STORAGE_SCHEME = None

    def __init__(self, clock: Clock, most: int) -> None:
        super().__init__()
        self._clock = clock
        self._most = most
        self._windows: OrderedDict[str, tuple[int, float]] = OrderedDict()
        """Count and end of each key's window, the latest seen last."""

    def __len__(self) -> int:
        """How many keys are remembered."""
        return len(self._windows)

    @property
    def base_exceptions(self) -> tuple[type[Exception], ...]:
        """None: nothing here can fail."""
        return ()

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Count ``amount`` more, in a window of ``expiry`` seconds; the count."""
        now = self._clock.monotonic()
        count, end = self._windows.pop(key, (0, now))
        if end <= now:
            count, end = 0, now + expiry
        self._windows[key] = (count + amount, end)
        if len(self._windows) > self._most:
            self._windows.popitem(last=False)
        return count + amount

    async def get(self, key: str) -> int:
        """The count of the current window."""
        now = self._clock.monotonic()
        count, end = self._windows.get(key, (0, now))
        return count if end > now else 0

    async def get_expiry(self, key: str) -> float:
        """When the key's window ends; now, when it has none."""
        now = self._clock.monotonic()
        return max(now, self._windows.get(key, (0, now))[1])

    async def clear(self, key: str) -> None:
        """Forget the key."""
        self._windows.pop(key, None)

    async def reset(self) -> int:
        """Forget all keys; how many there were."""
        known = len(self._windows)
        self._windows.clear()
        return known

    async def check(self) -> bool:
        """There is nothing that could be away."""
        return True
