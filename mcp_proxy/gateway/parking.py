"""Calls that wait for input: a modern client's call of a legacy server, held while the client collects what is asked.

The server's request becomes an ``input_required`` answer; the client's next request with the state it was given carries
the input on. Waiting calls are bounded in number and time. Source: basic/patterns/mrtr (2026-07-28).
"""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mcp_proxy.base.clock import Clock
from mcp_proxy.base.errors import CANCELLED, OVERLOADED, ProxyError
from mcp_proxy.base.ids import IdSource
from mcp_proxy.base.protocol import INVALID_PARAMS, INVALID_REQUEST
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.core.auth.principal import LOCAL
from mcp_proxy.core.calls import Outcome, Progress
from mcp_proxy.core.upstream.client import ASKS
from mcp_proxy.core.upstream.failures import RpcError
from mcp_proxy.core.upstream.messages import Incoming
from mcp_proxy.gateway.envelope import Refusal, RequestId
from mcp_proxy.gateway.outlet import Channel

MOST_FREE = 64
"""Links (of a caller, to all its servers) that are kept between calls."""
MOST_UNSAID = 256
"""Notifications that are kept for the client of one waiting call; of more, the oldest are lost."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a parked call needs before it can go on: MCP's ``inputRequests``, and the key to come back with."""

    key: str
    requests: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Visit:
    """One request of the client: the way to it while it lasts, the token of the progress that it wants to hear of, and
    whether it wants log messages."""

    channel: Channel
    token: RequestId | None = None
    logs: bool = False


Start = Callable[["Parked"], Awaitable[Outcome]]
"""Makes the call, with the parked call's key as its links' and its `Parked.ask` as way to the client."""


class Parked:
    """One call that may have to wait. ``lease`` names the links that are its own as long as it runs."""

    def __init__(self, key: str, owner: str, lease: str, visit: Visit, capabilities: Mapping[str, Any]) -> None:
        self.key = key
        self.owner = owner
        """Whose call it is."""
        self.lease = lease
        self.visit = visit
        """The client's request that is being served now."""
        self.task: asyncio.Task[Outcome | ProxyError] | None = None
        self.waiting_since: float | None = None
        self._capabilities = capabilities
        self._names = itertools.count(1)
        self._open: dict[str, tuple[dict[str, Any], asyncio.Future[Mapping[str, Any]]]] = {}
        self._asked = asyncio.Event()
        self.progress: Progress | None = None
        """How far the call has come: which server it reached, and what it is called there."""
        self.was_asked = False
        """Whether a server has asked its client anything."""
        self.unsaid: deque[Callable[[Visit], bool]] = deque(maxlen=MOST_UNSAID)
        """What was to be told while the client was away."""

    async def ask(self, request: Incoming) -> Mapping[str, Any]:
        """The client's answer, whenever it comes. Raises `RpcError` for what it did not offer to answer."""
        if ASKS.get(request.method) not in self._capabilities:
            raise RpcError(INVALID_REQUEST, f"the client does not offer {request.method}")
        self.was_asked = True
        name = f"input-{next(self._names)}"
        shown: dict[str, Any] = {"method": request.method}
        if request.params is not None:
            shown["params"] = request.params
        answer: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        self._open[name] = (shown, answer)
        self._asked.set()
        try:
            return await answer
        finally:
            self._open.pop(name, None)

    def tell(self, say: Callable[[Visit], bool]) -> None:
        """Tell the client something: now, or when it comes back. ``say`` returns whether the visit could be told."""
        if not say(self.visit) and self.waiting_since is not None:
            self.unsaid.append(say)

    def welcome(self, visit: Visit) -> None:
        """The client has come back, and hears first what it missed."""
        self.visit = visit
        self.waiting_since = None
        while self.unsaid:
            self.unsaid.popleft()(visit)

    def give(self, answers: Mapping[str, Any]) -> None:
        """Hand in what the client brought. Raises `Refusal` for an answer that is no object."""
        if not all(isinstance(answer, dict) for answer in answers.values()):
            raise Refusal(INVALID_PARAMS, "inputResponses must hold one result object for each input request")
        for name, answer in answers.items():
            if name in self._open and not self._open[name][1].done():
                self._open[name][1].set_result(answer)

    async def step(self) -> Outcome | Wanted:
        """Until the call has ended, or the client is needed. Raises the call's `ProxyError`."""
        assert self.task is not None
        while not self.task.done():
            wanted = {name: shown for name, (shown, answer) in self._open.items() if not answer.done()}
            if wanted:
                return Wanted(self.key, wanted)
            self._asked.clear()
            self.task.add_done_callback(self._wake)
            try:
                await self._asked.wait()
            finally:
                self.task.remove_done_callback(self._wake)
        if self.task.cancelled():
            raise ProxyError(CANCELLED, "the call was given up")
        done = self.task.result()
        if isinstance(done, ProxyError):
            raise done
        return done

    def _wake(self, _: object) -> None:
        self._asked.set()


