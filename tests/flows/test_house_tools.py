"""Tools of the house: the official clients, a model that wants tools, and real MCP servers whose tools it gets."""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from tests.flows.mcp_client import House, reachable
from tests.flows.mcp_upstream import upstream
from tests.harness import eventually, make_token
from tests.llm.brain import Brain
from tests.llm.kinds import llm_section
from tests.llm.providers import Anthropic, OpenAi, provider

pytestmark = pytest.mark.anyio

WANTED = {"mcp_tools": True}
ECHO = 'call one__echo {"text": "hello"}\nfinally say: done'
MESSAGES = [{"role": "user", "content": ECHO}]


class Place:
    """A service with two MCP servers and a scripted model."""

    def __init__(self, house: House, brain: Brain) -> None:
        self.house = house
        self.brain = brain

    @asynccontextmanager
    async def openai(self, **claims: Any) -> AsyncIterator[openai.AsyncOpenAI]:
        key, base = make_token(**claims), f"{self.house.base}/v1"
        async with openai.AsyncOpenAI(api_key=key, base_url=base, timeout=10) as client:
            yield client

    @asynccontextmanager
    async def anthropic(self) -> AsyncIterator[anthropic.AsyncAnthropic]:
        async with anthropic.AsyncAnthropic(api_key=make_token(), base_url=self.house.base, timeout=10) as client:
            yield client


@pytest.fixture(scope="module", params=["openai", "anthropic"])
async def running(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    brain = Brain()
    async with AsyncExitStack() as stack:
        speaks = OpenAi() if request.param == "openai" else Anthropic()
        address = await stack.enter_async_context(provider(brain, speaks))
        one = await stack.enter_async_context(upstream(era="legacy"))
        two = await stack.enter_async_context(upstream(era="modern"))
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="house-")))
        servers = {"one": {"url": one.url}, "two": {"url": two.url}}
        file = directory / "servers.json"
        file.write_text(json.dumps({"mcpServers": servers, "llm": llm_section(request.param, address)}))
        house = await stack.enter_async_context(
            reachable(config=(file,), allow_network=("127.0.0.0/8",), log_level="DEBUG")
        )
        yield Place(house, brain)


@pytest.fixture
async def place(running: Place) -> AsyncIterator[Place]:
    running.brain.forget()
    yield running
    await running.brain.is_idle()


async def test_a_chat_completion_uses_a_tool_of_a_server(place: Place) -> None:
    async with place.openai() as client:
        answer = await client.chat.completions.create(model="fast", messages=MESSAGES, extra_body=WANTED)
    message = answer.choices[0].message
    assert (message.content, answer.choices[0].finish_reason) == ("done", "stop")
    (call,) = message.model_extra["mcp_calls"]
    assert (call["server"], call["name"], call["is_error"]) == ("one", "echo", False)
    assert "hello" in call["output"]
    assert len(place.brain.asked) == 2


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_budget_that_a_round_has_spent_ends_the_answer(place: Place, stream: bool) -> None:
    messages: Any = [{"role": "user", "content": f"usage 9000 2000\nsay: let me see\n{ECHO}"}]

    async def all_of_it() -> None:
        answer: Any = await client.chat.completions.create(
            model="fast", messages=messages, stream=stream, extra_body=WANTED
        )
        async for _ in answer:
            pass

    # A token of its own: budgets are kept by it.
    async with place.openai(budget_tokens=10_000, jti=f"spends-{stream}") as client:
        with pytest.raises(openai.APIError) as caught:
            await all_of_it()
        assert caught.value.code == "insufficient_quota"
        assert len(place.brain.asked) == 1
    lines = place.house.inside.lines(event="completion", error="insufficient_quota")
    assert (lines[-1]["input_tokens"], lines[-1]["output_tokens"], lines[-1]["streamed"]) == (9000, 2000, stream)
    assert not place.house.inside.lines(event="tool_call", request_id=lines[-1]["request_id"])


