"""What waits to be answered: bounded, and fair between tenants. Pure."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

JobT = TypeVar("JobT")


class Full(Exception):
    """There is no more room; for this tenant, or at all."""


class FairQueue(Generic[JobT]):
    """First come, first served within a tenant; tenants take turns."""

    def __init__(self, *, limit: int, share: int) -> None:
        """``limit`` is for all, ``share`` for each tenant."""
        self._limit = limit
        self._share = share
        self._waiting: OrderedDict[str, deque[JobT]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def of(self, tenant: str) -> int:
        """How many of this tenant's wait."""
        return len(self._waiting.get(tenant, ()))

    def put(self, tenant: str, job: JobT, *, first: bool = False) -> None:
        """Let it wait; ``first``: it has waited before, and comes before the tenant's others. Raises `Full`."""
        if not first and (self._count >= self._limit or self.of(tenant) >= self._share):
            raise Full
        jobs = self._waiting.setdefault(tenant, deque())
        if first:
            jobs.appendleft(job)
            self._waiting.move_to_end(tenant, last=False)
        else:
            jobs.append(job)
        self._count += 1

    def take(self, fits: Callable[[JobT], bool]) -> JobT | None:
        """The next that fits: a tenant's later job may pass one that does not. The tenant's turn is then over."""
        for tenant, jobs in self._waiting.items():
            found = next((job for job in jobs if fits(job)), None)
            if found is not None:
                self._remove(tenant, found)
                if tenant in self._waiting:
                    self._waiting.move_to_end(tenant)
                return found
        return None

    def discard(self, tenant: str, job: JobT) -> bool:
        """Nobody waits for it any more; False when it was not there."""
        if job not in self._waiting.get(tenant, ()):
            return False
        self._remove(tenant, job)
        return True

    def _remove(self, tenant: str, job: JobT) -> None:
        jobs = self._waiting[tenant]
        jobs.remove(job)
        self._count -= 1
        if not jobs:
            del self._waiting[tenant]
