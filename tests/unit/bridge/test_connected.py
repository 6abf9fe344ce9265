from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from mcp_proxy.base.clock import SystemClock
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.bridge.broker import Broker
from mcp_proxy.bridge.chat import (
    ChatRequest,
    ChatResult,
    Message,
    OutputFormat,
    Role,
    StopReason,
    Text,
    Tool,
    gathered,
)
from mcp_proxy.bridge.connected import ConnectedClients
from mcp_proxy.bridge.errors import NOT_READY, SOURCE_ERROR, TOOLS_NOT_SUPPORTED, ChatError
from mcp_proxy.bridge.provider import SourceDown
from mcp_proxy.bridge.sampling import Priorities

pytestmark = pytest.mark.anyio

COLOUR = OutputFormat({"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]})


class Client:
    """A lane that says these texts, one after the other."""

    room = 10

    def __init__(self, *says: str, tools: bool = False) -> None:
        self.key, self.tools = "client", tools
        self._says = list(says)
        self.asked: list[Mapping[str, Any]] = []

    async def sample(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        self.asked.append(params)
        return {"role": "assistant", "model": "their-model", "content": {"type": "text", "text": self._says.pop(0)}}


@asynccontextmanager
async def connected(*clients: Client) -> AsyncIterator[ConnectedClients]:
    tasks = TaskSet(lambda name, error: None)
    broker = Broker(clock=SystemClock(), tasks=tasks)
    for client in clients:
        broker.add(client)
    yield ConnectedClients(broker, Priorities(), 5.0)
    await tasks.close()


def ask(**more: Any) -> ChatRequest:
    return ChatRequest("m", (Message(Role.USER, (Text("Which colour?"),)),), **more)


async def answer(source: ConnectedClients, request: ChatRequest) -> ChatResult:
    async with aclosing(source.stream(request, "gpt", max_tokens=50, tenant="t")) as deltas:
        return gathered([delta async for delta in deltas])


async def test_a_clients_model_answers() -> None:
    client = Client("red")
    async with connected(client) as source:
        result = await answer(source, ask(system="Be brief."))
    assert (result.text, result.model) == ("red", "their-model")
    asked = client.asked[0]
    assert (asked["systemPrompt"], asked["maxTokens"]) == ("Be brief.", 50)
    assert asked["modelPreferences"]["hints"] == [{"name": "gpt"}]


async def test_without_a_client_another_source_may_be_asked() -> None:
    async with connected() as source:
        with pytest.raises(SourceDown) as down:
            await answer(source, ask())
    assert down.value.error.problem is NOT_READY


async def test_tools_are_for_another_source_where_no_client_takes_them() -> None:
    client = Client("never")
    async with connected(client) as source:
        with pytest.raises(SourceDown) as down:
            await answer(source, ask(tools=(Tool("add", {"type": "object"}),)))
    assert (down.value.error.problem, client.asked) == (TOOLS_NOT_SUPPORTED, [])


async def test_an_answer_in_a_form_is_checked_and_taken_out_of_its_fence() -> None:
    async with connected(Client('```json\n{"colour": "red"}\n```')) as source:
        assert (await answer(source, ask(output=COLOUR))).text == '{"colour": "red"}'


async def test_one_that_does_not_fit_is_asked_for_once_more() -> None:
    client = Client("It is red.", '{"colour": "red"}')
    async with connected(client) as source:
        result = await answer(source, ask(output=COLOUR))
    assert result.text == '{"colour": "red"}'
    assert len(client.asked[1]["messages"]) == 3
    assert result.usage.output_tokens > 1


async def test_one_that_never_fits_is_an_error_and_no_empty_answer() -> None:
    client = Client("It is red.", '{"colour": "green"}')
    async with connected(client) as source:
        with pytest.raises(ChatError, match="in the form that was asked for") as failed:
            await answer(source, ask(output=COLOUR))
    assert (failed.value.problem, len(client.asked)) == (SOURCE_ERROR, 2)


async def test_an_answer_that_was_cut_off_is_passed_on_as_it_is() -> None:
    class Cut(Client):
        async def sample(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
            return {**await super().sample(params), "stopReason": "maxTokens"}

    client = Cut('{"colo')
    async with connected(client) as source:
        result = await answer(source, ask(output=COLOUR))
    assert (result.text, result.stop, len(client.asked)) == ('{"colo', StopReason.MAX_TOKENS, 1)
