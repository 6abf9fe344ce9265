"""The source that connected MCP clients are: a completion becomes sampling, which some client's model answers.

Which client, and when, is `broker`'s; what is said to it `sampling`'s. Sampling knows no stream: the answer comes whole.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from mcp_proxy.bridge import sampling
from mcp_proxy.bridge.broker import Broker
from mcp_proxy.bridge.chat import ChatRequest, ChatResult, Delta, StopReason, Text, Usage, deltas_of
from mcp_proxy.bridge.errors import NOT_READY, QUEUE_FULL, SOURCE_ERROR, TOOLS_NOT_SUPPORTED, ChatError
from mcp_proxy.bridge.output import Misfit, fit, repair
from mcp_proxy.bridge.provider import SourceDown

_ELSEWHERE = frozenset({NOT_READY, QUEUE_FULL, TOOLS_NOT_SUPPORTED})
"""Problems of this source alone: nobody has been asked."""


@dataclass(frozen=True, slots=True)
class ConnectedClients:
    """A `completions.Source`. ``seconds``: how long a client may take for one answer, None: as long as it likes."""

    broker: Broker
    priorities: sampling.Priorities
    seconds: float | None

    async def stream(
        self, ask: ChatRequest, model: str, *, max_tokens: int, tenant: str
    ) -> AsyncGenerator[Delta, None]:
        """See `completions.Source.stream`."""
        try:
            result = await self._answer(ask, model, max_tokens, tenant)
        except ChatError as error:
            if error.problem in _ELSEWHERE:
                raise SourceDown(error) from None
            raise
        for delta in deltas_of(result):
            yield delta

    async def _answer(self, ask: ChatRequest, model: str, max_tokens: int, tenant: str) -> ChatResult:
        """The answer, in the form that was asked for. Raises `ChatError`."""
        result = await self._ask(ask, model, max_tokens, tenant)
        if ask.output is None or not _says_all(result):
            return result
        fitting = fit(result.text, ask.output)
        if isinstance(fitting, Misfit):
            first = result
            result = await self._ask(repair(ask, first.text, fitting), model, max_tokens, tenant)
            result = replace(result, usage=_sum(first.usage, result.usage))
            fitting = fit(result.text, ask.output)
        if isinstance(fitting, Misfit):
            raise ChatError(SOURCE_ERROR, f"the model did not answer in the form that was asked for: {fitting.reason}")
        return replace(result, content=(Text(fitting),))

    async def _ask(self, ask: ChatRequest, model: str, max_tokens: int, tenant: str) -> ChatResult:
        def write(tools: bool) -> Mapping[str, Any]:
            return sampling.write(ask, model, max_tokens=max_tokens, priorities=self.priorities, tools=tools)

        needs = sampling.needs_tools(ask)
        write(needs)  # what cannot be said to any client is refused before it waits for one
        result = await self.broker.complete(tenant, write, tools=needs, seconds=self.seconds)
        return sampling.read_result(result, ask)


def _says_all(result: ChatResult) -> bool:
    """Whether the answer is meant to be the one in the form that was asked for: no tool is wanted first, nothing cut off."""
    return result.stop in (StopReason.END, StopReason.STOP_SEQUENCE)


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(
        one.input_tokens + other.input_tokens,
        one.output_tokens + other.output_tokens,
        one.estimated or other.estimated,
    )
