"""A modern client's model, as the broker of completions uses it: one completion a round of the client's own ``hook`` call.

Modern servers cannot ask (basic/patterns/mrtr): a completion is the ``input_required`` answer to the call that waits for
it, and comes back answered with the next call. So there is one at a time, its refusal is not heard of, and it cannot be
taken back. Clients give up after ten rounds: after `ROUNDS` the call ends, and is to be made anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from mcp_proxy.bridge.broker import Broker, LaneLost, LaneRefused, NotSent

ROUNDS = 8
GRACE = 5.0
"""Seconds for which a client that is to call again counts as being there."""


class ModernLane:
    """A `bridge.broker.Lane`. ``owner``: whose it is; nobody else comes back to it."""

    def __init__(self, key: str, owner: str, capabilities: Mapping[str, Any], broker: Broker) -> None:
        self.key = key
        self.owner = owner
        offered = capabilities.get("sampling")
        self.tools = isinstance(offered, Mapping) and "tools" in offered
        self._broker = broker
        self._call: asyncio.Future[Mapping[str, Any]] | None = None
        """The client's call that waits for a completion."""
        self._answer: asyncio.Future[Mapping[str, Any]] | None = None
        """What the client is working on."""
        self.rounds = 0

    def __repr__(self) -> str:
        state = "waiting" if self.room else "at work"
        return f"<ModernLane {self.key} {state}, round {self.rounds}>"

    @property
    def room(self) -> int:
        """See `Lane.room`."""
        return 1 if self._call is not None and not self._call.done() else 0

    @property
    def at_work(self) -> bool:
        """Whether the client owes an answer."""
        return self._answer is not None and not self._answer.done()

    async def sample(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `Lane.sample`."""
        if self._call is None or self._call.done():
            raise NotSent
        self._answer = asyncio.get_running_loop().create_future()
        self._call.set_result(params)
        try:
            return await self._answer
        finally:
            self._answer = None  # an answer that comes later is nobody's

    async def next(self) -> Mapping[str, Any]:
        """The parameters of the next completion for this client, whose call waits for it. Cancelled when it leaves."""
        self.rounds += 1
        self._call = asyncio.get_running_loop().create_future()
        self._broker.look_again()
        try:
            return await self._call
        finally:
            self._call = None

    def resolve(self, result: Any) -> None:
        """The client has come back with an answer, or without one."""
        if self._answer is None or self._answer.done():
            return
        if isinstance(result, Mapping):
            self._answer.set_result(result)
        else:
            self._answer.set_exception(LaneRefused("the client came back without an answer", rejected=False))

    def lose(self) -> None:
        """The client does not come back."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(LaneLost())
