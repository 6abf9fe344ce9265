"""Whole loops of tool calls, as applications write them and as the libraries' runners do: nothing is lost on the way."""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic import APIStatusError, beta_async_tool

from tests.llm.conversation import Result, Use, Words
from tests.llm.kinds import ALIAS, Kind

pytestmark = pytest.mark.anyio

TASK = (
    'say: Let me see.\ncall weather {"city": "Oslo"}\ncall weather {"city": "Zürich"}\n'
    'then call sum {"numbers": [1, 2, 3]}\nthen call sum {"numbers": []}\nfinally say: Cold, and 6.'
)
CALLED = [
    ("weather", {"city": "Oslo"}),
    ("weather", {"city": "Zürich"}),
    ("sum", {"numbers": [1, 2, 3]}),
    ("sum", {"numbers": []}),
]
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
SUM = {"type": "object", "properties": {"numbers": {"type": "array", "items": {"type": "number"}}}}
SCHEMAS = {"weather": WEATHER, "sum": SUM}


def use(name: str, arguments: Any) -> str:
    """The tools themselves."""
    return str(sum(arguments["numbers"])) if name == "sum" else f"cold in {arguments['city']}"


def check(kind: Kind, called: list[tuple[str, Any]]) -> None:
    """All calls were made, and the last question has all of them with their results."""
    assert called == CALLED
    turns = kind.brain.last.turns
    blocks = [block for turn in turns for block in turn.blocks]
    uses = [block for block in blocks if isinstance(block, Use)]
    results = [block for block in blocks if isinstance(block, Result)]
    assert [(one.name, one.arguments) for one in uses] == CALLED
    assert [(one.id, one.content) for one in results] == [
        (one.id, (Words(use(one.name, one.arguments)),)) for one in uses
    ]
    assert len(kind.brain.asked) == 4
    assert Words("Let me see.") in turns[1].blocks


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
async def test_a_loop_of_chat_completions_comes_to_its_end(kind: Kind, streamed: bool) -> None:
    tools: Any = [
        {"type": "function", "function": {"name": name, "parameters": schema}} for name, schema in SCHEMAS.items()
    ]
    messages: list[Any] = [{"role": "user", "content": TASK}]
    called: list[tuple[str, Any]] = []
    api = kind.clients.openai.chat.completions
    for _ in range(10):
        asked: Any = {"model": ALIAS, "messages": messages, "tools": tools}
        if streamed:
            async with api.stream(**asked) as stream:
                message: Any = (await stream.get_final_completion()).choices[0].message
        else:
            message = (await api.create(**asked)).choices[0].message
        messages.append(message.model_dump(exclude={"parsed"}) if streamed else message)
        if not message.tool_calls:
            break
        for call in message.tool_calls:
            arguments = json.loads(call.function.arguments)
            called.append((call.function.name, arguments))
            said = use(call.function.name, arguments)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": said})
    assert message.content == "Cold, and 6."
    check(kind, called)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
async def test_a_loop_of_responses_comes_to_its_end(kind: Kind, streamed: bool) -> None:
    tools: Any = [
        {"type": "function", "name": name, "parameters": schema, "strict": False} for name, schema in SCHEMAS.items()
    ]
    items: list[Any] = [{"role": "user", "content": TASK}]
    called: list[tuple[str, Any]] = []
    api = kind.clients.openai.responses
    for _ in range(10):
        if streamed:
            async with api.stream(model=ALIAS, input=items, tools=tools) as stream:
                response: Any = await stream.get_final_response()
        else:
            response = await api.create(model=ALIAS, input=items, tools=tools)
        items += [item.model_dump(exclude={"parsed_arguments"}) for item in response.output]
        calls = [item for item in response.output if item.type == "function_call"]
        if not calls:
            break
        for call in calls:
            arguments = json.loads(call.arguments)
            called.append((call.name, arguments))
            said = use(call.name, arguments)
            items.append({"type": "function_call_output", "call_id": call.call_id, "output": said})
    assert response.output_text == "Cold, and 6."
    check(kind, called)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
