"""The actor of one server: one task opens, watches, reopens and closes its connection; everybody else only asks.

States: ``connecting`` until the first attempt has ended; ``connected``, or ``degraded`` while the breaker is not closed
or checks fail; ``down`` between attempts; ``failed`` after ten short lives of a command; ``disabled`` by configuration.
The last known tools stay while a server is down: a call then says that it is down, not that the tool is unknown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from mcp_proxy.base.clock import Clock
from mcp_proxy.base.json import MAX_DEPTH, Fields, deeper_than
from mcp_proxy.base.protocol import UNSUPPORTED_VERSION
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.config.model import ServerSpec, Transport
from mcp_proxy.core.catalog.mirrored import fault as mirrored_fault
from mcp_proxy.core.catalog.tool import Tool, adopt
from mcp_proxy.core.upstream.backoff import Backoff
from mcp_proxy.core.upstream.breaker import Breaker, BreakerState
from mcp_proxy.core.upstream.bulkhead import Bulkhead
from mcp_proxy.core.upstream.dial import Dialer
from mcp_proxy.core.upstream.failures import Attempt, Failure, Phase, RpcError, WireError
from mcp_proxy.core.upstream.link import Link
from mcp_proxy.core.upstream.messages import Incoming
from mcp_proxy.core.upstream.streamable import header_value
from mcp_proxy.core.upstream.wire import Era, OnIncoming
from mcp_proxy.telemetry.logs import Logger

_LIST_TIMEOUT = 10.0
_CHECK_TIMEOUT = 5.0
_DEBOUNCE = 0.1
_GIVE_UP = 10
_POKE_GAP = 1.0
"""Seconds between attempts that calls to a server that is down may bring forward."""
_RELISTEN = 30.0
_GONE = (Failure.UNREACHABLE, Failure.LOST, Failure.SESSION_LOST)
"""Failures after which a link is of no use any more."""


class State(StrEnum):
    """What ``/servers`` and ``/health`` say."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    DEGRADED = "degraded"
    DOWN = "down"
    DISABLED = "disabled"
    FAILED = "failed"


