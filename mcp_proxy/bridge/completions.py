"""The one way of a completion, whatever API asked for it: which sources, in what order, and what is seen to for all of them.

Doors turn what they received into a `ChatRequest` and the deltas into their own words. Who may ask is decided before.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from mcp_proxy.bridge.chat import ArgumentsDelta, ChatRequest, Delta, Ended, Started, TextDelta, Usage, estimate
from mcp_proxy.bridge.errors import MODEL_NOT_FOUND, SOURCE_ERROR, ChatError
from mcp_proxy.bridge.provider import SourceDown
from mcp_proxy.bridge.routes import Routes, Step
from mcp_proxy.bridge.stops import StopTexts


class Source(Protocol):
    """What can answer: connected clients, or a provider."""

    def stream(self, ask: ChatRequest, model: str, *, max_tokens: int, tenant: str) -> AsyncGenerator[Delta, None]:
        """The answer as it comes. Raises `SourceDown` before the first delta when another source may be asked instead,
        `ChatError` otherwise. Closing it ends the request."""
        ...


@dataclass(slots=True)
class Course:
    """How far a completion has come; doors read it for their log line, also when it fails."""

    source: str | None = None
    model: str | None = None
    attempts: int = 0
    usage: Usage | None = None


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
        down: ChatError | None = None
        for step in self.routes.of(ask.model):
            course.source, course.attempts = step.source, course.attempts + 1
            try:
                async with aclosing(self._from(step, ask, tenant)) as deltas:
                    async for delta in deltas:
                        _note(course, delta)
                        yield delta
                return
            except SourceDown as error:
                down = error.error
        raise down or ChatError(MODEL_NOT_FOUND, f"nothing answers for the model {ask.model[:200]!r}", param="model")

    async def _from(self, step: Step, ask: ChatRequest, tenant: str) -> AsyncGenerator[Delta, None]:
        """One source's answer, up to the caller's stop texts."""
        source = self.sources.get(step.source)
        if source is None:
            text = f"the source {step.source!r} of this model is not configured"
            raise SourceDown(ChatError(MODEL_NOT_FOUND, text, param="model"))
        most = min(ask.max_tokens or self.most_tokens, self.most_tokens)
        watch, said = StopTexts(ask.stop), _Said()
        stream = source.stream(ask, step.model, max_tokens=most, tenant=tenant)
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


def _note(course: Course, delta: Delta) -> None:
    if isinstance(delta, Started):
        course.model = delta.model
    elif isinstance(delta, Ended):
        course.usage = delta.usage
