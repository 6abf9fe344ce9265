"""Whether a call may be sent again. Pure: the retry matrix, and the budget that keeps retries from piling up.

The rule that matters: a call that is not idempotent and whose bytes may have been sent is never sent twice.
"""

from __future__ import annotations

from collections import deque
from fnmatch import fnmatchcase

from mcp_proxy.base.clock import Clock
from mcp_proxy.config.model import RetryRules
from mcp_proxy.core.catalog.tool import Tool
from mcp_proxy.core.upstream.failures import Failure, Phase, WireError

_WINDOW = 10.0
_SHARE = 0.2
_FLOOR = 3
_MOST_BUDGETS = 1024
"""Budgets after which those that remember nothing are dropped."""
_FINAL = frozenset({Failure.TOO_LARGE, Failure.BAD_REPLY, Failure.HTTP})
"""Failures that a second attempt would most likely meet again."""


def is_idempotent(tool: Tool, rules: RetryRules) -> bool:
    """Whether executing the tool twice does no harm: by configuration, or by the server's word where that is trusted."""
    if any(fnmatchcase(tool.name, glob) for glob in rules.idempotent):
        return True
    return rules.trust_annotations and tool.is_declared_idempotent()


def may_retry(error: WireError, *, idempotent: bool) -> bool:
    """One cell of the matrix: this failure, this kind of tool."""
    if error.phase is Phase.NOT_SENT:
        return error.failure is not Failure.TIMEOUT
    return idempotent and error.failure not in _FINAL and error.failure is not Failure.TIMEOUT


class RetryBudget:
    """At most a fifth of recent calls, and at least three in ten seconds, may be second attempts."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._retries: deque[float] = deque()
        self._calls = 0
        self._previous = 0
        self._since = clock.monotonic()

    def count_call(self) -> None:
        """A new call has come in."""
        now = self._clock.monotonic()
        if now - self._since >= _WINDOW:
            self._previous = self._calls if now - self._since < 2 * _WINDOW else 0
            self._calls, self._since = 0, now
        self._calls += 1

    @property
    def is_forgotten(self) -> bool:
        """Whether so much time has passed that a new one would decide the same."""
        return self._clock.monotonic() - self._since >= 2 * _WINDOW

    def take(self) -> bool:
        """Use one retry, if there is one left."""
        now = self._clock.monotonic()
        while self._retries and now - self._retries[0] > _WINDOW:
            self._retries.popleft()
        if len(self._retries) >= max(_FLOOR, _SHARE * max(self._calls, self._previous)):
            return False
        self._retries.append(now)
        return True


class RetryBudgets:
    """A budget for each namespace: retries towards one server use up nobody else's."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._budgets: dict[str, RetryBudget] = {}

    def of(self, namespace: str) -> RetryBudget:
        """The budget of a server or group."""
        budget = self._budgets.get(namespace)
        if budget is None:
            if len(self._budgets) >= _MOST_BUDGETS:
                # Servers come and go; what has not been called for a while has nothing to remember.
                self._budgets = {name: one for name, one in self._budgets.items() if not one.is_forgotten}
            budget = self._budgets[namespace] = RetryBudget(self._clock)
        return budget
