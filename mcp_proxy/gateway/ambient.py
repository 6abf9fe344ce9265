"""Clients that are asked although they have not called ``hook``: legacy ones that offer sampling, where the operator wants it.

A client is a lane of the broker from its ``notifications/initialized`` on, whenever it holds a stream open and answers a
ping. The protocol discourages such requests outside the client's own (SEP-2260), and some clients ask for consent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mcp_proxy.base.ids import IdSource
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.bridge.broker import Broker
from mcp_proxy.core.auth.principal import Scope
from mcp_proxy.gateway.lane import MOST, PING_EVERY, LegacyLane
from mcp_proxy.gateway.outlet import NoChannel
from mcp_proxy.gateway.session import Session

FIRST_LOOK = 0.05
"""Seconds after which a client that could not be reached is looked for again; twice as long each time, up to PING_EVERY."""


class AmbientLane(LegacyLane):
    """A `bridge.broker.Lane` on a session's own stream. ``aside``: calls of the client's own that offer the same model."""

    def __init__(self, key: str, session: Session) -> None:
        super().__init__(key, session, NoChannel())
        self.aside = 0

    @property
    def room(self) -> int:
        """See `Lane.room`."""
        return MOST if self._is_reached and not self.aside else 0

    @property
    def _is_reached(self) -> bool:
        """Whether there is a way to the client, which a fresh token of its own may have closed too."""
        outlet = self.session.outlet
        return outlet is not None and not outlet.closed and self.session.principal.has(Scope.LLM_SERVE)

    async def answers(self) -> bool:
        """See `LegacyLane.answers`."""
        return self._is_reached and await super().answers() and self._is_reached


@dataclass(frozen=True, slots=True)
class _Kept:
    lane: AmbientLane
    task: asyncio.Task[None]


class Ambient:
    """The lanes of all such clients. `welcome` and `farewell` are told by the door, `aside` by calls of ``hook``."""

    def __init__(self, broker: Broker, *, ids: IdSource, tasks: TaskSet) -> None:
        self._broker = broker
        self._ids = ids
        self._tasks = tasks
        self._kept: dict[str, _Kept] = {}

    def __repr__(self) -> str:
        return f"<Ambient {len(self._kept)} clients>"

    def welcome(self, session: Session) -> None:
        """The client has said that it is ready. Once is enough."""
        told = session.introduction
        offers = "sampling" in told.capabilities and told.namespace is None
        if session.closed or session.key in self._kept or not offers or not session.principal.has(Scope.LLM_SERVE):
            return
        lane = AmbientLane(f"ambient-{self._ids()}", session)
        self._kept[session.key] = _Kept(lane, self._tasks.spawn(self._keep(lane), "ambient sampling"))

    def farewell(self, session: Session) -> None:
        """The session has ended."""
        kept = self._kept.pop(session.key, None)
        if kept is not None:
            kept.task.cancel()
            self._broker.remove(kept.lane)

    @contextmanager
    def aside(self, session: Session) -> Iterator[None]:
        """For as long as the client's own call offers its model: it is asked there, and what it works on here it ends."""
        kept = self._kept.get(session.key)
        if kept is None:
            yield
            return
        kept.lane.aside += 1
        try:
            yield
        finally:
            kept.lane.aside -= 1
            self._broker.look_again()

    async def _keep(self, lane: AmbientLane) -> None:
        """Have the lane in the broker while its client answers, until the session ends."""
        pause, there = 0.0, False
        while not lane.session.closed:
            if await lane.answers():
                if there:
                    self._broker.look_again()  # its stream may be a new one
                else:
                    self._broker.add(lane)
                pause, there = PING_EVERY, True
            else:
                if there:
                    self._broker.remove(lane)
                    pause = 0.0
                pause, there = min(2 * pause or FIRST_LOOK, PING_EVERY), False
            await asyncio.sleep(pause)
