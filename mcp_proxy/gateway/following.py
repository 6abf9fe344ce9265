"""Which clients follow which resources: servers are asked once, however many clients want to know.

Telling the clients is `notices`.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from mcp_proxy.base.errors import OVERLOADED, RESOURCE_NOT_FOUND, TIMEOUT, UPSTREAM_UNAVAILABLE, ProxyError
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.core.auth.principal import Principal
from mcp_proxy.core.mcp_client_manager import McpClientManager
from mcp_proxy.core.upstream.failures import RpcError, WireError

MOST_FOLLOWED = 2000
"""Resources that may be followed in all."""


@dataclass(slots=True, eq=False)
class _Turn:
    """``users``: who holds the lock or waits for it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class Following:
    """The followed resources, by server and URI. ``owner`` is whatever tells one follower from another."""

    def __init__(self, manager: McpClientManager, tasks: TaskSet) -> None:
        self._manager = manager
        self._tasks = tasks
        self._owners: dict[tuple[str, str], set[object]] = defaultdict(set)
        self._turns: dict[tuple[str, str], _Turn] = {}

    def __len__(self) -> int:
        return len(self._owners)

    async def add(self, owner: object, uri: str, principal: Principal, namespace: str | None) -> None:
        """Follow ``uri`` for ``owner``. Raises `ProxyError`; `RpcError` when the server refuses."""
        specs = await self._manager.resolve_resource(principal, uri, namespace)
        refused: RpcError | None = None
        for spec in specs:
            try:
                return await self._add(owner, spec.name, uri)
            except RpcError as error:
                refused = error
        if refused is not None:
            raise refused
        raise ProxyError(RESOURCE_NOT_FOUND, f"no server has the resource {uri[:200]!r}", details={"uri": uri})

    async def _add(self, owner: object, server: str, uri: str) -> None:
        place = (server, uri)
        async with self._alone(place):
            if not self._owners.get(place):
                if len(self._owners) >= MOST_FOLLOWED:
                    raise ProxyError(OVERLOADED, "too many resources are followed; try again later", retry_after=60)
                try:
                    await self._manager.upstream(server).follow(uri)
                except WireError as error:
                    raise ProxyError(
                        UPSTREAM_UNAVAILABLE, f"{server}: {error.message}", details={"server": server}, retry_after=1
                    ) from None
                except TimeoutError:
                    raise ProxyError(TIMEOUT, f"{server}: no answer in time", details={"server": server}) from None
            self._owners[place].add(owner)

    def remove(self, owner: object, uri: str) -> None:
        """``owner`` no longer follows ``uri``; the last one ends it at the server."""
        for place in [place for place, owners in self._owners.items() if place[1] == uri and owner in owners]:
            self._drop(place, owner)

    def remove_all(self, owner: object) -> None:
        """``owner`` has left."""
        for place in [place for place, owners in self._owners.items() if owner in owners]:
            self._drop(place, owner)

    def _drop(self, place: tuple[str, str], owner: object) -> None:
        self._owners[place].discard(owner)
        if not self._owners[place]:
            self._tasks.spawn(self._end(place), "unfollow")

    async def _end(self, place: tuple[str, str]) -> None:
        async with self._alone(place):
            if not self._owners.get(place):
                self._owners.pop(place, None)
                if place[0] in self._manager.specs:
                    await self._manager.upstream(place[0]).unfollow(place[1])

    @asynccontextmanager
    async def _alone(self, place: tuple[str, str]) -> AsyncIterator[None]:
        """One at a time for each place. Nothing stays behind of places that nobody is busy with: clients name them."""
        turn = self._turns.setdefault(place, _Turn())
        turn.users += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.users -= 1
            if not turn.users:
                del self._turns[place]

    def count(self, owner: object) -> int:
        """How many resources ``owner`` follows."""
        return sum(owner in owners for owners in self._owners.values())

    def followers(self, server: str, uri: str) -> frozenset[object]:
        """Who follows a server's resource."""
        return frozenset(self._owners.get((server, uri), ()))
