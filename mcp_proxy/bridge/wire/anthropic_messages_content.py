"""What stands in the messages of a request to ``/v1/messages``: blocks, and the turns they make.

Consecutive messages of one side are one turn, as in Anthropic's API; a turn's tool results come out as a message of
their own, before the rest of it, as MCP wants them (client/sampling, 2025-11-25).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mcp_proxy.base.json import encode
from mcp_proxy.bridge.chat import Block, HouseResult, HouseUse, Image, Message, Role, Text, ToolResult, ToolUse
from mcp_proxy.bridge.wire import reading
from mcp_proxy.bridge.wire.house_calls import replayed
from mcp_proxy.bridge.wire.reading import unsupported, wrong

_THOUGHTS = ("thinking", "redacted_thinking")
_IMAGE = "image/"
_Said = Block | HouseUse | HouseResult


def read_messages(value: Any, *, house: bool = False) -> tuple[tuple[Message, ...], list[str]]:
    """The turns, and what is said by the system between them. ``house``: the tools of this service are wanted.

    Raises `ChatError`.
    """
    turns: list[_Turn] = []
    system: list[str] = []
    for index, entry in enumerate(reading.array(value, "messages")):
        at = f"messages[{index}]"
        message = reading.obj(entry, at)
        role, content = message.get("role"), message.get("content")
        if role == "system":
            system.extend(read_texts(content, f"{at}.content"))
        elif role in ("user", "assistant"):
            if not turns or turns[-1].role != role:
                turns.append(_Turn(Role(role), at))
            turns[-1].blocks.extend(_blocks(content, f"{at}.content", turns[-1].role))
        else:
            raise wrong(f"{at}.role", "must be user, assistant or system")
    messages = tuple(_checked(turns, house=house))
    if not messages:
        raise wrong("messages", "at least one message must say something")
    return messages, system


def read_texts(value: Any, at: str) -> list[str]:
    """A string, or an array of text blocks. Empty ones are left out."""
    if isinstance(value, str):
        return [value] if value else []
    texts: list[str] = []
    for index, entry in enumerate(reading.array(value, at)):
        where = f"{at}[{index}]"
        block = reading.obj(entry, where)
        if (kind := reading.kind(block, where)) != "text":
            raise unsupported(where, f"a block of type {reading.known_as(kind)} cannot stand here")
        texts.append(reading.text(block.get("text"), f"{where}.text"))
    return [text for text in texts if text]


class _Turn:
    """All that one side says until the other does, and where it begins."""

    def __init__(self, role: Role, at: str) -> None:
        self.role = role
        self.at = at
        self.blocks: list[_Said] = []

    @property
    def uses(self) -> list[str]:
        return [block.id for block in self.blocks if isinstance(block, ToolUse)]

    @property
    def results(self) -> list[ToolResult]:
        return [block for block in self.blocks if isinstance(block, ToolResult)]


def _checked(turns: Iterable[_Turn], *, house: bool) -> Iterator[Message]:
    """The turns as messages. Raises `ChatError` where uses of tools and their results do not fit."""
    open_uses: list[str] = []
    last_at = "messages"
    for turn in turns:
        results = turn.results
        if sorted(result.tool_use_id for result in results) != sorted(open_uses):
            raise wrong(turn.at, "must begin with a tool_result for each tool_use of the message before, and no other")
        open_uses, last_at = turn.uses, turn.at
        if len(set(open_uses)) != len(open_uses):
            raise wrong(turn.at, "two tool_use blocks have the same id")
        if turn.role is Role.ASSISTANT:
            yield from replayed(turn.blocks, house=house)
            continue
        rest = tuple(block for block in turn.blocks if isinstance(block, (Text, Image)))
        if results:
            yield Message(turn.role, tuple(results))
        if rest:
            yield Message(turn.role, rest)
    if open_uses:
        raise wrong(last_at, "a tool_use has no tool_result after it")


def _blocks(value: Any, at: str, role: Role) -> Iterator[_Said]:
    if isinstance(value, str):
        if value:
            yield Text(value)
        return
    for index, entry in enumerate(reading.array(value, at)):
        where = f"{at}[{index}]"
        block = reading.obj(entry, where)
        match reading.kind(block, where):
            case kind if kind in _THOUGHTS:
                continue
            case "tool_use" if role is Role.ASSISTANT:
                yield _tool_use(block, where)
            case "tool_result" if role is Role.USER:
                yield _tool_result(block, where)
            case "mcp_tool_use" | "mcp_tool_result" as kind if role is Role.ASSISTANT:
                yield _mcp_tool_use(block, where) if kind == "mcp_tool_use" else _mcp_tool_result(block, where)
            case "tool_use" | "tool_result" as kind:
                raise wrong(where, f"a {kind} cannot be said by the {role}")
            case kind if kind != "text" and role is Role.ASSISTANT:
                raise unsupported(where, f"a block of type {reading.known_as(kind)} cannot be said by the assistant")
            case _:
                yield from _shown(block, where)


def _tool_use(block: Mapping[str, Any], at: str) -> ToolUse:
    return ToolUse(
        reading.name(block.get("id"), f"{at}.id"),
        reading.name(block.get("name"), f"{at}.name"),
        reading.obj(block.get("input"), f"{at}.input"),
    )


def _mcp_tool_use(block: Mapping[str, Any], at: str) -> HouseUse:
    return HouseUse(
        reading.name(block.get("id"), f"{at}.id"),
        reading.text(block.get("server_name"), f"{at}.server_name"),
        reading.name(block.get("name"), f"{at}.name"),
        encode(reading.obj(block.get("input"), f"{at}.input")).decode(),
    )


def _mcp_tool_result(block: Mapping[str, Any], at: str) -> HouseResult:
    content = block.get("content")
    return HouseResult(
        reading.name(block.get("tool_use_id"), f"{at}.tool_use_id"),
        "\n".join([] if content is None else read_texts(content, f"{at}.content")),
        reading.flag(block.get("is_error"), f"{at}.is_error"),
    )


def _tool_result(block: Mapping[str, Any], at: str) -> ToolResult:
    content = block.get("content")
    shown: list[Text | Image] = []
    if isinstance(content, str):
        shown = [Text(content)] if content else []
    elif content is not None:
        for index, entry in enumerate(reading.array(content, f"{at}.content")):
            where = f"{at}.content[{index}]"
            shown.extend(_shown(reading.obj(entry, where), where))
    return ToolResult(
        reading.name(block.get("tool_use_id"), f"{at}.tool_use_id"),
        tuple(shown),
        reading.flag(block.get("is_error"), f"{at}.is_error"),
    )


def _shown(block: Mapping[str, Any], at: str) -> Iterator[Text | Image]:
    """What can be read or looked at."""
    match reading.kind(block, at):
        case "text":
            if text := reading.text(block.get("text"), f"{at}.text"):
                yield Text(text)
        case "image":
            yield _image(block, at)
        case "document":
            yield from _document(block, at)
        case kind:
            raise unsupported(at, f"a block of type {reading.known_as(kind)} cannot be passed on")


def _image(block: Mapping[str, Any], at: str) -> Image:
    where = f"{at}.source"
    source = reading.obj(block.get("source"), where)
    if (kind := reading.kind(source, where)) != "base64":
        raise unsupported(where, f"a source of type {reading.known_as(kind)} is not fetched; send base64")
    media_type = reading.text(source.get("media_type"), f"{where}.media_type")
    if not media_type.startswith(_IMAGE):
        raise wrong(f"{where}.media_type", "must be that of an image")
    return Image(media_type, reading.base64(source.get("data"), f"{where}.data"))


def _document(block: Mapping[str, Any], at: str) -> Iterator[Text | Image]:
    """A document of words and pictures, with its title and context in front. PDF and what had to be fetched are refused."""
    citations = block.get("citations")
    if citations is not None and reading.obj(citations, f"{at}.citations").get("enabled"):
        raise unsupported(f"{at}.citations", "citations cannot be had here")
    for key in ("title", "context"):
        if block.get(key) is not None and (words := reading.text(block[key], f"{at}.{key}")):
            yield Text(words)
    where = f"{at}.source"
    source = reading.obj(block.get("source"), where)
    kind = reading.kind(source, where)
    content = source.get("data" if kind == "text" else "content")
    if kind == "text" or (kind == "content" and isinstance(content, str)):
        if words := reading.text(content, f"{where}.{'data' if kind == 'text' else 'content'}"):
            yield Text(words)
    elif kind == "content":
        yield from _document_blocks(content, f"{where}.content")
    else:
        raise unsupported(where, f"a document of type {reading.known_as(kind)} cannot be passed on; send text")


def _document_blocks(content: Any, at: str) -> Iterator[Text | Image]:
    for index, entry in enumerate(reading.array(content, at)):
        where = f"{at}[{index}]"
        block = reading.obj(entry, where)
        if reading.kind(block, where) not in ("text", "image"):
            raise unsupported(where, "a document can hold text and images here")
        yield from _shown(block, where)
