"""The answer to one POST of streamable HTTP: JSON, or a stream that is begun when something must be sent before it.

Decides the form only; what is answered comes from the door. Source: basic/transports, streamable HTTP, of 2025-11-25
and 2026-07-28.
"""

from __future__ import annotations

import asyncio

from mcp_proxy.base.tasks import TaskSet
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

    An async context: what was not brought to its end with `finish` is given up when the block is left, and nothing is
    written from then on.
    """

    def __init__(self, send: Send, accepts: Accepts, tasks: TaskSet, keep_alive: float) -> None:
        self._send = send
        self._accepts = accepts
        self._tasks = tasks
        self._keep_alive = keep_alive
        self._writer = EventWriter(send)
        self._outlet: Outlet | None = None
        self._pump: asyncio.Task[None] | None = None
        self._open = accepts.events
        self._lost = False

    async def __aenter__(self) -> Reply:
        # A client, or something between, may give up on a connection over which nothing comes.
        later = asyncio.get_running_loop().call_later
        self._timer = later(self._keep_alive, self._begin) if self._open else None
        return self

    async def __aexit__(self, *_: object) -> None:
        self._shut()
        if self._pump is not None and not self._pump.done():
            self._pump.cancel()
            await asyncio.wait([self._pump])

    @property
    def begun(self) -> bool:
        """Whether a stream has been begun."""
        return self._outlet is not None

    @property
    def reachable(self) -> bool:
        """Whether anything but the answer can still be sent."""
        return self._open

    def send(self, message: bytes) -> bool:
        """See `Channel.send`. The first message begins the stream."""
        return self._open and self._begin().send(message)

    async def room_for(self, message: bytes) -> None:
        """See `AskingChannel.room_for`."""
        if self._outlet is not None:
            await self._outlet.room_for(message)

    def abandon(self) -> None:
        """The client has left: nothing is written any more, and `send` says so."""
        self._lost = True
        self._shut()

    async def finish(self, answer: Answer | None) -> None:
        """Send the answer, in a stream as its last event. None: end the stream without one."""
        self._shut()
        if self._pump is not None:
            await asyncio.wait([self._pump])
        if self._lost or (self._pump is not None and self._pump.cancelled()):
            raise ClientGone("the client has left or did not read its stream, or the service stopped")
        if self._pump is not None:
            # Past the outlet: an answer may be larger than what may wait there.
            await self._writer.end(b"" if answer is None else event(answer.body))
        elif answer is not None and self._accepts.json:
            await send_json(self._send, answer.status, answer.body, answer.headers)
        elif answer is not None:
            await self._writer.begin(answer.status, answer.headers)
            await self._writer.end(event(answer.body))
        else:
            await self._writer.begin()
            await self._writer.end()

    def _begin(self) -> Outlet:
        if self._outlet is None:
            self._outlet = Outlet()
            self._pump = self._tasks.spawn(self._run(self._outlet), "mcp answer stream")
        return self._outlet

    async def _run(self, outlet: Outlet) -> None:
        try:
            await self._writer.begin()
            await pump(self._writer, outlet, self._keep_alive)
        except ClientGone:
            self._lost = True
            outlet.close()

    def _shut(self) -> None:
        self._open = False
        if self._timer is not None:
            self._timer.cancel()
        if self._outlet is not None:
            self._outlet.close()
