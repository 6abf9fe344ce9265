"""What OpenAI's two APIs say alike in a request: pictures, recordings, arguments, formats, and the turns of a conversation.

How each of them wraps these is `openai_chat_messages` and `openai_responses_input`. Nothing is fetched: what is not in
the request itself is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mcp_proxy.base.json import JsonError, read_strict
from mcp_proxy.bridge.chat import Audio, Block, Image, Message, OutputFormat, Role, Text, ToolResult, ToolUse
from mcp_proxy.bridge.wire import reading
from mcp_proxy.bridge.wire.reading import unsupported, wrong

_AUDIO = {"wav": "audio/wav", "mp3": "audio/mpeg"}


def image(url: Any, at: str) -> Image:
    """A picture from a ``data:`` URL (RFC 2397) in base64. Raises `ChatError`; any other URL is UNSUPPORTED."""
    head, comma, data = reading.text(url, at).partition(",")
    if head[:5].lower() != "data:":
        raise unsupported(at, "pictures are not fetched; send a data: URL")
    media_type, *attributes = head[5:].split(";")
    if not media_type.lower().startswith("image/") or not comma or attributes[-1:] != ["base64"]:
        raise wrong(at, "must be a data: URL of an image in base64")
    return Image(media_type.lower(), reading.base64(data, at))


def audio(value: Any, at: str) -> Audio:
    """A recording: ``{"data", "format"}``, the format wav or mp3. Raises `ChatError`."""
    given = reading.obj(value, at)
    form = reading.text(given.get("format"), f"{at}.format")
    if form not in _AUDIO:
        raise wrong(f"{at}.format", "must be wav or mp3")
    return Audio(_AUDIO[form], reading.base64(given.get("data"), f"{at}.data"))


def arguments(value: Any, at: str) -> Mapping[str, Any]:
    """The arguments of a tool call from their JSON text; blank is none at all. Raises `ChatError`."""
    given = reading.text(value, at)
    if not given.strip():
        return {}
    try:
        found = read_strict(given.encode())
    except (JsonError, UnicodeEncodeError):
        found = None
    if not isinstance(found, dict):
        raise wrong(at, "must be a JSON object, as text")
    return found


def output_format(kind: str, given: Mapping[str, Any], at: str) -> OutputFormat | None:
    """The format of that type, whose name and schema are in ``given``; None for words. Raises `ChatError`."""
    match kind:
        case "text":
            return None
        case "json_object":
            return OutputFormat()
        case "json_schema":
            schema, name = given.get("schema"), given.get("name")
            return OutputFormat(
                None if schema is None else reading.obj(schema, f"{at}.schema"),
                None if name is None else reading.name(name, f"{at}.name"),
                strict=reading.flag(given.get("strict"), f"{at}.strict"),
            )
        case _:
            raise unsupported(at, f"a format of type {reading.known_as(kind)} cannot be had here")


class Conversation:
    """The turns as they are read, put under the rules of `ChatRequest`. ``passed_over``: what cannot be passed on of them.

    What the assistant says in several messages or items is one turn: its words and tool calls can come apart.
    """

    def __init__(self) -> None:
        self.passed_over: dict[str, None] = {}
        self._system: list[str] = []
        self._messages: list[Message] = []
        self._waiting: dict[str, str] = {}
        """Tool uses without a result yet, and where they stand in the request."""
        self._results: list[ToolResult] = []

    def system(self, texts: Iterable[str]) -> None:
        """What the operator says, wherever it stands."""
        self._system.extend(text for text in texts if text)

    def user(self, blocks: Iterable[Block], at: str) -> None:
        """What the user says. Raises `ChatError` while a tool call has no result."""
        if self._waiting:
            raise self._unanswered(at)
        if content := tuple(blocks):
            self._messages.append(Message(Role.USER, content))

    def assistant(self, blocks: Iterable[Text | ToolUse], at: str) -> None:
        """What the assistant says. Raises `ChatError` while some, not all, of its tool calls have results."""
        if self._results:
            raise self._unanswered(at)
        content = tuple(blocks)
        for use in (block for block in content if isinstance(block, ToolUse)):
            if use.id in self._waiting:
                raise wrong(at, "two tool calls have the same id")
            self._waiting[use.id] = at
        last = self._messages[-1] if self._messages else None
        if last is not None and last.role is Role.ASSISTANT:
            self._messages[-1] = Message(Role.ASSISTANT, last.content + content)
        elif content:
            self._messages.append(Message(Role.ASSISTANT, content))

    def result(self, result: ToolResult, at: str) -> None:
        """What a tool said. ``at`` is the path of the id. Raises `ChatError` when no tool call before it has that id."""
        if self._waiting.pop(result.tool_use_id, None) is None:
            raise wrong(at, "is not the id of a tool call just before that has no result yet")
        self._results.append(result)
        if not self._waiting:
            self._messages.append(Message(Role.USER, tuple(self._results)))
            self._results = []

    def whole(self, at: str) -> tuple[str | None, tuple[Message, ...]]:
        """The system prompt and the messages; a prompt alone is put as the user's words, since models want some.

        Raises `ChatError`.
        """
        if self._waiting:
            raise self._unanswered(next(reversed(self._waiting.values())))
        system = "\n\n".join(self._system)
        if self._messages:
            return system or None, tuple(self._messages)
        if system:
            return None, (Message(Role.USER, (Text(system),)),)
        raise wrong(at, "something must be said")

    def _unanswered(self, at: str) -> Exception:
        return wrong(at, f"the tool call {reading.known_as(next(iter(self._waiting)))} has no result before this ends")
