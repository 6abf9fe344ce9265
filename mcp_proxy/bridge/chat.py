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


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What a client asks for.

    ``messages`` follow MCP's rules (client/sampling, 2025-11-25): a user's message with tool results holds nothing else,
    and has a result for each tool use of the assistant's message before it. ``ignored``: parameters that cannot be passed
    on and change the answer's manner, not its meaning; the caller is told. ``stop``: the answer ends before the first of
    these texts. ``stream_usage``: a stream that would not say its tokens is to. ``house_tools``: the tools of this service
    may be used for the answer.
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
    house_tools: bool = False
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
class ChatResult:
    """A whole answer. ``model`` is what the answering side calls itself; ``stop_sequence`` goes with that reason."""

    content: tuple[Text | ToolUse, ...]
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
class Ended:
    """The answer is complete."""

    stop: StopReason
    usage: Usage
    stop_sequence: str | None = None


Delta = Started | TextDelta | ToolUseStarted | ArgumentsDelta | Ended

_WORDS = re.compile(r"\s*\S{1,40}|\s+")


def deltas_of(result: ChatResult) -> Iterator[Delta]:
    """A whole answer as a stream: words one by one, each tool use with its arguments in one piece."""
    yield Started(result.model, result.usage.input_tokens)
    for block in result.content:
        if isinstance(block, Text):
            yield from (TextDelta(word) for word in _WORDS.findall(block.text))
        else:
            yield ToolUseStarted(block.id, block.name)
            yield ArgumentsDelta(block.id, json.dumps(block.arguments, ensure_ascii=False))
    yield Ended(result.stop, result.usage, result.stop_sequence)


def gathered(deltas: Iterable[Delta]) -> ChatResult:
    """A stream as a whole answer. Raises `ValueError` when it does not begin or end, or arguments are no JSON object."""
    model: str | None = None
    end: Ended | None = None
    blocks: list[Text | ToolUse] = []
    arguments: dict[str, list[str]] = {}
    for delta in deltas:
        match delta:
            case Started():
                model = delta.model
            case TextDelta():
                last = blocks[-1] if blocks else None
                if isinstance(last, Text):
                    blocks[-1] = Text(last.text + delta.text)
                else:
                    blocks.append(Text(delta.text))
            case ToolUseStarted():
                arguments[delta.id] = []
                blocks.append(ToolUse(delta.id, delta.name, {}))
            case ArgumentsDelta():
                arguments[delta.id].append(delta.json)
            case Ended():
                end = delta
    if model is None or end is None:
        raise ValueError("the stream is not complete")
    whole = tuple(
        block if isinstance(block, Text) else ToolUse(block.id, block.name, _object("".join(arguments[block.id])))
        for block in blocks
    )
    return ChatResult(whole, end.stop, model, end.usage, end.stop_sequence)


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


def answer_tokens(content: Iterable[Text | ToolUse]) -> int:
    """A guess at the tokens of an answer."""
    return estimate(block.text if isinstance(block, Text) else block.name + _json(block.arguments) for block in content)


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)
