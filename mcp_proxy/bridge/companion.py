"""The other end of the tool ``hook``: answers what a service asks with a provider of ours, whose key stays here.

Connects again and again for as long as it is wanted. How a connection is made is `hook_connection`, what questions and
answers look like `sampling_asked`, and what people see of it the caller's matter (`Observer`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Protocol

from mcp_proxy.base.clock import Clock
from mcp_proxy.base.errors import INSUFFICIENT_SCOPE, UNAUTHORIZED
from mcp_proxy.base.json import Fields, JsonError, decode
from mcp_proxy.base.protocol import INTERNAL_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.bridge import sampling_asked
from mcp_proxy.bridge.chat import ChatRequest, ChatResult, gathered
from mcp_proxy.bridge.completions import Completions, Course, Source
from mcp_proxy.bridge.errors import BAD_REQUEST, SOURCE_ERROR, ChatError
from mcp_proxy.bridge.routes import Routes
from mcp_proxy.core.upstream.backoff import Backoff
from mcp_proxy.core.upstream.client import SAMPLING, OnRequest
from mcp_proxy.core.upstream.failures import Failure, Phase, RpcError, WireError
from mcp_proxy.core.upstream.house import params_of
from mcp_proxy.core.upstream.messages import Incoming

BEYOND = 200_000
"""Tokens that no model answers with: who allows as many has no number in mind, and the provider is told none."""
LOOK_EVERY, LOOK_PATIENCE = 20.0, 15.0
"""Seconds between two looks whether the service is still there, and how long it may take to say so."""

_SOURCE = "provider"
_TENANT = "hook"
_LASTED = 5.0
"""Seconds after which a call that has ended is made again without a pause."""
_MESSAGE = 500
_NOT_OFFERED = (INVALID_PARAMS, METHOD_NOT_FOUND, INSUFFICIENT_SCOPE.rpc_code, UNAUTHORIZED.rpc_code)
_NEEDED = "it has to run with --llm, and the token needs the scope llm:serve"

_MAKE_ONE = "make one with: mcp-proxy-api token --scope llm:serve"


class Refused(Exception):
    """The service does not want us, and will not the next time either. The text is one line that says what to do."""


class Connection(Protocol):
    """A session with a service."""

    async def hook(self, on_request: OnRequest) -> Fields:
        """Call the tool, and have answered what is asked meanwhile; its result. Raises `RpcError`, `WireError`.
        Cancelling it tells the service."""
        ...

    async def check(self) -> None:
        """Ask for a sign of life. Raises `RpcError`, `WireError`."""
        ...

    async def close(self) -> None:
        """End the session, and everything that is being answered."""
        ...


class Observer(Protocol):
    """Whoever wants to know how it goes."""

    def connected(self) -> None:
        """The service is reached, and may ask."""
        ...

    def lost(self, reason: str, pause: float) -> None:
        """It is not reached, or no longer; the next attempt is in ``pause`` seconds."""
        ...

    def failed(self, reason: str) -> None:
        """A question was not answered."""
        ...


class Companion:
    """Answers questions with ``source``, ``parallel`` at once; what is more waits.

    ``model`` is what the source is asked for, whatever a question hints at; None: its hint.
    """

    def __init__(self, source: Source, model: str | None, *, parallel: int, observer: Observer) -> None:
        self._completions = Completions(Routes({}, [_SOURCE], sampling=False), {_SOURCE: source}, BEYOND)
        self._model = model
        self._room = asyncio.Semaphore(parallel)
        self._observer = observer

    async def answer(self, request: Incoming) -> Mapping[str, Any]:
        """The result of a service's request. Raises `RpcError`. Cancelling it ends the request to the provider."""
        if request.method != SAMPLING:
            raise RpcError(METHOD_NOT_FOUND, f"{request.method} is not offered by this client")
        try:
            ask = sampling_asked.read(params_of(request))
            async with self._room:
                result = await self._result(ask)
            return sampling_asked.write(result, tools=bool(ask.tools))
        except ChatError as error:
            self._observer.failed(error.message)
            code = INVALID_PARAMS if error.problem.status < 500 else INTERNAL_ERROR
            raise RpcError(code, error.text) from None

    async def _result(self, ask: ChatRequest) -> ChatResult:
        model = self._model or ask.model
        if not model:
            raise ChatError(BAD_REQUEST, "the request names no model, and the companion has none of its own")
        most = ask.max_tokens if ask.max_tokens is not None and ask.max_tokens < BEYOND else None
        ask = replace(ask, model=f"{_SOURCE}/{model}", max_tokens=most)
        async with aclosing(self._completions.stream(ask, tenant=_TENANT, course=Course())) as stream:
            deltas = [delta async for delta in stream]
        try:
            return gathered(deltas)
        except ValueError:
            raise ChatError(SOURCE_ERROR, "the provider's answer is not what its API promises") from None


