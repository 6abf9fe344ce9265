"""One completion, whatever API asks for it and whatever answers: values, and the two ways between a result and a stream.

What the APIs call these things is `wire`, what MCP calls them `sampling`. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Role(StrEnum):
    """Who says something. What the operator of a chat says is `ChatRequest.system`."""

    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True)
class Text:
    """Words."""

    text: str


@dataclass(frozen=True, slots=True)
class Image:
    """A picture: ``data`` is base64, ``media_type`` such as ``image/png``."""

    media_type: str
    data: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Audio:
    """A recording: ``data`` is base64, ``media_type`` such as ``audio/wav``."""

    media_type: str
    data: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ToolUse:
    """The model wants a tool of the caller's to be used."""

    id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What the tool said; ``tool_use_id`` is that of the `ToolUse`."""

    tool_use_id: str
    content: tuple[Text | Image, ...]
    is_error: bool = False


Block = Text | Image | Audio | ToolUse | ToolResult


@dataclass(frozen=True, slots=True)
class Message:
    """What one side says. Tool results are said by the user, in messages that hold nothing else; see `ChatRequest`."""

    role: Role
    content: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that the caller has. ``input_schema`` is a JSON Schema of an object."""

    name: str
    input_schema: Mapping[str, Any]
    description: str | None = None


class ToolMode(StrEnum):
    """Whether tools are to be used: as the model likes, not at all, or at least one."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """``name``: this tool and no other (with REQUIRED). Without ``parallel`` only one use at a time."""

    mode: ToolMode = ToolMode.AUTO
    name: str | None = None
    parallel: bool = True


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """The answer is to be JSON: of this schema, or with None any object. ``strict``: the schema keeps to what providers
    that hold a model to it can do, and they are to."""

    schema: Mapping[str, Any] | None = None
    name: str | None = None
    strict: bool = False


ALL_TOOLS = ("*",)
"""All tools of this service; see `ChatRequest.house_tools`."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What a client asks for.

    ``messages`` follow MCP's rules (client/sampling, 2025-11-25): a user's message with tool results holds nothing else,
    and has a result for each tool use of the assistant's message before it. ``ignored``: parameters that cannot be passed
    on and change the answer's manner, not its meaning; the caller is told. ``stop``: the answer ends before the first of
    these texts. ``stream_usage``: a stream that would not say its tokens is to. ``house_tools``: which tools of this
    service may be used for the answer, as globs: ``server`` or ``server/tool``; `ALL_TOOLS` for all, none for none.
    """

    model: str
    messages: tuple[Message, ...]
    system: str | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    max_tokens: int | None = None
    temperature: float | None = None
    stop: tuple[str, ...] = ()
    output: OutputFormat | None = None
    stream: bool = False
    stream_usage: bool = False
    house_tools: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


class StopReason(StrEnum):
    """Why an answer ends."""

    END = "end"
    MAX_TOKENS = "max_tokens"
    STOP_SEQUENCE = "stop_sequence"
    TOOL_USE = "tool_use"
    REFUSAL = "refusal"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens. ``estimated``: nobody counted them."""

    input_tokens: int
    output_tokens: int
    estimated: bool = True


@dataclass(frozen=True, slots=True)
class HouseCall:
    """A tool of this service was used while the answer was being made: nobody has to use it any more.

    ``tool`` is what its ``server`` (or group) calls it, ``arguments`` the JSON text of an object, ``text`` what it said.
    """

    id: str
    server: str
    tool: str
    arguments: str
    text: str
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class ChatResult:
    """A whole answer. ``model`` is what the answering side calls itself; ``stop_sequence`` goes with that reason."""

    content: tuple[Text | ToolUse | HouseCall, ...]
    stop: StopReason
    model: str
    usage: Usage
    stop_sequence: str | None = None

    @property
    def text(self) -> str:
        """All words of it."""
        return "".join(block.text for block in self.content if isinstance(block, Text))


# The same, as it comes: one Started, then deltas, then one Ended.


