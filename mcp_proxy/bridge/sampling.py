"""A completion in MCP's words: the parameters of ``sampling/createMessage``, and what its result says.

Source: client/sampling of MCP 2025-11-25. The form is one that clients of every revision read, those too that take only
the simplest messages: one block a message, as an object, where the client has not declared ``sampling.tools``. What
clients may not heed (stop texts, one tool at a time) is enforced on the result. Pure; who is asked is `broker`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mcp_proxy.bridge.chat import (
    Audio,
    Block,
    ChatRequest,
    ChatResult,
    Delta,
    Image,
    Message,
    StopReason,
    Text,
    Tool,
    ToolMode,
    ToolResult,
    ToolUse,
    Usage,
    answer_tokens,
    deltas_of,
    gathered,
    question_tokens,
)
from mcp_proxy.bridge.errors import SOURCE_ERROR, TOOLS_NOT_SUPPORTED, ChatError
from mcp_proxy.bridge.output import instructed
from mcp_proxy.bridge.routes import EXTERNAL
from mcp_proxy.bridge.stops import StopTexts

_NO_HINT = frozenset({"", "auto", EXTERNAL})
_MESSAGE = 500
_STOPS = {
    "endTurn": StopReason.END,
    "maxTokens": StopReason.MAX_TOKENS,
    "stopSequence": StopReason.STOP_SEQUENCE,
    "refusal": StopReason.REFUSAL,
}
# What clients call the counts that they pass on: their own words, or those of the provider behind them.
_COUNTS = (
    ("inputTokens", "outputTokens"),
    ("input_tokens", "output_tokens"),
    ("promptTokens", "completionTokens"),
    ("prompt_tokens", "completion_tokens"),
)


@dataclass(frozen=True, slots=True)
class Priorities:
    """What a client is to prefer when it chooses a model, each from 0 to 1."""

    intelligence: float = 0.5
    speed: float = 0.5
    cost: float = 0.5


def needs_tools(ask: ChatRequest) -> bool:
    """Whether only clients that declare ``sampling.tools`` can be asked: there are tools, or there were."""
    blocks = (block for message in ask.messages for block in message.content)
    return bool(ask.tools) or any(isinstance(block, (ToolUse, ToolResult)) for block in blocks)


def write(
    ask: ChatRequest, model: str, *, max_tokens: int, priorities: Priorities, tools: bool = False
) -> dict[str, Any]:
    """The parameters of ``sampling/createMessage``. ``tools``: the client declares ``sampling.tools``.

    Raises `ChatError`: TOOLS_NOT_SUPPORTED for a client that does not and has to, BAD_REQUEST for an output format that
    cannot be said.
    """
    if needs_tools(ask) and not tools:
        raise ChatError(TOOLS_NOT_SUPPORTED, "the connected client's model cannot be given tools", param="tools")
    ask = instructed(ask)
    params: dict[str, Any] = {
        "messages": [one for message in ask.messages for one in _messages(message, arrays=tools)],
        "modelPreferences": _preferences(model, priorities),
        "maxTokens": max_tokens,
    }
    if ask.system:
        params["systemPrompt"] = ask.system
    if ask.temperature is not None:
        params["temperature"] = ask.temperature
    if ask.stop:
        params["stopSequences"] = list(ask.stop)
    return params | _tools(ask)


def read_result(result: Any, ask: ChatRequest) -> ChatResult:
    """What the client answered, within what was asked for: up to the first stop text, and one tool use where one is wanted.

    Raises `ChatError` (SOURCE_ERROR) for what is no answer, or none that can be passed on.
    """
    if not isinstance(result, dict):
        raise _bad("the client's answer is no object")
    content = result.get("content")
    blocks = list(_blocks(content if isinstance(content, list) else [content]))
    reason = result.get("stopReason")
    if reason == "error":
        said = "".join(block.text for block in blocks if isinstance(block, Text))
        raise _bad(f"the client reports an error: {said[:_MESSAGE]}" if said else "the client reports an error")
    blocks = _allowed(blocks, ask)
    used = any(isinstance(block, ToolUse) for block in blocks)
    stop = StopReason.TOOL_USE if used else _STOPS.get(str(reason), StopReason.END)
    model = result.get("model")
    whole = ChatResult(
        content=tuple(blocks),
        stop=stop,
        model=model if isinstance(model, str) and model else EXTERNAL,
        usage=_usage(result.get("_meta"), ask, blocks),
        stop_sequence=ask.stop[0] if stop is StopReason.STOP_SEQUENCE and len(ask.stop) == 1 else None,
    )
    return gathered(_until_stop(whole, ask.stop)) if ask.stop else whole


# Writing


def _preferences(model: str, priorities: Priorities) -> dict[str, Any]:
    preferences: dict[str, Any] = {
        "intelligencePriority": priorities.intelligence,
        "speedPriority": priorities.speed,
        "costPriority": priorities.cost,
    }
    if model not in _NO_HINT:
        preferences["hints"] = [{"name": model}]
    return preferences


def _messages(message: Message, *, arrays: bool) -> Iterator[dict[str, Any]]:
    blocks = [_block(block) for block in message.content]
    if arrays and len(blocks) > 1:
        yield {"role": str(message.role), "content": blocks}
    else:
        yield from ({"role": str(message.role), "content": block} for block in blocks)


def _block(block: Block) -> dict[str, Any]:
    match block:
        case Text():
            return {"type": "text", "text": block.text}
        case Image():
            return {"type": "image", "data": block.data, "mimeType": block.media_type}
        case Audio():
            return {"type": "audio", "data": block.data, "mimeType": block.media_type}
        case ToolUse():
            return {"type": "tool_use", "id": block.id, "name": block.name, "input": block.arguments}
        case ToolResult():
            content = [_block(part) for part in block.content]
            failed = {"isError": True} if block.is_error else {}
            return {"type": "tool_result", "toolUseId": block.tool_use_id, "content": content, **failed}


def _tools(ask: ChatRequest) -> dict[str, Any]:
    """The tools, and how they are to be used; MCP has no word for one certain tool, so that it is the only one then."""
    named = ask.tool_choice.name
    tools = [_tool(tool) for tool in ask.tools if named is None or tool.name == named]
    if not tools:
        return {}
    if ask.tool_choice.mode is ToolMode.AUTO:
        return {"tools": tools}
    return {"tools": tools, "toolChoice": {"mode": str(ask.tool_choice.mode)}}


def _tool(tool: Tool) -> dict[str, Any]:
    described = {"description": tool.description} if tool.description is not None else {}
    return {"name": tool.name, **described, "inputSchema": tool.input_schema}


# Reading


def _bad(message: str) -> ChatError:
    return ChatError(SOURCE_ERROR, message)


def _blocks(content: Iterable[Any]) -> Iterator[Text | ToolUse]:
    seen: set[str] = set()
    for block in content:
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "text" and isinstance(block.get("text"), str):
            yield Text(block["text"])
        elif kind == "tool_use":
            yield _tool_use(block, seen)
        elif kind in ("image", "audio"):
            raise _bad(f"the client answered with content of type {kind}, which cannot be passed on")
        else:
            raise _bad("the client answered with content that is not of the protocol")


def _tool_use(block: Mapping[str, Any], seen: set[str]) -> ToolUse:
    name, arguments, id = block.get("name"), block.get("input", {}), block.get("id")
    if not isinstance(name, str) or not name or not isinstance(arguments, dict) or not isinstance(id, str) or not id:
        raise _bad("the client answered with a tool use that is not of the protocol")
    while id in seen:  # callers tell uses apart by it
        id += "_"
    seen.add(id)
    return ToolUse(id, name, arguments)


def _allowed(blocks: list[Text | ToolUse], ask: ChatRequest) -> list[Text | ToolUse]:
    """Without the uses of tools that were not wanted."""
    uses = [block for block in blocks if isinstance(block, ToolUse)]
    if not uses:
        return blocks
    if not ask.tools or ask.tool_choice.mode is ToolMode.NONE:
        raise _bad("the client's model wants to use a tool, though it was not to")
    if ask.tool_choice.parallel:
        return blocks
    return [block for block in blocks if not isinstance(block, ToolUse) or block is uses[0]]


def _until_stop(result: ChatResult, stops: tuple[str, ...]) -> Iterator[Delta]:
    watch = StopTexts(stops)
    for delta in deltas_of(result):
        yield from watch.feed(delta)


def _usage(meta: Any, ask: ChatRequest, blocks: Iterable[Text | ToolUse]) -> Usage:
    """What the client counted, where it says so in ``_meta.usage``; a guess otherwise."""
    counted = meta.get("usage") if isinstance(meta, dict) else None
    if isinstance(counted, dict):
        for sent, got in _COUNTS:
            if _is_count(counted.get(sent)) and _is_count(counted.get(got)):
                return Usage(counted[sent], counted[got], estimated=False)
    return Usage(question_tokens(ask), answer_tokens(blocks))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
