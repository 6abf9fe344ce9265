"""OpenAI's chat completions as their clients speak them: ``POST /v1/chat/completions``.

Sources: platform.openai.com/docs (Chat Completions) and what the official library (3.52) sends and accepts. The stream
is `openai_chat_frames`, the messages are `openai_chat_messages`, the tools `openai_chat_tools`. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mcp_proxy.bridge.chat import ChatRequest, ChatResult, HouseCall, OutputFormat, ToolUse
from mcp_proxy.bridge.wire import reading
from mcp_proxy.bridge.wire.openai_chat_content import output_format
from mcp_proxy.bridge.wire.openai_chat_frames import (
    Frames,
    error_body,
    finish_reason,
    mcp_call,
    tool_call,
    usage_of,
)
from mcp_proxy.bridge.wire.openai_chat_messages import read_messages
from mcp_proxy.bridge.wire.openai_chat_tools import read_tool_choice, read_tools
from mcp_proxy.bridge.wire.reading import unsupported

__all__ = ["Frames", "error_body", "read", "whole"]

_READ = frozenset(
    [
        "model",
        "messages",
        "max_completion_tokens",
        "max_tokens",
        "temperature",
        "stop",
        "stream",
        "stream_options",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "response_format",
        "mcp_tools",
        "n",
        "logprobs",
        "top_logprobs",
        "modalities",
    ]
)
# Nobody need be told: they say what may be remembered between requests, and nothing about the answer.
_SILENT = frozenset({"prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "safety_identifier"})
_REFUSED = {
    "audio": "answers are words",
    "functions": "functions have been replaced by tools",
    "function_call": "function_call has been replaced by tool_choice",
    "web_search_options": "this runs at the provider, and is not available here",
}


def read(body: Any) -> ChatRequest:
    """The request. Raises `ChatError` with the path of what is wrong, whatever JSON ``body`` is.

    ``model`` may be missing, as for the model of connected clients.
    """
    body = reading.obj(body, "")
    _check_answerable(body)
    known = read_tools(body, nested=True)
    turns = read_messages(body.get("messages"), house=bool(known.house))
    system, messages = turns.whole("messages")
    model, temperature = body.get("model"), body.get("temperature")
    return ChatRequest(
        model="" if model is None else reading.text(model, "model"),
        messages=messages,
        system=system,
        tools=known.tools,
        tool_choice=read_tool_choice(body, known, nested=True),
        max_tokens=_max_tokens(body),
        temperature=None if temperature is None else reading.number(temperature, "temperature", most=2),
        stop=_stop(body.get("stop")),
        output=_output(body.get("response_format")),
        stream=reading.flag(body.get("stream"), "stream"),
        stream_usage=_stream_usage(body.get("stream_options")),
        house_tools=known.house,
        ignored=reading.ignored([*_passed_over(body), *known.passed_over, *turns.passed_over]),
    )


def whole(result: ChatResult, ask: ChatRequest, *, id: str, created: int) -> dict[str, Any]:
    """The answer to a request that wants no stream, with ``text`` and ``request_id`` as extra fields, and ``mcp_calls`` in
    the message where tools of this service were used: the API has no words for them.
    """
    uses = [block for block in result.content if isinstance(block, ToolUse)]
    message: dict[str, Any] = {
        "role": "assistant",
        "content": result.text or (None if uses else ""),
        "refusal": None,
        "annotations": [],
    }
    if uses:
        message["tool_calls"] = [tool_call(use) for use in uses]
    if calls := [mcp_call(block) for block in result.content if isinstance(block, HouseCall)]:
        message["mcp_calls"] = calls
    finish = finish_reason(result.stop, used=bool(uses))
    return {
        "id": id,
        "object": "chat.completion",
        "created": created,
        "model": result.model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
        "usage": usage_of(result.usage),
        "text": result.text,
        "request_id": id,
    }


def _check_answerable(body: Mapping[str, Any]) -> None:
    """Raises `ChatError` for what would make it another answer."""
    for key, message in _REFUSED.items():
        if body.get(key) is not None:
            raise unsupported(key, message)
    n, top = body.get("n"), body.get("top_logprobs")
    if n is not None and reading.count(n, "n") > 1:
        raise unsupported("n", "there is one answer to a request")
    if reading.flag(body.get("logprobs"), "logprobs"):
        raise unsupported("logprobs", "probabilities are not known here")
    if top is not None and top != 0:
        raise unsupported("top_logprobs", "probabilities are not known here")
    modalities = body.get("modalities")
    for index, kind in enumerate([] if modalities is None else reading.array(modalities, "modalities")):
        if reading.text(kind, f"modalities[{index}]") != "text":
            raise unsupported(f"modalities[{index}]", "answers are words")


def _passed_over(body: Mapping[str, Any]) -> Iterator[str]:
    for key, value in body.items():
        # What is not to be stored is not.
        if key not in _READ | _SILENT | _REFUSED.keys() and value is not None and (key, value) != ("store", False):
            yield key


def _max_tokens(body: Mapping[str, Any]) -> int | None:
    """The newer name counts before the older."""
    named = (key for key in ("max_completion_tokens", "max_tokens") if body.get(key) is not None)
    return next((reading.count(body[key], key) for key in named), None)


def _stop(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        return (reading.name(value, "stop"),)
    return tuple(reading.name(entry, f"stop[{index}]") for index, entry in enumerate(reading.array(value, "stop")))


def _stream_usage(value: Any) -> bool:
    options = {} if value is None else reading.obj(value, "stream_options")
    return reading.flag(options.get("include_usage"), "stream_options.include_usage")


def _output(value: Any) -> OutputFormat | None:
    if value is None:
        return None
    given, at = reading.obj(value, "response_format"), "response_format"
    kind = reading.kind(given, at)
    if kind == "json_schema":
        given, at = reading.obj(given.get("json_schema"), f"{at}.json_schema"), f"{at}.json_schema"
    return output_format(kind, given, at)
