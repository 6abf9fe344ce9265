"""Noticing that the client has left while its request is being worked on, for handlers that speak plain ASGI.

Quart does this for its own routes. Most requests are answered before it pays to look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.base.timers import Timers, running_timers
from mcp_proxy.edge.body import ClientGone
from mcp_proxy.edge.types import Message, Receive, Send

T = TypeVar("T")
LOOK_AFTER = 0.05
"""Seconds after which the client's presence is watched."""


class Sending:
    """``send``, and whether it has been given the last of the answer: who leaves after that misses nothing.

    Servers say of an answered client that it has left, and may say so before they have returned from sending.
    """

    __slots__ = ("_send", "over")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.over = False

    def __call__(self, message: Message) -> Awaitable[None]:
        self.over = message["type"] == "http.response.body" and not message.get("more_body", False)
        return self._send(message)


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T], sending: Sending | None = None) -> T:
    """The result of ``work``, which is cancelled when the client leaves; then `ClientGone`.

    The body must have been read: nothing but the disconnect is expected of ``receive`` any more. ``sending``: what the
    work answers with, if it does that itself.
    """
    timers = running_timers()
    worker = asyncio.current_task(timers.loop)
    assert worker is not None
    gone = False

    def left() -> None:
        nonlocal gone
        if sending is None or not sending.over:
            gone = True
            worker.cancel()

    watching = _Watching(timers, receive, left)
    try:
        try:
            return await work
        finally:
            if watching.has_begun():
                await watching.end()
    except asyncio.CancelledError:
        # Cancelled by the server as well as by us: then it is the server's wish that counts.
        if gone and worker.uncancel() == 0:
            raise ClientGone("the client left before its request was answered") from None
        raise


async def noticing_departure(receive: Receive, work: Coroutine[Any, Any, T], left: Callable[[], None]) -> T:
    """The result of ``work``, which goes on when the client leaves; ``left`` is called then, and must not block.

    As for `while_connected`, the body must have been read.
    """
    watching = _Watching(running_timers(), receive, left)
    try:
        return await work
    finally:
        if watching.has_begun():
            await watching.end()


class _Watching:
    """Calls ``left`` when the client leaves. Begins after a moment: few requests take so long."""

    __slots__ = ("_left", "_receive", "_tasks", "_timer")

    def __init__(self, timers: Timers, receive: Receive, left: Callable[[], None]) -> None:
        self._receive = receive
        self._left = left
        self._tasks: TaskSet | None = None
        self._timer = timers.at(timers.loop.time() + LOOK_AFTER, self._begin)

    def has_begun(self) -> bool:
        """Whether there is something to `end`. It does not begin any more."""
        self._timer.cancel()
        return self._tasks is not None

    async def end(self) -> None:
        """Stop looking."""
        assert self._tasks is not None
        await self._tasks.close()

    def _begin(self) -> None:
        self._tasks = TaskSet(self._failed)
        self._tasks.spawn(self._watch(), "client presence")

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._left()

    def _failed(self, _: str, __: BaseException) -> None:
        self._left()
