"""OpenAI's chat completions as a provider of models: the requests to it. Its answers are `openai_provider_answer`.

The way round of `openai_chat`. Many servers speak this beside OpenAI's own; what all of them read is preferred: words
alone go as a string, the operator's as ``system``. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from mcp_proxy.bridge.chat import (
    Audio,
    Block,
    ChatRequest,
    Image,
    Message,
    OutputFormat,
    Role,
    Text,
    Tool,
    ToolChoice,
    ToolMode,
    ToolResult,
    ToolUse,
)
from mcp_proxy.bridge.errors import UNSUPPORTED, ChatError
from mcp_proxy.bridge.wire.openai_chat_frames import tool_call
from mcp_proxy.bridge.wire.openai_provider_answer import Reader, read_result

__all__ = ["PATH", "Reader", "headers", "read_result", "write"]

PATH = "/chat/completions"
"""Behind a base URL such as ``https://api.openai.com/v1``."""

_MOST_STOPS = 4
_AUDIO = {"audio/wav": "wav", "audio/x-wav": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3"}
_NOT_A_NAME = re.compile(r"[^A-Za-z0-9_-]")


def headers(key: str) -> dict[str, str]:
    """What a request carries beside its body."""
    return {"Authorization": f"Bearer {key}"}


def write(ask: ChatRequest, model: str, *, max_tokens: int | None) -> dict[str, Any]:
    """The body of a request, for a stream that says its tokens. Raises `ChatError` (UNSUPPORTED) for some audio.

    Of more than four stop texts the first four are sent, which is what the API takes: all are seen to here anyway.
    """
    body: dict[str, Any] = {
        "model": model,
        "messages": list(_messages(ask)),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if max_tokens is not None:
        body["max_completion_tokens"] = max_tokens
    if ask.temperature is not None:
        body["temperature"] = ask.temperature
    if ask.stop:
        body["stop"] = list(ask.stop[:_MOST_STOPS])
    if ask.tools:
        body["tools"] = [_tool(tool) for tool in ask.tools]
        body |= _tool_choice(ask.tool_choice)
    if ask.output is not None:
        body["response_format"] = _format(ask.output)
    return body


def _messages(ask: ChatRequest) -> Iterator[dict[str, Any]]:
    if ask.system:
        yield {"role": "system", "content": ask.system}
    for message in ask.messages:
        if message.role is Role.ASSISTANT:
            yield _assistant(message)
        else:
            yield from _user(message)


def _assistant(message: Message) -> dict[str, Any]:
    """Words and tool calls stand apart here, whatever their order was."""
    words = "".join(block.text for block in message.content if isinstance(block, Text))
    calls = [tool_call(block) for block in message.content if isinstance(block, ToolUse)]
    return {"role": "assistant", "content": words or None, **({"tool_calls": calls} if calls else {})}


def _user(message: Message) -> Iterator[dict[str, Any]]:
    results = [block for block in message.content if isinstance(block, ToolResult)]
    for result in results:
        words = "\n".join(part.text for part in result.content if isinstance(part, Text))
        yield {"role": "tool", "tool_call_id": result.tool_use_id, "content": words}
    rest: list[Block] = [block for block in message.content if not isinstance(block, ToolResult)]
    for result in results:
        rest += _shown_by_tool(result)
    if rest:
        yield {"role": "user", "content": _content(rest)}


def _shown_by_tool(result: ToolResult) -> list[Block]:
    """The pictures of a tool's result: tools can only say words here, so that the user shows them."""
    images = [part for part in result.content if isinstance(part, Image)]
    return [Text(f"Images that the tool call {result.tool_use_id} returned:"), *images] if images else []


def _content(blocks: Iterable[Block]) -> str | list[dict[str, Any]]:
    parts = [_part(block) for block in blocks]
    return str(parts[0]["text"]) if len(parts) == 1 and parts[0]["type"] == "text" else parts


def _part(block: Block) -> dict[str, Any]:
    match block:
        case Text():
            return {"type": "text", "text": block.text}
        case Image():
            return {"type": "image_url", "image_url": {"url": f"data:{block.media_type};base64,{block.data}"}}
        case Audio() if block.media_type in _AUDIO:
            return {"type": "input_audio", "input_audio": {"data": block.data, "format": _AUDIO[block.media_type]}}
        case _:
            raise ChatError(UNSUPPORTED, "this model's provider does not take this content", param="messages")


def _tool(tool: Tool) -> dict[str, Any]:
    described = {"description": tool.description} if tool.description is not None else {}
    return {"type": "function", "function": {"name": tool.name, **described, "parameters": tool.input_schema}}


def _tool_choice(choice: ToolChoice) -> dict[str, Any]:
    alone = {} if choice.parallel else {"parallel_tool_calls": False}
    if choice.name is not None:
        return {"tool_choice": {"type": "function", "function": {"name": choice.name}}, **alone}
    return {"tool_choice": str(choice.mode), **alone} if choice.mode is not ToolMode.AUTO else alone


def _format(output: OutputFormat) -> dict[str, Any]:
    if output.schema is None:
        return {"type": "json_object"}
    named = {"name": _NOT_A_NAME.sub("_", output.name or "answer")[:64], "schema": output.schema}
    return {"type": "json_schema", "json_schema": {**named, **({"strict": True} if output.strict else {})}}
