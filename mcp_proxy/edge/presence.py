"""Noticing that the client has left while its request is being worked on, for handlers that speak plain ASGI.

Quart does this for its own routes. Most requests are answered before it pays to look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.edge.body import ClientGone
from mcp_proxy.edge.types import Receive

T = TypeVar("T")
LOOK_AFTER = 0.05
"""Seconds after which the client's presence is watched."""


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``, which is cancelled when the client leaves; then `ClientGone`.

    The body must have been read: nothing but the disconnect is expected of ``receive`` any more.
    """
    worker = asyncio.current_task()
    assert worker is not None
    gone = False

    def left() -> None:
        nonlocal gone
        gone = True
        worker.cancel()

    try:
        return await noticing_departure(receive, work, left)
    except asyncio.CancelledError:
        # Cancelled by the server as well as by us: then it is the server's wish that counts.
        if gone and worker.uncancel() == 0:
            raise ClientGone("the client left before its request was answered") from None
        raise


async def noticing_departure(receive: Receive, work: Coroutine[Any, Any, T], left: Callable[[], None]) -> T:
    """The result of ``work``, which goes on when the client leaves; ``left`` is called then, and must not block.

    As for `while_connected`, the body must have been read.
    """
    watchers: TaskSet | None = None

    def failed(_: str, __: BaseException) -> None:
        left()

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        left()

    def look() -> None:
        nonlocal watchers
        watchers = TaskSet(failed)
        watchers.spawn(watch(), "client presence")

    timer = asyncio.get_running_loop().call_later(LOOK_AFTER, look)
    try:
        return await work
    finally:
        timer.cancel()
        if watchers is not None:
            await watchers.close()
