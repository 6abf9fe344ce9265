"""How long a call may take: its time stands still while the client is being asked something, within a longest time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Deadline:
    """One call's time, in event loop seconds. ``longest`` holds whatever the client is asked."""

    def __init__(self, seconds: float, longest: float) -> None:
        now = asyncio.get_running_loop().time()
        self.at = now + seconds
        """When the time is over, as things stand."""
        self._last = now + longest
        self._paused = 0
        self._since = 0.0
        self._scopes: list[asyncio.Timeout] = []

    def limits(self, scope: asyncio.Timeout) -> _Limited:
        """A context that keeps ``scope``, which has been entered with `at`, in step with the deadline."""
        return _Limited(self._scopes, scope)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time in here does not count."""
        now = asyncio.get_running_loop().time()
        self._paused += 1
        if self._paused == 1:
            self._since = now
            self._move(self._last)
        try:
            yield
        finally:
            self._paused -= 1
            if not self._paused:
                self.at = min(self.at + asyncio.get_running_loop().time() - self._since, self._last)
                self._move(self.at)

    def _move(self, when: float) -> None:
        for scope in self._scopes:
            if not scope.expired():
                scope.reschedule(when)


class _Limited:
    """``scope`` is one of the deadline's scopes meanwhile. Every call has one: a generator would cost it more."""

    __slots__ = ("_scope", "_scopes")

    def __init__(self, scopes: list[asyncio.Timeout], scope: asyncio.Timeout) -> None:
        self._scopes = scopes
        self._scope = scope

    def __enter__(self) -> None:
        self._scopes.append(self._scope)

    def __exit__(self, *_: object) -> None:
        self._scopes.remove(self._scope)
