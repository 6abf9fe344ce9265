"""The one call path: every request of every door that reaches an upstream goes policy → limits → validate → choose →
send → retry → audit.

Doors turn what they received into a `Call` and the outcome into their own words; they decide nothing themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

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
from mcp_proxy.base.protocol import INVALID_PARAMS, LEGACY_RESOURCE_NOT_FOUND, MISSING_CLIENT_CAPABILITY
from mcp_proxy.config.model import ServerSpec
from mcp_proxy.core.audit import AuditEvent, AuditSink
from mcp_proxy.core.auth.principal import Principal, Scope
from mcp_proxy.core.balance import choose
from mcp_proxy.core.catalog.tool import Tool
from mcp_proxy.core.limits import Gate, RateLimiter
from mcp_proxy.core.retry import RetryBudget, RetryBudgets, is_idempotent, may_retry
from mcp_proxy.core.routing import About, Call, Place, Route, Routing, owners
from mcp_proxy.core.upstream.client import PROXY, Client
from mcp_proxy.core.upstream.crossing import Sending
from mcp_proxy.core.upstream.deadline import Deadline
from mcp_proxy.core.upstream.failures import Attempt, Failure, Phase, RpcError, WireError
from mcp_proxy.core.upstream.terms import Era

_REOPEN_WAIT = 5.0
_RECONNECT_WAIT = 1.0
"""Seconds that a call which was not sent waits for its only server to come back."""
_MESSAGE_LIMIT = 2000
_UNKNOWN_RESOURCE = (LEGACY_RESOURCE_NOT_FOUND, INVALID_PARAMS, 0)
"""What servers answer when they do not have a resource: legacy, modern, and whatever the SDK of the legacy era makes of it."""


class UpstreamRefusal(ProxyError):
    """The upstream's own JSON-RPC error, for doors that pass it on as it is."""

    def __init__(self, answer: RpcError, message: str, *, status: int | None, details: Mapping[str, Any]) -> None:
        super().__init__(UPSTREAM_ERROR, message, status=status, details=details)
        self.answer = answer


class Progress(msgspec.Struct):
    """How far a call has come; doors read it for their log line, also when the call fails."""

    tool: str | None = None
    server: str | None = None
    attempts: int = 0


class Outcome(msgspec.Struct, frozen=True):
    """The upstream's result, opened one level: its values are raw JSON and go to the caller as they are.

    ``input_required``: it is no result yet; only clients that can give input get such an outcome.
    """

    fields: Fields
    server: str
    is_error: bool = False
    input_required: bool = False


