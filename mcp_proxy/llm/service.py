"""The LLM door put together: sources by name, the table of models, the APIs by path. Made once; closed with the runtime."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from mcp_proxy.base.clock import Clock
from mcp_proxy.base.ids import IdSource
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.bridge import demo
from mcp_proxy.bridge.broker import Broker
from mcp_proxy.bridge.completions import Completions, Source
from mcp_proxy.bridge.connected import ConnectedClients
from mcp_proxy.bridge.provider import Format, Provider
from mcp_proxy.bridge.routes import SAMPLING, Routes, Step, parse_step
from mcp_proxy.bridge.sampling import Priorities
from mcp_proxy.bridge.wire import (
    anthropic_messages,
    anthropic_messages_frames,
    anthropic_provider,
    models,
    openai_chat,
    openai_chat_frames,
    openai_provider,
    openai_responses,
    openai_responses_frames,
)
from mcp_proxy.config.budget_file import BudgetFile
from mcp_proxy.config.llm import LlmSpec
from mcp_proxy.core.calls import CallPath
from mcp_proxy.core.limits import Gate
from mcp_proxy.core.upstream.exchange import Exchange
from mcp_proxy.core.upstream.exchanges import new_exchange
from mcp_proxy.edge.types import Header
from mcp_proxy.llm.apis import Api
from mcp_proxy.llm.budgets import Budgets
from mcp_proxy.llm.completing import Completing
from mcp_proxy.llm.door import LlmDoor, Models
from mcp_proxy.llm.house import HouseTools
from mcp_proxy.llm.tenancy import Tenancy
from mcp_proxy.settings import Settings
from mcp_proxy.telemetry.logs import Logger

_CHAT = Api(
    "openai",
    "chatcmpl-",
    openai_chat.read,
    openai_chat.whole,
    openai_chat_frames.Frames,
    openai_chat_frames.error_body,
)
_RESPONSES = Api(
    "openai-responses",
    "resp_",
    openai_responses.read,
    openai_responses.whole,
    openai_responses_frames.Frames,
    openai_chat_frames.error_body,
)
_MESSAGES = Api(
    "anthropic",
    "msg_",
    anthropic_messages.read,
    anthropic_messages.whole,
    anthropic_messages_frames.Frames,
    anthropic_messages_frames.error_body,
)
APIS = {"/v1/chat/completions": _CHAT, "/v1/responses": _RESPONSES, "/v1/messages": _MESSAGES}
_COUNTING = {"/v1/messages/count_tokens": (_MESSAGES, anthropic_messages.count_tokens)}
FORMATS = {
    "openai": Format(
        "openai",
        openai_provider.PATH,
        openai_provider.headers,
        openai_provider.write,
        openai_provider.read_result,
        openai_provider.Reader,
    ),
    "anthropic": Format(
        "anthropic",
        anthropic_provider.PATH,
        anthropic_provider.headers,
        anthropic_provider.write,
        anthropic_provider.read_result,
        anthropic_provider.Reader,
    ),
}
"""What each type of provider speaks."""


class LlmService:
    """Everything behind ``/v1``. ``broker`` is what connected clients are found by; None: none are to answer."""

    def __init__(
        self,
        spec: LlmSpec,
        settings: Settings,
        *,
        broker: Broker | None,
        calls: CallPath,
        gate: Gate,
        tasks: TaskSet,
        clock: Clock,
        ids: IdSource,
        log: Logger,
    ) -> None:
        self._broker = broker
        self._spec = spec
        self._exchange: Exchange = new_exchange(settings.connect_timeout)
        priorities = Priorities(settings.llm_intelligence, settings.llm_speed, settings.llm_cost)
        sources: dict[str, Source] = dict(self._providers(settings.llm_timeout))
        if broker is not None:
            sources[SAMPLING] = ConnectedClients(broker, priorities, settings.llm_timeout)
        aliases = {name: [parse_step(step) for step in steps] for name, steps in spec.models.items()}
        behind: list[Step] = []
        if settings.llm_demo:
            sources[demo.MODEL] = demo.Demo(asyncio.sleep)
            behind.append(Step(demo.MODEL, demo.MODEL))
            aliases.setdefault(demo.MODEL, behind)
        self._needs_nobody = bool(behind or spec.providers)
        providers = [one.name for one in spec.providers]
        routes = Routes(aliases, providers, sampling=broker is not None, behind=behind)
        self._budgets = Budgets(BudgetFile(settings.state_dir), clock=clock, log=log)
        self.completions = completions = Completions(routes, sources, settings.llm_max_tokens)
        completing = Completing(
            completions,
            HouseTools(completions, calls, tasks=tasks, clock=clock),
            Tenancy(clock, self._budgets, most_tokens=settings.llm_max_tokens),
            gate=gate,
            tasks=tasks,
            clock=clock,
            ids=ids,
            log=log,
            log_bodies=settings.log_bodies,
            standing=self._standing,
        )
        self.door = LlmDoor(
            completing,
            routes,
            APIS,
            counting=_COUNTING,
            models=Models(models.listed, models.one),
            fallback=_CHAT,
            standing=self._standing,
            since=int(clock.time()),
            max_body=settings.llm_max_body,
        )

    def _standing(self) -> list[Header]:
        return [(b"x-mcp-bridge", b"hook"), (b"x-mcp-session-ready", b"true" if self.ready() else b"false")]

    def _providers(self, patience: float | None) -> Iterator[tuple[str, Provider]]:
        for one in self._spec.providers:
            speaks = FORMATS[one.type]
            yield one.name, Provider(one.name, one.base_url, one.api_key, speaks, self._exchange, patience)

    def ready(self) -> bool:
        """Whether something could answer now: a connected client, or a source that needs no connecting."""
        return self._needs_nobody or (self._broker is not None and bool(self._broker.lanes))

    async def keep(self) -> None:
        """Keep what tokens have spent of their budgets, until it is cancelled."""
        await self._budgets.keep()

    async def close(self) -> None:
        """After the last completion: write what was spent, and let the connections to providers go."""
        await self._budgets.close()
        await self._exchange.close()
