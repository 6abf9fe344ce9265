"""The resources of one server that somebody wants to be told changes of, on whatever link there is to it.

Sources: server/resources (2025-11-25), basic/patterns/subscriptions (2026-07-28). Who wants it is the doors' business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.core.upstream.failures import Attempt, Failure, Phase, RpcError, WireError
from mcp_proxy.core.upstream.link import Link
from mcp_proxy.core.upstream.terms import Era
from mcp_proxy.telemetry.logs import Logger

_TIMEOUT = 5.0


class Followed:
    """One server's followed URIs: a subscription each on a legacy link, a stream each on a modern one."""

    def __init__(self, server: str, *, tasks: TaskSet, random: Callable[[], float], log: Logger) -> None:
        self._server = server
        self._tasks = tasks
        self._random = random
        self._log = log
        self._uris: dict[str, asyncio.Task[None] | None] = {}

    def __len__(self) -> int:
        return len(self._uris)

    async def add(self, link: Link, uri: str) -> None:
        """Follow ``uri`` until `remove`. Raises `RpcError`, `WireError`, `TimeoutError`; it is then not followed."""
        if uri in self._uris:
            return
        self._uris[uri] = None
        followed = False
        try:
            await self._follow(link, uri)
            followed = True
        finally:
            if not followed:
                self._drop(uri)

    async def _follow(self, link: Link, uri: str) -> None:
        async with asyncio.timeout(_TIMEOUT):
            if link.terms.era is Era.LEGACY:
                await link.request("resources/subscribe", {"uri": uri}, Attempt())
                return
            accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            holding = self._tasks.spawn(self._hold(link, uri, accepted), f"follow {self._server}")
            holding.add_done_callback(lambda _: _given_up(accepted))
            self._uris[uri] = holding
            try:
                await accepted
            except RpcError:
                holding.cancel()  # a server that does not agree may keep the stream open, for nothing
                raise

    async def _hold(self, link: Link, uri: str, accepted: asyncio.Future[None]) -> None:
        """Keep the stream of one resource open; cancelled when the link goes or nobody wants it any more."""
        while not link.wire.ended.done():
            try:
                await link.follow(uri, accepted)
            except (RpcError, WireError) as error:
                if not accepted.done():
                    accepted.set_exception(error)
                    return
                self._log.debug("follow_ended", server=self._server, reason=type(error).__name__)
                if isinstance(error, RpcError):
                    return
            await asyncio.sleep(1 + self._random())

    def take_over(self, other: Followed) -> None:
        """Follow what ``other`` does, as soon as there is a link (`again`)."""
        self._uris = dict.fromkeys(other._uris)

    async def again(self, link: Link) -> None:
        """A new link knows nothing of what was followed on the one before."""
        for uri in list(self._uris):
            if self._uris.get(uri, link) is not None:
                continue  # it was let go meanwhile, or is followed on this link already
            try:
                await self._follow(link, uri)
            except (RpcError, WireError, TimeoutError) as error:
                self._log.warning("follow_lost", server=self._server, reason=type(error).__name__)

    def pause(self) -> None:
        """The link is going: so are the streams that hang on it. What is followed stays known."""
        for uri, task in self._uris.items():
            if task is not None:
                task.cancel()
                self._uris[uri] = None

    async def remove(self, link: Link | None, uri: str) -> None:
        """Undo `add`."""
        on_stream = self._drop(uri)
        if link is None or on_stream or link.terms.era is Era.MODERN:
            return
        with suppress(RpcError, WireError, TimeoutError):
            async with asyncio.timeout(_TIMEOUT):
                await link.request("resources/unsubscribe", {"uri": uri}, Attempt())

    def _drop(self, uri: str) -> bool:
        """Forget it; whether a stream was held for it."""
        task = self._uris.pop(uri, None)
        if task is not None:
            task.cancel()
        return task is not None


def _given_up(accepted: asyncio.Future[None]) -> None:
    """The stream ended with its link, or was let go, before the server said anything: whoever waits need not go on."""
    if not accepted.done():
        accepted.set_exception(WireError(Failure.LOST, Phase.SENT, "the connection was lost"))
