"""Anthropic's Messages API as its clients speak it: ``POST /v1/messages`` and ``/v1/messages/count_tokens``.

Sources: platform.claude.com/docs (Messages, Streaming, Errors) and what the official library (2.11) sends and accepts;
Claude Code sends more than that, and what only changes an answer's manner is passed over by name. The stream is
`anthropic_messages_frames`, the messages' content `anthropic_messages_content`. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mcp_proxy.bridge.chat import (
    ChatRequest,
    ChatResult,
    HouseCall,
    HouseResult,
    HouseUse,
    OutputFormat,
    Text,
    Tool,
    ToolChoice,
    ToolMode,
    ToolUse,
    question_tokens,
)
from mcp_proxy.bridge.wire import reading
from mcp_proxy.bridge.wire.anthropic_messages_content import read_messages, read_texts
from mcp_proxy.bridge.wire.anthropic_messages_frames import (
    STOP_REASONS,
    THREAD,
    Frames,
    error_body,
    mcp_tool_result,
    mcp_tool_use,
    usage_of,
)
from mcp_proxy.bridge.wire.house_calls import wanted
from mcp_proxy.bridge.wire.reading import unsupported, wrong

__all__ = ["Frames", "count_tokens", "error_body", "read", "whole"]

_READ = frozenset(
    [
        "model",
        "messages",
        "system",
        "max_tokens",
        "stop_sequences",
        "temperature",
        "stream",
        "tools",
        "tool_choice",
        "output_config",
        "output_format",
        "mcp_tools",
        "mcp_servers",
        "container",
    ]
)
# Nobody need be told: it says what may be remembered between requests, and nothing about the answer.
_SILENT = frozenset({"cache_control"})
_MODES = {"auto": ToolMode.AUTO, "none": ToolMode.NONE, "any": ToolMode.REQUIRED, "tool": ToolMode.REQUIRED}


def read(body: Any) -> ChatRequest:
    """The request. Raises `ChatError` with the path of what is wrong, whatever JSON ``body`` is.

    ``max_tokens`` and ``model`` may be missing, though Anthropic's API wants them.
    """
    body = reading.obj(body, "")
    for key in ("mcp_servers", "container"):
        if body.get(key):
            raise unsupported(key, "this runs at the provider, and is not available here")
    if body.get(THREAD) is not None:
        # Never passed over: the requests that follow hold only what is new, for a server that keeps the rest.
        raise unsupported(THREAD, "no conversations are kept here; send the whole of it each time")
    tools, listed = _tools(body.get("tools"))
    house = wanted(body.get("mcp_tools"), listed=listed)
    messages, asides = read_messages(body.get("messages"), house=bool(house))
    output, effort = _output(body)
    passed_over = (key for key, value in body.items() if key not in _READ | _SILENT and value is not None)
    limit, temperature, model = body.get("max_tokens"), body.get("temperature"), body.get("model")
    return ChatRequest(
        model="" if model is None else reading.text(model, "model"),
        messages=messages,
        system=_system(body.get("system"), asides),
        tools=tools,
        tool_choice=_tool_choice(body.get("tool_choice"), tools, bool(house)),
        max_tokens=None if limit is None else reading.count(limit, "max_tokens"),
        temperature=None if temperature is None else reading.number(temperature, "temperature", most=1),
        stop=_stop(body.get("stop_sequences")),
        output=output,
        stream=reading.flag(body.get("stream"), "stream"),
        house_tools=house,
        ignored=reading.ignored([*passed_over, *effort]),
    )


def count_tokens(body: Any) -> int:
    """What a request is guessed to hold in tokens; grows with it. Raises `ChatError` as `read` does."""
    return question_tokens(read(body))


def whole(result: ChatResult, ask: ChatRequest, *, id: str, created: int) -> dict[str, Any]:
    """The answer to a request that wants no stream, with ``request_id`` as an extra field."""
    return {
        "id": id,
        "type": "message",
        "role": "assistant",
        "model": result.model,
        "content": [one for block in result.content for one in _blocks(block)],
        "stop_reason": STOP_REASONS[result.stop],
        "stop_sequence": result.stop_sequence,
        "usage": usage_of(result.usage.input_tokens, result.usage.output_tokens),
        "request_id": id,
    }


def _blocks(block: Text | ToolUse | HouseCall) -> list[dict[str, Any]]:
    match block:
        case Text():
            return [{"type": "text", "text": block.text}]
        case ToolUse():
            return [{"type": "tool_use", "id": block.id, "name": block.name, "input": block.arguments}]
        case HouseCall():
            use = HouseUse(block.id, block.server, block.tool, block.arguments)
            return [mcp_tool_use(use), mcp_tool_result(HouseResult(block.id, block.text, block.is_error))]


def _system(value: Any, asides: list[str]) -> str | None:
    texts = [*([] if value is None else read_texts(value, "system")), *asides]
    return "\n\n".join(texts) or None


def _stop(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    return tuple(
        reading.name(entry, f"stop_sequences[{index}]")
        for index, entry in enumerate(reading.array(value, "stop_sequences"))
    )


def _tools(value: Any) -> tuple[tuple[Tool, ...], bool]:
    """The caller's tools, and whether this service's are wanted too."""
    tools: dict[str, Tool] = {}
    house = False
    for index, entry in enumerate([] if value is None else reading.array(value, "tools")):
        at = f"tools[{index}]"
        given = reading.obj(entry, at)
        match given.get("type"):
            case None | "custom":
                tool = _tool(given, at)
                if tool.name in tools:
                    raise wrong(f"{at}.name", "two tools have the same name")
                tools[tool.name] = tool
            case "mcp" if given.get("server_url") is None:
                house = True
            case kind:
                word = reading.known_as(reading.text(kind, f"{at}.type"))
                raise unsupported(at, f"a tool of type {word} runs at the provider, and is not available here")
    return tuple(tools.values()), house


def _tool(given: Mapping[str, Any], at: str) -> Tool:
    schema = reading.obj(given.get("input_schema"), f"{at}.input_schema")
    if schema.get("type", "object") != "object":
        raise wrong(f"{at}.input_schema.type", "must be object")
    description = given.get("description")
    return Tool(
        reading.name(given.get("name"), f"{at}.name"),
        {"type": "object", **schema},
        None if description is None else reading.text(description, f"{at}.description"),
    )


def _tool_choice(value: Any, tools: tuple[Tool, ...], house: bool) -> ToolChoice:
    if value is None:
        return ToolChoice()
    choice = reading.obj(value, "tool_choice")
    kind = reading.kind(choice, "tool_choice")
    if kind not in _MODES:
        raise wrong("tool_choice.type", "must be auto, any, tool or none")
    if _MODES[kind] is ToolMode.REQUIRED and not tools and not house:
        raise wrong("tool_choice", "there are no tools to choose from")
    chosen = reading.name(choice.get("name"), "tool_choice.name") if kind == "tool" else None
    if chosen is not None and not house and all(tool.name != chosen for tool in tools):
        raise wrong("tool_choice.name", "is none of the tools")
    alone = reading.flag(choice.get("disable_parallel_tool_use"), "tool_choice.disable_parallel_tool_use")
    return ToolChoice(_MODES[kind], chosen, parallel=not alone)


def _output(body: Mapping[str, Any]) -> tuple[OutputFormat | None, list[str]]:
    """The format of the answer, from where it stands now or stood in betas; and what beside it is passed over."""
    config = body.get("output_config")
    config = {} if config is None else reading.obj(config, "output_config")
    passed_over = [f"output_config.{key}" for key, value in config.items() if key != "format" and value is not None]
    at, value = "output_config.format", config.get("format")
    if value is None:
        at, value = "output_format", body.get("output_format")
    if value is None:
        return None, passed_over
    given = reading.obj(value, at)
    if (kind := reading.kind(given, at)) != "json_schema":
        raise unsupported(at, f"an output format of type {reading.known_as(kind)} cannot be had here")
    return OutputFormat(reading.obj(given.get("schema"), f"{at}.schema")), passed_over
