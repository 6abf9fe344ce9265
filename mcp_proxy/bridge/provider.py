"""A provider of models that is reached over HTTP, with a key that stays here.

What it speaks is one of `wire`'s formats. Its refusals are told from ours: a bad key of ours is nobody else's matter.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from pydantic import SecretStr

from mcp_proxy.base.json import JsonError, encode, read_strict
from mcp_proxy.bridge.chat import ChatRequest, ChatResult, Delta, Started, deltas_of, question_tokens
from mcp_proxy.bridge.errors import (
    BAD_REQUEST,
    MODEL_NOT_FOUND,
    NO_ANSWER,
    NOT_READY,
    RATE_LIMITED,
    SOURCE_ERROR,
    TOO_LARGE,
    ChatError,
    ChatProblem,
)
from mcp_proxy.bridge.relay import Spoken, Verbatim, only_tells_tokens, rewritten, written
from mcp_proxy.core.upstream.exchange import Exchange, Response
from mcp_proxy.core.upstream.failures import Attempt, Phase, WireError
from mcp_proxy.core.upstream.sse import Event, EventTooLarge, SseParser

_LARGEST = 32 * 1024 * 1024
_LARGEST_EVENT = 4 * 1024 * 1024
_LARGEST_REFUSAL = 64 * 1024
_MESSAGE = 500


class Reader(Protocol):
    """Reads one stream of a provider's."""

    def feed(self, event: str | None, data: bytes) -> list[Delta]:
        """What one event says. Raises `ChatError`."""
        ...

    def end(self) -> None:
        """The stream has ended. Raises `ChatError` when that was not its end."""
        ...


@dataclass(frozen=True, slots=True)
class Format:
    """What a kind of provider speaks. ``headers`` makes those that its key goes in; ``api`` as in `relay.Spoken`."""

    api: str
    path: str
    headers: Callable[[str], Mapping[str, str]]
    write: Callable[..., dict[str, Any]]
    read_result: Callable[[Mapping[str, Any]], ChatResult]
    reader: Callable[[], Reader]


class SourceDown(Exception):
    """This source does not answer; nothing was passed on, and another may be asked. ``error`` is for when there is none."""

    def __init__(self, error: ChatError) -> None:
        super().__init__(error.message)
        self.error = error


