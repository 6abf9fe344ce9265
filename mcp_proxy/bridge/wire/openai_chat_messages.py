"""What stands in the messages of a request to ``/v1/chat/completions``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mcp_proxy.base.json import encode
from mcp_proxy.bridge.chat import Audio, HouseCall, Image, Text, ToolResult, ToolUse
from mcp_proxy.bridge.wire import house_calls, reading
from mcp_proxy.bridge.wire.openai_chat_content import Conversation, arguments, audio, image
from mcp_proxy.bridge.wire.reading import unsupported, wrong


def read_messages(value: Any, *, house: bool = False) -> Conversation:
    """The conversation, not yet whole. ``house``: the tools of this service are wanted. Raises `ChatError`."""
    turns = Conversation()
    for index, entry in enumerate(reading.array(value, "messages")):
        at = f"messages[{index}]"
        message = reading.obj(entry, at)
        if message.get("name") is not None:
            turns.passed_over["messages.name"] = None
        content, where = message.get("content"), f"{at}.content"
        match reading.text(message.get("role"), f"{at}.role"):
            case "system" | "developer":
                turns.system(block.text for block in _texts(content, where))
            case "user":
                turns.user(_shown(content, where, turns), at)
            case "assistant":
                if calls := list(_mcp_calls(message.get("mcp_calls"), f"{at}.mcp_calls")):
                    house_calls.put(turns, calls, at, house=house)
                turns.assistant([*_said(message, at), *_tool_calls(message.get("tool_calls"), f"{at}.tool_calls")], at)
            case "tool":
                id = reading.name(message.get("tool_call_id"), f"{at}.tool_call_id")
                turns.result(ToolResult(id, tuple(_answered(content, where, turns))), f"{at}.tool_call_id")
            case "function":
                raise unsupported(f"{at}.role", "functions have been replaced by tools; send role tool")
            case _:
                raise wrong(f"{at}.role", "must be system, developer, user, assistant or tool")
    return turns


def _parts(value: Any, at: str) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    """Each part of a content with its type and path; a string is one part of text."""
    if isinstance(value, str):
        yield "text", {"text": value}, at
        return
    for index, entry in enumerate(reading.array(value, at)):
        where = f"{at}[{index}]"
        part = reading.obj(entry, where)
        yield reading.kind(part, where), part, where


def _text(part: Mapping[str, Any], at: str, key: str = "text") -> Iterator[Text]:
    if words := reading.text(part.get(key), f"{at}.{key}"):
        yield Text(words)


def _texts(value: Any, at: str) -> Iterator[Text]:
    for kind, part, where in _parts(value, at):
        if kind != "text":
            raise unsupported(where, f"a part of type {reading.known_as(kind)} cannot stand here")
        yield from _text(part, where)


def _shown(value: Any, at: str, turns: Conversation) -> Iterator[Text | Image | Audio]:
    for kind, part, where in _parts(value, at):
        match kind:
            case "text":
                yield from _text(part, where)
            case "image_url":
                yield _image(part, where, turns)
            case "input_audio":
                yield audio(part.get("input_audio"), f"{where}.input_audio")
            case _:
                raise unsupported(where, f"a part of type {reading.known_as(kind)} cannot be passed on")


def _image(part: Mapping[str, Any], at: str, turns: Conversation) -> Image:
    given = reading.obj(part.get("image_url"), f"{at}.image_url")
    if given.get("detail") not in (None, "auto"):
        turns.passed_over["image_url.detail"] = None
    return image(given.get("url"), f"{at}.image_url.url")


def _answered(value: Any, at: str, turns: Conversation) -> Iterator[Text | Image]:
    """What a tool said; a picture too, which some clients send."""
    for kind, part, where in _parts(value, at):
        match kind:
            case "text":
                yield from _text(part, where)
            case "image_url":
                yield _image(part, where, turns)
            case _:
                raise unsupported(where, f"a part of type {reading.known_as(kind)} cannot be passed on")


def _said(message: Mapping[str, Any], at: str) -> Iterator[Text]:
    """The assistant's words, a refusal's included."""
    for key in ("audio", "function_call"):
        if message.get(key) is not None:
            raise unsupported(f"{at}.{key}", "this cannot be passed on")
    content = message.get("content")
    for kind, part, where in _parts([] if content is None else content, f"{at}.content"):
        if kind not in ("text", "refusal"):
            raise unsupported(where, f"a part of type {reading.known_as(kind)} cannot be said by the assistant")
        yield from _text(part, where, kind)
    if message.get("refusal") is not None:
        yield from _text(message, at, "refusal")


def _mcp_calls(value: Any, at: str) -> Iterator[HouseCall]:
    """Tools of this service that were used for a message, which clients bring back as they were told of them."""
    for index, entry in enumerate([] if value is None else reading.array(value, at)):
        where = f"{at}[{index}]"
        call = reading.obj(entry, where)
        yield HouseCall(
            reading.name(call.get("id"), f"{where}.id"),
            reading.text(call.get("server"), f"{where}.server"),
            reading.name(call.get("name"), f"{where}.name"),
            encode(arguments(call.get("arguments"), f"{where}.arguments")).decode(),
            reading.text(call.get("output"), f"{where}.output"),
            reading.flag(call.get("is_error"), f"{where}.is_error"),
        )


def _tool_calls(value: Any, at: str) -> Iterator[ToolUse]:
    for index, entry in enumerate([] if value is None else reading.array(value, at)):
        where = f"{at}[{index}]"
        call = reading.obj(entry, where)
        if (kind := reading.text(call.get("type", "function"), f"{where}.type")) != "function":
            raise unsupported(where, f"a tool call of type {reading.known_as(kind)} cannot be passed on")
        function = reading.obj(call.get("function"), f"{where}.function")
        yield ToolUse(
            reading.name(call.get("id"), f"{where}.id"),
            reading.name(function.get("name"), f"{where}.function.name"),
            arguments(function.get("arguments"), f"{where}.function.arguments"),
        )
