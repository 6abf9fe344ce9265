"""``--llm-demo``: the official clients against the scripted model, with nobody else connected."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import openai
import pytest
from pydantic import BaseModel

from tests.flows.mcp_client import House, reachable
from tests.harness import make_token

pytestmark = pytest.mark.anyio

SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
    "required": ["a", "b"],
}


@pytest.fixture(scope="module")
async def house() -> AsyncIterator[House]:
    async with reachable({}, llm_demo=True) as house:
        yield house


@asynccontextmanager
async def an_openai(house: House) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(api_key=make_token(), base_url=f"{house.base}/v1", timeout=10) as client:
        yield client


@asynccontextmanager
async def an_anthropic(house: House) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(api_key=make_token(), base_url=house.base, timeout=10) as client:
        yield client


@pytest.mark.parametrize("model", ["demo", "auto", "any-other"])
async def test_it_answers_where_nobody_else_does(model: str, house: House) -> None:
    async with an_openai(house) as client:
        answer = await client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "Hello there"}]
        )
    assert answer.model == "demo"
    assert "“Hello there”" in str(answer.choices[0].message.content)
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0


async def test_it_is_listed_and_ready(house: House) -> None:
    async with an_openai(house) as client:
        listed = await client.models.with_raw_response.list()
    assert "demo" in [model.id for model in listed.parse().data]
    assert listed.headers["x-mcp-session-ready"] == "true"


async def test_it_streams(house: House) -> None:
    async with an_anthropic(house) as client:
        question: Any = {"role": "user", "content": "Hello"}
        async with client.messages.stream(model="demo", max_tokens=500, messages=[question]) as stream:
            words = [text async for text in stream.text_stream]
        message = await stream.get_final_message()
    assert len(words) > 10
    assert message.stop_reason == "end_turn"


async def test_it_uses_tools_and_says_what_they_answered(house: House) -> None:
    tools: Any = [{"type": "function", "function": {"name": "add", "parameters": SCHEMA}}]
    messages: list[Any] = [{"role": "user", "content": "Please add 2 and 3, and add it up"}]
    async with an_openai(house) as client:
        first = await client.chat.completions.create(model="demo", messages=messages, tools=tools)
        said = first.choices[0].message
        assert first.choices[0].finish_reason == "tool_calls"
        assert said.tool_calls is not None
        call: Any = said.tool_calls[0]
        assert (call.function.name, json.loads(call.function.arguments)) == ("add", {"a": 2, "b": 3})
        messages += [said, {"role": "tool", "tool_call_id": call.id, "content": "5"}]
        last = await client.chat.completions.create(model="demo", messages=messages, tools=tools)
    assert last.choices[0].message.content == "The tool add answered: 5."


class Step(BaseModel):
    what: str
    result: float


class Solution(BaseModel):
    steps: list[Step]
    done: bool
    note: str | None


async def test_it_answers_in_the_form_of_a_class(house: House) -> None:
    async with an_openai(house) as client:
        answer = await client.chat.completions.parse(
            model="demo", messages=[{"role": "user", "content": 'solve "it" with 7'}], response_format=Solution
        )
    solution = answer.choices[0].message.parsed
    assert solution is not None
    assert solution.steps == [Step(what="it", result=7)]


async def test_stop_texts_and_tokens_are_heeded(house: House) -> None:
    question: Any = {"role": "user", "content": "Hello"}
    async with an_anthropic(house) as client:
        stopped = await client.messages.create(
            model="demo", max_tokens=500, messages=[question], stop_sequences=["model"]
        )
        short = await client.messages.create(model="demo", max_tokens=2, messages=[question])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "model")
    assert (short.stop_reason, short.usage.output_tokens) == ("max_tokens", 2)