@dataclass(frozen=True, slots=True)
class CallPath:
    """All that a call needs. Made once; see `call`."""

    routing: Routing
    gate: Gate
    rates: RateLimiter
    audit: AuditSink | None
    """None: nobody wants to know."""
    clock: Clock
    random: Callable[[], float]
    call_timeout: float
    budgets: RetryBudgets
    longest: float = field(default=600.0)

    async def call(self, call: Call, progress: Progress) -> Outcome:
        """Execute a call. Raises `ProxyError`; cancelling it cancels the call at the upstream."""
        started = self.clock.monotonic()
        progress.tool = call.name
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
            if self.audit is not None:
                self.audit.record(
                    AuditEvent(
                        request_id=call.request_id,
                        method=call.method,
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
        route = self.routing.known(call) or await self.routing.find(call)
        progress.tool = route.own_name
        if call.principal.rate is not None:
            await self.rates.take(call.principal)
        self.gate.enter()
        deadline = Deadline(self._timeout(route.first[0]), self.longest)
        try:
            spec, _, tool = route.first
            if tool is not None:
                check_arguments(tool, call.params.get("arguments") or {})
            budget = self.budgets.of(spec.group or spec.name)
            budget.count_call()
            if call.about is About.RESOURCE:
                return await self._ask_around(call, route, progress, budget, deadline)
            return await self._send(call, route, progress, budget, deadline)
        finally:
            self.gate.leave()

    async def _ask_around(
        self, call: Call, route: Route, progress: Progress, budget: RetryBudget, deadline: Deadline
    ) -> Outcome:
        """A URI may have several possible owners that are no replicas: the next is asked when one does not know it."""
        every = owners(route)
        for owner in every:
            try:
                return await self._send(call, owner, progress, budget, deadline)
            except UpstreamRefusal as error:
                if error.answer.code not in _UNKNOWN_RESOURCE or owner is every[-1]:
                    raise
        raise AssertionError  # a route has a place

    async def _send(
        self, call: Call, route: Route, progress: Progress, budget: RetryBudget, deadline: Deadline
    ) -> Outcome:
        """Attempts at replicas until one answers, or none may be tried any more."""
        tried: list[str] = []
        while True:
            spec, upstream, tool = self._next(route, tried)
            progress.server = spec.name
            progress.attempts += 1
            attempt = Attempt()
            own = None if tool is None else tool.own
            if tool is not None and tool is not route.first[2]:  # replicas may be offered by different rules
                check_arguments(tool, call.params.get("arguments") or {})
            sending = Sending(call.method, _own_params(call, route.own_name, tool), call.client, own)
            try:
                fields = await upstream.request(sending, deadline=deadline, attempt=attempt)
            except RpcError as error:
                raise _rpc_error(error, spec.name, call.client) from None
            except WireError as error:
                idempotent = own is None or is_idempotent(own, spec.retry)
                tried.append(spec.name)
                again = progress.attempts <= spec.retry.max and may_retry(error, idempotent=idempotent)
                if attempt.forwarded and error.phase is not Phase.NOT_SENT:
                    again = False  # the client has already seen part of the first attempt
                if not again or not await self._can_retry(budget, route, tried, error, deadline):
                    raise _wire_error(error, spec.name, idempotent) from None
                continue
            return _outcome(fields, spec.name, call.client)

    def _timeout(self, spec: ServerSpec) -> float:
        return min(spec.timeout if spec.timeout is not None else self.call_timeout, self.longest)

    def _next(self, route: Route, tried: list[str]) -> Place:
        """The replica for the next attempt. With none available the first is asked all the same: it says why not."""
        if len(route.places) == 1:
            return route.places[0]
        found = choose(
            [(spec.name, upstream) for spec, upstream, _ in route.places],
            preferred=route.preferred,
            tried=tried,
            random=self.random,
        )
        for place in route.places:
            if place[1] is found:
                return place
        named = [place for place in route.places if place[0].name == route.preferred]
        return (named or route.places)[0]

    async def _can_retry(
        self,
        budget: RetryBudget,
        route: Route,
        tried: list[str],
        error: WireError,
        deadline: Deadline,
    ) -> bool:
        """Whether there is somewhere to send it again; waits for that a moment."""
        if any(spec.name not in tried and upstream.is_available for spec, upstream, _ in route.places):
            return budget.take()
        # Nobody else has it: the same server again, if it is back soon enough.
        last = next(upstream for spec, upstream, _ in route.places if spec.name == tried[-1])
        tried.clear()
        if error.failure in (Failure.FULL, Failure.RESTING) or not (last.is_available or last.returns_soon):
            return False
        loop = asyncio.get_running_loop()
        pause = (error.retry_after or 1.0) if error.failure is Failure.BUSY else 0.01 + 0.04 * self.random()
        if loop.time() + pause >= deadline.at or not budget.take():
            return False
        await asyncio.sleep(pause)
        wait = _REOPEN_WAIT if error.failure is Failure.SESSION_LOST else _RECONNECT_WAIT
        return await last.wait_ready(min(wait, deadline.at - loop.time())) and last.is_available


def require(principal: Principal, scope: Scope) -> None:
    """The one check of scopes. Raises `ProxyError` (``insufficient_scope``)."""
    if not principal.has(scope):
        raise ProxyError(INSUFFICIENT_SCOPE, f"this token lacks the scope {scope}", details={"scope": str(scope)})


def _own_params(call: Call, own_name: str, tool: Tool | None) -> Mapping[str, Any]:
    """The parameters as the server itself knows them."""
    if tool is not None and tool.own is not tool:
        arguments = tool.completed(call.params.get("arguments") or {})
        return {**call.params, "name": tool.own.name, "arguments": arguments}
    if own_name == call.name:
        return call.params
    if call.method == "completion/complete":
        return {**call.params, "ref": {**call.params["ref"], "name": own_name}}
    return {**call.params, "name": own_name}


def check_arguments(tool: Tool, arguments: Mapping[str, Any]) -> None:
    """The one check of arguments. Raises `ProxyError` (``invalid_arguments``)."""
    fault = tool.argument_fault(arguments)
    if fault is not None:
        path, reason = fault
        raise ProxyError(
            INVALID_ARGUMENTS,
            f"the arguments do not fit the tool's input schema at {path or '/'}: {reason}",
            details={"path": path, "reason": reason},
        )


def _outcome(fields: Fields, server: str, client: Client) -> Outcome:
    try:
        is_error = "isError" in fields and decode(fields["isError"]) is True
        kind = decode(fields["resultType"]) if "resultType" in fields else "complete"
    except JsonError:
        raise ProxyError(UPSTREAM_ERROR, f"{server} answered with a result that cannot be read") from None
    for value in fields.values():
        if is_deep(value, MAX_DEPTH - 1):
            raise ProxyError(UPSTREAM_ERROR, f"{server} answered with a result nested deeper than {MAX_DEPTH}")
    if kind == "input_required":
        if client is PROXY or client.era is Era.LEGACY:
            raise _needs_input(fields, server)
        return Outcome(fields, server, input_required=True)
    if kind != "complete" and (client is PROXY or client.era is Era.LEGACY):
        raise ProxyError(UPSTREAM_ERROR, f"{server} answered with an unknown kind of result")
    return Outcome(fields, server, is_error)


def _needs_input(fields: Fields, server: str) -> ProxyError:
    try:
        asked = decode(fields["inputRequests"]) if "inputRequests" in fields else {}
    except JsonError:
        return ProxyError(UPSTREAM_ERROR, f"{server} answered with a result that cannot be read")
    text = "the tool asks for input that cannot be given through this door"
    return ProxyError(INPUT_REQUIRED, text, details={"inputRequests": asked})


def _rpc_error(error: RpcError, server: str, client: Client) -> ProxyError:
    message = error.message[:_MESSAGE_LIMIT]
    details: dict[str, Any] = {"server": server, "rpc_code": error.code}
    if error.data is not None:
        details["data"] = error.data
    if error.code == MISSING_CLIENT_CAPABILITY and client is PROXY:
        return ProxyError(INPUT_REQUIRED, f"the tool asks for what this door cannot give: {message}", details=details)
    status = 400 if error.code == INVALID_PARAMS else None
    text = f"{server} answered with an error: {message}"
    return UpstreamRefusal(error, text, status=status, details=details)


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
