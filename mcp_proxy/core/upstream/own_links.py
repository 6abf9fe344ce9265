"""Links that belong to one client each, where sharing one would mix up who is asked.

Opened when first needed, opened again after a loss, ended when the client is forgotten. Which client needs one is
`upstream`'s decision.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.config.model import ServerSpec, Transport
from mcp_proxy.core.upstream.client import Client
from mcp_proxy.core.upstream.dial import Dialer
from mcp_proxy.core.upstream.failures import Attempt, Failure, Phase, RpcError, WireError
from mcp_proxy.core.upstream.link import Link
from mcp_proxy.core.upstream.messages import Incoming

OnOwnIncoming = Callable[[str, Incoming], None]
"""Takes what an upstream says on a link of a client's own, with that client's key."""


_LOST_STREAM, _LOST_STREAM_MOST = 1.0, 30.0
"""Seconds before a standing stream that has ended is opened again; longer, up to the second, while that fails."""


_PATIENCE = 2.0
"""Seconds for which a link that is being opened may go on to be, though its client has left."""


@dataclass(slots=True, eq=False)
class _Own:
    profile: str
    opening: asyncio.Task[Link | WireError | RpcError] | None = None
    listening: asyncio.Task[None] | None = None
    log_level: str | None = None

    @property
    def link(self) -> Link | None:
        """The link, once it has been opened."""
        if self.opening is None or not self.opening.done() or self.opening.cancelled() or self.opening.exception():
            return None
        found = self.opening.result()
        return found if isinstance(found, Link) else None

    @property
    def usable(self) -> bool:
        """Whether there is a link that lasts, or is being opened."""
        if self.opening is not None and not self.opening.done():
            return True
        return self.link is not None and not self.link.wire.ended.done()


class OwnLinks:
    """The links of one server that belong to single clients, by the clients' keys."""

    def __init__(
        self,
        spec: ServerSpec,
        *,
        dialer: Dialer,
        tasks: TaskSet,
        on_incoming: OnOwnIncoming,
        on_stderr: Callable[[str], None],
        limit: int,
    ) -> None:
        """``limit``: how many there may be at once."""
        self._limit = limit
        self._patience = _PATIENCE
        self._spec = spec
        self._dialer = dialer
        self._tasks = tasks
        self._on_incoming = on_incoming
        self._on_stderr = on_stderr
        self._links: dict[str, _Own] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._links)

    def profile_of(self, key: str) -> str:
        """The profile of the client with that key; "" when it has no link."""
        own = self._links.get(key)
        return "" if own is None else own.profile

    async def get(self, client: Client, transport: Transport) -> Link:
        """The client's link, opened if need be. Raises `WireError`, `RpcError`; the next call tries again."""
        assert client.key is not None
        own = self._links.get(client.key)
        if own is None or own.opening is None or not own.usable:
            if own is not None:
                self._retire(own)
            elif len(self._links) >= self._limit:
                text = "too many clients have connections of their own to it"
                raise WireError(Failure.FULL, Phase.NOT_SENT, text, retry_after=5)
            own = self._links[client.key] = _Own(client.profile)
            work = self._open(own, client, client.key, transport)
            own.opening = self._tasks.spawn(work, f"open {self._spec.name} for a client")
        opening = own.opening
        assert opening is not None
        # Whoever opens it first may leave; the others, and the client's next call, still want it.
        await asyncio.wait([opening])
        current = self._links.get(client.key) is own
        if own.link is None:
            if current:
                del self._links[client.key]
            raise _no_link(opening)
        if not current:
            raise _left()
        await self._set_level(own, own.link, client)
        return own.link

    async def _open(self, own: _Own, client: Client, key: str, transport: Transport) -> Link | WireError | RpcError:
        def incoming(message: Incoming) -> None:
            self._on_incoming(key, message)

        try:
            link = await self._dialer.dial_for(client, self._spec, transport, incoming, self._on_stderr)
        except (WireError, RpcError) as error:
            return error
        own.listening = self._tasks.spawn(_listen(link), f"listen {self._spec.name} for a client")
        return link

    async def _set_level(self, own: _Own, link: Link, client: Client) -> None:
        """Tell the upstream which log messages the client wants, where it has any. The call does not depend on it."""
        level = client.log_level
        if level is None or level == own.log_level or not link.terms.offers("logging"):
            return
        own.log_level = level
        answered = False
        try:
            await link.request("logging/setLevel", {"level": level}, Attempt())
            answered = True
        except RpcError:
            answered = True  # its own decision
        except WireError:
            pass  # what ails the link shows in the call
        finally:
            if not answered:
                own.log_level = None

    def lose(self, client: Client, link: Link) -> None:
        """This link of the client's has turned out to be dead; the next call opens another, if none has already."""
        own = self._links.get(client.key or "")
        if own is not None and own.link is link:
            self.drop(client.key or "")

    def drop(self, key: str) -> None:
        """The client is gone, and its link with it."""
        own = self._links.pop(key, None)
        if own is not None:
            self._retire(own)

    def notify(self, key: str, method: str) -> None:
        """Tell the upstream something of its client, if there is a link."""
        own = self._links.get(key)
        if own is not None and own.link is not None:
            self._tasks.spawn(_notify(own.link, method), f"notify {self._spec.name}")

    def _retire(self, own: _Own) -> None:
        task = self._tasks.spawn(_end(own, self._patience), f"end {self._spec.name} for a client")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        """End all of them, at once, and wait for those that are ending."""
        self._patience = 0.0
        for key in list(self._links):
            self.drop(key)
        if self._ending:
            await asyncio.wait(self._ending)


def _left() -> WireError:
    return WireError(Failure.LOST, Phase.NOT_SENT, "the client has left")


def _no_link(opening: asyncio.Task[Link | WireError | RpcError]) -> BaseException:
    """Why there is no link, as an error to raise."""
    if opening.cancelled():
        return _left()
    found = opening.exception() or opening.result()
    assert isinstance(found, BaseException)
    return found


async def _end(own: _Own, patience: float) -> None:
    assert own.opening is not None
    # A session that the server has begun can be ended only once it has been told; but opening may take long.
    await asyncio.wait([own.opening], timeout=patience)
    own.opening.cancel()
    await asyncio.wait([own.opening])
    if own.listening is not None:
        own.listening.cancel()
    if own.link is not None:
        await own.link.wire.close()


async def _notify(link: Link, method: str) -> None:
    with suppress(WireError):  # the link's next request shows that it is gone
        await link.wire.notify(method)


async def _listen(link: Link) -> None:
    """Hold the standing stream open, on which a legacy upstream may ask and announce, as long as the link lasts."""
    pause = _LOST_STREAM
    while not link.wire.ended.done():
        try:
            if not await link.hold():
                return
            pause = _LOST_STREAM
        except WireError as error:
            if error.status is not None:
                return  # it has no such stream
            pause = min(pause * 2, _LOST_STREAM_MOST)
        await asyncio.sleep(pause)