async def test_a_stream_shows_it_before_the_words_that_follow(place: Place) -> None:
    async with place.anthropic() as client:
        stream = client.beta.messages.stream(model="fast", max_tokens=99, messages=MESSAGES, extra_body=WANTED)
        async with stream as events:
            answer = await events.get_final_message()
    use, result, text = answer.content
    assert (use.type, use.server_name, use.name, use.input) == ("mcp_tool_use", "one", "echo", {"text": "hello"})
    assert (result.type, result.is_error, result.tool_use_id) == ("mcp_tool_result", False, use.id)
    assert (text.type, text.text, answer.stop_reason) == ("text", "done", "end_turn")


async def test_a_response_has_it_as_an_item_and_may_bring_it_back(place: Place) -> None:
    async with place.openai() as client:
        tools: Any = [{"type": "mcp", "server_label": "here"}]
        async with client.responses.stream(model="fast", input=MESSAGES, tools=tools) as events:
            answer = await events.get_final_response()
        call, said = answer.output
        assert (call.type, call.server_label, call.name, call.status) == ("mcp_call", "one", "echo", "completed")
        assert said.type == "message"
        place.brain.forget()
        history = [*MESSAGES, *(item.model_dump() for item in answer.output), {"role": "user", "content": "say: more"}]
        again = await client.responses.create(model="fast", input=history, extra_body=WANTED)
    assert again.output_text == "more"


async def test_every_call_is_audited_with_the_request_that_it_is_for(place: Place) -> None:
    async with place.openai() as client:
        answer = await client.chat.completions.with_raw_response.create(
            model="fast", messages=MESSAGES, extra_body=WANTED
        )
    id = answer.headers["x-request-id"]

    def told(event: str) -> list[dict[str, Any]]:
        return place.house.inside.lines(event=event, request_id=id)

    (call,) = await eventually(lambda: told("tool_call"))
    assert (call["tool"], call["server"], call["door"], call["outcome"]) == ("echo", "one", "llm", "ok")


async def test_the_model_hears_of_mistakes_and_the_caller_sees_them(place: Place) -> None:
    text = 'call one__echo {"text": 7}\nthen call no__such {}\nfinally say: sorry'
    async with place.openai() as client:
        answer = await client.chat.completions.create(
            model="fast", messages=[{"role": "user", "content": text}], extra_body=WANTED
        )
    calls = answer.choices[0].message.model_extra["mcp_calls"]
    assert [call["is_error"] for call in calls] == [True, True]
    assert "/text" in calls[0]["output"]
    assert "no tool of this name" in calls[1]["output"]
    assert answer.choices[0].message.content == "sorry"


async def test_a_token_reaches_no_further_than_elsewhere(place: Place) -> None:
    async with place.openai(servers=["two"]) as client:
        answer = await client.chat.completions.create(model="fast", messages=MESSAGES, extra_body=WANTED)
        with pytest.raises(openai.BadRequestError, match="mcp_tools"):
            await client.chat.completions.create(model="fast", messages=MESSAGES, extra_body={"mcp_tools": ["one"]})
    (call,) = answer.choices[0].message.model_extra["mcp_calls"]
    assert "no tool of this name" in call["output"]
    async with place.openai(scope="llm:call") as client:
        with pytest.raises(openai.PermissionDeniedError, match="tools:call"):
            await client.chat.completions.create(model="fast", messages=MESSAGES, extra_body=WANTED, stream=True)


async def test_the_callers_own_tools_go_to_the_caller(place: Place) -> None:
    tools: Any = [{"type": "function", "function": {"name": "mine", "parameters": {"type": "object"}}}]
    text = f"{ECHO}\ncall mine {{}}"
    async with place.openai() as client:
        answer = await client.chat.completions.create(
            model="fast", messages=[{"role": "user", "content": text}], tools=tools, extra_body=WANTED
        )
    message = answer.choices[0].message
    assert [call.function.name for call in message.tool_calls or []] == ["mine"]
    assert "mcp_calls" not in message.model_extra
    assert answer.choices[0].finish_reason == "tool_calls"


async def test_without_being_asked_for_they_are_not_there(place: Place) -> None:
    async with place.openai() as client:
        await client.chat.completions.create(model="fast", messages=[{"role": "user", "content": "say: hi"}])
    assert place.brain.only.tools == ()
