"""A worker's side: the ASGI application that its server serves, which passes everything on to the owner and back.

Counterpart of `conversations`.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import assert_never

from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.edge.types import Receive, Scope, Send
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
    wire_scope,
)
from mcp_proxy.serving.workers.window import WINDOW, Receipts, Window, is_hesitant, size_of


class Relay:
    """The application. `take` gets the owner's frames."""

    channel: Channel
    """To be set before anything is served."""

    def __init__(self, tasks: TaskSet) -> None:
        self.stopping = asyncio.Event()
        """Set once the owner wants no more of this worker."""
        self._tasks = tasks
        self._numbers = itertools.count(1)
        self._open: dict[int, _Relayed] = {}

    def take(self, frame: AnyFrame) -> None:
        """What the owner says. Of a conversation that has ended here, nothing matters any more."""
        match frame:
            case Passed():
                if (one := self._open.get(frame.conversation)) is not None:
                    one.answers.put_nowait(frame.message)
            case Answered():
                if (one := self._open.get(frame.conversation)) is not None:
                    one.end()
            case Taken():
                if (one := self._open.get(frame.conversation)) is not None:
                    one.window.widen(frame.size)
            case Stop():
                self.stopping.set()
            case Sign():
                self.channel.send(frame)
            case Opened() | Dropped() | Said():
                raise ValueError("an owner does not say this")
            case _:
                assert_never(frame)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        number = next(self._numbers)
        self._open[number] = one = _Relayed(scope)
        # The task comes first, so that a body that is here goes with the same write.
        asking = self._tasks.spawn(self._ask(number, one, receive), "what the client sends")
        try:
            self.channel.send(Opened(number, wire_scope(scope)))
            await self._answer(number, one, send)
        finally:
            del self._open[number]
            asking.cancel()
            if not one.answered:
                self.channel.send(Dropped(number))

    async def _ask(self, number: int, one: _Relayed, receive: Receive) -> None:
        """Pass on what the client sends, until it has left.

        What comes after the answer is nobody's, but it is taken: Hypercorn finishes no answer while something waits.
        """
        left = False
        while not left:
            if one.window.left <= 0:
                await one.window.room()
            message = wire_message(await receive())
            left = message["type"].endswith(".disconnect")
            if not one.answered:
                one.window.left -= size_of(message)
                self.channel.send(Passed(number, message))

    async def _answer(self, number: int, one: _Relayed, send: Send) -> None:
        """Pass on what the application answers, until it has returned."""
        receipts = Receipts()
        while (message := await one.answers.get()) is not None:
            await send(dict(message))
            one.begin()
            if due := receipts.taken(size_of(message)):
                self.channel.send(Taken(number, due))


class _Relayed:
    """One conversation."""

    __slots__ = ("_begun", "answered", "answers", "window")

    def __init__(self, scope: Scope) -> None:
        self.answers: asyncio.Queue[WireMessage | None] = asyncio.Queue()
        """None: the application has returned."""
        self.answered = self._begun = False
        self.window = Window(0 if is_hesitant(scope) else WINDOW)

    def end(self) -> None:
        """The application has returned."""
        self.answered = True
        self.answers.put_nowait(None)
        self._lift()

    def begin(self) -> None:
        """The answer has begun."""
        self._begun = True
        self._lift()

    def _lift(self) -> None:
        """Asking for a body whose client waits for that is only harmless within the answer."""
        if self._begun and self.answered:
            self.window.lift()


async def _live(receive: Receive, send: Send) -> None:
    """The lifespan of a worker's server. That of the application is the owner's."""
    kind = ""
    while kind != "lifespan.shutdown":
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
