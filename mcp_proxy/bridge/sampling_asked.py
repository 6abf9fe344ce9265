"""A completion that somebody asks of us in MCP's words: ``sampling/createMessage`` read, and its result written.

The way round of `sampling`, which asks others. Source: client/sampling of MCP 2025-11-25; messages of older revisions,
one block each, are read as well. Pure; who answers is `companion`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mcp_proxy.bridge.chat import (
    Audio,
    Block,
    ChatRequest,
    ChatResult,
    HouseCall,
    Image,
    Message,
    Role,
    StopReason,
    Text,
    Tool,
    ToolChoice,
    ToolMode,
    ToolResult,
    ToolUse,
)
from mcp_proxy.bridge.errors import SOURCE_ERROR, ChatError
from mcp_proxy.bridge.wire.reading import (
    array,
    base64,
    count,
    flag,
    kind,
    known_as,
    name,
    number,
    obj,
    text,
    unsupported,
    wrong,
)

_WARMEST = 2
_STOPS = {
    StopReason.END: "endTurn",
    StopReason.MAX_TOKENS: "maxTokens",
    StopReason.STOP_SEQUENCE: "stopSequence",
    StopReason.TOOL_USE: "toolUse",
    StopReason.REFUSAL: "refusal",
}


def read(params: Mapping[str, Any]) -> ChatRequest:
    """What is asked for. ``model`` is the first hint, "" where there is none; ``max_tokens`` is always set.

    Raises `ChatError`, ``param`` being the path of what is to blame: UNSUPPORTED for content that no model is given
    (resources, and types that are not known), BAD_REQUEST for what is not of the protocol.
    """
    messages = tuple(
        _message(obj(message, at), at)
        for index, message in enumerate(array(params.get("messages"), "messages"))
        for at in [f"messages[{index}]"]
    )
    if not messages:
        raise wrong("messages", "must not be empty")
    _check_results(messages)
    tools = _tools(params.get("tools"))
    system = params.get("systemPrompt")
    temperature = params.get("temperature")
    return ChatRequest(
        model=_hint(params.get("modelPreferences")),
        messages=messages,
        system=None if system is None else text(system, "systemPrompt") or None,
        tools=tools,
        tool_choice=_tool_choice(params.get("toolChoice"), tools),
        max_tokens=count(params.get("maxTokens"), "maxTokens"),
        temperature=None if temperature is None else number(temperature, "temperature", most=_WARMEST),
        stop=_stop(params.get("stopSequences")),
        ignored=_ignored(params),
    )


def write(result: ChatResult, *, tools: bool) -> dict[str, Any]:
    """The result of the request: an array of content where tools were given, else one block of words.

    Tokens that were counted go along in ``_meta.usage``, which has no place of its own. Raises `ChatError`
    (SOURCE_ERROR) for the use of a tool where none was given.
    """
    if not tools and any(isinstance(block, ToolUse) for block in result.content):
        raise ChatError(SOURCE_ERROR, "the model wants to use a tool, though it was given none")
    words = {"type": "text", "text": result.text}
    content: Any = (
        ([_written(block) for block in result.content if not isinstance(block, HouseCall)] or [words])
        if tools
        else words
    )
    written = {"role": "assistant", "content": content, "model": result.model, "stopReason": _STOPS[result.stop]}
    if result.usage.estimated:
        return written
    usage = {"inputTokens": result.usage.input_tokens, "outputTokens": result.usage.output_tokens}
    return {**written, "_meta": {"usage": usage}}


def _written(block: Text | ToolUse) -> dict[str, Any]:
    if isinstance(block, Text):
        return {"type": "text", "text": block.text}
    return {"type": "tool_use", "id": block.id, "name": block.name, "input": block.arguments}


# How it is to be answered


def _hint(preferences: Any) -> str:
    """The model that is preferred to all others."""
    if preferences is None:
        return ""
    hints = obj(preferences, "modelPreferences").get("hints")
    if hints is None or not array(hints, "modelPreferences.hints"):
        return ""
    first = obj(hints[0], "modelPreferences.hints[0]").get("name")
    return "" if first is None else text(first, "modelPreferences.hints[0].name")


def _stop(given: Any) -> tuple[str, ...]:
    if given is None:
        return ()
    return tuple(name(one, f"stopSequences[{index}]") for index, one in enumerate(array(given, "stopSequences")))


def _tools(given: Any) -> tuple[Tool, ...]:
    tools: dict[str, Tool] = {}
    for index, one in enumerate([] if given is None else array(given, "tools")):
        at = f"tools[{index}]"
        tool = _tool(obj(one, at), at)
        if tool.name in tools:
            raise wrong(f"{at}.name", "stands twice among the tools")
        tools[tool.name] = tool
    return tuple(tools.values())


def _tool(given: Mapping[str, Any], at: str) -> Tool:
    description = given.get("description")
    return Tool(
        name(given.get("name"), f"{at}.name"),
        obj(given.get("inputSchema"), f"{at}.inputSchema"),
        None if description is None else text(description, f"{at}.description"),
    )


def _tool_choice(given: Any, tools: tuple[Tool, ...]) -> ToolChoice:
    if given is None:
        return ToolChoice()
    mode = obj(given, "toolChoice").get("mode")
    if mode is None:
        return ToolChoice()
    try:
        choice = ToolChoice(ToolMode(text(mode, "toolChoice.mode")))
    except ValueError:
        raise wrong("toolChoice.mode", f"must be one of {', '.join(ToolMode)}") from None
    if choice.mode is ToolMode.REQUIRED and not tools:
        raise wrong("toolChoice", "a tool is required, but none is given")
    return choice


def _ignored(params: Mapping[str, Any]) -> tuple[str, ...]:
    """What cannot be passed on: a provider knows nothing of the asker's servers, nor of words for another one."""
    context = params.get("includeContext")
    ignored = ["includeContext"] if context not in (None, "none") else []
    return (*ignored, *(["metadata"] if params.get("metadata") else []))


