"""OpenAI's responses as their clients speak them: ``POST /v1/responses``, for clients that keep their conversation.

Sources: platform.openai.com/docs (Responses) and what the official library (3.52) and Codex send and accept. Nothing is
stored: what would need a memory is refused. The input is `openai_responses_input`, the answer's shape
`openai_responses_object`, the stream `openai_responses_frames`, the tools `openai_chat_tools`. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mcp_proxy.bridge.chat import ChatRequest, ChatResult, HouseCall, OutputFormat, Text, ToolUse
from mcp_proxy.bridge.wire import reading
from mcp_proxy.bridge.wire.openai_chat_content import Conversation, output_format
from mcp_proxy.bridge.wire.openai_chat_frames import arguments_text, error_body
from mcp_proxy.bridge.wire.openai_chat_tools import read_tool_choice, read_tools
from mcp_proxy.bridge.wire.openai_responses_frames import Frames
from mcp_proxy.bridge.wire.openai_responses_input import read_input
from mcp_proxy.bridge.wire.openai_responses_object import Head, call, mcp_call, message, outcome
from mcp_proxy.bridge.wire.reading import unsupported

__all__ = ["Frames", "error_body", "read", "whole"]

_READ = frozenset(
    [
        "model",
        "input",
        "instructions",
        "max_output_tokens",
        "temperature",
        "stream",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "text",
        "mcp_tools",
        "background",
        "top_logprobs",
    ]
)
# Nobody need be told: they say what may be remembered between requests or how a stream is padded, and nothing about the
# answer.
_SILENT = frozenset(
    [
        "prompt_cache_key",
        "prompt_cache_retention",
        "prompt_cache_options",
        "safety_identifier",
        "stream_options",
        "client_metadata",
    ]
)
_REFUSED = {
    "previous_response_id": "no answers are kept here; send the whole conversation as input",
    "conversation": "no conversations are kept here; send the whole conversation as input",
    "prompt": "no prompts are kept here; send instructions and input",
}
# What is to be as it is here anyway.
_AS_IT_IS = (("store", False), ("truncation", "disabled"))


def read(body: Any) -> ChatRequest:
    """The request. Raises `ChatError` with the path of what is wrong, whatever JSON ``body`` is.

    ``model`` may be missing, as for the model of connected clients.
    """
    body = reading.obj(body, "")
    _check_answerable(body)
    turns = Conversation()
    instructions = body.get("instructions")
    turns.system([] if instructions is None else [reading.text(instructions, "instructions")])
    known = read_tools(body, nested=False)
    read_input(body.get("input"), turns, house=bool(known.house))
    system, messages = turns.whole("input")
    output, manner = _text(body.get("text"))
    model, limit, temperature = body.get("model"), body.get("max_output_tokens"), body.get("temperature")
    return ChatRequest(
        model="" if model is None else reading.text(model, "model"),
        messages=messages,
        system=system,
        tools=known.tools,
        tool_choice=read_tool_choice(body, known, nested=False),
        max_tokens=None if limit is None else reading.count(limit, "max_output_tokens"),
        temperature=None if temperature is None else reading.number(temperature, "temperature", most=2),
        output=output,
        stream=reading.flag(body.get("stream"), "stream"),
        house_tools=known.house,
        ignored=reading.ignored([*_passed_over(body), *manner, *known.passed_over, *turns.passed_over]),
    )


def whole(result: ChatResult, ask: ChatRequest, *, id: str, created: int) -> dict[str, Any]:
    """The answer to a request that wants no stream, with ``request_id`` as an extra field."""
    head = Head(ask, id, created)
    status, _ = outcome(result.stop)
    output: list[dict[str, Any]] = []
    for index, block in enumerate(result.content):
        # What was cut short is what came last.
        ended = status if index == len(result.content) - 1 else "completed"
        match block:
            case Text():
                output.append(message(head.item("msg", index), block.text, ended))
            case ToolUse():
                output.append(call(head.item("fc", index), block.id, block.name, arguments_text(block), ended))
            case HouseCall():
                output.append(mcp_call(head.item("mcp", index), block))
    return {**head.ended(result.model, output, result.stop, result.usage), "request_id": id}


def _check_answerable(body: Mapping[str, Any]) -> None:
    """Raises `ChatError` for what would make it another answer."""
    for key, reason in _REFUSED.items():
        if body.get(key) is not None:
            raise unsupported(key, reason)
    if reading.flag(body.get("background"), "background"):
        raise unsupported("background", "no answers are kept here, so that none can be fetched later")
    if body.get("top_logprobs") not in (None, 0):
        raise unsupported("top_logprobs", "probabilities are not known here")


def _passed_over(body: Mapping[str, Any]) -> Iterator[str]:
    for key, value in body.items():
        if key not in _READ | _SILENT | _REFUSED.keys() and value is not None and (key, value) not in _AS_IT_IS:
            yield key


def _text(value: Any) -> tuple[OutputFormat | None, list[str]]:
    """The format of the words, and what else is said of them."""
    if value is None:
        return None, []
    given = reading.obj(value, "text")
    manner = [f"text.{key}" for key, other in given.items() if key != "format" and other is not None]
    if (form := given.get("format")) is None:
        return None, manner
    form = reading.obj(form, "text.format")
    return output_format(reading.kind(form, "text.format"), form, "text.format"), manner