class Upstream:
    """One server's connection. `run` is its task; `call` and the questions are for everybody."""

    def __init__(
        self,
        spec: ServerSpec,
        *,
        dialer: Dialer,
        clock: Clock,
        random: Callable[[], float],
        log: Logger,
        on_change: Callable[[], None],
        queue_limit: int,
        health_interval: float,
    ) -> None:
        self.spec = spec
        self._dialer = dialer
        self._clock = clock
        self._random = random
        self._log = log
        self._on_change = on_change
        self._health_interval = health_interval
        self.breaker = Breaker(clock)
        self.bulkhead = Bulkhead(limit=queue_limit, concurrency=spec.max_concurrency)
        self.tools: tuple[Tool, ...] = ()
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
        self._relist = False
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

    # Calls

    async def call(
        self,
        tool: Tool,
        arguments: Mapping[str, Any],
        *,
        deadline: float,
        attempt: Attempt,
        on_message: OnIncoming | None = None,
    ) -> Fields:
        """Send ``tools/call`` once; the raw result. ``deadline`` is event loop time.

        Raises `RpcError` (the upstream's own answer) and `WireError` (``attempt.phase`` says how far it got).
        """
        try:
            async with asyncio.timeout_at(deadline), self.bulkhead:
                return await self._send(tool, arguments, attempt, on_message)
        except TimeoutError:
            if attempt.phase is not Phase.NOT_SENT:
                self._failed(WireError(Failure.TIMEOUT, attempt.phase, "a call was not answered in time"))
            raise WireError(Failure.TIMEOUT, attempt.phase, "no answer in time") from None

    async def _send(
        self, tool: Tool, arguments: Mapping[str, Any], attempt: Attempt, on_message: OnIncoming | None
    ) -> Fields:
        link = self._admit()
        probe = self.breaker.begin()
        started = self._clock.monotonic()
        try:
            result = await link.request(
                "tools/call",
                {"name": tool.name, "arguments": arguments},
                attempt,
                headers=_mirrored(link, tool, arguments),
                on_message=on_message,
            )
        except RpcError as error:
            self._answered(started)
            if error.code == UNSUPPORTED_VERSION:
                self._last_answer = 0.0
                self._wake.set()
            raise
        except WireError as error:
            self._failed(error)
            raise
        finally:
            if probe:
                self.breaker.ended()
        self._answered(started)
        return result

    def _admit(self) -> Link:
        if self._link is None:
            self.poke()
            reason = self.last_error or "it is not connected"
            raise WireError(Failure.UNREACHABLE, Phase.NOT_SENT, reason, retry_after=self.retry_after())
        if not self.breaker.allows:
            text = "too many of its last answers failed; it is left alone for a moment"
            raise WireError(Failure.RESTING, Phase.NOT_SENT, text, retry_after=self.retry_after())
        return self._link

    def _answered(self, started: float) -> None:
        self.breaker.succeeded()
        self._missed = 0
        self._last_answer = self._clock.monotonic()
        self.last_error = None
        took = self._last_answer - started
        self.latency = took if self.latency is None else self.latency * 0.8 + took * 0.2

    def _failed(self, error: WireError) -> None:
        self.last_error = error.message
        if error.failure is Failure.SESSION_LOST:
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

    # The actor

    async def run(self) -> None:
        """Keep the connection until cancelled. The one task that opens and closes it."""
        while True:
            try:
                await self._live()
            except Exception as error:  # noqa: BLE001 - boundary: without its actor a server would never come back
                self._log.exception("upstream_actor_failed", server=self.spec.name)
                self._lost(f"an error of our own ({type(error).__name__})")
            await self._pause()

    async def _live(self) -> None:
        """One connection, from the attempt to open it until it is lost."""
        self._last_attempt = self._clock.monotonic()
        self._wake.clear()
        self._reopen = None
        try:
            link, self._transport = await self._dialer.dial(self.spec, self._incoming, self._stderr)
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
            return await self._watch(link)
        finally:
            self._link = None
            self._ready.clear()
            await listeners.close()

    def _open(self, link: Link) -> None:
        self._link = link
        self._missed = 0
        self._last_answer = self._clock.monotonic()
        self.last_error = None
        self.breaker.reset()
        self._ready.set()
        self._settled.set()
        self._log.info(
            "upstream_connected", server=self.spec.name, transport=self._transport, era=link.terms.era,
            protocol_version=link.terms.version, tools=len(self.tools),
        )  # fmt: skip
        self._on_change()

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
        self._on_change()

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
            if self._relist and not ended.done():
                await asyncio.sleep(_DEBOUNCE)
                await self._refresh(link)
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
        """List again because a change was announced. A server too busy to answer keeps its link and its old tools."""
        self._relist = False
        try:
            await self._list(link)
        except (WireError, RpcError) as error:
            if isinstance(error, WireError) and error.failure in _GONE:
                raise
            self.last_error = _reason(error)
            self._relist = True
            return
        self._on_change()

    async def _list(self, link: Link) -> None:
        try:
            async with asyncio.timeout(_LIST_TIMEOUT):
                definitions = await link.list_tools()
        except TimeoutError:
            raise WireError(Failure.TIMEOUT, Phase.NOT_SENT, "tools/list was not answered in time") from None
        mirrors = link.terms.era is Era.MODERN and self._transport is not Transport.STDIO
        usable = []
        for definition in definitions:
            reason = _unusable(definition, mirrors=mirrors)
            if reason is None:
                usable.append(definition)
            else:
                self._log.warning("tool_dropped", server=self.spec.name, tool=definition["name"], reason=reason)
        self.tools = adopt(usable, self.tools)

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
        while True:
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
            await asyncio.sleep(_RELISTEN * (0.5 + self._random()))

    def _listener_failed(self, name: str, error: BaseException) -> None:
        self._log.error("task_failed", task=name, reason=type(error).__name__)

    def _stderr(self, line: str) -> None:
        self._log.debug("upstream_stderr", server=self.spec.name, line=line)

    def _incoming(self, message: Incoming) -> None:
        if message.method == "notifications/tools/list_changed":
            self._relist = True
            self._wake.set()


def _unusable(definition: Mapping[str, Any], *, mirrors: bool) -> str | None:
    """Why a tool cannot be offered, or None. ``mirrors``: its calls repeat arguments as HTTP headers."""
    if deeper_than(definition, MAX_DEPTH):
        return f"its definition is nested deeper than {MAX_DEPTH}"
    if mirrors and (fault := mirrored_fault(definition.get("inputSchema"))) is not None:
        return f"x-mcp-header: {fault}"
    return None


def _mirrored(link: Link, tool: Tool, arguments: Mapping[str, Any]) -> Mapping[str, str] | None:
    if link.terms.era is not Era.MODERN or not tool.mirrored:
        return None
    return {name: header_value(value) for name, value in tool.header_arguments(arguments).items()}


def _is_callers_own(error: WireError) -> bool:
    """Whether the fault lies in what was asked: a result that is too large, or an HTTP status that blames the request."""
    return error.failure is Failure.TOO_LARGE or (error.status is not None and 400 <= error.status < 500)


def _reason(error: WireError | RpcError) -> str:
    if isinstance(error, WireError):
        return error.message
    return f"it answered with error {error.code}"
