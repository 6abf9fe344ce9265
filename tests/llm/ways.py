"""The ways that callers have to ask: three APIs, each whole, as a raw stream, and with its library's own helper.

`Way.ask` sends a `Question` with the official client and reads what comes back into an `Answer`, as an application would.
Raw streams are put together here, by hand, so that what a helper mends is seen.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import openai

from tests.llm.conversation import Answer, Block, Picture, Question, Recording, Result, Tool, Turn, Use, Words
from tests.llm.kinds import Clients

TOKENS = 4096
"""What a question that names no number is sent with where the API wants one."""
FORMATS = {"audio/wav": "wav", "audio/mpeg": "mp3"}


@dataclass(frozen=True)
class Way:
    """``lacks``: fields of a question that the API has no word for."""

    api: str
    form: str
    ask: Callable[[Clients, Question], Awaitable[Answer]]
    lacks: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"{self.api}-{self.form}"

    def says(self, end: str) -> str:
        """How the API tells of that end: OpenAI's have one word for two of them."""
        return "end" if end == "stop" and self.api != "messages" else end


# Chat completions


def chat(question: Question) -> dict[str, Any]:
    """The parameters of ``chat.completions.create``."""
    system = [{"role": "system", "content": question.system}] if question.system else []
    asked: dict[str, Any] = {
        "model": question.model,
        "messages": [*system, *(one for turn in question.turns for one in _chat_messages(turn))],
        "max_completion_tokens": question.max_tokens,
        "temperature": question.temperature,
        "stop": list(question.stop) or None,
    }
    if question.tools:
        named = {"type": "function", "function": {"name": question.choice}}
        asked["tools"] = [{"type": "function", "function": _function(tool, "parameters")} for tool in question.tools]
        asked["tool_choice"] = question.choice if question.choice in ("auto", "none", "required") else named
        asked["parallel_tool_calls"] = question.parallel
    return {key: value for key, value in asked.items() if value is not None}


def _function(tool: Tool, schema: str) -> dict[str, Any]:
    described = {} if tool.description is None else {"description": tool.description}
    return {"name": tool.name, **described, schema: dict(tool.schema)}


def _chat_messages(turn: Turn) -> list[dict[str, Any]]:
    results = [block for block in turn.blocks if isinstance(block, Result)]
    messages: list[dict[str, Any]] = [
        {"role": "tool", "tool_call_id": result.id, "content": _said(result)} for result in results
    ]
    rest = [block for block in turn.blocks if not isinstance(block, Result)]
    uses = [block for block in rest if isinstance(block, Use)]
    if turn.role == "assistant":
        calls = [
            {"id": use.id, "type": "function", "function": {"name": use.name, "arguments": json.dumps(use.arguments)}}
            for use in uses
        ]
        return [{"role": "assistant", "content": turn.text or None, **({"tool_calls": calls} if calls else {})}]
    if rest:
        plain = len(rest) == 1 and isinstance(rest[0], Words)
        messages.append({"role": "user", "content": turn.text if plain else [_chat_part(block) for block in rest]})
    return messages


def _said(result: Result) -> str:
    return "\n".join(part.text for part in result.content if isinstance(part, Words))


def _chat_part(block: Block) -> dict[str, Any]:
    match block:
        case Words():
            return {"type": "text", "text": block.text}
        case Picture():
            return {"type": "image_url", "image_url": {"url": f"data:{block.kind};base64,{block.data}"}}
        case Recording():
            return {"type": "input_audio", "input_audio": {"data": block.data, "format": FORMATS[block.kind]}}
    raise AssertionError(block)


_FINISHED = {"stop": "end", "length": "length", "tool_calls": "tools", "content_filter": "refusal"}