@dataclass(frozen=True, slots=True)
class Service:
    """The service that a companion serves. ``connect`` raises `WireError` and `RpcError`; ``random`` gives 0 to 1."""

    connect: Callable[[], Awaitable[Connection]]
    observer: Observer
    clock: Clock
    random: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def served_by(self, companion: Companion) -> None:
        """Connect, have answered what is asked, and connect again, until cancelled. Raises `Refused`.

        What looks like a wrong address is final only as long as it has never been the right one: a service that is
        started anew is missed in many ways.
        """
        backoff, reached = Backoff(self.random), False
        while True:
            began = self.clock.monotonic()
            try:
                connection = await self.connect()
            except (WireError, RpcError) as error:
                reason = _unreached(error, first=not reached)
            else:
                reached = True
                self.observer.connected()
                try:
                    reason = await self._hooked(connection, companion)
                finally:
                    await connection.close()
            backoff.lasted(self.clock.monotonic() - began)
            pause = backoff.next()
            self.observer.lost(reason, pause)
            await self.sleep(pause)

    async def _hooked(self, connection: Connection, companion: Companion) -> str:
        """Call ``hook`` until the connection is lost, or a call ends at once; says why. Raises `Refused`."""
        while True:
            began = self.clock.monotonic()
            try:
                said = _said(await self._call(connection, companion))
            except WireError as error:
                _check_allowed(error)
                return error.message
            except RpcError as error:
                if error.code in _NOT_OFFERED:
                    raise Refused(f"the service: {error.message[:_MESSAGE]}; {_NEEDED}") from None
                return error.message[:_MESSAGE]
            if self.clock.monotonic() - began < _LASTED:
                return said

    async def _call(self, connection: Connection, companion: Companion) -> Fields:
        """One call. A connection that has died says nothing by itself, so that it is looked after."""
        tasks = TaskSet(lambda name, error: None)  # their errors are raised here
        try:
            calling = tasks.spawn(connection.hook(companion.answer), "call hook")
            looking = tasks.spawn(self._look(connection), "look after the service")
            await asyncio.wait([calling, looking], return_when=asyncio.FIRST_COMPLETED)
            if not calling.done():
                looking.result()
            result: Fields = calling.result()
            return result
        finally:
            await tasks.close()

    async def _look(self, connection: Connection) -> None:
        """Ends, with a `WireError`, when the service no longer answers."""
        while True:
            await self.sleep(LOOK_EVERY)
            try:
                async with asyncio.timeout(LOOK_PATIENCE):
                    await connection.check()
            except RpcError:
                pass  # it answers, which is all that is asked
            except TimeoutError:
                raise WireError(Failure.TIMEOUT, Phase.SENT, "the service no longer answers") from None
            except WireError as error:
                if error.failure is not Failure.BUSY:
                    raise


def _unreached(error: WireError | RpcError, *, first: bool) -> str:
    """Why there is no connection. Raises `Refused`."""
    if isinstance(error, WireError):
        _check_allowed(error)
        wrong = error.failure is Failure.BAD_REPLY or error.status in range(300, 500)
        if first and wrong and error.failure is not Failure.BUSY:
            raise Refused(
                f"there is no MCP endpoint at this address ({error.message}); that of a service ends with /mcp"
            )
    return error.message[:_MESSAGE]


def _check_allowed(error: WireError) -> None:
    """Raises `Refused` where the token is the matter."""
    if error.status == 401:
        raise Refused(f"the service does not accept the token (HTTP 401); {_MAKE_ONE}")
    if error.status == 403:
        raise Refused(f"the service lets this token nowhere (HTTP 403); {_NEEDED}")


def _said(result: Fields) -> str:
    """What a call that has ended said."""
    try:
        content = decode(result["content"])
        text = content[0]["text"]
    except (JsonError, KeyError, IndexError, TypeError):
        text = None
    return text[:_MESSAGE] if isinstance(text, str) and text else "the call of hook ended"