class Provider:
    """One provider, a `completions.Source`.

    ``base_url`` is what its clients are given, ``/v1`` included where that belongs to it. ``seconds``: how long it may be
    silent, None: as long as it likes.
    """

    def __init__(
        self, name: str, base_url: str, key: SecretStr, speaks: Format, exchange: Exchange, seconds: float | None
    ) -> None:
        self.name = name
        self._seconds = seconds
        self._url = base_url.rstrip("/") + speaks.path
        self._key = key
        self._speaks = speaks
        self._exchange = exchange

    def __repr__(self) -> str:
        return f"<Provider {self.name}>"

    async def stream(
        self, ask: ChatRequest, model: str, *, max_tokens: int, tenant: str
    ) -> AsyncGenerator[Delta, None]:
        """See `completions.Source.stream`. What a request leaves open is the provider's to choose."""
        most = None if ask.max_tokens is None else max_tokens
        body = encode({**self._speaks.write(ask, model, max_tokens=most), "stream": True})
        async with self._answered(body, None) as response:
            async for delta in self._deltas(response, self._seconds):
                if isinstance(delta, Started) and not delta.input_tokens:
                    delta = replace(delta, input_tokens=question_tokens(ask))
                yield delta

    def relays(self, spoken: Spoken) -> bool:
        """Whether a request can be passed on as it was said."""
        return spoken.api == self._speaks.api

    async def relay(self, spoken: Spoken, model: str, *, max_tokens: int | None) -> AsyncGenerator[Verbatim, None]:
        """The provider's own words. Raises as `stream` does; closing it ends the request."""
        body, hides = rewritten(spoken, model, max_tokens)
        async with self._answered(encode(body), spoken) as response:
            if not _is_stream(response):
                async with asyncio.timeout(self._seconds):
                    data = await response.read(_LARGEST)
                yield Verbatim(data, self._understood(data))
                return
            reader = self._speaks.reader()
            async for event in self._events(response, self._seconds):
                deltas = tuple(reader.feed(event.event, event.data))
                hidden = hides and only_tells_tokens(event.data)
                yield Verbatim(b"" if hidden else written(event), deltas)
            reader.end()

    def _understood(self, data: bytes) -> tuple[Delta, ...]:
        """What of a whole answer is understood; what is not is the client's matter all the same. Raises `ChatError`."""
        value = self._object(data)
        try:
            return tuple(deltas_of(self._speaks.read_result(value)))
        except ChatError:
            model = value.get("model")
            return (Started(model if isinstance(model, str) else "", 0),)

    @asynccontextmanager
    async def _answered(self, body: bytes, spoken: Spoken | None) -> AsyncIterator[Response]:
        """The response to a request that was accepted. Raises `SourceDown`, `ChatError`."""
        response = await self._open(body, spoken.headers if spoken is not None else {}, self._seconds)
        try:
            if response.status != 200:
                raise await self._refusal(response, spoken)
            yield response
        except WireError as error:
            raise ChatError(SOURCE_ERROR, f"{self.name}: {error.message}") from None
        except TimeoutError:
            raise self._silent(self._seconds) from None
        finally:
            await response.close()

    async def _open(self, body: bytes, headers: Mapping[str, str], seconds: float | None) -> Response:
        ours = {"Content-Type": "application/json", "Accept": "text/event-stream, application/json"}
        key = self._key.get_secret_value()
        try:
            async with asyncio.timeout(seconds):
                return await self._exchange.open(
                    "POST", self._url, {**ours, **self._speaks.headers(key), **headers}, body, Attempt()
                )
        except WireError as error:
            failed = ChatError(SOURCE_ERROR, f"{self.name}: {error.message}")
            # What may have been worked on is not given to somebody else: it would be paid for twice.
            raise SourceDown(failed) if error.phase is Phase.NOT_SENT else failed from None
        except TimeoutError:
            raise self._silent(seconds) from None

    def _silent(self, seconds: float | None) -> ChatError:
        return ChatError(NO_ANSWER, f"{self.name} said nothing for {seconds:g} seconds")

    async def _deltas(self, response: Response, seconds: float | None) -> AsyncIterator[Delta]:
        if not _is_stream(response):
            async with asyncio.timeout(seconds):
                body = await response.read(_LARGEST)
            for delta in deltas_of(self._speaks.read_result(self._object(body))):
                yield delta
            return
        reader = self._speaks.reader()
        async for event in self._events(response, seconds):
            for delta in reader.feed(event.event, event.data):
                yield delta
        reader.end()

    async def _events(self, response: Response, seconds: float | None) -> AsyncIterator[Event]:
        parser = SseParser(_LARGEST_EVENT)
        async for chunk in _in_time(response.chunks(), seconds):
            try:
                for event in parser.feed(chunk):
                    yield event
            except EventTooLarge:
                raise ChatError(SOURCE_ERROR, f"{self.name} sent an event that is too large") from None

    def _object(self, body: bytes) -> dict[str, Any]:
        try:
            value = read_strict(body)
        except JsonError:
            value = None
        if not isinstance(value, dict):
            raise ChatError(SOURCE_ERROR, f"{self.name} answered with something that is no JSON object")
        return value

    async def _refusal(self, response: Response, spoken: Spoken | None) -> ChatError | SourceDown:
        """What a status says: to the caller, or to us. Where the request was passed on as it came, in the words it came in."""
        status, said = response.status, await self._said(response)
        message = self._sealed(said.get("message"))
        text = f"{self.name} answered with {status}{f': {message}' if message else ''}"
        match status:
            case 400 | 422:
                return _in_its_words(status, text, said) if spoken is not None else ChatError(BAD_REQUEST, text)
            case 404:
                return SourceDown(ChatError(MODEL_NOT_FOUND, text, param="model"))
            case 413:
                return ChatError(TOO_LARGE, text)
            case 401 | 402 | 403:
                # The provider may repeat the key that it does not like.
                return SourceDown(ChatError(SOURCE_ERROR, f"{self.name} does not accept the key that is configured"))
            case 429:
                return SourceDown(ChatError(RATE_LIMITED, text, retry_after=_retry_after(response)))
            case 503 | 529:
                return SourceDown(ChatError(NOT_READY, text, retry_after=_retry_after(response)))
            case _:
                return SourceDown(ChatError(SOURCE_ERROR, text))

    async def _said(self, response: Response) -> Mapping[str, Any]:
        """The error, in the shape that both kinds of providers give it; empty for any other."""
        try:
            body = read_strict(await response.read(_LARGEST_REFUSAL))
        except (JsonError, WireError):
            return {}
        error = body.get("error") if isinstance(body, dict) else None
        return error if isinstance(error, dict) else {"message": error}

    def _sealed(self, text: Any) -> str:
        """A text of the provider's without our key."""
        return text[:_MESSAGE].replace(self._key.get_secret_value(), "••••") if isinstance(text, str) else ""


def _in_its_words(status: int, text: str, said: Mapping[str, Any]) -> ChatError:
    """A refusal of a request that was passed on: clients' libraries act on some of its words."""
    code, kind, param, details = (said.get(name) for name in ("code", "type", "param", "details"))
    problem = ChatProblem(
        status,
        code if isinstance(code, str) else BAD_REQUEST.code,
        kind if isinstance(kind, str) else BAD_REQUEST.anthropic_type,
    )
    return ChatError(
        problem,
        text,
        param=param if isinstance(param, str) else None,
        details=details if isinstance(details, dict) else None,
    )


def _is_stream(response: Response) -> bool:
    return response.header("content-type").partition(";")[0].strip().lower() == "text/event-stream"


def _retry_after(response: Response) -> float:
    """Seconds, at most a minute: clients wait as long as they are told."""
    try:
        return min(60.0, max(0.0, float(response.header("retry-after"))))
    except ValueError:
        return 2.0


async def _in_time(chunks: AsyncIterator[bytes], seconds: float | None) -> AsyncIterator[bytes]:
    """The chunks, each of which must come in time. Raises `TimeoutError`."""
    while True:
        async with asyncio.timeout(seconds):
            try:
                chunk = await anext(chunks)
            except StopAsyncIteration:
                return
        yield chunk
