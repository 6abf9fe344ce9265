"""One request over one link, whatever the eras of client and upstream: what the upstream asks meanwhile reaches the client.

Same era: everything passes as it is. A legacy client of a modern upstream is asked round by round (basic/patterns/mrtr).
A modern client of a legacy upstream is asked through its `OnRequest`, which may hold the call until the client returns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mcp_proxy.base.json import Fields, JsonError, decode, decode_fields
from mcp_proxy.base.protocol import INVALID_REQUEST
from mcp_proxy.core.catalog.tool import Tool
from mcp_proxy.core.upstream.client import PROXY, Client
from mcp_proxy.core.upstream.deadline import Deadline
from mcp_proxy.core.upstream.failures import Attempt, Failure, Phase, RpcError, WireError
from mcp_proxy.core.upstream.link import Link
from mcp_proxy.core.upstream.messages import Incoming
from mcp_proxy.core.upstream.streamable import header_value
from mcp_proxy.core.upstream.terms import Era

MAX_ROUNDS = 16
_ROUND_FIELDS = frozenset({"inputResponses", "requestState"})


@dataclass(frozen=True, slots=True)
class Sending:
    """One request as the upstream shall get it. ``tool`` is set for ``tools/call``."""

    method: str
    params: Mapping[str, Any]
    client: Client = PROXY
    tool: Tool | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


async def exchange(link: Link, sending: Sending, attempt: Attempt, deadline: Deadline) -> Fields:
    """The raw result. Raises `RpcError` (the upstream's, or the client's refusal of what it was asked) and `WireError`."""
    headers = _mirrored(link, sending)
    client = sending.client
    if client.on_message is None and client.on_request is None:
        return await link.request(
            sending.method, _params(link, sending.params), attempt, headers=headers, client=client
        )
    relay = _Relay(client, attempt, deadline)
    try:
        return await _rounds(link, sending, attempt, headers, relay)
    finally:
        relay.close()


async def _rounds(link: Link, sending: Sending, attempt: Attempt, headers: Mapping[str, str], relay: _Relay) -> Fields:
    """Ask the upstream, and the client for what the upstream needs, until there is a result."""
    client = sending.client
    params = _params(link, sending.params)
    loops = link.terms.era is Era.MODERN and client.era is Era.LEGACY and client.on_request is not None
    for left in reversed(range(MAX_ROUNDS)):
        try:
            result = await link.request(
                sending.method,
                params,
                attempt,
                headers=headers,
                client=client,
                on_message=None if client.on_message is None else relay.message,
                # Where several clients share the link, nobody can tell whom it means.
                on_request=relay.ask if client.on_request is not None and client.needs_own_link else None,
            )
        except WireError as error:
            raise error if left == MAX_ROUNDS - 1 else _later(error, attempt) from None
        if not loops or not is_input_required(result):
            return result
        if left:
            params = {name: value for name, value in params.items() if name not in _ROUND_FIELDS}
            params |= await relay.answers(result)
    raise WireError(Failure.BAD_REPLY, Phase.STREAMING, f"it asked for input more than {MAX_ROUNDS} times")


def _later(error: WireError, attempt: Attempt) -> WireError:
    """A failure after the first round: even if this round was not sent, the upstream has begun, and the client was asked."""
    phase = error.phase
    if phase is Phase.NOT_SENT:
        phase = attempt.phase = Phase.STREAMING
    return WireError(error.failure, phase, error.message, status=error.status, retry_after=error.retry_after)


def is_input_required(result: Fields) -> bool:
    """Whether a raw result is no result yet, but a wish for input."""
    kind = result.get("resultType")
    return kind is not None and bytes(kind).strip() == b'"input_required"'


def _params(link: Link, params: Mapping[str, Any]) -> Mapping[str, Any]:
    """A legacy upstream knows nothing of rounds."""
    if link.terms.era is Era.MODERN or not _ROUND_FIELDS & params.keys():
        return params
    return {name: value for name, value in params.items() if name not in _ROUND_FIELDS}


def _mirrored(link: Link, sending: Sending) -> Mapping[str, str]:
    tool = sending.tool
    if link.terms.era is not Era.MODERN or tool is None or not tool.mirrored:
        return sending.headers
    arguments = sending.params.get("arguments") or {}
    own = {name: header_value(value) for name, value in tool.header_arguments(arguments).items()}
    return {**sending.headers, **own}


class _Relay:
    """Hands on to the client what comes before the answer, and notes that something did: then nothing is sent again."""

    def __init__(self, client: Client, attempt: Attempt, deadline: Deadline) -> None:
        self._client = client
        self._attempt = attempt
        self._deadline = deadline
        self._asking: set[asyncio.Task[Any]] = set()
        self._closed = False

    def message(self, message: Incoming) -> None:
        """A notification that belongs to the request."""
        self._attempt.forwarded = True
        if self._client.on_message is not None:
            self._client.on_message(message)

    async def ask(self, request: Incoming) -> Mapping[str, Any]:
        """A request of the upstream's. The call's time stands still meanwhile."""
        task = asyncio.current_task()
        assert task is not None and self._client.on_request is not None  # noqa: PT018
        if self._closed:  # it came together with the answer
            raise RpcError(INVALID_REQUEST, "the request that it belongs to has ended")
        self._attempt.forwarded = True
        self._asking.add(task)
        try:
            with self._deadline.paused():
                return await self._client.on_request(request)
        finally:
            self._asking.discard(task)

    async def answers(self, result: Fields) -> dict[str, Any]:
        """The client's answers to an ``input_required`` result: what the next round is sent with."""
        assert self._client.on_request is not None
        wanted = _input_requests(result)
        self._attempt.forwarded = True
        with self._deadline.paused():
            # One after the other: clients show one question at a time.
            found = {key: await self._client.on_request(request) for key, request in wanted.items()}
        more: dict[str, Any] = {"inputResponses": found}
        if "requestState" in result:
            more["requestState"] = result["requestState"]
        return more

    def close(self) -> None:
        """The request has ended: whatever the client is still asked for it is of no use any more."""
        self._closed = True
        for task in self._asking:
            task.cancel()


def _input_requests(result: Fields) -> dict[str, Incoming]:
    try:
        wanted = decode_fields(result["inputRequests"]) if "inputRequests" in result else {}
        return {key: _input_request(decode_fields(request)) for key, request in wanted.items()}
    except JsonError:
        raise WireError(
            Failure.BAD_REPLY, Phase.STREAMING, "it asked for input in a form that cannot be read"
        ) from None


def _input_request(fields: Fields) -> Incoming:
    method = decode(fields["method"]) if "method" in fields else None
    if not isinstance(method, str):
        raise JsonError("an input request without a method")
    return Incoming(method, fields.get("params"))
