"""Streams as they go over the wire: raw events, usage, long ones, and what the helpers make of them."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.harness import eventually
from tests.llm.brain import counted, long
from tests.llm.callers import APIS, create, raw
from tests.llm.conversation import ask
from tests.llm.kinds import ALIAS, KINDS, PATIENCE, Kind, opened
from tests.llm.ways import STREAMS, WAYS, Way

pytestmark = pytest.mark.anyio

API = pytest.mark.parametrize("api", APIS)
LONG = [way for way in WAYS if way.form == "stream"]


@pytest.mark.parametrize("way", LONG, ids=str)
async def test_two_hundred_thousand_characters_come_whole(kind: Kind, way: Way) -> None:
    answer = await way.ask(kind.clients, ask("long 200000 characters"))
    assert answer.text == long(200_000)


@pytest.mark.parametrize("way", [way for way in LONG if way.api != "responses"], ids=str)
async def test_a_count_to_two_thousand_comes_word_for_word(kind: Kind, way: Way) -> None:
    answer = await way.ask(kind.clients, ask("count to 2000"))
    assert answer.text == counted(2000)


async def test_a_stream_comes_in_many_pieces(kind: Kind) -> None:
    chunks = [chunk async for chunk in await create(kind.clients, "chat", "count to 100", stream=True)]
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]
    assert len(pieces) >= 50
    assert "".join(pieces) == counted(100)


@API
async def test_words_come_as_a_provider_says_them(kind: Kind, api: str) -> None:
    stream = await create(kind.clients, api, "count to 100\nlinger", stream=True)
    seen = ""
    async with asyncio.timeout(PATIENCE):
        async for event in stream:
            seen += str(event)
            if "' 2'" in seen:  # the second word, of an answer that has not come to its end
                break
    kind.brain.let_go()
    assert [event async for event in stream]


async def test_an_answer_that_comes_late_comes_in_a_stream_that_has_begun() -> None:
    async with AsyncExitStack() as stack:
        # All at the same time: each takes longer than the status of a stream is held back.
        kinds = [await stack.enter_async_context(opened(name)) for name in KINDS]
        asked = [way.ask(kind.clients, ask("slow 2.2\nsay: late")) for kind in kinds for way in STREAMS]
        answers = await asyncio.gather(*asked)
    assert [(answer.text, answer.end) for answer in answers] == [("late", "end")] * len(answers)


async def test_a_chat_stream_tells_its_tokens_only_when_asked(kind: Kind) -> None:
    chunks = [chunk async for chunk in await create(kind.clients, "chat", "say: hello", stream=True)]
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)
    options = {"include_usage": True}
    told = [
        chunk async for chunk in await create(kind.clients, "chat", "say: hello", stream=True, stream_options=options)
    ]
    assert (told[-1].choices, told[-1].usage.total_tokens > 0) == ([], True)


@API
async def test_the_tokens_of_a_stream_are_noted_whether_they_are_told_or_not(kind: Kind, api: str) -> None:
    stream = await create(kind.clients, api, f"say: counted\nusage 4321 {len(api)}", stream=True)
    assert [event async for event in stream]
    noted = {"event": "completion", "streamed": True, "input_tokens": 4321, "output_tokens": len(api)}
    (line,) = await eventually(lambda: kind.house.inside.lines(**noted), what="the tokens are in the log")
    assert (line["estimated"], line["error"]) == (False, None)


async def test_a_chat_stream_has_one_id_and_ends_with_done(kind: Kind) -> None:
    async with kind.clients.openai.chat.completions.with_streaming_response.create(
        model=ALIAS, messages=[{"role": "user", "content": "say: hello"}], stream=True
    ) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line async for line in response.iter_lines() if line and not line.startswith(":")]
    *chunks, done = [line.removeprefix("data: ") for line in lines]
    assert done == "[DONE]"
    values = [json.loads(chunk) for chunk in chunks]
    assert {value["object"] for value in values} == {"chat.completion.chunk"}
    assert len({(value["id"], value["created"], value["model"]) for value in values}) == 1
    assert values[0]["id"].startswith("chatcmpl-")


async def test_the_events_of_messages_are_named_as_their_types(kind: Kind) -> None:
    async with kind.clients.anthropic.messages.with_streaming_response.create(
        model=ALIAS, max_tokens=100, messages=[{"role": "user", "content": "say: hello"}], stream=True
    ) as response:
        lines = [line async for line in response.iter_lines() if line]
    names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    types = [json.loads(line.removeprefix("data: "))["type"] for line in lines if line.startswith("data: ")]
    assert names == types
    assert [name for name in names if name != "ping"] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


async def test_the_events_of_a_response_come_in_their_order(kind: Kind) -> None:
    types = [event.type async for event in await create(kind.clients, "responses", "say: hello", stream=True)]
    assert types == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]


async def test_the_helper_of_chat_tells_of_each_tool_call_once(kind: Kind) -> None:
    tools: Any = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in ("one", "two")]
    async with kind.clients.openai.chat.completions.stream(
        model=ALIAS, messages=[{"role": "user", "content": 'call one {"a": 1}\ncall two {"b": "é"}'}], tools=tools
    ) as stream:
        events = [event async for event in stream]
    done = [event for event in events if event.type == "tool_calls.function.arguments.done"]
    assert [(event.index, event.name, json.loads(event.arguments)) for event in done] == [
        (0, "one", {"a": 1}),
        (1, "two", {"b": "é"}),
    ]


async def test_the_helper_of_messages_tells_of_input_as_it_grows(kind: Kind) -> None:
    tools: Any = [{"name": "one", "input_schema": {"type": "object"}}]
    async with kind.clients.anthropic.messages.stream(
        model=ALIAS,
        max_tokens=100,
        messages=[{"role": "user", "content": 'say: now\ncall one {"a": [1, 2, {"b": "é"}]}'}],
        tools=tools,
    ) as stream:
        snapshots = [event.snapshot async for event in stream if event.type == "input_json"]
        final = await stream.get_final_message()
    assert snapshots[-1] == {"a": [1, 2, {"b": "é"}]}
    assert [block.type for block in final.content] == ["text", "tool_use"]


@API
async def test_a_stream_has_a_request_id(kind: Kind, api: str) -> None:
    stream = await create(kind.clients, api, "say: hello", stream=True)
    headers = stream.response.headers
    assert headers["x-request-id"] == headers["request-id"]
    assert headers["cache-control"].startswith("no-cache")
    assert [event async for event in stream]


@API
async def test_a_whole_answer_has_a_request_id_and_says_who_answered(kind: Kind, api: str) -> None:
    answer, headers = await raw(kind.clients, api, "say: hello")
    assert headers["x-request-id"] == headers["request-id"] == answer._request_id
    assert headers["x-mcp-bridge"] == "hook"
    assert headers["x-mcp-model"] == "brain-1"
    prefix = {"chat": "chatcmpl-", "responses": "resp_", "messages": "msg_"}[api]
    assert answer.id.startswith(prefix)


@API
async def test_every_answer_has_an_id_of_its_own(kind: Kind, api: str) -> None:
    answers = [await create(kind.clients, api, "say: hello") for _ in range(3)]
    assert len({answer.id for answer in answers}) == 3


async def test_a_chat_completion_has_its_text_in_one_place_more(kind: Kind) -> None:
    answer: Any = await create(kind.clients, "chat", "say: hello")
    assert answer.text == "hello"
    assert answer.request_id == answer._request_id


@API
async def test_tokens_that_nobody_counted_are_marked_as_guessed(kind: Kind, api: str) -> None:
    _, guessed = await raw(kind.clients, api, "say: hello")
    _, known = await raw(kind.clients, api, "say: hello\nusage 10 20")
    assert "x-bridge-usage" not in known
    assert guessed.get("x-bridge-usage") == (None if kind.name in ("openai", "anthropic") else "estimated")
