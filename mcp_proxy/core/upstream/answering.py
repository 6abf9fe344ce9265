"""Requests that upstreams send to us: each is answered in a task of its own, and can be taken back.

What may be answered, and by whom, is for the `OnRequest` that is handed in; ``ping`` is ours.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

from mcp_proxy.base.json import MAX_DEPTH, JsonError, decode, decode_fields, is_deep
from mcp_proxy.base.protocol import INTERNAL_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.core.upstream import messages
from mcp_proxy.core.upstream.client import OnRequest
from mcp_proxy.core.upstream.failures import Failure, RpcError, WireError
from mcp_proxy.core.upstream.messages import Incoming

MOST_ANSWERS = 64
"""Answers of ours that may be on their way to one upstream at once, where each is a request of its own."""
LARGEST = 1024 * 1024
"""Bytes that the params of a request may have, where nothing else is said."""
_MOST = 256
"""Requests of one upstream that may be open at once on one wire."""
_PATIENCE = 60.0
"""Seconds in which an answer has to be sent."""
_PAUSE = 1.0
"""Seconds before an answer that was not taken is sent once more, unless the upstream says when."""


class Posting:
    """Sends answers where each is a request of its own: so many at once, and what comes faster goes without.

    ``post`` raises `WireError`. What provably was not taken is sent once more.
    """

    def __init__(
        self, tasks: TaskSet, post: Callable[[bytes], Coroutine[Any, Any, None]], *, pause: float = _PAUSE
    ) -> None:
        self._tasks = tasks
        self._post = post
        self._pause = pause
        self._under_way = 0

    def __call__(self, body: bytes) -> None:
        """Send ``body``; nobody waits for it."""
        if self._under_way >= MOST_ANSWERS:
            return
        self._under_way += 1
        self._tasks.spawn(self._deliver(body), "answer to upstream").add_done_callback(self._posted)

    def _posted(self, _: object) -> None:
        self._under_way -= 1

    async def _deliver(self, body: bytes) -> None:
        """Nobody is there to be told of a failure: it shows in the next request."""
        with suppress(WireError, TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                try:
                    await self._post(body)
                except WireError as error:
                    if error.failure not in (Failure.UNREACHABLE, Failure.BUSY):
                        raise
                    await asyncio.sleep(self._pause if error.retry_after is None else error.retry_after)
                    await self._post(body)


class Answering:
    """The open requests of one upstream on one wire. ``send_back`` takes our answers; ``largest``: bytes of a request."""

    def __init__(self, tasks: TaskSet, send_back: Callable[[bytes], None], *, largest: int = LARGEST) -> None:
        self._tasks = tasks
        self._send_back = send_back
        self._largest = largest
        self._open: dict[int | str, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def take(self, request: Incoming, handler: OnRequest | None) -> None:
        """Answer ``request`` when ``handler`` has; without one it is refused."""
        assert request.id is not None
        if request.method == "ping":
            self._send_back(messages.answer(request.id, {}))
        elif request.params is not None and (
            len(bytes(request.params)) > self._largest or is_deep(bytes(request.params), MAX_DEPTH - 2)
        ):
            text = f"the request is larger than {self._largest} bytes, or nested too deep"
            self._send_back(messages.refusal(request.id, INVALID_PARAMS, text))
        elif handler is None or len(self._open) >= _MOST or request.id in self._open:
            refusal = messages.refusal(request.id, METHOD_NOT_FOUND, f"{request.method} is not offered by this client")
            self._send_back(refusal)
        else:
            task = self._tasks.spawn(self._answer(request, request.id, handler), f"answer {request.method}")
            self._open[request.id] = task
            # Not in the task itself: one that is taken back before its first step never runs.
            task.add_done_callback(partial(self._ended, request.id))

    def _ended(self, request_id: int | str, _: object) -> None:
        del self._open[request_id]

    async def _answer(self, request: Incoming, request_id: int | str, handler: OnRequest) -> None:
        try:
            answer = messages.answer(request_id, await handler(request))
        except RpcError as error:
            answer = messages.refusal(request_id, error.code, error.message, error.data)
        except (WireError, TimeoutError):
            answer = messages.refusal(request_id, INTERNAL_ERROR, "the client did not answer")
        except Exception:
            # An error of our own, which the task's owner sees; the upstream must not wait for ever because of it.
            self._send_back(messages.refusal(request_id, INTERNAL_ERROR, "the client could not be asked"))
            raise
        self._send_back(answer)

    def withdraw(self, notice: Incoming) -> None:
        """The upstream no longer wants an answer (``notifications/cancelled``); it gets none."""
        if notice.params is None:
            return
        try:
            request_id = decode(decode_fields(notice.params)["requestId"])
        except (JsonError, KeyError):
            return
        task = self._open.get(request_id) if type(request_id) in (int, str) else None
        if task is not None:
            task.cancel()

    def close(self) -> None:
        """Nobody is left to be answered."""
        for task in list(self._open.values()):
            task.cancel()
