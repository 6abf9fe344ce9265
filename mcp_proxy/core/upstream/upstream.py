"""The actor of one server: one task opens, watches, reopens and closes its connection; everybody else only asks.

States: ``connecting`` until the first attempt has ended; ``connected``, or ``degraded`` while the breaker is not closed
or checks fail; ``down`` between attempts; ``failed`` after ten short lives of a command; ``disabled`` by configuration.
What was last known to be offered stays while a server is down: a call then says that it is down, not that the tool is unknown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

from msgspec.structs import replace

from mcp_proxy.base.clock import Clock
from mcp_proxy.base.json import Fields
from mcp_proxy.base.protocol import UNSUPPORTED_VERSION
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.config.model import ServerSpec, Transport
from mcp_proxy.core.catalog.offer import Offer, Withheld, adopt_offer
from mcp_proxy.core.upstream.backoff import Backoff
from mcp_proxy.core.upstream.breaker import Breaker, BreakerState
from mcp_proxy.core.upstream.bulkhead import Bulkhead
from mcp_proxy.core.upstream.client import PROXY, Client, House
from mcp_proxy.core.upstream.crossing import Sending, exchange
from mcp_proxy.core.upstream.deadline import Deadline
from mcp_proxy.core.upstream.dial import Dialer
from mcp_proxy.core.upstream.failures import Attempt, Failure, Phase, RpcError, WireError
from mcp_proxy.core.upstream.followed import Followed
from mcp_proxy.core.upstream.house import Desk
from mcp_proxy.core.upstream.link import Link
from mcp_proxy.core.upstream.listing import Profiles, sift
from mcp_proxy.core.upstream.messages import Incoming
from mcp_proxy.core.upstream.own_links import OwnLinks
from mcp_proxy.core.upstream.terms import Era, Terms
from mcp_proxy.telemetry.logs import Logger

_FIRST_WAIT = 5.0
_OWN_CHILDREN, _OWN_SESSIONS = 64, 1024
"""Links that may belong to single clients: for a command each is a process."""
_REFRESH_GAP = 1.0
"""Seconds between two listings because of announcements, however fast these come."""
_LIST_TIMEOUT = 10.0
_CHECK_TIMEOUT = 5.0
_DEBOUNCE = 0.1
_GIVE_UP = 10
_POKE_GAP = 1.0
"""Seconds between attempts that calls to a server that is down may bring forward."""
_RELISTEN = 30.0
_RELISTEN_SOON = 1.0
"""Seconds before the stream of announcements is opened again; soon where questions are lost without it, and later each
time that it does not last."""
_GONE = (Failure.UNREACHABLE, Failure.LOST, Failure.SESSION_LOST)
"""Failures after which a link is of no use any more."""
_REFUSED_ERA = (400, 404, 405, 406, 415)
"""HTTP statuses of a server that does not know the handshake."""
_CHANGES = {
    "notifications/tools/list_changed": "tools",
    "notifications/prompts/list_changed": "prompts",
    "notifications/resources/list_changed": "resources",
}
KINDS = frozenset(_CHANGES.values())


class State(StrEnum):
    """What ``/servers`` and ``/health`` say."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    DEGRADED = "degraded"
    DOWN = "down"
    DISABLED = "disabled"
    FAILED = "failed"


class Watcher(Protocol):
    """Who hears of what happens at upstreams. Must not block."""

    def changed(self, upstream: Upstream) -> None:
        """What is known of the upstream may have changed: its state, or what it offers."""
        ...

    def announced(self, upstream: Upstream, kinds: frozenset[str]) -> None:
        """The upstream itself said that these lists (``tools``, ``prompts``, ``resources``) changed."""
        ...

    def updated(self, upstream: Upstream, message: Incoming) -> None:
        """``notifications/resources/updated``."""
        ...

    def told(self, upstream: Upstream, key: str, message: Incoming) -> None:
        """A notification on the link of the client with that key."""
        ...


