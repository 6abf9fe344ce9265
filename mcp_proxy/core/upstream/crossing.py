"""One request over one link, whatever the eras of client and upstream: what the upstream asks meanwhile reaches the client.

Same era: everything passes as it is. A legacy client of a modern upstream is asked round by round (basic/patterns/mrtr).
A modern client of a legacy upstream is asked through its `OnRequest`, which may hold the call until the client returns.
What the house answers in a client's place (`Client.house`) never reaches the client, whatever the eras.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

import msgspec

from mcp_proxy.base.json import Fields, JsonError, Raw, decode, decode_fields, encode
from mcp_proxy.base.protocol import INVALID_REQUEST, METHOD_NOT_FOUND
from mcp_proxy.core.catalog.tool import Tool
from mcp_proxy.core.upstream.client import PROXY, SAMPLING, Client, OnRequest
from mcp_proxy.core.upstream.deadline import Deadline
from mcp_proxy.core.upstream.failures import Attempt, Failure, Phase, RpcError, WireError
from mcp_proxy.core.upstream.house import sampled
from mcp_proxy.core.upstream.link import Link
from mcp_proxy.core.upstream.messages import Incoming
from mcp_proxy.core.upstream.streamable import header_value
from mcp_proxy.core.upstream.terms import Era

MAX_ROUNDS = 16
_ROUND_FIELDS = frozenset({"inputResponses", "requestState"})


class Sending(msgspec.Struct, frozen=True):
    """One request as the upstream shall get it. ``tool`` is set for ``tools/call``."""

    method: str
    params: Mapping[str, Any]
    client: Client = PROXY
    tool: Tool | None = None
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)


async def exchange(link: Link, sending: Sending, attempt: Attempt, deadline: Deadline) -> Fields:
    """The raw result. Raises `RpcError` (the upstream's, or the client's refusal of what it was asked) and `WireError`."""
    client, params, headers = sending.client, sending.params, sending.headers
    if link.terms.era is Era.LEGACY:
        params = _without_rounds(params)
    elif sending.tool is not None and sending.tool.mirrored:
        headers = _mirrored(sending.tool, sending)
    if client.on_message is None and client.on_request is None and client.house is None:
        return await link.request(sending.method, params, attempt, headers=headers, client=client)
    relay = _Relay(client, attempt, deadline)
    try:
        return await _rounds(link, sending, params, headers, relay)
    finally:
        relay.close()


async def _rounds(
    link: Link, sending: Sending, params: Mapping[str, Any], headers: Mapping[str, str], relay: _Relay
) -> Fields:
    """Ask the upstream, and the client for what the upstream needs, until there is a result."""
    client, attempt = sending.client, relay.attempt
    for left in reversed(range(MAX_ROUNDS)):
        try:
            result = await link.request(
                sending.method,
                params,
                attempt,
                headers=headers,
                client=client,
                on_message=None if client.on_message is None else relay.message,
                on_request=relay.ask if relay.can_ask else None,
            )
        except WireError as error:
            raise error if left == MAX_ROUNDS - 1 else _later(error, attempt) from None
        if not relay.can_answer or link.terms.era is Era.LEGACY or not is_input_required(result):
            return result
        wanted = _input_requests(result)
        if (rest := relay.not_ours(wanted)) is not None:
            return _wanting(result, rest)
        if left:
            params = {**_without_rounds(params), **await relay.answers(wanted, result.get("requestState"))}
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


def _without_rounds(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """The parameters without what belongs to a round, of which a legacy upstream knows nothing."""
    if _ROUND_FIELDS.isdisjoint(params):
        return params
    return {name: value for name, value in params.items() if name not in _ROUND_FIELDS}


def _mirrored(tool: Tool, sending: Sending) -> Mapping[str, str]:
    """The headers, with those that repeat arguments."""
    arguments = sending.params.get("arguments") or {}
    own = {name: header_value(value) for name, value in tool.header_arguments(arguments).items()}
    return {**sending.headers, **own}


class _Relay:
    """Hands on to the client what comes before the answer, and notes that something did: then nothing is sent again."""

    def __init__(self, client: Client, attempt: Attempt, deadline: Deadline) -> None:
        self._client = client
        self.attempt = attempt
        self._deadline = deadline
        self._asking: set[asyncio.Task[Any]] = set()
        self._closed = False
        house = client.house
        self._house: OnRequest | None = None if house is None else partial(sampled, house)
        # Where several clients share the link, nobody can tell whom it means.
        self._own = client.on_request if client.on_request is not None and client.needs_own_link else None
        self._by_rounds = client.on_request if client.era is Era.LEGACY else None
        self.can_ask = self._own is not None or house is not None
        """Whether a legacy upstream may ask anything."""
        self.can_answer = self._by_rounds is not None or house is not None
        """Whether what a modern upstream needs may be had here, and not only from the client in its next request."""

    def not_ours(self, wanted: Mapping[str, Incoming]) -> Collection[str] | None:
        """What of it has to be left to the client; None: nothing, all can be had here."""
        if self._by_rounds is not None:
            return None
        rest = [key for key, request in wanted.items() if request.method != SAMPLING]
        return rest if rest or not wanted else None

    def message(self, message: Incoming) -> None:
        """A notification that belongs to the request."""
        self.attempt.forwarded = True
        if self._client.on_message is not None:
            self._client.on_message(message)

    async def ask(self, request: Incoming) -> Mapping[str, Any]:
        """A request of the upstream's. The call's time stands still meanwhile."""
        task = asyncio.current_task()
        assert task is not None
        answer = self._answering(request, self._own)
        if answer is None:
            raise RpcError(METHOD_NOT_FOUND, f"{request.method} is not offered by this client")
        if self._closed:  # it came together with the answer
            raise RpcError(INVALID_REQUEST, "the request that it belongs to has ended")
        self.attempt.forwarded = True
        self._asking.add(task)
        try:
            with self._deadline.paused():
                return await answer(request)
        finally:
            self._asking.discard(task)

    async def answers(self, wanted: Mapping[str, Incoming], state: Raw | None) -> dict[str, Any]:
        """The answers to an ``input_required`` result: what the next round is sent with."""
        self.attempt.forwarded = True
        with self._deadline.paused():
            # One after the other: clients show one question at a time.
            found: dict[str, Any] = {}
            for key, request in wanted.items():
                answer = self._answering(request, self._by_rounds)
                assert answer is not None, "what is not ours is left to the client"
                found[key] = await answer(request)
        more: dict[str, Any] = {"inputResponses": found}
        if state is not None:
            more["requestState"] = state
        return more

    def _answering(self, request: Incoming, client: OnRequest | None) -> OnRequest | None:
        """The house for what it makes, else the client in the way that it can be asked."""
        return self._house if self._house is not None and request.method == SAMPLING else client

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


def _wanting(result: Fields, rest: Collection[str]) -> Fields:
    """An ``input_required`` result that asks for no more than these; servers ask again for what they did not get."""
    if "inputRequests" not in result:
        return result
    wanted = decode_fields(result["inputRequests"])
    return {**result, "inputRequests": Raw(encode({key: wanted[key] for key in rest}))}


def _input_request(fields: Fields) -> Incoming:
    method = decode(fields["method"]) if "method" in fields else None
    if not isinstance(method, str):
        raise JsonError("an input request without a method")
    return Incoming(method, fields.get("params"))
