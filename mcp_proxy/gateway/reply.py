"""The answer to one POST of streamable HTTP: JSON, or a stream that is begun when something must be sent before it.

Decides the form only; what is answered comes from the door. Source: basic/transports, streamable HTTP, of 2025-11-25
and 2026-07-28.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.base.timers import running_timers
from mcp_proxy.edge.body import ClientGone
from mcp_proxy.edge.event_stream import EventWriter, event
from mcp_proxy.edge.respond import send_json
from mcp_proxy.edge.types import Send
from mcp_proxy.gateway.accept import Accepts
from mcp_proxy.gateway.asked import Answer
from mcp_proxy.gateway.outlet import Outlet
from mcp_proxy.gateway.stream import pump


class Reply:
    """An `AskingChannel` towards the client while its request is served, and the way of the answer.

    Brought to its end with `finish`; with `give_up` where that does not come to `over`.
    """

    def __init__(self, send: Send, accepts: Accepts, tasks: TaskSet, keep_alive: float) -> None:
        self._send = send
        self._json = accepts.json
        self._tasks = tasks
        self._keep_alive = keep_alive
        self._stream: _Stream | None = None
        self._lost = False
        self.reachable = accepts.events
        """Whether anything but the answer can still be sent."""
        self.over = False
        """Whether the answer has been sent, and nothing is left to be done."""
        # A client, or something between, may give up on a connection over which nothing comes.
        timers = running_timers()
        self._timer = timers.at(timers.loop.time() + keep_alive, self._begin) if accepts.events else None

    @property
    def begun(self) -> bool:
        """Whether a stream has been begun."""
        return self._stream is not None

    def send(self, message: bytes) -> bool:
        """See `Channel.send`. The first message begins the stream."""
        return self.reachable and self._begin().outlet.send(message)

    async def room_for(self, message: bytes) -> None:
        """See `AskingChannel.room_for`."""
        if self._stream is not None:
            await self._stream.outlet.room_for(message)

    def abandon(self) -> None:
        """The client has left: nothing is written any more, and `send` says so."""
        self._lost = True
        self._shut()

    async def finish(self, answer: Answer | None) -> None:
        """Send the answer, in a stream as its last event. None: end the stream without one."""
        self._shut()
        if self._stream is not None:
            await asyncio.wait([self._stream.pump])
            self._lost = self._lost or self._stream.pump.cancelled()
        if self._lost:
            raise ClientGone("the client has left or did not read its stream, or the service stopped")
        if self._stream is not None:
            # Past the outlet: an answer may be larger than what may wait there.
            await self._stream.writer.end(b"" if answer is None else event(answer.body))
        elif answer is not None and self._json:
            await send_json(self._send, answer.status, answer.body, answer.headers)
        else:
            await self._send_events(answer)
        self.over = True

    async def _send_events(self, answer: Answer | None) -> None:
        """The answer as a stream of nothing but itself."""
        writer = EventWriter(self._send)
        if answer is None:
            await writer.begin()
            return await writer.end()
        await writer.begin(answer.status, answer.headers)
        return await writer.end(event(answer.body))

    async def give_up(self) -> None:
        """Write nothing from now on."""
        self._shut()
        if self._stream is not None and not self._stream.pump.done():
            self._stream.pump.cancel()
            await asyncio.wait([self._stream.pump])

    def _begin(self) -> _Stream:
        if self._stream is None:
            outlet, writer = Outlet(), EventWriter(self._send)
            task = self._tasks.spawn(self._run(outlet, writer), "mcp answer stream")
            self._stream = _Stream(outlet, writer, task)
        return self._stream

    async def _run(self, outlet: Outlet, writer: EventWriter) -> None:
        try:
            await writer.begin()
            await pump(writer, outlet, self._keep_alive)
        except ClientGone:
            self._lost = True
            outlet.close()

    def _shut(self) -> None:
        self.reachable = False
        if self._timer is not None:
            self._timer.cancel()
        if self._stream is not None:
            self._stream.outlet.close()


@dataclass(frozen=True, slots=True)
class _Stream:
    """A stream that has been begun. ``pump`` writes what is put into the outlet."""

    outlet: Outlet
    writer: EventWriter
    pump: asyncio.Task[None]
