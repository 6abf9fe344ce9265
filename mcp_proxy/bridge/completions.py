"""The one way of a completion, whatever API asked for it: which sources, in what order, and what is seen to for all of them.

Doors turn what they received into a `ChatRequest` and the deltas into their own words. Who may ask is decided before.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from mcp_proxy.bridge.chat import ArgumentsDelta, ChatRequest, Delta, Ended, Started, TextDelta, Usage, estimate
from mcp_proxy.bridge.errors import MODEL_NOT_FOUND, SOURCE_ERROR, ChatError
from mcp_proxy.bridge.provider import SourceDown
from mcp_proxy.bridge.relay import Item, Spoken, Verbatim
from mcp_proxy.bridge.routes import Routes, Step
from mcp_proxy.bridge.stops import StopTexts


class Source(Protocol):
    """What can answer: connected clients, or a provider."""

    def stream(self, ask: ChatRequest, model: str, *, max_tokens: int, tenant: str) -> AsyncGenerator[Delta, None]:
        """The answer as it comes. Raises `SourceDown` before the first delta when another source may be asked instead,
        `ChatError` otherwise. Closing it ends the request."""
        ...


@runtime_checkable
class Relaying(Source, Protocol):
    """A source that can be passed a request on as it was said."""

    def relays(self, spoken: Spoken) -> bool:
        """Whether it can be this one."""
        ...

    def relay(self, spoken: Spoken, model: str, *, max_tokens: int | None) -> AsyncGenerator[Verbatim, None]:
        """The answer as the source says it; ``max_tokens`` None: as long as it likes. Raises as `Source.stream`."""
        ...


@dataclass(slots=True)
class Course:
    """How far a completion has come; doors read it for their log line, also when it fails."""

    source: str | None = None
    model: str | None = None
    attempts: int = 0
    usage: Usage | None = None
    relayed: bool = False
    """Whether the answer is the source's own words."""


@dataclass(frozen=True, slots=True)
class Completions:
    """All that a completion needs. ``sources`` are by the names that routes use; see `stream`."""

    routes: Routes
    sources: Mapping[str, Source]
    most_tokens: int
    """What is asked for when a request names no number, and the most that any gets."""

    async def stream(self, ask: ChatRequest, *, tenant: str, course: Course) -> AsyncGenerator[Delta, None]:
        """The answer of the first source that gives one. Raises `ChatError`, at any time.

        Once something has been passed on, no other source is asked.
        """
        async with aclosing(self.answer(ask, tenant=tenant, course=course)) as items:
            async for item in items:
                assert not isinstance(item, Verbatim), "nothing was said that could be passed on"
                yield item

    async def answer(
        self,
        ask: ChatRequest,
        *,
        tenant: str,
        course: Course,
        spoken: Spoken | None = None,
        unread: ChatError | None = None,
    ) -> AsyncGenerator[Item, None]:
        """The same, with what sources of the client's own API say as they say it.

        ``spoken``: the request as it came, where it may be passed on as it is. ``unread``: why it can be answered in no
        other way; ``ask`` is a guess then.
        """
        down: ChatError | None = None
        for step in self.routes.of(ask.model):
            course.source, course.attempts = step.source, course.attempts + 1
            try:
                async with aclosing(self._step(step, ask, tenant, spoken, unread)) as items:
                    async for item in items:
                        _note(course, item)
                        yield item
                return
            except SourceDown as error:
                down = error.error
        raise down or ChatError(MODEL_NOT_FOUND, f"nothing answers for the model {ask.model[:200]!r}", param="model")

    def _step(
        self, step: Step, ask: ChatRequest, tenant: str, spoken: Spoken | None, unread: ChatError | None
    ) -> AsyncGenerator[Item, None]:
        """One source's answer. Raises `ChatError` for one that does not understand the request."""
        source = self._relaying(step, spoken)
        if spoken is not None and source is not None:
            most = None if ask.max_tokens is None else self._most(ask)
            return source.relay(spoken, step.model, max_tokens=most)
        if unread is not None:
            raise unread
        return self._from(step, ask, tenant)

    def _relaying(self, step: Step, spoken: Spoken | None) -> Relaying | None:
        source = self.sources.get(step.source)
        if spoken is None or not isinstance(source, Relaying) or not source.relays(spoken):
            return None
        return source

    def may_relay(self, ask: ChatRequest, spoken: Spoken | None) -> bool:
        """Whether the answer may be some source's own words. Raises `ChatError` for a model that is not there."""
        return any(self._relaying(step, spoken) is not None for step in self.routes.of(ask.model))

    def _most(self, ask: ChatRequest) -> int:
        return min(ask.max_tokens or self.most_tokens, self.most_tokens)

    async def _from(self, step: Step, ask: ChatRequest, tenant: str) -> AsyncGenerator[Item, None]:
        """One source's answer, up to the caller's stop texts."""
        source = self.sources.get(step.source)
        if source is None:
            text = f"the source {step.source!r} of this model is not configured"
            raise SourceDown(ChatError(MODEL_NOT_FOUND, text, param="model"))
        watch, said = StopTexts(ask.stop), _Said()
        stream = source.stream(ask, step.model, max_tokens=self._most(ask), tenant=tenant)
        async with aclosing(stream):
            async for delta in _whole(stream):
                said.note(delta)
                for seen in watch.feed(delta):
                    yield seen
                if watch.hit is not None and not isinstance(delta, Ended):
                    # What else the model says is nobody's matter: it need not go on.
                    yield watch.end(said.usage)
                    return


class _Said:
    """What an answer has come to, where nobody counts."""

    def __init__(self) -> None:
        self._input = 0
        self._length = 0

    def note(self, delta: Delta) -> None:
        if isinstance(delta, Started):
            self._input = delta.input_tokens
        elif isinstance(delta, TextDelta):
            self._length += len(delta.text)
        elif isinstance(delta, ArgumentsDelta):
            self._length += len(delta.json)

    @property
    def usage(self) -> Usage:
        return Usage(self._input, estimate(["x" * self._length]))


async def _whole(stream: AsyncIterator[Delta]) -> AsyncIterator[Delta]:
    """The stream, which must come to its end. Raises `ChatError`."""
    ended = False
    async for delta in stream:
        ended = isinstance(delta, Ended)
        yield delta
    if not ended:
        raise ChatError(SOURCE_ERROR, "the model's answer broke off")


def _note(course: Course, item: Item) -> None:
    if isinstance(item, Verbatim):
        course.relayed = True
        for delta in item.deltas:
            _note(course, delta)
        return
    delta = item
    if isinstance(delta, Started):
        course.model = delta.model
    elif isinstance(delta, Ended):
        course.usage = delta.usage