# What was said


def _message(given: Mapping[str, Any], at: str) -> Message:
    try:
        role = Role(text(given.get("role"), f"{at}.role"))
    except ValueError:
        raise wrong(f"{at}.role", f"must be {Role.USER} or {Role.ASSISTANT}") from None
    content = given.get("content")
    if not isinstance(content, list):
        return Message(role, (_block(obj(content, f"{at}.content"), role, f"{at}.content"),))
    if not content:
        raise wrong(f"{at}.content", "must not be empty")
    blocks = (
        _block(obj(block, where), role, where)
        for index, block in enumerate(content)
        for where in [f"{at}.content[{index}]"]
    )
    return Message(role, tuple(blocks))


def _block(given: Mapping[str, Any], role: Role, at: str) -> Block:
    match kind(given, at):
        case "tool_use" if role is Role.ASSISTANT:
            id = name(given.get("id"), f"{at}.id")
            return ToolUse(id, name(given.get("name"), f"{at}.name"), obj(given.get("input"), f"{at}.input"))
        case "tool_result" if role is Role.USER:
            return _result(given, at)
        case "tool_use" | "tool_result" as found:
            raise wrong(f"{at}.type", f"a {found} is not said by the {role}")
        case "audio":
            return Audio(name(given.get("mimeType"), f"{at}.mimeType"), base64(given.get("data"), f"{at}.data"))
        case _:
            return _shown(given, at)


def _shown(given: Mapping[str, Any], at: str) -> Text | Image:
    """What a result of a tool may hold, too."""
    match kind(given, at):
        case "text":
            return Text(text(given.get("text"), f"{at}.text"))
        case "image":
            return Image(name(given.get("mimeType"), f"{at}.mimeType"), base64(given.get("data"), f"{at}.data"))
        case found:
            raise unsupported(at, f"content of type {known_as(found)} cannot be given to the model")


def _result(given: Mapping[str, Any], at: str) -> ToolResult:
    """A tool's result; one that is structured only is told as JSON."""
    parts = given.get("content")
    content: list[Text | Image] = [
        _shown(obj(part, where), where)
        for index, part in enumerate([] if parts is None else array(parts, f"{at}.content"))
        for where in [f"{at}.content[{index}]"]
    ]
    structured = given.get("structuredContent")
    if structured is not None and not content:
        content.append(_json(obj(structured, f"{at}.structuredContent"), f"{at}.structuredContent"))
    id = name(given.get("toolUseId"), f"{at}.toolUseId")
    return ToolResult(id, tuple(content), flag(given.get("isError"), f"{at}.isError"))


def _json(value: Mapping[str, Any], at: str) -> Text:
    try:
        return Text(json.dumps(value, ensure_ascii=False))
    except (ValueError, RecursionError):
        raise wrong(at, "is nested too deep, or holds a number that is too long") from None


def _check_results(messages: tuple[Message, ...]) -> None:
    """Results stand alone, and answer exactly what the message before them wanted (client/sampling, Tool Result Messages)."""
    wanted: set[str] = set()
    for index, message in enumerate(messages):
        at = f"messages[{index}].content"
        results = [block.tool_use_id for block in message.content if isinstance(block, ToolResult)]
        if results and len(results) < len(message.content):
            raise wrong(at, "a message with a tool_result holds nothing else")
        if set(results) != wanted or len(results) != len(wanted):
            raise wrong(at, "must have a tool_result for each tool_use of the message before, and no other")
        uses = [block.id for block in message.content if isinstance(block, ToolUse)]
        wanted = set(uses)
        if len(wanted) != len(uses):
            raise wrong(at, "two tool_use have the same id")
    if wanted:
        raise wrong(f"messages[{len(messages) - 1}].content", "a tool_use has no tool_result after it")
