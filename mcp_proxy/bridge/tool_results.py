"""What a tool of this service said, as a model can be told it: words and pictures, bounded in size.

Source: server/tools of MCP 2025-11-25 and 2026-07-28 (Tool Result). What models cannot be shown is named in words, so that
they know that it is there. Pure.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Iterator, Mapping
from typing import Any

from mcp_proxy.base.json import Fields, JsonError, decode
from mcp_proxy.bridge.chat import Image, Text, ToolResult

MOST_TEXT = 256 * 1024
"""Bytes of words, in UTF-8, that are passed on of one result."""
MOST_IMAGES = 4 * 1024 * 1024
"""Characters of base64, of all pictures of one result together."""
_IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
"""What all providers take."""


def failed(id: str, text: str) -> ToolResult:
    """The result of a use that came to nothing; the model reads why."""
    return ToolResult(id, (Text(_cut(text, MOST_TEXT)[0]),), is_error=True)


def read_result(id: str, fields: Fields, *, is_error: bool) -> ToolResult:
    """The result of the use with that id. What is not of the protocol is a failure."""
    try:
        content = decode(fields["content"]) if "content" in fields else []
        structured = decode(fields["structuredContent"]) if "structuredContent" in fields else None
    except JsonError:
        content = structured = None
    if not isinstance(content, list):
        return failed(id, "the tool answered with a result that cannot be read")
    parts = [_part(block) for block in content]
    if structured is not None and not _tells(parts, structured):
        parts.append(Text(json.dumps(structured, ensure_ascii=False)))
    return ToolResult(id, tuple(_bounded(parts)), is_error)


def words(result: ToolResult) -> str:
    """The result for those who are shown no pictures."""
    return "\n".join(part.text if isinstance(part, Text) else f"[{part.media_type}]" for part in result.content)


def _part(block: Any) -> Text | Image:
    given: Mapping[str, Any] = block if isinstance(block, dict) else {}
    match given.get("type"):
        case "text" if isinstance(given.get("text"), str):
            return Text(given["text"])
        case "image":
            return _image(given)
        case "audio":
            return Text(f"[a recording of type {given.get('mimeType')}, which cannot be passed on]")
        case "resource_link":
            return Text(f"[resource {given.get('name')}: {given.get('uri')}]")
        case "resource" if isinstance(given.get("resource"), dict):
            return _resource(given["resource"])
        case _:
            return Text("[content of a kind that cannot be passed on]")


def _image(given: Mapping[str, Any]) -> Text | Image:
    kind, data = given.get("mimeType"), given.get("data")
    if isinstance(kind, str) and kind in _IMAGES and isinstance(data, str) and _is_base64(data):
        return Image(kind, data)
    return Text(f"[a picture of type {kind}, which cannot be passed on]")


def _is_base64(data: str) -> bool:
    try:
        binascii.a2b_base64(data, strict_mode=True)
    except ValueError:
        return False
    return bool(data)


def _resource(given: Mapping[str, Any]) -> Text | Image:
    if isinstance(text := given.get("text"), str):
        return Text(text)
    if isinstance(picture := _image({**given, "data": given.get("blob")}), Image):
        return picture
    return Text(f"[resource {given.get('uri')} of type {given.get('mimeType')}, which cannot be passed on]")


def _tells(parts: list[Text | Image], structured: Any) -> bool:
    """Whether the words say what is structured too, as servers are to see to."""
    return any(isinstance(part, Text) and _value(part.text) == structured for part in parts)


def _value(text: str) -> Any:
    try:
        return decode(text.encode())
    except (JsonError, UnicodeEncodeError):
        return None


def _bounded(parts: list[Text | Image]) -> Iterator[Text | Image]:
    """As much as may be passed on, and how much is left out."""
    room, shown, missing = MOST_TEXT, MOST_IMAGES, 0
    for part in parts:
        if isinstance(part, Image):
            if fits := len(part.data) <= shown:
                shown -= len(part.data)
            yield part if fits else Text(f"[a picture of type {part.media_type}, which is too large to be passed on]")
            continue
        kept, size = _cut(part.text, room)
        room -= size
        missing += len(part.text) - len(kept)
        if kept:
            yield Text(kept)
        if len(kept) < len(part.text):
            room = 0  # what comes after a gap would be taken for what comes next
    if missing:
        yield Text(f"[The result is too large: {missing} more characters are left out.]")


def _cut(text: str, most: int) -> tuple[str, int]:
    """The beginning that has at most so many bytes, and how many it has."""
    data = text.encode(errors="replace")
    if len(data) <= most:
        return text, len(data)
    return data[:most].decode(errors="ignore"), most