async def test_a_loop_of_messages_comes_to_its_end(kind: Kind, streamed: bool) -> None:
    tools: Any = [{"name": name, "input_schema": schema} for name, schema in SCHEMAS.items()]
    messages: list[Any] = [{"role": "user", "content": TASK}]
    called: list[tuple[str, Any]] = []
    api = kind.clients.anthropic.messages
    for _ in range(10):
        asked: Any = {"model": ALIAS, "max_tokens": 1000, "messages": messages, "tools": tools}
        if streamed:
            async with api.stream(**asked) as stream:
                message: Any = await stream.get_final_message()
        else:
            message = await api.create(**asked)
        messages.append({"role": "assistant", "content": message.content})
        if message.stop_reason != "tool_use":
            break
        results = []
        for block in message.content:
            if block.type == "tool_use":
                called.append((block.name, block.input))
                said = use(block.name, block.input)
                results.append({"type": "tool_result", "tool_use_id": block.id, "content": said})
        messages.append({"role": "user", "content": results})
    assert message.content[0].text == "Cold, and 6."
    check(kind, called)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
async def test_the_tool_runner_of_anthropic_comes_to_its_end(kind: Kind, streamed: bool) -> None:
    called: list[tuple[str, Any]] = []

    @beta_async_tool
    async def weather(city: str) -> str:
        """What it is like.

        Args:
            city: where
        """
        called.append(("weather", {"city": city}))
        return use("weather", {"city": city})

    @beta_async_tool(name="sum")
    async def add(numbers: list[int]) -> str:
        """Adds them up."""
        called.append(("sum", {"numbers": numbers}))
        return use("sum", {"numbers": numbers})

    runner: Any = kind.clients.anthropic.beta.messages.tool_runner(
        model=ALIAS,
        max_tokens=1000,
        messages=[{"role": "user", "content": TASK}],
        tools=[weather, add],
        stream=streamed,
    )
    rounds = 0
    async for one in runner:
        rounds += 1
        message = await one.get_final_message() if streamed else one
    assert rounds == 4
    assert message.content[0].text == "Cold, and 6."
    # The runner uses tools at the same time, in whatever order.
    check(kind, sorted(called[:2], key=str) + called[2:])
    assert kind.brain.asked[0].tools[0].description == "What it is like."


async def test_a_tool_that_fails_in_the_runner_is_told_to_the_model(kind: Kind) -> None:
    @beta_async_tool
    async def weather(city: str) -> str:
        """What it is like."""
        raise ValueError(f"no such city: {city}")

    runner = kind.clients.anthropic.beta.messages.tool_runner(
        model=ALIAS,
        max_tokens=1000,
        messages=[{"role": "user", "content": 'call weather {"city": "Atlantis"}'}],
        tools=[weather],
    )
    message: Any = await runner.until_done()
    assert "no such city: Atlantis" in message.content[0].text


async def test_a_thread_of_the_library_goes_on_without_the_servers_memory(kind: Kind) -> None:
    thread = kind.clients.anthropic.beta.messages.thread(
        model=ALIAS,
        max_tokens=1000,
        messages=[],
        system="You are a sailor.",
        unsupported_request_behavior="continue_unthreaded",
    )
    first = await thread.send({"role": "user", "content": "say: one"})
    second = await thread.send({"role": "user", "content": "say: two"})
    assert [message.content[0].text for message in (first, second)] == ["one", "two"]  # type: ignore[union-attr]
    assert [turn.text for turn in kind.brain.last.turns] == ["say: one", "one", "say: two"]
    assert kind.brain.last.system == "You are a sailor."


async def test_a_thread_that_has_to_be_kept_is_refused_and_not_forgotten(kind: Kind) -> None:
    thread = kind.clients.anthropic.beta.messages.thread(model=ALIAS, max_tokens=1000, messages=[])
    with pytest.raises(APIStatusError) as caught:
        await thread.send({"role": "user", "content": "say: one"})
    assert (caught.value.status_code, caught.value.error_code) == (400, "thread_unsupported_request")
    assert not kind.brain.asked