def read_chat(completion: Any) -> Answer:
    """A whole completion."""
    (choice,) = completion.choices
    assert choice.index == 0
    assert choice.message.role == "assistant"
    assert completion.object == "chat.completion"
    words = [Words(choice.message.content)] if choice.message.content is not None else []
    uses = [
        Use(call.id, call.function.name, json.loads(call.function.arguments))
        for call in choice.message.tool_calls or ()
    ]
    usage = completion.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    counted = usage.prompt_tokens, usage.completion_tokens
    return Answer((*words, *uses), _FINISHED[choice.finish_reason], completion.model, counted)


async def _chat_whole(clients: Clients, question: Question) -> Answer:
    return read_chat(await clients.openai.chat.completions.create(**chat(question)))


async def _chat_stream(clients: Clients, question: Question) -> Answer:
    options = {"include_usage": True}
    stream = await clients.openai.chat.completions.create(**chat(question), stream=True, stream_options=options)
    chunks = [chunk async for chunk in stream]
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    *said, last = chunks
    assert not last.choices
    assert all(chunk.usage is None for chunk in said)
    finishes = [chunk.choices[0].finish_reason for chunk in said]
    assert finishes[-1] is not None
    assert not any(finishes[:-1])
    text = "".join(chunk.choices[0].delta.content or "" for chunk in said)
    calls: dict[int, list[str]] = {}
    for call in (call for chunk in said for call in chunk.choices[0].delta.tool_calls or ()):
        if call.index not in calls:
            assert call.type == "function"
            calls[call.index] = [call.id, call.function.name, ""]
        else:
            assert call.id is None
            assert call.function.name is None
        calls[call.index][2] += call.function.arguments
    assert list(calls) == list(range(len(calls)))
    uses = [Use(id, name, json.loads(arguments)) for id, name, arguments in calls.values()]
    words = [Words(text)] if text or not uses else []
    counted = last.usage.prompt_tokens, last.usage.completion_tokens
    return Answer((*words, *uses), _FINISHED[finishes[-1]], chunks[0].model, counted)


async def _chat_helper(clients: Clients, question: Question) -> Answer:
    options = {"include_usage": True}
    async with clients.openai.chat.completions.stream(**chat(question), stream_options=options) as stream:
        text = ""
        kinds = set()
        async for event in stream:
            kinds.add(event.type)
            if event.type == "content.delta":
                text += event.delta
                assert event.snapshot == text
        try:
            answer = read_chat(await stream.get_final_completion())
        except (openai.LengthFinishReasonError, openai.ContentFilterFinishReasonError):
            # The helper does not give out what is not complete, but keeps it.
            answer = read_chat(stream.current_completion_snapshot)
    assert answer.text == text
    assert ("content.done" in kinds) == bool(text)
    assert ("tool_calls.function.arguments.done" in kinds) == bool(answer.uses)
    return answer


# Responses


def responses(question: Question) -> dict[str, Any]:
    """The parameters of ``responses.create``."""
    asked: dict[str, Any] = {
        "model": question.model,
        "instructions": question.system,
        "input": [item for turn in question.turns for item in _items(turn)],
        "max_output_tokens": question.max_tokens,
        "temperature": question.temperature,
    }
    if question.tools:
        named = {"type": "function", "name": question.choice}
        asked["tools"] = [
            {"type": "function", "strict": False, **_function(tool, "parameters")} for tool in question.tools
        ]
        asked["tool_choice"] = question.choice if question.choice in ("auto", "none", "required") else named
        asked["parallel_tool_calls"] = question.parallel
    return {key: value for key, value in asked.items() if value is not None}


def _items(turn: Turn) -> list[dict[str, Any]]:
    """Each block as an item of its own, or as a message of one part."""
    items: list[dict[str, Any]] = []
    for block in turn.blocks:
        match block:
            case Use():
                arguments = json.dumps(block.arguments)
                items.append({"type": "function_call", "call_id": block.id, "name": block.name, "arguments": arguments})
            case Result():
                items.append({"type": "function_call_output", "call_id": block.id, "output": _output(block)})
            case _:
                items.append({"role": turn.role, "content": [_input_part(block, turn.role)]})
    return items