@dataclass(frozen=True, slots=True)
class Started:
    """The answer begins. ``input_tokens``: what is known, or guessed, of the question's length."""

    model: str
    input_tokens: int


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More words."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolUseStarted:
    """A tool use begins; its arguments follow. Words that come later are a block of their own."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ArgumentsDelta:
    """More of the arguments, as JSON text, of the tool use with that id. Those of several may come interleaved."""

    id: str
    json: str


@dataclass(frozen=True, slots=True)
class HouseUse:
    """A tool of this service is being used; see `HouseCall`. Its result follows, results of others may come before."""

    id: str
    server: str
    tool: str
    arguments: str


@dataclass(frozen=True, slots=True)
class HouseResult:
    """What the tool of this service said. ``id`` is that of the `HouseUse`."""

    id: str
    text: str
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """The answer is complete."""

    stop: StopReason
    usage: Usage
    stop_sequence: str | None = None


Delta = Started | TextDelta | ToolUseStarted | ArgumentsDelta | HouseUse | HouseResult | Ended

_WORDS = re.compile(r"\s*\S{1,40}|\s+")


def deltas_of(result: ChatResult) -> Iterator[Delta]:
    """A whole answer as a stream: words one by one, each tool use with its arguments in one piece."""
    yield Started(result.model, result.usage.input_tokens)
    for block in result.content:
        match block:
            case Text():
                yield from (TextDelta(word) for word in _WORDS.findall(block.text))
            case ToolUse():
                yield ToolUseStarted(block.id, block.name)
                yield ArgumentsDelta(block.id, json.dumps(block.arguments, ensure_ascii=False))
            case HouseCall():
                yield HouseUse(block.id, block.server, block.tool, block.arguments)
                yield HouseResult(block.id, block.text, block.is_error)
    yield Ended(result.stop, result.usage, result.stop_sequence)


def gathered(deltas: Iterable[Delta]) -> ChatResult:
    """A stream as a whole answer. Raises `ValueError` when it does not begin or end, arguments are no JSON object, or a tool
    of this service has not answered.
    """
    model: str | None = None
    end: Ended | None = None
    parts = _Parts()
    for delta in deltas:
        match delta:
            case Started():
                model = delta.model
            case Ended():
                end = delta
            case _:
                parts.add(delta)
    if model is None or end is None:
        raise ValueError("the stream is not complete")
    return ChatResult(parts.whole(), end.stop, model, end.usage, end.stop_sequence)


class _Parts:
    """The blocks of an answer as they grow."""

    def __init__(self) -> None:
        self._blocks: list[Text | ToolUse | HouseUse] = []
        self._arguments: dict[str, list[str]] = {}
        self._results: dict[str, HouseResult] = {}

    def add(self, delta: TextDelta | ToolUseStarted | ArgumentsDelta | HouseUse | HouseResult) -> None:
        match delta:
            case TextDelta():
                last = self._blocks[-1] if self._blocks else None
                if isinstance(last, Text):
                    self._blocks[-1] = Text(last.text + delta.text)
                else:
                    self._blocks.append(Text(delta.text))
            case ToolUseStarted():
                self._arguments[delta.id] = []
                self._blocks.append(ToolUse(delta.id, delta.name, {}))
            case ArgumentsDelta():
                self._arguments[delta.id].append(delta.json)
            case HouseUse():
                self._blocks.append(delta)
            case HouseResult():
                self._results[delta.id] = delta

    def whole(self) -> tuple[Text | ToolUse | HouseCall, ...]:
        """All of them. Raises `ValueError`."""
        return tuple(map(self._whole, self._blocks))

    def _whole(self, block: Text | ToolUse | HouseUse) -> Text | ToolUse | HouseCall:
        match block:
            case Text():
                return block
            case ToolUse():
                return ToolUse(block.id, block.name, _object("".join(self._arguments[block.id])))
            case HouseUse():
                if (result := self._results.get(block.id)) is None:
                    raise ValueError("a tool of this service has not answered")
                return HouseCall(block.id, block.server, block.tool, block.arguments, result.text, result.is_error)


def _object(text: str) -> Mapping[str, Any]:
    value = json.loads(text) if text.strip() else {}
    if not isinstance(value, dict):
        raise ValueError("the arguments of a tool use are no object")
    return value


def estimate(texts: Iterable[str]) -> int:
    """A guess at tokens: four characters each, one at least. Grows with the text."""
    return max(1, -(-sum(map(len, texts)) // 4))


_IMAGE_TOKENS = 1500


def question_tokens(ask: ChatRequest) -> int:
    """A guess at the tokens of a request: its texts and tools by length, each image or recording the same. Grows with it."""
    texts = [ask.system or ""]
    texts += [tool.name + (tool.description or "") + _json(tool.input_schema) for tool in ask.tools]
    seen = 0
    for message in ask.messages:
        for block in message.content:
            for part in block.content if isinstance(block, ToolResult) else (block,):
                match part:
                    case Text():
                        texts.append(part.text)
                    case ToolUse():
                        texts.append(part.name + _json(part.arguments))
                    case Image() | Audio():
                        seen += 1
    return estimate(texts) + seen * _IMAGE_TOKENS


def answer_tokens(content: Iterable[Text | ToolUse | HouseCall]) -> int:
    """A guess at the tokens of an answer: of what the model says, not of what tools of this service say to it."""
    return estimate(map(_said, content))


def _said(block: Text | ToolUse | HouseCall) -> str:
    match block:
        case Text():
            return block.text
        case ToolUse():
            return block.name + _json(block.arguments)
        case HouseCall():
            return block.tool + block.arguments


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)
