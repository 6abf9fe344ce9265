"""Choosing among replicas. Pure: a decision over what the upstreams say of themselves.

What a replica is was decided by `catalog.resolve`; what happens after a failure is `retry`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol, TypeVar


class Candidate(Protocol):
    """What balancing needs to know of an upstream."""

    @property
    def is_available(self) -> bool:
        """Whether a call could be sent right now."""
        ...

    @property
    def inflight(self) -> int: ...


C = TypeVar("C", bound=Candidate)


def choose(
    candidates: Sequence[tuple[str, C]], *, preferred: str | None, tried: Collection[str], random: Callable[[], float]
) -> C | None:
    """The upstream for the next attempt: the preferred one, else the one with the least in flight; ties by chance.

    None when no upstream that has not been tried is available.
    """
    free = [(name, one) for name, one in candidates if name not in tried and one.is_available]
    for name, one in free:
        if name == preferred:
            return one
    if not free:
        return None
    least = min(one.inflight for _, one in free)
    equal = [one for _, one in free if one.inflight == least]
    return equal[int(random() * len(equal)) % len(equal)]
