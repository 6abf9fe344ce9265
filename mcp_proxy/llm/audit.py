"""What is noted of a completion: one line when it is over, and with bodies on what was asked and all that was said."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

from mcp_proxy.bridge.chat import ArgumentsDelta, ChatRequest, Delta, HouseUse, Started, TextDelta, ToolUseStarted
from mcp_proxy.bridge.completions import Course
from mcp_proxy.bridge.relay import Item, Verbatim
from mcp_proxy.core.auth.principal import Principal
from mcp_proxy.telemetry.logs import Logger
from mcp_proxy.telemetry.record import RequestRecord

_MOST_NAMES = 64
_LONGEST_NAME = 200


@dataclass(eq=False, slots=True)
class Watched:
    """One completion as it is seen from the door. Times are monotonic seconds."""

    ask: ChatRequest
    caller: Principal
    now: Callable[[], float]
    keeps_text: bool
    course: Course = field(default_factory=Course)
    begun: float = field(init=False)
    first: float | None = None
    said: list[str] = field(default_factory=list)
    length: int = 0
    house_calls: list[str] = field(default_factory=list)
    """Tools of this service that were used for it: ``server/tool``."""

    def __post_init__(self) -> None:
        self.begun = self.now()

    async def follow(self, items: AsyncGenerator[Item, None]) -> AsyncGenerator[Item, None]:
        """The answer, seen."""
        async with aclosing(items):
            async for item in items:
                for delta in item.deltas if isinstance(item, Verbatim) else (item,):
                    self._note(delta)
                yield item

    def _note(self, delta: Delta) -> None:
        if self.first is None and not isinstance(delta, Started):
            self.first = self.now()
        text = ""
        if isinstance(delta, TextDelta):
            text = delta.text
        elif isinstance(delta, ArgumentsDelta):
            text = delta.json
        elif isinstance(delta, ToolUseStarted):
            text = f"\n[{delta.name}] "
        elif isinstance(delta, HouseUse):
            self.house_calls.append(f"{delta.server}/{delta.tool}"[:_LONGEST_NAME])
            text = f"\n[{delta.server}/{delta.tool}] {delta.arguments}\n"
        self.length += len(text)
        if self.keeps_text:
            self.said.append(text)


def write_completion(log: Logger, watched: Watched, record: RequestRecord, api: str) -> None:
    """The line ``completion``. Nothing of the conversation is in it."""
    ask, course, usage = watched.ask, watched.course, watched.course.usage
    ended = watched.now()
    log.info(
        "completion",
        request_id=record.request_id,
        principal=record.principal,
        token_id=watched.caller.token_id,
        api=api,
        model=ask.model,
        served_by=course.model,
        source=course.source,
        attempts=course.attempts,
        streamed=ask.stream,
        house_calls=watched.house_calls[:_MOST_NAMES],
        input_tokens=None if usage is None else usage.input_tokens,
        output_tokens=None if usage is None else usage.output_tokens,
        estimated=None if usage is None else usage.estimated,
        characters=watched.length,
        first_ms=None if watched.first is None else round((watched.first - watched.begun) * 1000, 2),
        execution_time_ms=round((ended - watched.begun) * 1000, 2),
        error=record.error,
    )


def write_received(log: Logger, record: RequestRecord, api: str, body: object) -> None:
    """The line ``llm_rx``: the request as it came."""
    log.info("llm_rx", request_id=record.request_id, api=api, request=body)


def write_sent(log: Logger, record: RequestRecord, api: str, watched: Watched) -> None:
    """The line ``llm_tx``: everything that the model said, once it has said it."""
    log.info("llm_tx", request_id=record.request_id, api=api, text="".join(watched.said), error=record.error)