class Parking:
    """All parked calls. Links that calls leave behind are kept a while for the same caller's next call."""

    def __init__(
        self,
        *,
        limit: int,
        patience: float,
        idle: float,
        clock: Clock,
        ids: IdSource,
        tasks: TaskSet,
        forget: Callable[[str], None],
    ) -> None:
        """``patience``: seconds a call may wait for its client. ``idle``: seconds a link is kept. ``forget`` ends links."""
        self._limit = limit
        self._patience = patience
        self._idle = idle
        self._clock = clock
        self._ids = ids
        self._tasks = tasks
        self._forget = forget
        self._parked: dict[str, Parked] = {}
        self._free: dict[str, list[tuple[str, float]]] = defaultdict(list)

    def __len__(self) -> int:
        return len(self._parked)

    def __iter__(self) -> Iterator[Parked]:
        return iter(tuple(self._parked.values()))

    def __getitem__(self, lease: str) -> Parked | None:
        return next((parked for parked in self._parked.values() if parked.lease == lease), None)

    async def start(
        self, owner: str, identity: str, visit: Visit, capabilities: Mapping[str, Any], call: Start
    ) -> Outcome | Wanted:
        """Make a call that may have to wait. ``identity``: equal for calls that may use one another's links.

        Raises `ProxyError`. Cancelling it cancels the call.
        """
        parked = Parked(self._ids(), owner, self._lease(identity), visit, capabilities)
        self._parked[parked.key] = parked
        parked.task = self._tasks.spawn(self._run(parked, identity, call), "parked call")
        return await self._step(parked)

    def find(self, key: str) -> Parked | None:
        """The call that waits under that key."""
        return self._parked.get(key)

    async def resume(self, key: str, visit: Visit, answers: Mapping[str, Any]) -> Outcome | Wanted:
        """Go on with a parked call. Raises `ProxyError`, and `Refusal` when it is no longer there."""
        parked = self._parked.get(key)
        if parked is None or parked.waiting_since is None:
            raise Refusal(INVALID_PARAMS, "requestState belongs to a call that no longer waits; call again without it")
        parked.give(answers)
        parked.welcome(visit)
        return await self._step(parked)

    async def _step(self, parked: Parked) -> Outcome | Wanted:
        assert parked.task is not None
        # A key is good for one round: what is handed out next is another.
        self._parked.pop(parked.key, None)
        parked.key = self._ids()
        self._parked[parked.key] = parked
        done: Outcome | Wanted | None = None
        try:
            done = await parked.step()
        except asyncio.CancelledError:
            parked.task.cancel()
            raise
        finally:
            if not isinstance(done, Wanted):
                self._parked.pop(parked.key, None)
        if not isinstance(done, Wanted):
            return done
        if not self._may_wait(parked):
            self._give_up(parked)
            raise ProxyError(OVERLOADED, "too many calls are waiting for input; try again in a moment", retry_after=5)
        # From now on the call may even end: its result waits for the client as its questions do.
        parked.waiting_since = self._clock.monotonic()
        return Wanted(parked.key, done.requests)

    def _may_wait(self, parked: Parked) -> bool:
        """Whether there is room for one more that waits; nobody may take more than a share of it."""
        waiting = [one for one in self._parked.values() if one.waiting_since is not None]
        share = self._limit if parked.owner == LOCAL.who else max(1, self._limit // 10)
        return len(waiting) < self._limit and sum(one.owner == parked.owner for one in waiting) < share

    async def _run(self, parked: Parked, identity: str, call: Start) -> Outcome | ProxyError:
        sound = False
        try:
            done = await call(parked)
            # A server that asks may ask once more, late: the next call must not be taken for this one.
            sound = not parked.was_asked
            return done
        except ProxyError as error:  # a value, since nobody may be there to take it
            return error
        finally:
            if sound:
                self._keep(identity, parked.lease)
            else:  # the server may still be at work on what was given up: the next call must not hear of it
                self._forget(parked.lease)

    # Links of callers between their calls

    def _lease(self, identity: str) -> str:
        free = self._free.get(identity)
        if not free:
            return f"call-{self._ids()}"
        lease, _ = free.pop()
        if not free:
            del self._free[identity]
        return lease

    def lease(self, identity: str) -> tuple[str, Callable[[], None]]:
        """Links for a short use outside a call (a listing), and what to call when that is over."""
        lease = self._lease(identity)
        return lease, lambda: self._keep(identity, lease)

    def _keep(self, identity: str, lease: str) -> None:
        """The links are free for the next call of the same caller, if it comes soon."""
        self._free[identity].append((lease, self._clock.monotonic()))
        if sum(map(len, self._free.values())) > MOST_FREE:
            oldest = min(self._free, key=lambda one: self._free[one][0][1])
            forgotten, _ = self._free[oldest].pop(0)
            if not self._free[oldest]:
                del self._free[oldest]
            self._forget(forgotten)

    def reap(self) -> None:
        """End the calls whose client does not come back, and links that nobody has used for a while."""
        now = self._clock.monotonic()
        for parked in list(self._parked.values()):
            since = parked.waiting_since
            if since is not None and now - since >= self._patience:
                self._give_up(parked)
        for identity, free in list(self._free.items()):
            for lease, since in free:
                if now - since >= self._idle:
                    self._forget(lease)
            kept = [one for one in free if now - one[1] < self._idle]
            if kept:
                self._free[identity] = kept
            else:
                del self._free[identity]

    def drain(self) -> None:
        """End the calls that wait for a client: nobody can come back."""
        for parked in list(self._parked.values()):
            if parked.waiting_since is not None:
                self._give_up(parked)

    def _give_up(self, parked: Parked) -> None:
        self._parked.pop(parked.key, None)
        if parked.task is not None:
            parked.task.cancel()


def answers_of(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """The ``inputResponses`` of a request. Raises `Refusal`."""
    answers = params.get("inputResponses")
    if answers is None:
        return {}
    if not isinstance(answers, dict):
        raise Refusal(INVALID_PARAMS, "inputResponses must be an object")
    return answers
