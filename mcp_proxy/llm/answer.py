"""One answer over HTTP: as JSON, or as a stream whose status is held back until there is something to say.

A failure before the first word keeps its status, so that clients' libraries can act on it; a later one is an event in
the stream. What the events look like is the API's.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing

from mcp_proxy.base.json import encode
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.bridge.chat import ChatResult, Delta, gathered
from mcp_proxy.bridge.errors import INTERNAL, SOURCE_ERROR, ChatError
from mcp_proxy.bridge.relay import Item, Verbatim
from mcp_proxy.edge.event_stream import EventWriter
from mcp_proxy.edge.respond import send_json
from mcp_proxy.edge.types import Header, Send
from mcp_proxy.llm.apis import Api, Frames

COMMIT = 2.0
"""Seconds for which the status is held back; then the stream begins, whatever comes."""
KEEP_ALIVE = 10.0
"""Seconds without a word after which a sign of life is sent."""
Headers = Callable[[], Iterable[Header]]
"""The headers of a stream; made when it begins, since they say who answers."""
_AHEAD = 256
"""Deltas that may wait for a client that reads slowly; its source is read on when it does."""


async def collected(items: AsyncGenerator[Item, None]) -> ChatResult | bytes:
    """The whole answer: to be written, or as it was written. Raises `ChatError`."""
    seen: list[Delta] = []
    async with aclosing(items):
        async for item in items:
            if isinstance(item, Verbatim):
                return item.data
            seen.append(item)
    try:
        return gathered(seen)
    except ValueError as error:
        raise ChatError(SOURCE_ERROR, f"the model's answer cannot be read: {error}") from None


async def send_whole(send: Send, fields: object, headers: Iterable[Header]) -> None:
    """Answer with JSON."""
    await send_json(send, 200, encode(fields), headers)


async def send_failure(send: Send, api: Api, error: ChatError, request_id: str, headers: Iterable[Header] = ()) -> None:
    """Answer with an error in the API's own words."""
    body = encode(api.error_body(error, request_id))
    await send_json(send, error.problem.status, body, [*failure_headers(error, request_id), *headers])


def failure_headers(error: ChatError, request_id: str) -> list[Header]:
    """What an error says in headers: when to ask again, and whether to at all."""
    headers: list[Header] = [(b"request-id", request_id.encode())]
    if error.retry_after is not None:
        headers.append((b"retry-after", str(max(1, math.ceil(error.retry_after))).encode()))
    if error.problem.retry is False:
        headers.append((b"x-should-retry", b"false"))
    return headers


class Streaming:
    """Sends one answer as a stream."""

    def __init__(
        self,
        send: Send,
        frames: Frames,
        request_id: str,
        *,
        tasks: TaskSet,
        commit: float = COMMIT,
        keep_alive: float = KEEP_ALIVE,
        relayed: bool = False,
    ) -> None:
        """``relayed``: the beginning of the answer may be somebody else's to write."""
        self._relayed = relayed
        self._writer = EventWriter(send)
        self._frames = frames
        self._request_id = request_id
        self._tasks = tasks
        self._commit = commit
        self._keep_alive = keep_alive
        self._queue: asyncio.Queue[Item | ChatError | None] = asyncio.Queue(_AHEAD)

    async def run(self, items: AsyncGenerator[Item, None], headers: Headers) -> ChatError | None:
        """Send all of it; returns the error that ended the stream early, if one did.

        Raises `ChatError` while nothing has been sent, and `ClientGone`. Cancelling it ends the source's work.
        """
        reading = self._tasks.spawn(self._read(items), "completion")
        try:
            return await self._write(headers)
        finally:
            reading.cancel()
            await asyncio.wait([reading])

    async def _read(self, items: AsyncGenerator[Item, None]) -> None:
        try:
            async with aclosing(items):
                async for item in items:
                    await self._queue.put(item)
            await self._queue.put(None)
        except ChatError as error:
            await self._queue.put(error)
        except Exception:
            # The task's owner reports it; the client must not wait for ever because of it.
            await self._queue.put(ChatError(INTERNAL, "an internal error; the log has more"))
            raise

    async def _write(self, headers: Headers) -> ChatError | None:
        item = await self._first(headers)
        while True:
            chunk = b""
            while item is not None and not isinstance(item, ChatError):
                chunk += item.data if isinstance(item, Verbatim) else self._frames.delta(item)
                if self._queue.empty():
                    break
                item = self._queue.get_nowait()
            else:
                last = b"" if item is None else self._frames.error(item, self._request_id)
                await self._writer.end(chunk + last)
                return item
            if chunk:
                await self._writer.write(chunk)
            item = await self._next()

    async def _first(self, headers: Headers) -> Item | ChatError | None:
        """The first item, with the stream begun. Raises it, if it is an error that came in time."""
        item: Item | ChatError | None
        try:
            async with asyncio.timeout(self._commit):
                item = await self._queue.get()
        except TimeoutError:
            await self._writer.begin(200, headers())
            await self._writer.write(self._frames.KEEP_ALIVE if self._relayed else self._frames.first())
            return await self._next()
        if isinstance(item, ChatError):
            raise item
        await self._writer.begin(200, headers())
        return item

    async def _next(self) -> Item | ChatError | None:
        """The next item, however long it takes."""
        while True:
            try:
                async with asyncio.timeout(self._keep_alive):
                    return await self._queue.get()
            except TimeoutError:
                await self._writer.write(self._frames.KEEP_ALIVE)
