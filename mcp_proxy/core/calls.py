"""The one call path: every tool call of every door goes policy → limits → validate → choose → send → retry → audit.

Doors turn what they received into a `Call` and the outcome into their own words; they decide nothing themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mcp_proxy.base.clock import Clock
from mcp_proxy.base.errors import (
    INPUT_REQUIRED,
    INSUFFICIENT_SCOPE,
    INTERNAL_ERROR,
    INVALID_ARGUMENTS,
    OUTCOME_UNKNOWN,
    OVERLOADED,
    RESULT_TOO_LARGE,
    TIMEOUT,
    UPSTREAM_ERROR,
    UPSTREAM_UNAVAILABLE,
    ProxyError,
)
from mcp_proxy.base.json import MAX_DEPTH, Fields, JsonError, decode, is_deep
from mcp_proxy.base.protocol import INVALID_PARAMS, MISSING_CLIENT_CAPABILITY
from mcp_proxy.core.audit import AuditEvent, AuditSink
from mcp_proxy.core.auth.principal import Principal, Scope
from mcp_proxy.core.balance import choose
from mcp_proxy.core.catalog.resolve import Target
from mcp_proxy.core.catalog.snapshot import Entry
from mcp_proxy.core.limits import Gate, RateLimiter
from mcp_proxy.core.mcp_client_manager import McpClientManager
from mcp_proxy.core.retry import RetryBudget, RetryBudgets, is_idempotent, may_retry
from mcp_proxy.core.upstream.failures import Attempt, Failure, Phase, RpcError, WireError
from mcp_proxy.core.upstream.upstream import Upstream
from mcp_proxy.core.upstream.wire import OnIncoming

_REOPEN_WAIT = 5.0
_RECONNECT_WAIT = 1.0
"""Seconds that a call which was not sent waits for its only server to come back."""
_MESSAGE_LIMIT = 2000


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call as a door received it. ``method`` may be bare or full; ``server`` a name, a group or a URL."""

    method: str
    arguments: Mapping[str, Any]
    principal: Principal
    request_id: str
    door: str
    server: str | None = None
    on_message: OnIncoming | None = None


@dataclass(slots=True)
class Progress:
    """How far a call has come; doors read it for their log line, also when the call fails."""

    tool: str | None = None
    server: str | None = None
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """The upstream's result, opened one level: its values are raw JSON and go to the caller as they are."""

    fields: Fields
    server: str
    is_error: bool


@dataclass(frozen=True, slots=True)
class CallPath:
    """All that a call needs. Made once; see `call`."""

    manager: McpClientManager
    gate: Gate
    rates: RateLimiter
    audit: AuditSink
    clock: Clock
    random: Callable[[], float]
    call_timeout: float
    budgets: RetryBudgets
    longest: float = field(default=600.0)

    async def call(self, call: Call, progress: Progress) -> Outcome:
        """Execute a tool call. Raises `ProxyError`; cancelling it cancels the call at the upstream."""
        started = self.clock.monotonic()
        progress.tool = call.method
        outcome = INTERNAL_ERROR.type
        try:
            result = await self._admitted(call, progress)
            outcome = "tool_error" if result.is_error else "ok"
            return result
        except ProxyError as error:
            outcome = error.kind.type
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            self.audit.record(
                AuditEvent(
                    request_id=call.request_id,
                    principal=call.principal.subject,
                    door=call.door,
                    tool=progress.tool,
                    server=progress.server,
                    outcome=outcome,
                    attempts=progress.attempts,
                    seconds=self.clock.monotonic() - started,
                )
            )

    async def _admitted(self, call: Call, progress: Progress) -> Outcome:
        require(call.principal, Scope.TOOLS_CALL)
        target = await self.manager.resolve(call.principal, call.method, call.server)
        progress.tool = target.tool
        await self.rates.take(call.principal)
        self.gate.enter()
        try:
            _validate(target.entries[0], call.arguments)
            budget = self.budgets.of(target.entries[0].namespace)
            budget.count_call()
            return await self._send(call, target, progress, budget)
        finally:
            self.gate.leave()

    async def _send(self, call: Call, target: Target, progress: Progress, budget: RetryBudget) -> Outcome:
        """Attempts at replicas until one answers, or none may be tried any more."""
        upstreams = [(entry, self.manager.upstream(entry.server)) for entry in target.entries]
        deadline = asyncio.get_running_loop().time() + self._timeout(target)
        tried: list[str] = []
        while True:
            entry, upstream = self._next(upstreams, target.preferred, tried)
            progress.server = entry.server
            progress.attempts += 1
            attempt = Attempt()
            try:
                fields = await upstream.call(
                    entry.tool, call.arguments, deadline=deadline, attempt=attempt, on_message=call.on_message
                )
            except RpcError as error:
                raise _rpc_error(error, entry.server) from None
            except WireError as error:
                idempotent = is_idempotent(entry.tool, entry.spec.retry)
                tried.append(entry.server)
                again = progress.attempts <= entry.spec.retry.max and may_retry(error, idempotent=idempotent)
                if not again or not await self._can_retry(budget, upstreams, tried, error, deadline):
                    raise _wire_error(error, entry.server, idempotent) from None
                continue
            return _outcome(fields, entry.server)

    def _timeout(self, target: Target) -> float:
        own = target.entries[0].spec.timeout
        return min(own if own is not None else self.call_timeout, self.longest)

    def _next(
        self, upstreams: list[tuple[Entry, Upstream]], preferred: str | None, tried: list[str]
    ) -> tuple[Entry, Upstream]:
        """The replica for the next attempt. With none available the first is asked all the same: it says why not."""
        found = choose(
            [(entry.server, upstream) for entry, upstream in upstreams],
            preferred=preferred,
            tried=tried,
            random=self.random,
        )
        for entry, upstream in upstreams:
            if upstream is found:
                return entry, upstream
        named = [pair for pair in upstreams if pair[0].server == preferred]
        return (named or upstreams)[0]

    async def _can_retry(
        self,
        budget: RetryBudget,
        upstreams: list[tuple[Entry, Upstream]],
        tried: list[str],
        error: WireError,
        deadline: float,
    ) -> bool:
        """Whether there is somewhere to send it again; waits for that a moment."""
        if any(entry.server not in tried and upstream.is_available for entry, upstream in upstreams):
            return budget.take()
        # Nobody else has it: the same server again, if it is back soon enough.
        last = self.manager.upstream(tried[-1])
        tried.clear()
        if error.failure in (Failure.FULL, Failure.RESTING) or not (last.is_available or last.returns_soon):
            return False
        loop = asyncio.get_running_loop()
        pause = (error.retry_after or 1.0) if error.failure is Failure.BUSY else 0.01 + 0.04 * self.random()
        if loop.time() + pause >= deadline or not budget.take():
            return False
        await asyncio.sleep(pause)
        wait = _REOPEN_WAIT if error.failure is Failure.SESSION_LOST else _RECONNECT_WAIT
        return await last.wait_ready(min(wait, deadline - loop.time())) and last.is_available


