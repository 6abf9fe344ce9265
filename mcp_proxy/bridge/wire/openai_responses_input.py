"""What stands in the ``input`` of a request to ``/v1/responses``: a text, or items that make up a conversation.

Items that only a server with a memory could read are refused; thoughts, which are of no use to another model, are left
out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mcp_proxy.base.json import encode
from mcp_proxy.bridge.chat import Audio, HouseCall, Image, Text, ToolResult, ToolUse
from mcp_proxy.bridge.wire import house_calls, reading
from mcp_proxy.bridge.wire.openai_chat_content import Conversation, arguments, audio, image
from mcp_proxy.bridge.wire.reading import unsupported, wrong

_SAID = {"input_text": "text", "output_text": "text", "refusal": "refusal"}
"""Parts that are words, and the field that holds them."""


def read_input(value: Any, turns: Conversation, *, house: bool = False) -> None:
    """Puts the input into the conversation. ``house``: the tools of this service are wanted. Raises `ChatError`."""
    if isinstance(value, str):
        turns.user([Text(value)] if value else [], "input")
        return
    for index, entry in enumerate(reading.array(value, "input")):
        at = f"input[{index}]"
        item = reading.obj(entry, at)
        match reading.text(item.get("type", "message"), f"{at}.type"):
            case "message":
                _message(item, at, turns)
            case "function_call":
                turns.assistant([_call(item, at)], at)
            case "function_call_output":
                turns.result(_output(item, at, turns), f"{at}.call_id")
            case "mcp_call":
                if calls := list(_mcp_call(item, at)):
                    house_calls.put(turns, calls, at, house=house)
            case "reasoning" | "mcp_list_tools":
                pass
            case kind:
                raise unsupported(at, f"an item of type {reading.known_as(kind)} cannot be passed on")


def _message(item: Mapping[str, Any], at: str, turns: Conversation) -> None:
    content, where = item.get("content"), f"{at}.content"
    match reading.text(item.get("role"), f"{at}.role"):
        case "system" | "developer":
            turns.system(block.text for block in _words(content, where))
        case "user":
            turns.user(_shown(content, where, turns), at)
        case "assistant":
            turns.assistant(_words(content, where), at)
        case _:
            raise wrong(f"{at}.role", "must be system, developer, user or assistant")


def _parts(value: Any, at: str) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    """Each part of a content with its type and path; a string is one part of text."""
    if isinstance(value, str):
        yield "input_text", {"text": value}, at
        return
    for index, entry in enumerate(reading.array(value, at)):
        where = f"{at}[{index}]"
        part = reading.obj(entry, where)
        yield reading.kind(part, where), part, where


def _text(kind: str, part: Mapping[str, Any], at: str) -> Iterator[Text]:
    key = _SAID[kind]
    if words := reading.text(part.get(key), f"{at}.{key}"):
        yield Text(words)


def _words(value: Any, at: str) -> Iterator[Text]:
    for kind, part, where in _parts(value, at):
        if kind not in _SAID:
            raise unsupported(where, f"a part of type {reading.known_as(kind)} cannot stand here")
        yield from _text(kind, part, where)


def _shown(value: Any, at: str, turns: Conversation) -> Iterator[Text | Image | Audio]:
    for kind, part, where in _parts(value, at):
        if kind == "input_audio":
            yield audio(part.get("input_audio"), f"{where}.input_audio")
        else:
            yield from _read_or_seen(kind, part, where, turns)


def _read_or_seen(kind: str, part: Mapping[str, Any], at: str, turns: Conversation) -> Iterator[Text | Image]:
    match kind:
        case kind if kind in _SAID:
            yield from _text(kind, part, at)
        case "input_image":
            if part.get("detail") not in (None, "auto"):
                turns.passed_over["input_image.detail"] = None
            if part.get("file_id") is not None:
                raise unsupported(f"{at}.file_id", "no files are kept here; send a data: URL")
            yield image(part.get("image_url"), f"{at}.image_url")
        case _:
            raise unsupported(at, f"a part of type {reading.known_as(kind)} cannot be passed on")


def _call(item: Mapping[str, Any], at: str) -> ToolUse:
    return ToolUse(
        reading.name(item.get("call_id"), f"{at}.call_id"),
        reading.name(item.get("name"), f"{at}.name"),
        arguments(item.get("arguments"), f"{at}.arguments"),
    )


def _mcp_call(item: Mapping[str, Any], at: str) -> Iterator[HouseCall]:
    """The use of a tool of this service; none where it did not come to an end."""
    error, output = item.get("error"), item.get("output")
    if error is None and output is None:
        return
    yield HouseCall(
        reading.name(item.get("id"), f"{at}.id"),
        reading.text(item.get("server_label"), f"{at}.server_label"),
        reading.name(item.get("name"), f"{at}.name"),
        encode(arguments(item.get("arguments"), f"{at}.arguments")).decode(),
        reading.text(output, f"{at}.output") if error is None else _error(error, f"{at}.error"),
        is_error=error is not None,
    )


def _error(value: Any, at: str) -> str:
    """Why a tool failed: its own words, a message, or whatever else is said of it."""
    if isinstance(value, str):
        return value
    given = reading.obj(value, at)
    content, message = given.get("content"), given.get("message")
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        return "\n".join(text for text in texts if isinstance(text, str))
    return next((text for text in (content, message) if isinstance(text, str)), "")


def _output(item: Mapping[str, Any], at: str, turns: Conversation) -> ToolResult:
    content = tuple(
        block
        for kind, part, where in _parts(item.get("output"), f"{at}.output")
        for block in _read_or_seen(kind, part, where, turns)
    )
    return ToolResult(reading.name(item.get("call_id"), f"{at}.call_id"), content)
