"""The owner's side: the application is run for every conversation that a worker opens, and hears and answers through it.

Counterpart of `relay`. Workers as processes are `crew`.
"""

from __future__ import annotations

import asyncio
from typing import assert_never

from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.edge.types import App, Message, Scope
from mcp_proxy.serving.workers.channel import Channel
from mcp_proxy.serving.workers.frames import (
    Answered,
    AnyFrame,
    Dropped,
    Opened,
    Passed,
    Said,
    Sign,
    Stop,
    Taken,
    WireMessage,
    wire_message,
)
from mcp_proxy.serving.workers.window import WINDOW, Receipts, Window, is_hesitant, pieces, size_of
from mcp_proxy.telemetry.logs import Logger


class Conversations:
    """Those of one worker. `take` gets its frames, `drop_all` hears of its end."""

    channel: Channel
    """To be set before the first frame comes."""

    def __init__(self, app: App, tasks: TaskSet, log: Logger) -> None:
        """``tasks`` are those of the application: its owner ends them."""
        self._app = app
        self._tasks = tasks
        self._log = log
        self._open: dict[int, Conversation] = {}
        self.answered = False
        """Set when the worker shows that it is there."""

    def __len__(self) -> int:
        return len(self._open)

    def take(self, frame: AnyFrame) -> None:
        """What the worker says."""
        match frame:
            case Opened():
                self._open[frame.conversation] = one = Conversation(self.channel, frame)
                self._tasks.spawn(self._run(one), "conversation")
            case Passed() | Taken() | Dropped():
                if (one_of := self._open.get(frame.conversation)) is not None:
                    one_of.take(frame)
            case Said():
                getattr(self._log, frame.level)(frame.event, **frame.fields)
            case Sign():
                self.answered = True
            case Answered() | Stop():
                raise ValueError("a worker does not say this")
            case _:
                assert_never(frame)

    def drop_all(self) -> None:
        """The worker has ended, and all of its clients' connections with it."""
        for one in list(self._open.values()):
            one.drop()

    async def _run(self, one: Conversation) -> None:
        try:
            await self._app(one.scope, one.receive, one.send)
        finally:
            del self._open[one.number]
            self.channel.send(Answered(one.number))


class Conversation:
    """One request, or WebSocket: what the application is called with."""

    __slots__ = ("_channel", "_dropped", "_heard", "_invite", "_receipts", "number", "scope", "window")

    def __init__(self, channel: Channel, opened: Opened) -> None:
        self._channel = channel
        self._heard: asyncio.Queue[WireMessage] = asyncio.Queue()
        self._receipts = Receipts()
        self._dropped = False
        self.number = opened.conversation
        self.scope: Scope = dict(opened.scope)
        self._invite = is_hesitant(self.scope)
        self.window = Window()

    async def receive(self) -> Message:
        """As ASGI has it."""
        if self._invite:
            self._invite = False
            self._channel.send(Taken(self.number, WINDOW))
        message = await self._heard.get()
        if due := self._receipts.taken(size_of(message)):
            self._channel.send(Taken(self.number, due))
        return dict(message)

    async def send(self, message: Message) -> None:
        """As ASGI has it. Waits for a client that takes its time; nothing is sent to nobody."""
        for piece in pieces(message):
            if self.window.left <= 0:
                await self.window.room()
            if self._dropped:
                return
            self.window.left -= size_of(piece)
            self._channel.send(Passed(self.number, piece))

    def take(self, frame: Passed | Taken | Dropped) -> None:
        """What the worker says of it."""
        match frame:
            case Passed():
                self._heard.put_nowait(frame.message)
            case Taken():
                self.window.widen(frame.size)
            case Dropped():
                self.drop()

    def drop(self) -> None:
        """The client cannot be reached any more."""
        self._dropped = True
        self._heard.put_nowait(wire_message(departure(self.scope)))
        self.window.lift()


def departure(scope: Scope) -> Message:
    """The message that says that the client has left."""
    if scope["type"] == "websocket":
        return {"type": "websocket.disconnect", "code": 1006}
    return {"type": "http.disconnect"}
