"""The kinds of sources that the same cases run against, each with the brain behind it and a whole service before it."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import openai

from tests.flows.mcp_client import House, reachable
from tests.harness import eventually, make_token
from tests.llm.brain import Brain
from tests.llm.providers import KEY, Anthropic, OpenAi, provider
from tests.llm.sampling import SamplingClient, offered

KINDS = ("legacy", "modern", "openai", "anthropic")
PATIENCE = 10.0
"""Seconds that a request of the clients may take: a case that hangs fails."""
LANES = {"legacy": 1, "modern": 8}
"""How many lanes there are of a kind of client."""
ALIAS, BEHIND = "fast", "gpt-x-mini"
"""The name that callers use for the model, and the one that the source is asked for."""


def relays(kind: str, api: str) -> bool:
    """Whether that kind speaks the caller's API, so that requests are passed on to it as they were said."""
    return (kind, api) in (("openai", "chat"), ("anthropic", "messages"))


@dataclass(frozen=True)
class Clients:
    """The official clients of one caller."""

    openai: openai.AsyncOpenAI
    anthropic: anthropic.AsyncAnthropic


@dataclass(frozen=True)
class Kind:
    """A running service whose model is the brain. ``clients`` are those of an ordinary caller."""

    name: str
    brain: Brain
    house: House
    clients: Clients

    async def is_ready(self) -> bool:
        """Whether the service says that somebody could answer."""
        answer = await self.clients.openai.models.with_raw_response.list()
        return bool(answer.headers["x-mcp-session-ready"] == "true")

    def clients_of(self, token: str | None = None, *, max_retries: int = 2, **claims: Any) -> Clients:
        """The clients of another caller: one with that token, or with a token that has these claims."""
        own: Any = {"api_key": token or make_token(**claims), "max_retries": max_retries}
        return Clients(self.clients.openai.with_options(**own), self.clients.anthropic.with_options(**own))


@asynccontextmanager
async def clients_at(base: str, token: str, **options: Any) -> AsyncIterator[Clients]:
    """Both libraries' clients, as they are used with their own services but for the address and the key."""
    async with (
        openai.AsyncOpenAI(api_key=token, base_url=f"{base}/v1", timeout=PATIENCE, **options) as one,
        anthropic.AsyncAnthropic(api_key=token, base_url=base, timeout=PATIENCE, **options) as other,
    ):
        yield Clients(one, other)


def llm_section(name: str, address: str = "", key: str = KEY) -> Mapping[str, Any]:
    """What the configuration file says of the kind; ``address`` is the provider's."""
    if name not in ("openai", "anthropic"):
        return {"models": {ALIAS: [f"sampling/{BEHIND}"]}}
    url = f"{address}/v1" if name == "openai" else address
    work = {"type": name, "base_url": url, "api_key": key}
    return {"providers": {"work": work}, "models": {ALIAS: [f"work/{BEHIND}"]}}


@asynccontextmanager
async def opened(name: str, *, key: str = KEY, **settings: Any) -> AsyncIterator[Kind]:
    """A service of that kind, or of another name with nobody behind it. ``settings`` are fields of `Settings`; ``key``: the one that is configured for a provider."""
    brain = Brain()
    async with AsyncExitStack() as stack:
        address = ""
        if name in ("openai", "anthropic"):
            address = await stack.enter_async_context(provider(brain, OpenAi() if name == "openai" else Anthropic()))
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llm-")))
        file = directory / "servers.json"
        file.write_text(json.dumps({"mcpServers": {}, "llm": llm_section(name, address, key)}))
        house = await stack.enter_async_context(reachable(config=(file,), **settings))
        if name in LANES:
            await stack.enter_async_context(offered(_sampling_clients(name, brain, house.base)))
        clients = await stack.enter_async_context(clients_at(house.base, make_token()))
        kind = Kind(name, brain, house, clients)
        if name in LANES:
            await eventually(kind.is_ready, what="a client has called hook")
            if "llm_timeout" not in settings:
                await _every_lane_is_there(kind)
        yield kind


async def _every_lane_is_there(kind: Kind) -> None:
    """Wait until as many questions as there are lanes are worked on at once."""
    async with asyncio.TaskGroup() as group:
        for _ in range(LANES[kind.name]):
            message = {"role": "user", "content": "wait"}
            group.create_task(kind.clients.openai.chat.completions.create(model=ALIAS, messages=[message]))
        await kind.brain.is_at_work_on(LANES[kind.name])
        kind.brain.let_go()
    kind.brain.forget()


def _sampling_clients(name: str, brain: Brain, base: str) -> list[SamplingClient]:
    """One client of the legacy era; of the modern one several, each with several lanes."""
    if name == "legacy":
        return [SamplingClient(brain, base, name)]
    return [SamplingClient(brain, base, name, calls=LANES[name] // 4) for _ in range(4)]
