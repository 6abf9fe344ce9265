"""Budgets of tokens: what each token has spent for good, and what completions that run may yet spend.

How large a budget is stands in the caller's token (`tenancy`); the file is `config.budget_file`.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from dataclasses import dataclass, replace

from mcp_proxy.base.clock import Clock
from mcp_proxy.config.budget_file import MOST_TOKENS, BudgetFile, Spent
from mcp_proxy.config.state import StoreError
from mcp_proxy.core.auth.claims import LEEWAY
from mcp_proxy.telemetry.logs import Logger

MOST_BUDGETS = 65_536
"""Budgets that are kept: some megabytes when there are as many."""
_PAUSE = 1.0
"""Seconds from one writing to the next."""


class Budgets:
    """What is spent, by key. `keep` belongs to the runtime, and `close` comes after the last completion has ended."""

    def __init__(self, file: BudgetFile, *, clock: Clock, log: Logger, most: int = MOST_BUDGETS) -> None:
        """Raises `StartError` for a file that cannot be read."""
        self._file = file
        self._clock = clock
        self._log = log
        self._most = most
        self._spent = file.load()
        self._reserved: Counter[str] = Counter()
        self._unsaved = asyncio.Event()
        self._failing = False
        self._writing = threading.Lock()

    def __len__(self) -> int:
        """How many budgets are kept."""
        return len(self._spent)

    def spent(self, key: str) -> int:
        """Tokens that are gone."""
        found = self._spent.get(key)
        return 0 if found is None else found.tokens

    def reserved(self, key: str) -> int:
        """Tokens that may yet go."""
        return self._reserved[key]

    def has_room(self, key: str) -> bool:
        """Whether this budget is kept, or can be. Those that nobody can spend of any more make room."""
        if key not in self._spent and len(self._spent) >= self._most:
            over = self._clock.time() - LEEWAY
            for old in [old for old, one in self._spent.items() if one.expires is not None and one.expires <= over]:
                if not self._reserved[old]:
                    del self._spent[old]
        return key in self._spent or len(self._spent) < self._most

    def reserve(self, key: str, tokens: int, expires: float | None) -> Reservation:
        """Set tokens aside. ``expires``: until when the token with this budget is accepted, None: for ever."""
        known = self._spent.get(key, Spent(0, expires))
        latest = None if known.expires is None or expires is None else max(known.expires, expires)
        self._spent[key] = replace(known, expires=latest)
        self._reserved[key] += tokens
        return Reservation(self, key, tokens)

    def move(self, key: str, tokens: int) -> None:
        """Set so many more aside; fewer, where it is negative."""
        self._reserved[key] += tokens

    def settle(self, key: str, reserved: int, tokens: int) -> None:
        """Of ``reserved`` tokens, which are no longer set aside, ``tokens`` were spent; that may be more."""
        self._reserved[key] -= reserved
        if not self._reserved[key]:
            del self._reserved[key]
        if tokens > 0:
            known = self._spent[key]
            self._spent[key] = replace(known, tokens=min(known.tokens + tokens, MOST_TOKENS))
            self._unsaved.set()

    async def keep(self, pause: float = _PAUSE) -> None:
        """Write what was spent, at most once in ``pause`` seconds, as long as the program runs."""
        while True:
            await self._unsaved.wait()
            await self._flush()
            await asyncio.sleep(pause)

    async def close(self) -> None:
        """Write what has not been."""
        if self._unsaved.is_set():
            await self._flush()

    async def _flush(self) -> None:
        """One writing. A failure is logged once, and tried again; the budgets hold as long as the program runs."""
        self._unsaved.clear()
        try:
            await asyncio.to_thread(self._write)
        except StoreError as error:
            self._unsaved.set()
            if not self._failing:
                self._log.error("budgets_not_kept", reason=str(error))
            self._failing = True
        except asyncio.CancelledError:
            self._unsaved.set()
            raise
        else:
            self._failing = False

    def _write(self) -> None:
        # A writing whose waiter was cancelled goes on: what is written last must also be the latest that there is.
        with self._writing:
            self._file.save(self._spent.copy())


@dataclass(slots=True)
class Reservation:
    """Tokens of a budget that are set aside."""

    _budgets: Budgets
    _key: str
    tokens: int

    def become(self, tokens: int) -> None:
        """So many are set aside from now on."""
        self._budgets.move(self._key, tokens - self.tokens)
        self.tokens = tokens

    def settle(self, tokens: int) -> None:
        """So many were spent; see `Budgets.settle`."""
        self._budgets.settle(self._key, self.tokens, tokens)
