"""Anthropic's Messages API as a provider of models: the requests to it. Its answers are `anthropic_provider_answer`.

The way round of `anthropic_messages`. Pure.
"""

from __future__ import annotations

import re
from typing import Any

from mcp_proxy.bridge.chat import (
    Audio,
    Block,
    ChatRequest,
    Image,
    Text,
    Tool,
    ToolChoice,
    ToolMode,
    ToolResult,
    ToolUse,
)
from mcp_proxy.bridge.errors import UNSUPPORTED, ChatError
from mcp_proxy.bridge.output import instructed
from mcp_proxy.bridge.wire.anthropic_provider_answer import Reader, read_result

__all__ = ["PATH", "VERSION", "Reader", "headers", "read_result", "write"]

PATH = "/v1/messages"
"""Behind a base URL such as ``https://api.anthropic.com``."""
VERSION = "2023-06-01"
"""The version of the API that all of its servers know."""

MODEST = 8192
"""Tokens that every current model may answer with."""

_ID = re.compile(r"[A-Za-z0-9_-]+")


def headers(key: str) -> dict[str, str]:
    """What a request carries beside its body."""
    return {"x-api-key": key, "anthropic-version": VERSION}


def write(ask: ChatRequest, model: str, *, max_tokens: int | None) -> dict[str, Any]:
    """The body of a request; the API wants a number of tokens, so that None is `MODEST`. Raises `ChatError`: UNSUPPORTED for audio, BAD_REQUEST for an output that cannot be said."""
    output = ask.output
    if output is not None and output.schema is None:  # any JSON object: the API knows schemas only
        ask, output = instructed(ask), None
    body: dict[str, Any] = {"model": model, "max_tokens": max_tokens or MODEST, "messages": _messages(ask)}
    if ask.system:
        body["system"] = ask.system
    if ask.temperature is not None:
        body["temperature"] = min(1.0, ask.temperature)
    if ask.stop:
        body["stop_sequences"] = list(ask.stop)
    if ask.tools:
        body["tools"] = [_tool(tool) for tool in ask.tools]
        body |= _tool_choice(ask.tool_choice)
    if output is not None:
        body["output_config"] = {"format": {"type": "json_schema", "schema": output.schema}}
    return body


def _messages(ask: ChatRequest) -> list[dict[str, Any]]:
    """Consecutive messages of one side as one: results of tools begin it then, as the API wants."""
    messages: list[dict[str, Any]] = []
    for message in ask.messages:
        blocks = [_block(block) for block in message.content]
        if messages and messages[-1]["role"] == message.role:
            messages[-1]["content"] += blocks
        else:
            messages.append({"role": str(message.role), "content": blocks})
    return messages


def _block(block: Block) -> dict[str, Any]:
    match block:
        case Text():
            return {"type": "text", "text": block.text}
        case Image():
            source = {"type": "base64", "media_type": block.media_type, "data": block.data}
            return {"type": "image", "source": source}
        case Audio():
            raise ChatError(UNSUPPORTED, "this model's provider takes no audio", param="messages")
        case ToolUse():
            return {"type": "tool_use", "id": _id(block.id), "name": block.name, "input": block.arguments}
        case ToolResult():
            content = [_block(part) for part in block.content]
            failed = {"is_error": True} if block.is_error else {}
            return {"type": "tool_result", "tool_use_id": _id(block.tool_use_id), "content": content, **failed}


def _id(id: str) -> str:
    """An id as the API allows it; those of others may hold more. The same stays the same, and two stay two."""
    return id if _ID.fullmatch(id) else f"hex_{id.encode(errors='replace').hex()}"


def _tool(tool: Tool) -> dict[str, Any]:
    described = {"description": tool.description} if tool.description is not None else {}
    return {"name": tool.name, **described, "input_schema": tool.input_schema}


def _tool_choice(choice: ToolChoice) -> dict[str, Any]:
    alone = {} if choice.parallel else {"disable_parallel_tool_use": True}
    match choice.mode:
        case ToolMode.NONE:
            return {"tool_choice": {"type": "none"}}
        case ToolMode.REQUIRED if choice.name is not None:
            return {"tool_choice": {"type": "tool", "name": choice.name, **alone}}
        case ToolMode.REQUIRED:
            return {"tool_choice": {"type": "any", **alone}}
        case ToolMode.AUTO:
            return {"tool_choice": {"type": "auto", **alone}} if alone else {}
