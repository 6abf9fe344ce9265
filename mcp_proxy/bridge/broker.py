"""Who answers what waits: completions on one side, connected models ("lanes") on the other, matched one by one.

Bounded and fair between tenants (`fair_queue`), never more at once than a lane stands (`window`). A request that was
handed to a lane is not handed to another: nobody knows whether it was worked on. How a lane asks its client is the
lane's own matter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from mcp_proxy.base.clock import Clock
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.bridge.errors import (
    NO_ANSWER,
    NOT_READY,
    QUEUE_FULL,
    REFUSED,
    SOURCE_ERROR,
    TOOLS_NOT_SUPPORTED,
    ChatError,
)
from mcp_proxy.bridge.fair_queue import FairQueue, Full
from mcp_proxy.bridge.window import Window

RETRY_AFTER = 2.0
"""Seconds after which a client may ask again when nothing is connected."""


class NotSent(Exception):
    """The lane could not hand the request to its client: another may have it."""


class LaneLost(Exception):
    """The client is gone, or the lane with it; whether it worked on the request is not known."""


class LaneRefused(Exception):
    """The client, or the person in front of it, does not answer this request. ``rejected``: that was a decision."""

    def __init__(self, message: str, *, rejected: bool) -> None:
        super().__init__(message)
        self.rejected = rejected


class Lane(Protocol):
    """One connected client's model."""

    key: str
    tools: bool
    """Whether it can be given tools."""

    @property
    def room(self) -> int:
        """How many more requests can be handed to it just now; `Broker.look_again` tells when that has grown."""
        ...

    async def sample(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """The result of ``sampling/createMessage``. Raises `NotSent`, `LaneLost`, `LaneRefused`. Cancelling it tells the
        client, where the protocol has a way."""
        ...


Write = Callable[[bool], Mapping[str, Any]]
"""Makes the parameters for a lane that takes tools, or takes none."""


@dataclass(eq=False, slots=True)
class _Job:
    tenant: str
    write: Write
    tools: bool
    seconds: float | None
    answer: asyncio.Future[Mapping[str, Any]]
    task: asyncio.Task[None] | None = None
    unreached: _Place | None = None
    """The lane that it was handed to and that could not send it."""


@dataclass(eq=False, slots=True)
class _Place:
    """A lane and what it is at work on."""

    lane: Lane
    window: Window
    jobs: set[_Job] = field(default_factory=set)

    @property
    def free(self) -> int:
        return min(self.lane.room, self.window.size - len(self.jobs))

    def trouble(self) -> None:
        """A request failed; if there were others beside it, they may have been too many."""
        if len(self.jobs) > 1:
            self.window.in_trouble()


class Broker:
    """All lanes and all that waits for them."""

    def __init__(
        self, *, clock: Clock, tasks: TaskSet, limit: int = 1000, share: int = 200, patience: float = 30.0
    ) -> None:
        """``limit`` and ``share``: how many may wait, in all and of each tenant. ``patience``: seconds that one waits."""
        self._clock = clock
        self._tasks = tasks
        self._patience = patience
        self._queue: FairQueue[_Job] = FairQueue(limit=limit, share=share)
        self._places: dict[str, _Place] = {}

    def __repr__(self) -> str:
        return f"<Broker {len(self._places)} lanes, {len(self._queue)} waiting>"

    # Lanes

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """Those that are there now."""
        return tuple(place.lane for place in self._places.values())

    @property
    def waiting(self) -> int:
        """How many requests have no lane yet."""
        return len(self._queue)

    def add(self, lane: Lane, window: Window | None = None) -> None:
        """A client is ready to answer."""
        self._places[lane.key] = _Place(lane, window or Window())
        self.look_again()

    def remove(self, lane: Lane) -> None:
        """The client has left: what it is at work on is not answered."""
        place = self._places.pop(lane.key, None)
        for job in list(place.jobs) if place is not None else ():
            if job.task is not None:
                job.task.cancel()
            _fail(job, ChatError(NO_ANSWER, "the model's client has left; it may have worked on the request"))

    def look_again(self) -> None:
        """There may be room in a lane: hand out what fits."""
        while any(place.free > 0 for place in self._places.values()):
            job = self._queue.take(lambda job: self._best(job) is not None)
            if job is None:
                return
            place = self._best(job)
            assert place is not None
            self._hand_over(job, place)

    def _best(self, job: _Job) -> _Place | None:
        """The lane with the most room that can do it."""
        fitting = (
            place
            for place in self._places.values()
            if place.free > 0 and place is not job.unreached and (place.lane.tools or not job.tools)
        )
        return max(fitting, key=lambda place: place.free, default=None)

    # Requests

    async def complete(
        self, tenant: str, write: Write, *, tools: bool = False, seconds: float | None = None
    ) -> Mapping[str, Any]:
        """The result of ``sampling/createMessage`` from one of the lanes. ``tools``: only lanes that take some will do.

        ``seconds``: how long a lane may take; None: as long as it likes. Raises `ChatError`. Cancelling it cancels the
        request, wherever it is.
        """
        if not self._places:
            raise ChatError(
                NOT_READY,
                "no MCP client that can answer is connected; one has to call the tool hook",
                retry_after=RETRY_AFTER,
            )
        if tools and not any(place.lane.tools for place in self._places.values()):
            raise ChatError(TOOLS_NOT_SUPPORTED, "no connected client's model can be given tools", param="tools")
        job = _Job(tenant, write, tools, seconds, asyncio.get_running_loop().create_future())
        try:
            self._queue.put(tenant, job)
        except Full:
            raise ChatError(QUEUE_FULL, "too many requests are waiting", retry_after=RETRY_AFTER) from None
        self.look_again()
        timer = asyncio.get_running_loop().call_later(self._patience, self._give_up, job)
        try:
            return await job.answer
        finally:
            timer.cancel()
            self._queue.discard(tenant, job)
            if job.task is not None:
                job.task.cancel()

    def _give_up(self, job: _Job) -> None:
        """It has waited long enough, if it still does."""
        if self._queue.discard(job.tenant, job):
            _fail(job, ChatError(NOT_READY, "no connected model had room in time", retry_after=RETRY_AFTER))

    def _hand_over(self, job: _Job, place: _Place) -> None:
        place.jobs.add(job)
        job.task = self._tasks.spawn(self._work(job, place), f"sample at {place.lane.key}")
        # Not in the task itself: one that is cancelled before its first step never runs.
        job.task.add_done_callback(lambda _: self._ended(job, place))

    def _ended(self, job: _Job, place: _Place) -> None:
        place.jobs.discard(job)
        self.look_again()

    async def _work(self, job: _Job, place: _Place) -> None:
        sent_at = self._clock.monotonic()
        try:
            async with asyncio.timeout(job.seconds):
                result = await place.lane.sample(job.write(place.lane.tools))
        except ChatError as error:  # it cannot be said to this lane's client
            _fail(job, error)
        except NotSent:
            self._put_back(job, place)
        except LaneRefused as refusal:
            if not refusal.rejected:  # a person's no says nothing about the load
                place.trouble()
            problem = REFUSED if refusal.rejected else SOURCE_ERROR
            _fail(job, ChatError(problem, str(refusal)))
        except LaneLost:
            _fail(job, ChatError(NO_ANSWER, "the model's client has left; it may have worked on the request"))
        except TimeoutError:
            place.trouble()
            _fail(job, ChatError(NO_ANSWER, f"the model did not answer within {job.seconds:g} seconds"))
        else:
            place.window.answered(sent_at, self._clock.monotonic(), len(place.jobs))
            if not job.answer.done():
                job.answer.set_result(result)

    def _put_back(self, job: _Job, place: _Place) -> None:
        """It never left: another lane may have it, once."""
        if job.unreached is not None or job.answer.done():
            _fail(job, ChatError(NOT_READY, "the connected clients cannot be reached", retry_after=RETRY_AFTER))
            return
        job.unreached, job.task = place, None
        self._queue.put(job.tenant, job, first=True)
        asyncio.get_running_loop().call_later(self._patience, self._give_up, job)


def _fail(job: _Job, error: ChatError) -> None:
    if not job.answer.done():
        job.answer.set_exception(error)