class Upstream:
    """One server's connection. `run` is its task; `request` and the questions are for everybody."""

    def __init__(
        self,
        spec: ServerSpec,
        *,
        dialer: Dialer,
        clock: Clock,
        random: Callable[[], float],
        log: Logger,
        watcher: Watcher,
        queue_limit: int,
        health_interval: float,
        house: House | None = None,
    ) -> None:
        """``house`` makes completions for the server where clients cannot; None: nobody does."""
        self.spec = spec
        self._house = house
        self._desk = None if house is None else Desk(house)
        self._base = PROXY if self._desk is None else self._desk.client
        self._dialer = dialer
        self._clock = clock
        self._random = random
        self._log = log
        self._watcher = watcher
        self._health_interval = health_interval
        self.breaker = Breaker(clock)
        self.bulkhead = Bulkhead(limit=queue_limit, concurrency=spec.max_concurrency)
        self.offer = Offer()
        """What it lists to a client without capabilities."""
        self.withheld: tuple[Withheld, ...] = ()
        self.last_error: str | None = None
        self.latency: float | None = None
        """Seconds a call takes, smoothed."""
        self._link: Link | None = None
        self._transport = spec.transport
        self._backoff = Backoff(random)
        self._missed = 0
        self._retry_at = 0.0
        self._last_attempt = 0.0
        self._last_answer = 0.0
        self._settled = asyncio.Event()
        self._ready = asyncio.Event()
        self._wake = asyncio.Event()
        self._reopen: str | None = None
        self._announced: set[str] = set()
        self._refreshed = -_REFRESH_GAP
        self._work = TaskSet(self._task_failed)
        self._own = OwnLinks(
            spec,
            dialer=dialer,
            tasks=self._work,
            on_incoming=self._own_incoming,
            on_stderr=self._stderr,
            limit=_OWN_CHILDREN if spec.transport is Transport.STDIO else _OWN_SESSIONS,
        )
        self._speaks_legacy: bool | None = None
        self._profiles = Profiles(self._work, spec.name, self._list_for, lambda: watcher.changed(self))
        self._followed = Followed(spec.name, tasks=self._work, random=random, log=log)
        if spec.disabled:
            self._settled.set()

    def __repr__(self) -> str:
        return f"<Upstream {self.spec.name} {self.state} {self._link!r} {self.breaker!r} {self.bulkhead!r}>"

    # Questions

    @property
    def state(self) -> State:
        if self.spec.disabled:
            return State.DISABLED
        if self._link is not None:
            sound = self._missed == 0 and self.breaker.state is BreakerState.CLOSED
            return State.CONNECTED if sound else State.DEGRADED
        if not self._settled.is_set():
            return State.CONNECTING
        hopeless = self.spec.transport is Transport.STDIO and self._backoff.failures >= _GIVE_UP
        return State.FAILED if hopeless else State.DOWN

    @property
    def transport(self) -> Transport:
        """As it turned out; for a URL without a word that is known once connected."""
        return self._transport

    @property
    def era(self) -> Era | None:
        return self._link.terms.era if self._link else None

    @property
    def protocol_version(self) -> str | None:
        return self._link.terms.version if self._link else None

    @property
    def terms(self) -> Terms | None:
        """What was agreed with it, while it is connected."""
        return self._link.terms if self._link else None

    @property
    def own_links(self) -> int:
        """Links that belong to single clients."""
        return len(self._own)

    @property
    def is_available(self) -> bool:
        """Whether a call could be sent right now."""
        return self._link is not None and self.breaker.allows and not self.bulkhead.is_full

    @property
    def is_settled(self) -> bool:
        """Whether the first attempt to connect has ended, well or badly."""
        return self._settled.is_set()

    @property
    def returns_soon(self) -> bool:
        """Whether a connection is being made, or will be within a second."""
        return self._link is None and self._retry_at - self._clock.monotonic() <= 1.0

    @property
    def inflight(self) -> int:
        """Calls in flight or waiting."""
        return self.bulkhead.inside

    def retry_after(self) -> float:
        """Seconds after which asking again makes sense, while it is not available."""
        if self._link is None:
            return max(1.0, self._retry_at - self._clock.monotonic())
        return max(1.0, self.breaker.retry_after())

    async def wait_settled(self) -> None:
        """Until the first attempt to connect has ended."""
        await self._settled.wait()

    async def wait_ready(self, seconds: float) -> bool:
        """Whether it is connected, waiting for that at most so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._ready.wait()
        except TimeoutError:
            return False
        return True

    # Requests

    async def request(self, sending: Sending, *, deadline: Deadline, attempt: Attempt) -> Fields:
        """Send a request once; the raw result.

        Raises `RpcError` (the upstream's own answer) and `WireError` (``attempt.phase`` says how far it got).
        """
        if self._house is not None:
            sending = replace(sending, client=self._told(sending.client))
        try:
            with deadline:
                async with self.bulkhead:
                    return await self._send(sending, attempt, deadline)
        except TimeoutError:
            if attempt.phase is not Phase.NOT_SENT:
                self._failed(WireError(Failure.TIMEOUT, attempt.phase, "a call was not answered in time"))
            raise WireError(Failure.TIMEOUT, attempt.phase, "no answer in time") from None

    async def _send(self, sending: Sending, attempt: Attempt, deadline: Deadline) -> Fields:
        if self._link is None and not self._settled.is_set():
            # Its very first connection, or the one after its configuration changed, is being made: worth waiting for.
            await self.wait_ready(_FIRST_WAIT)
        shared = self._admit()
        probe = self.breaker.begin()
        started = self._clock.monotonic()
        link = shared
        try:
            if sending.client.needs_own_link:
                link = await self._link_of(sending.client, shared)
                if link is not shared and sending.client.key is not None:
                    self._profiles.set_apart(sending.client.key)
            if self._desk is None or link is not shared:
                result = await exchange(link, sending, attempt, deadline)
            else:
                with self._desk.serving(attempt, deadline):
                    result = await exchange(link, sending, attempt, deadline)
        except RpcError as error:
            self._answered(started, attempt)
            if error.code == UNSUPPORTED_VERSION and link is shared:
                self._last_answer = 0.0
                self._wake.set()
            raise
        except WireError as error:
            if link is not shared and error.failure is Failure.SESSION_LOST:
                self._own.lose(sending.client, link)
            self._failed(error, shared=link is shared)
            raise
        finally:
            if probe:
                self.breaker.ended()
        self._answered(started, attempt)
        return result

    def _told(self, client: Client) -> Client:
        """The client as this server gets to know it."""
        return self._base if client is PROXY else client.housed(self._house)

    async def _link_of(self, client: Client, shared: Link) -> Link:
        """The same era as the client's where the upstream speaks it; where it does not, the shared link, across eras.

        Raises `WireError` when the client's own link cannot be had, `RpcError` when it is refused.
        """
        modern = shared.terms.era is Era.MODERN
        if modern and (client.era is Era.MODERN or self._speaks_legacy is False):
            return shared
        try:
            return await self._own.get(client, self._transport)
        except (RpcError, WireError) as error:
            if not modern or (isinstance(error, WireError) and not _refuses_era(error)):
                raise
            self._speaks_legacy = False
            self._log.info(
                "upstream_speaks_one_era", server=self.spec.name, era=shared.terms.era, reason=_reason(error)
            )
            return shared

    def _admit(self) -> Link:
        if self._link is None:
            self.poke()
            reason = self.last_error or "it is not connected"
            raise WireError(Failure.UNREACHABLE, Phase.NOT_SENT, reason, retry_after=self.retry_after())
        if not self.breaker.allows:
            text = "too many of its last answers failed; it is left alone for a moment"
            raise WireError(Failure.RESTING, Phase.NOT_SENT, text, retry_after=self.retry_after())
        return self._link

    def _answered(self, started: float, attempt: Attempt) -> None:
        self.breaker.succeeded()
        self._missed = 0
        self._last_answer = self._clock.monotonic()
        self.last_error = None
        if attempt.forwarded:
            return  # how long a client takes to answer says nothing of the upstream
        took = self._last_answer - started
        self.latency = took if self.latency is None else self.latency * 0.8 + took * 0.2

    def _failed(self, error: WireError, *, shared: bool = True) -> None:
        self.last_error = error.message
        if error.failure is Failure.SESSION_LOST:
            if not shared:
                return  # one client's own, which is opened again with its next request
            self._reopen = error.message
        elif _is_callers_own(error):
            return  # the server is well: its next caller must not pay for this one
        else:
            self.breaker.failed()
            self._last_answer = 0.0
        self._wake.set()

    def poke(self) -> None:
        """Somebody needs this server now: do not sit out the pause, if the last attempt is a moment ago."""
        if self._clock.monotonic() - self._last_attempt >= _POKE_GAP:
            self._wake.set()

    # What it offers to whom

    def offer_to(self, client: Client) -> Offer:
        """What this client would be listed, as far as that is known: `learn` finds out."""
        return self._profiles.offer_to(client, self.offer)

    @property
    def never_listed(self) -> bool:
        """Whether nothing is known of what it has: it is not connected, and never was."""
        return self._link is None and self.offer == Offer()

    def knows(self, client: Client) -> bool:
        """Whether there is no more to be learned of what this client would be listed."""
        return self._link is None or self._profiles.knows(client)

    async def learn(self, client: Client) -> None:
        """List for clients that offer what this one does; a server may show them more. Failure leaves what is known."""
        if not self.knows(client):
            await self._profiles.learn(client, lambda: self.offer)

    async def _list_for(self, client: Client) -> Offer | None:
        client = self._told(client)
        try:
            async with asyncio.timeout(_LIST_TIMEOUT):
                shared = self._admit()
                link = await self._link_of(client, shared) if client.key is not None else shared
                listed = await link.list_all(client)
        except (WireError, RpcError, TimeoutError):
            return None
        usable, _ = sift(listed, mirrors=self._mirrors(link))
        return adopt_offer(usable, self.offer)

    async def follow(self, uri: str) -> None:
        """Have the upstream tell of changes of this resource, until `unfollow`.

        Raises `RpcError`, `WireError`, `TimeoutError`.
        """
        await self._followed.add(self._admit(), uri)

    async def unfollow(self, uri: str) -> None:
        """Undo `follow`."""
        await self._followed.remove(self._link, uri)

    def take_over(self, old: Upstream) -> None:
        """Stand in for the same server as it was configured before: known is what that one knew, until it is connected."""
        self.offer = old.offer
        self._followed.take_over(old._followed)

    def forget_client(self, key: str) -> None:
        """The client is gone: so is its link."""
        self._own.drop(key)
        self._profiles.forget(key)

    def kind_of(self, client: Client) -> str:
        """Equal for clients that are offered the same; "" for those that are offered what everybody is."""
        return self._profiles.kind_of(client)

    def tell(self, key: str, method: str) -> None:
        """Pass on a client's notification that has no parameters, where it has a link."""
        self._own.notify(key, method)

    # The actor

    async def run(self) -> None:
        """Keep the connection until cancelled. The one task that opens and closes it."""
        try:
            while True:
                try:
                    await self._live()
                except Exception as error:  # noqa: BLE001 - boundary: without its actor a server would never come back
                    self._log.exception("upstream_actor_failed", server=self.spec.name)
                    self._lost(f"an error of our own ({type(error).__name__})")
                await self._pause()
        finally:
            await self._own.close()
            await self._work.close()

    async def _live(self) -> None:
        """One connection, from the attempt to open it until it is lost."""
        self._last_attempt = self._clock.monotonic()
        self._wake.clear()
        self._reopen = None
        try:
            link, self._transport = await self._dialer.dial(self.spec, self._incoming, self._stderr, self._base)
        except (WireError, RpcError) as error:
            self._lost(_reason(error))
        else:
            await self._keep(link)

    async def _keep(self, link: Link) -> None:
        """Serve with this link until it is lost."""
        opened = self._clock.monotonic()
        try:
            reason = await self._serve(link)
        except (WireError, RpcError) as error:
            reason = _reason(error)
        except BaseException:
            await link.wire.close()
            raise
        self._dialer.tasks.spawn(link.wire.retire(), f"retire {self.spec.name}")
        self._backoff.lasted(self._clock.monotonic() - opened)
        self._lost(reason, link.wire.last_words)

    async def _serve(self, link: Link) -> str:
        """From the first listing to the end of the link; the reason it ended. Raises `WireError`, `RpcError`."""
        listeners = TaskSet(self._listener_failed)
        try:
            await self._list(link)
            self._open(link)
            listeners.spawn(self._listen(link), f"listen {self.spec.name}")
            listeners.spawn(self._followed.again(link), f"follow again {self.spec.name}")
            return await self._watch(link)
        finally:
            self._link = None
            self._ready.clear()
            self._followed.pause()
            await listeners.close()

    def _open(self, link: Link) -> None:
        self._link = link
        self._speaks_legacy = None
        self._profiles.outdated()
        self._missed = 0
        self._last_answer = self._clock.monotonic()
        self.last_error = None
        self.breaker.reset()
        self._ready.set()
        self._settled.set()
        self._log.info(
            "upstream_connected", server=self.spec.name, transport=self._transport, era=link.terms.era,
            protocol_version=link.terms.version, tools=len(self.offer.tools),
        )  # fmt: skip
        self._watcher.changed(self)

    def _lost(self, reason: str, stderr: str = "") -> None:
        self.last_error = reason
        self._retry_at = self._clock.monotonic() + (0.0 if self._reopen else self._backoff.next())
        self._settled.set()
        pause = round(max(0.0, self._retry_at - self._clock.monotonic()), 2)
        self._log.warning(
            "upstream_lost",
            server=self.spec.name,
            reason=reason,
            retry_in=pause,
            state=self.state,
            stderr=stderr or None,
        )
        self._watcher.changed(self)

    async def _pause(self) -> None:
        if self._reopen:
            return
        self._wake.clear()
        try:
            async with asyncio.timeout(max(0.0, self._retry_at - self._clock.monotonic())):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _watch(self, link: Link) -> str:
        """Until the link is lost: refresh the list when told to, check for life when idle. The reason it ended."""
        ended = link.wire.ended
        while not ended.done():
            interval = self._health_interval * (0.8 + 0.4 * self._random())
            if self._missed:
                interval = min(interval, 1.0)
            await self._wait(ended, interval)
            if self._reopen:
                return self._reopen
            if self._announced and not ended.done():
                await asyncio.sleep(max(_DEBOUNCE, self._refreshed + _REFRESH_GAP - self._clock.monotonic()))
                await self._refresh(link)
                self._refreshed = self._clock.monotonic()
            elif not ended.done() and self._clock.monotonic() - self._last_answer >= interval * 0.5:
                await self._check(link)
        return ended.result()

    async def _wait(self, ended: asyncio.Future[str], seconds: float) -> None:
        """Until something wakes the actor, the link ends, or the time is over."""
        ended.add_done_callback(self._wake_up)
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass
        finally:
            ended.remove_done_callback(self._wake_up)
            self._wake.clear()

    def _wake_up(self, _: object) -> None:
        self._wake.set()

    async def _refresh(self, link: Link) -> None:
        """List again because a change was announced. A server too busy to answer keeps its link and what was known."""
        kinds = frozenset(self._announced)
        self._announced.clear()
        try:
            await self._list(link)
        except (WireError, RpcError) as error:
            if isinstance(error, WireError) and error.failure in _GONE:
                raise
            self.last_error = _reason(error)
            self._announced |= kinds
            return
        self._profiles.outdated()
        self._watcher.changed(self)
        self._watcher.announced(self, kinds)

    async def _list(self, link: Link) -> None:
        try:
            async with asyncio.timeout(_LIST_TIMEOUT):
                listed = await link.list_all()
        except TimeoutError:
            raise WireError(Failure.TIMEOUT, Phase.NOT_SENT, "a list was not answered in time") from None
        usable, withheld = sift(listed, mirrors=self._mirrors(link))
        if withheld != self.withheld:
            for one in withheld:
                self._log.warning("withheld", server=self.spec.name, kind=one.kind, name=one.name, reason=one.reason)
        self.withheld = withheld
        self.offer = adopt_offer(usable, self.offer)

    def _mirrors(self, link: Link) -> bool:
        """Whether calls repeat arguments as HTTP headers."""
        return link.terms.era is Era.MODERN and self._transport is not Transport.STDIO

    async def _check(self, link: Link) -> None:
        """One sign of life. Two misses in a row, or a connection that cannot be made, end the link (`WireError`)."""
        try:
            async with asyncio.timeout(_CHECK_TIMEOUT):
                await link.check()
        except RpcError as error:
            # An answer all the same; unless it says that the era is no longer the one agreed upon.
            if link.terms.era is Era.MODERN or error.code == UNSUPPORTED_VERSION:
                self._reopen = "it no longer speaks the protocol version agreed upon"
                raise
        except TimeoutError:
            self._missing("a check was not answered in time")
            return
        except WireError as error:
            if error.failure is Failure.SESSION_LOST:
                self._reopen = error.message
            if error.failure in _GONE:
                raise
            self._missing(error.message)
            return
        self._missed = 0
        self._last_answer = self._clock.monotonic()

    def _missing(self, text: str) -> None:
        """A check failed. That a server is busy with calls is no reason to give it up."""
        self.last_error = text
        if self.inflight:
            return
        self._missed += 1
        if self._missed >= 2:
            raise WireError(Failure.LOST, Phase.NOT_SENT, text)

    async def _listen(self, link: Link) -> None:
        """Hold the stream of announcements open; when it ends early, see whether the server is still there."""
        pause = soon = _RELISTEN_SOON if link.asks else _RELISTEN
        while True:
            opened = self._clock.monotonic()
            try:
                if not await link.listen():
                    return
            except RpcError:
                return  # it has no such stream
            except WireError as error:
                if error.status in (404, 405):
                    return
            self._last_answer = 0.0
            self._wake.set()
            lasted = self._clock.monotonic() - opened >= _RELISTEN
            pause = soon if lasted else pause
            await asyncio.sleep(pause * (0.5 + self._random()))
            pause = min(pause * 2, _RELISTEN)

    def _listener_failed(self, name: str, error: BaseException) -> None:
        self._task_failed(name, error)

    def _stderr(self, line: str) -> None:
        self._log.debug("upstream_stderr", server=self.spec.name, line=line)

    def _task_failed(self, name: str, error: BaseException) -> None:
        self._log.error("task_failed", task=name, reason=type(error).__name__)

    def _incoming(self, message: Incoming) -> None:
        """What comes on the shared link and belongs to no request."""
        if (kind := _CHANGES.get(message.method)) is not None:
            self._announced.add(kind)
            self._wake.set()
        elif message.method == "notifications/resources/updated":
            self._watcher.updated(self, message)

    def _own_incoming(self, key: str, message: Incoming) -> None:
        """What comes on a client's own link and belongs to no request."""
        if message.method in _CHANGES:
            # What it offers to this client has changed, not what it offers to all.
            self._profiles.announced(key, self._own.profile_of(key))
        self._watcher.told(self, key, message)


def _is_callers_own(error: WireError) -> bool:
    """Whether the fault lies in what was asked: a result that is too large, or an HTTP status that blames the request."""
    return error.failure is Failure.TOO_LARGE or (error.status is not None and 400 <= error.status < 500)


def _refuses_era(error: WireError) -> bool:
    """Whether a server seems not to know the legacy handshake, or how to answer it."""
    return error.status in _REFUSED_ERA or error.failure is Failure.BAD_REPLY


def _reason(error: WireError | RpcError) -> str:
    if isinstance(error, WireError):
        return error.message
    return f"it answered with error {error.code}"
