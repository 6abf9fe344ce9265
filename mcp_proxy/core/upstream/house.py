"""Completions that a server asks for and its client cannot make: the house is asked in the client's place.

Which servers are served so the operator decides, and what makes the completions lies above (`client.House`). What belongs
to a request of ours is asked through `crossing`; here is also what does not say what it belongs to (`Desk`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from mcp_proxy.base.json import JsonError, read_strict
from mcp_proxy.base.protocol import INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND
from mcp_proxy.core.upstream.client import SAMPLING, Client, House
from mcp_proxy.core.upstream.deadline import Deadline
from mcp_proxy.core.upstream.failures import Attempt, RpcError
from mcp_proxy.core.upstream.messages import Incoming


def params_of(request: Incoming) -> Mapping[str, Any]:
    """What a server asks, to be read. Raises `RpcError` for what is no object, or no acceptable JSON."""
    try:
        params = read_strict(bytes(request.params)) if request.params is not None else None
    except JsonError as error:
        raise RpcError(INVALID_PARAMS, f"the params are not acceptable JSON: {error}") from None
    if not isinstance(params, dict):
        raise RpcError(INVALID_PARAMS, "the params must be an object")
    return params


async def sampled(house: House, request: Incoming) -> Mapping[str, Any]:
    """The result of a server's request for a completion. Raises `RpcError`."""
    return await house(params_of(request))


class _Call:
    """A call in flight on the shared link, and the questions that may be its."""

    def __init__(self, attempt: Attempt, deadline: Deadline) -> None:
        self.attempt = attempt
        self.deadline = deadline
        self.questions: set[_Question] = set()


class _Question:
    """Something that is being asked; ``scope`` ends it. It is of use as long as one of the ``calls`` is in flight."""

    def __init__(self, calls: set[_Call], scope: asyncio.Timeout) -> None:
        self._calls = calls
        self._scope = scope

    def without(self, call: _Call) -> None:
        """That call has ended."""
        self._calls.discard(call)
        if not self._calls and not self._scope.expired():
            self._scope.reschedule(asyncio.get_running_loop().time())


class Desk:
    """Answers what one server asks on the link that callers share, where nothing shows which call a question belongs to.

    A question belongs to all calls that are in flight when it comes: the time of each stands still meanwhile, none is sent
    again, and the question is given up when the last of them has ended. One that comes while there is none is the
    server's own, and answered all the same.
    """

    def __init__(self, house: House) -> None:
        self._house = house
        self._calls: set[_Call] = set()
        self.client = Client(house=house, on_request=self.ask)
        """Whom the shared link speaks for, where it speaks for nobody in particular."""

    @contextmanager
    def serving(self, attempt: Attempt, deadline: Deadline) -> Iterator[None]:
        """A call is in flight on the shared link."""
        call = _Call(attempt, deadline)
        self._calls.add(call)
        try:
            yield
        finally:
            self._calls.discard(call)
            for question in call.questions:
                question.without(call)

    async def ask(self, request: Incoming) -> Mapping[str, Any]:
        """Answer a request of the server's (a `client.OnRequest`). Raises `RpcError`."""
        if request.method != SAMPLING:
            raise RpcError(METHOD_NOT_FOUND, f"{request.method} is not offered by this client")
        calls = set(self._calls)
        try:
            async with asyncio.timeout(None) as scope:
                question = _Question(set(calls), scope)
                with ExitStack() as held:
                    for call in calls:
                        held.enter_context(_held(call, question))
                    return await sampled(self._house, request)
        except TimeoutError:
            if not scope.expired():
                raise
            # An answer, all the same: a server that has gone on by itself must not wait for one for ever.
            raise RpcError(INVALID_REQUEST, "the request that it belongs to has ended") from None


@contextmanager
def _held(call: _Call, question: _Question) -> Iterator[None]:
    """The call waits for the answer, as far as anybody knows."""
    call.attempt.forwarded = True
    call.questions.add(question)
    try:
        with call.deadline.paused():
            yield
    finally:
        call.questions.discard(question)