def _output(result: Result) -> str | list[dict[str, Any]]:
    if all(isinstance(part, Words) for part in result.content):
        return _said(result)
    return [_input_part(part, "user") for part in result.content]


def _input_part(block: Block, role: str) -> dict[str, Any]:
    match block:
        case Words():
            return {"type": "output_text" if role == "assistant" else "input_text", "text": block.text}
        case Picture():
            url = f"data:{block.kind};base64,{block.data}"
            return {"type": "input_image", "detail": "auto", "image_url": url}
    raise AssertionError(block)


def read_response(response: Any) -> Answer:
    """A whole response."""
    assert response.object == "response"
    blocks: list[Words | Use] = []
    for item in response.output:
        if item.type == "message":
            assert item.role == "assistant"
            blocks += [Words(part.text) for part in item.content]
        else:
            blocks.append(Use(item.call_id, item.name, json.loads(item.arguments)))
    used = any(isinstance(block, Use) for block in blocks)
    if response.status == "incomplete":
        end = {"max_output_tokens": "length", "content_filter": "refusal"}[response.incomplete_details.reason]
    else:
        assert response.status == "completed"
        end = "tools" if used else "end"
    counted = response.usage.input_tokens, response.usage.output_tokens
    answer = Answer(tuple(blocks), end, response.model, counted)
    assert response.output_text == answer.text
    return answer


async def _responses_whole(clients: Clients, question: Question) -> Answer:
    return read_response(await clients.openai.responses.create(**responses(question)))


async def _responses_stream(clients: Clients, question: Question) -> Answer:
    events = [event async for event in await clients.openai.responses.create(**responses(question), stream=True)]
    assert events[0].type == "response.created"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].type in ("response.completed", "response.incomplete")
    answer = read_response(events[-1].response)
    added = [event.output_index for event in events if event.type == "response.output_item.added"]
    done = [event.output_index for event in events if event.type == "response.output_item.done"]
    assert added == list(range(len(events[-1].response.output)))
    assert sorted(done) == added
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == answer.text
    given = "".join(event.delta for event in events if event.type == "response.function_call_arguments.delta")
    whole = "".join(item.arguments for item in events[-1].response.output if item.type == "function_call")
    assert sorted(given) == sorted(whole)
    return answer


async def _responses_helper(clients: Clients, question: Question) -> Answer:
    async with clients.openai.responses.stream(**responses(question)) as stream:
        text = ""
        async for event in stream:
            if event.type == "response.output_text.delta":
                text += event.delta
            elif event.type == "response.incomplete":
                # The helper keeps a response only when it is complete.
                answer = read_response(event.response)
                break
        else:
            answer = read_response(await stream.get_final_response())
    assert answer.text == text
    return answer


# Messages


def messages(question: Question) -> dict[str, Any]:
    """The parameters of ``messages.create``."""
    asked: dict[str, Any] = {
        "model": question.model,
        "max_tokens": question.max_tokens or TOKENS,
        "messages": [{"role": turn.role, "content": _content(turn)} for turn in question.turns],
        "system": question.system,
        "stop_sequences": list(question.stop) or None,
        # The library has no parameter for it any more, older ones had.
        "extra_body": None if question.temperature is None else {"temperature": question.temperature},
    }
    if question.tools:
        asked["tools"] = [_function(tool, "input_schema") for tool in question.tools]
        kind = {"auto": "auto", "none": "none", "required": "any"}.get(question.choice, "tool")
        named = {"name": question.choice} if kind == "tool" else {}
        alone = {} if question.parallel else {"disable_parallel_tool_use": True}
        asked["tool_choice"] = {"type": kind, **named, **alone}
    return {key: value for key, value in asked.items() if value is not None}