def require(principal: Principal, scope: Scope) -> None:
    """The one check of scopes. Raises `ProxyError` (``insufficient_scope``)."""
    if not principal.has(scope):
        raise ProxyError(INSUFFICIENT_SCOPE, f"this token lacks the scope {scope}", details={"scope": str(scope)})


def _validate(entry: Entry, arguments: Mapping[str, Any]) -> None:
    fault = entry.tool.argument_fault(arguments)
    if fault is not None:
        path, reason = fault
        raise ProxyError(
            INVALID_ARGUMENTS,
            f"the arguments do not fit the tool's input schema at {path or '/'}: {reason}",
            details={"path": path, "reason": reason},
        )


def _outcome(fields: Fields, server: str) -> Outcome:
    try:
        is_error = "isError" in fields and decode(fields["isError"]) is True
        kind = decode(fields["resultType"]) if "resultType" in fields else "complete"
        asked = decode(fields["inputRequests"]) if "inputRequests" in fields else {}
    except JsonError:
        raise ProxyError(UPSTREAM_ERROR, f"{server} answered with a result that cannot be read") from None
    if any(is_deep(bytes(value), MAX_DEPTH - 1) for value in fields.values()):
        raise ProxyError(UPSTREAM_ERROR, f"{server} answered with a result nested deeper than {MAX_DEPTH}")
    if kind == "input_required":
        raise ProxyError(
            INPUT_REQUIRED,
            "the tool asks for input that cannot be given through this door",
            details={"inputRequests": asked},
        )
    if kind != "complete":
        raise ProxyError(UPSTREAM_ERROR, f"{server} answered with an unknown kind of result")
    return Outcome(fields, server, is_error)


def _rpc_error(error: RpcError, server: str) -> ProxyError:
    message = error.message[:_MESSAGE_LIMIT]
    details: dict[str, Any] = {"server": server, "rpc_code": error.code}
    if error.data is not None:
        details["data"] = error.data
    if error.code == MISSING_CLIENT_CAPABILITY:
        return ProxyError(INPUT_REQUIRED, f"the tool asks for what this door cannot give: {message}", details=details)
    status = 400 if error.code == INVALID_PARAMS else None
    return ProxyError(UPSTREAM_ERROR, f"{server} answered with an error: {message}", status=status, details=details)


def _wire_error(error: WireError, server: str, idempotent: bool) -> ProxyError:
    """What the caller is told when no answer came."""
    sent = error.phase is not Phase.NOT_SENT
    details: dict[str, Any] = {
        "server": server,
        "executed": "unknown" if sent else "no",
        "retryable": not sent or idempotent or error.failure is Failure.BUSY,
    }
    text = f"{server}: {error.message}"
    match error.failure:
        case Failure.FULL:
            return ProxyError(OVERLOADED, text, details=details, retry_after=error.retry_after or 1)
        case Failure.RESTING | Failure.UNREACHABLE | Failure.SESSION_LOST | Failure.BUSY:
            return ProxyError(UPSTREAM_UNAVAILABLE, text, details=details, retry_after=error.retry_after or 1)
        case Failure.TOO_LARGE:
            return ProxyError(RESULT_TOO_LARGE, text, details=details)
        case Failure.TIMEOUT if not sent:
            return ProxyError(TIMEOUT, text, details=details)
        case Failure.LOST if not sent:
            return ProxyError(UPSTREAM_UNAVAILABLE, text, details=details, retry_after=1)
        case Failure.BAD_REPLY | Failure.HTTP if error.status is None or error.status < 500:
            return ProxyError(UPSTREAM_ERROR, text, details=details)
        case _:
            status = 504 if error.failure is Failure.TIMEOUT else 502
            return ProxyError(OUTCOME_UNKNOWN, f"{text}; it may have been executed", status=status, details=details)
