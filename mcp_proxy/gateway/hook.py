"""The tool by which a client offers its model: as long as it calls ``hook``, completions of others are answered by it.

A call is a lane of the broker (`lane`, `modern_lane`): in the legacy era for as long as the call lasts, in the modern era
round by round. Who is asked when is `bridge.broker`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

from mcp_proxy.base.clock import Clock
from mcp_proxy.base.errors import UNPROCESSABLE, ProxyError
from mcp_proxy.base.ids import IdSource
from mcp_proxy.base.protocol import INVALID_PARAMS
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.bridge.broker import Broker
from mcp_proxy.bridge.window import Window
from mcp_proxy.core.auth.principal import Principal, Scope
from mcp_proxy.core.calls import require
from mcp_proxy.core.upstream.terms import Era
from mcp_proxy.edge.streams import calling_after
from mcp_proxy.gateway.ambient import Ambient
from mcp_proxy.gateway.asked import Asked
from mcp_proxy.gateway.clients import progress_token
from mcp_proxy.gateway.envelope import Refusal
from mcp_proxy.gateway.lane import LegacyLane
from mcp_proxy.gateway.modern_lane import GRACE, ROUNDS, ModernLane
from mcp_proxy.gateway.parking import answers_of
from mcp_proxy.gateway.seal import Seal
from mcp_proxy.gateway.session import Session
from mcp_proxy.gateway.wording import notification

NAME = "hook"
DEFINITION: Mapping[str, Any] = {
    "name": NAME,
    "title": "Offer this client's model",
    "description": "Lets programs that know OpenAI's or Anthropic's API use the model of this client, for as long as the call "
    "lasts. When it ends, call it again.",
    "inputSchema": {
        "type": "object",
        "properties": {
            "input": {"description": "Not used"},
            "messages": {"description": "Not used"},
            "model": {"description": "Not used"},
        },
    },
    "annotations": {"title": "Offer this client's model", "readOnlyHint": True, "openWorldHint": False},
}
_PURPOSE = "tools/call hook"
_PROGRESS = 15.0
"""Seconds between two signs of life towards the client, which may give up on a call that says nothing."""
_AGAIN = "Call hook again to go on."


class Hook:
    """All calls of the tool. ``ending`` is set when the service stops; ``lease``: seconds a modern client may take."""

    def __init__(
        self,
        broker: Broker,
        seal: Seal,
        *,
        clock: Clock,
        ids: IdSource,
        tasks: TaskSet,
        ending: asyncio.Event,
        lease: float,
        on_error: Callable[[str, BaseException], None],
        ambient: Ambient | None = None,
    ) -> None:
        self._on_error = on_error
        self._ambient = ambient
        self._clock = clock
        self._broker = broker
        self._seal = seal
        self._ids = ids
        self._tasks = tasks
        self._ending = ending
        self._lease = lease
        self._modern: dict[str, ModernLane] = {}
        self._legacy: dict[str, tuple[Principal, asyncio.Task[None]]] = {}

    def is_for(self, principal: Principal, namespace: str | None) -> bool:
        """Whether the tool is there for this caller."""
        return namespace is None and principal.has(Scope.LLM_SERVE)

    def end_where(self, revoked: Callable[[Principal], bool]) -> None:
        """End the calls of clients whose token is no longer good; the next round of a modern one is refused anyway."""
        for principal, watching in list(self._legacy.values()):
            if revoked(principal):
                watching.cancel()

    async def call(self, asked: Asked) -> Mapping[str, Any]:
        """A call of the tool. Raises `ProxyError`, `Refusal`."""
        require(asked.principal, Scope.LLM_SERVE)
        asked.record.tool = NAME
        if "sampling" not in asked.client.capabilities:
            raise ProxyError(
                UNPROCESSABLE, "this client does not offer sampling, so that nothing can be answered by it"
            )
        if asked.client.era is Era.MODERN:
            return await self._round(asked)
        if asked.session is None:
            raise ProxyError(UNPROCESSABLE, "without a session a client cannot be asked: send initialize first")
        return await self._as_long_as_it_lasts(asked, asked.session)

    # Legacy

    async def _as_long_as_it_lasts(self, asked: Asked, session: Session) -> Mapping[str, Any]:
        lane = LegacyLane(f"hook-{self._ids()}", session, asked.channel)
        self._broker.add(lane)
        own = TaskSet(self._on_error)
        try:
            watching = own.spawn(lane.watch(), "watch hook")
            ending = own.spawn(self._ending.wait(), "end of service")
            own.spawn(self._report(asked), "progress of hook")
            self._legacy[lane.key] = (asked.principal, watching)
            expires = asked.principal.expires
            aside = self._ambient.aside(session) if self._ambient is not None else nullcontext()
            with aside, calling_after(None if expires is None else expires - self._clock.time(), watching.cancel):
                await asyncio.wait([watching, ending], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._legacy.pop(lane.key, None)
            self._broker.remove(lane)
            await own.close()
        if self._ending.is_set():
            return _text("The service stops.")
        return _text(f"The client did not answer, or its token is no longer good. {_AGAIN}")

    async def _report(self, asked: Asked) -> None:
        token = progress_token(asked.request.params)
        done = 0
        while token is not None:
            await asyncio.sleep(_PROGRESS)
            done += 1
            asked.channel.send(notification("notifications/progress", {"progressToken": token, "progress": done}))

    # Modern

    async def _round(self, asked: Asked) -> Mapping[str, Any]:
        try:
            lane = self._lane(asked)
        except Refusal:
            return _text(_AGAIN)  # it has come back too late, or to a service that began anew
        if lane.rounds >= ROUNDS:
            # Its place is kept for the moment until it calls again, so that nobody is told that nothing is connected.
            asyncio.get_running_loop().call_later(GRACE, self._drop, lane)
            return _text(_AGAIN)
        next_one = self._tasks.spawn(lane.next(), "next completion")
        ending = self._tasks.spawn(self._ending.wait(), "end of service")
        try:
            await asyncio.wait([next_one, ending], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._drop(lane)
            raise
        finally:
            ending.cancel()
            next_one.cancel()
        if not next_one.done() or next_one.cancelled():
            self._drop(lane)
            return _text("The service stops.")
        job = self._ids()
        asyncio.get_running_loop().call_later(self._lease, self._expire, lane, lane.rounds)
        return {
            "resultType": "input_required",
            "inputRequests": {job: {"method": "sampling/createMessage", "params": next_one.result()}},
            "requestState": self._seal.close({"lane": lane.key, "job": job}, asked.principal, _PURPOSE),
        }

    def _lane(self, asked: Asked) -> ModernLane:
        """The lane of the call, with the answer that came along. Raises `Refusal`."""
        state = asked.request.params.get("requestState")
        if state is None:
            lane = ModernLane(f"hook-{self._ids()}", asked.principal.who, asked.client.capabilities, self._broker)
            self._modern[lane.key] = lane
            self._broker.add(lane, Window(1, most=1))
            return lane
        content = self._seal.open(state, asked.principal, _PURPOSE)
        known = self._modern.get(content["lane"])
        if known is None:
            raise Refusal(INVALID_PARAMS, "this hook has ended; call it again without requestState")
        known.resolve(answers_of(asked.request.params).get(content["job"]))
        return known

    def _expire(self, lane: ModernLane, rounds: int) -> None:
        """The client has not come back with what it was asked in that round."""
        if lane.rounds == rounds and not lane.room:
            self._drop(lane)

    def _drop(self, lane: ModernLane) -> None:
        if self._modern.pop(lane.key, None) is not None:
            lane.lose()
            self._broker.remove(lane)


def _text(text: str) -> Mapping[str, Any]:
    return {"content": [{"type": "text", "text": text}], "isError": False}
