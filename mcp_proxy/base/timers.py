"""Timers that are set for every request and hardly ever fire, and time limits made of them.

A timer of the event loop costs more than most of what a request does, set and cancelled. These are kept in slots of some
milliseconds, and the loop has one timer for the next slot that is due. For what fires as a rule, or has to be exact, the
loop's own are right.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from heapq import heappop, heappush
from threading import get_ident
from types import TracebackType

_RATE = 100
"""Slots a second: a timer fires at most one slot late."""


class Timer:
    """One that has been set; see `Timers.at`."""

    __slots__ = ("_call", "_slot")

    def __init__(self, slot: dict[Timer, None], call: Callable[[], object]) -> None:
        self._slot = slot
        self._call = call

    def cancel(self) -> None:
        """It does not fire any more. Nothing happens when it has."""
        self._slot.pop(self, None)
        if not self._slot:
            self._slot.clear()  # A dictionary that has become empty keeps its room, and there are thousands of slots.
        self._call = _nothing  # Who set it usually keeps it, and would be kept by it until the garbage collector came.

    def run(self) -> None:
        """Its time has come, unless it was cancelled together with that."""
        if self in self._slot:
            del self._slot[self]
            self._call()


def _nothing() -> None:
    """What a timer calls that was cancelled."""


class Timers:
    """The timers of one event loop. Use `running_timers`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._slots: dict[int, dict[Timer, None]] = {}
        self._order: list[int] = []
        """The numbers of the slots, as a heap."""
        self._armed: tuple[int, asyncio.TimerHandle] | None = None

    def __repr__(self) -> str:
        return f"<Timers {sum(map(len, self._slots.values()))}>"

    def at(self, when: float, call: Callable[[], object]) -> Timer:
        """Make ``call``, which must not block, at this time of the loop's or up to 10 ms later."""
        number = int(when * _RATE) + 1
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = {}
            heappush(self._order, number)
            self._arm()
        timer = Timer(slot, call)
        slot[timer] = None
        return timer

    def _arm(self) -> None:
        """Have the loop wake us for the next slot."""
        number = self._order[0]
        if self._armed is not None:
            if self._armed[0] <= number:
                return
            self._armed[1].cancel()
        # Not the context of the request that happens to be the first of its slot.
        self._armed = number, self.loop.call_at(number / _RATE, self._fire, context=Context())

    def _fire(self) -> None:
        self._armed = None
        now = int(self.loop.time() * _RATE)
        while self._order and self._order[0] <= now:
            for timer in self._slots.pop(heappop(self._order)):
                self.loop.call_soon(timer.run)
        if self._order:
            self._arm()


_of_threads: dict[int, Timers] = {}


def running_timers() -> Timers:
    """The timers of the running loop: they belong to it as its own do. Raises `RuntimeError` when none is running.

    By the thread, because before Python 3.12 asking for the running loop takes a system call each time.
    """
    timers = _of_threads.get(get_ident())
    if timers is None or not timers.loop.is_running():
        timers = _of_threads[get_ident()] = Timers(asyncio.get_running_loop())
    return timers


class TimeLimit:
    """``with TimeLimit(seconds):`` cancels the block after that, which then raises `TimeoutError`.

    As `asyncio.timeout`, for a fraction of its cost. One task enters it; several times, if one after the other.
    """

    def __init__(self, seconds: float) -> None:
        self._timers = running_timers()
        self.at = self._timers.loop.time() + seconds
        """When the time is over for who enters, in the loop's time."""
        self.until = self.at
        """When it is over for who is inside."""
        self._task: asyncio.Task[object] | None = None
        self._cancelled_before = 0
        self._timer: Timer | None = None

    def __enter__(self) -> None:
        self._task = task = asyncio.current_task(self._timers.loop)
        assert task is not None
        self._cancelled_before = task.cancelling()
        self.until = self.at
        self._timer = self._timers.at(self.at, self._over)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        task, timer = self._task, self._timer
        self._task = self._timer = None
        assert task is not None
        if timer is not None:
            timer.cancel()
        # Cancelled by somebody else as well: then that is what counts.
        elif task.uncancel() <= self._cancelled_before and isinstance(error, asyncio.CancelledError):
            raise TimeoutError from error

    def reschedule(self, when: float) -> None:
        """Whoever is inside has until then."""
        if self._timer is not None:
            self._timer.cancel()
            self.until = when
            self._timer = self._timers.at(when, self._over)

    def _over(self) -> None:
        assert self._task is not None
        self._timer = None
        self._task.cancel()