def _content(turn: Turn) -> str | list[dict[str, Any]]:
    if len(turn.blocks) == 1 and isinstance(turn.blocks[0], Words):
        return turn.text
    return [_message_block(block) for block in turn.blocks]


def _message_block(block: Block) -> dict[str, Any]:
    match block:
        case Words():
            return {"type": "text", "text": block.text}
        case Picture():
            return {"type": "image", "source": {"type": "base64", "media_type": block.kind, "data": block.data}}
        case Use():
            return {"type": "tool_use", "id": block.id, "name": block.name, "input": dict(block.arguments)}
        case Result():
            content = [_message_block(part) for part in block.content]
            return {"type": "tool_result", "tool_use_id": block.id, "content": content, "is_error": block.failed}
    raise AssertionError(block)


_STOPPED = {
    "end_turn": "end",
    "max_tokens": "length",
    "stop_sequence": "stop",
    "tool_use": "tools",
    "refusal": "refusal",
}


def read_message(message: Any) -> Answer:
    """A whole message."""
    assert (message.type, message.role) == ("message", "assistant")
    blocks: list[Words | Use] = []
    for block in message.content:
        blocks.append(Words(block.text) if block.type == "text" else Use(block.id, block.name, block.input))
    counted = message.usage.input_tokens, message.usage.output_tokens
    return Answer(tuple(blocks), _STOPPED[message.stop_reason], message.model, counted, message.stop_sequence)


async def _messages_whole(clients: Clients, question: Question) -> Answer:
    return read_message(await clients.anthropic.messages.create(**messages(question)))


async def _messages_stream(clients: Clients, question: Question) -> Answer:
    stream = await clients.anthropic.messages.create(**messages(question), stream=True)
    started: Any = None
    ended: Any = None
    blocks: dict[int, Words | Use] = {}
    arguments: dict[int, str] = {}
    kinds = []
    async for event in stream:
        kinds.append(event.type)
        match event.type:
            case "message_start":
                started = event.message
            case "content_block_start":
                assert event.index == len(blocks)
                block = event.content_block
                blocks[event.index] = Words("") if block.type == "text" else Use(block.id, block.name, {})
            case "content_block_delta":
                known = blocks[event.index]
                if isinstance(known, Words):
                    blocks[event.index] = Words(known.text + event.delta.text)
                else:
                    arguments[event.index] = arguments.get(event.index, "") + event.delta.partial_json
            case "message_delta":
                ended = event
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == len(blocks)
    for index, text in arguments.items():
        use = blocks[index]
        assert isinstance(use, Use)
        blocks[index] = Use(use.id, use.name, json.loads(text))
    assert (started.content, started.stop_reason) == ([], None)
    counted = ended.usage.input_tokens or started.usage.input_tokens, ended.usage.output_tokens
    end = _STOPPED[ended.delta.stop_reason]
    return Answer(tuple(blocks.values()), end, started.model, counted, ended.delta.stop_sequence)


async def _messages_helper(clients: Clients, question: Question) -> Answer:
    async with clients.anthropic.messages.stream(**messages(question)) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        answer = read_message(await stream.get_final_message())
    assert answer.text == text
    return answer


_NO_STOP = frozenset({"stop"})
WAYS = (
    Way("chat", "whole", _chat_whole),
    Way("chat", "stream", _chat_stream),
    Way("chat", "helper", _chat_helper),
    Way("responses", "whole", _responses_whole, _NO_STOP),
    Way("responses", "stream", _responses_stream, _NO_STOP),
    Way("responses", "helper", _responses_helper, _NO_STOP),
    Way("messages", "whole", _messages_whole),
    Way("messages", "stream", _messages_stream),
    Way("messages", "helper", _messages_helper),
)
STREAMS = tuple(way for way in WAYS if way.form != "whole")


def of(api: str, form: str = "whole") -> Way:
    """The way of that name."""
    return next(way for way in WAYS if (way.api, way.form) == (api, form))


Parameters = Mapping[str, Any]
