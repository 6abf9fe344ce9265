"""A scripted model to try the door with: it answers at once, always the same, and asks nobody.

It says what it was asked, uses the tools that a question names, and fills in JSON that is asked for (`demo_values`). A
`completions.Source`; what it takes for tokens is `chat.estimate`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

from mcp_proxy.bridge.chat import (
    Block,
    ChatRequest,
    ChatResult,
    Delta,
    Message,
    Role,
    StopReason,
    Text,
    Tool,
    ToolMode,
    ToolResult,
    ToolUse,
    Usage,
    answer_tokens,
    deltas_of,
    question_tokens,
)
from mcp_proxy.bridge.demo_values import arguments_for, json_for

MODEL = "demo"
"""Its name, as a source and as a model."""
PAUSE = 0.02
"""Seconds between two words of a stream."""
_CHARACTERS = 4
"""What counts as one token, as for `chat.estimate`."""
_GIST = 120
_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\d_a-zA-Z]+")
_ANYTHING_BUT_WORDS = re.compile(r"\.|__|/")


@dataclass(frozen=True, slots=True)
class Demo:
    """A `completions.Source` without I/O. ``pause`` waits between the words of a stream, for that many seconds."""

    pause: Callable[[float], Awaitable[None]]

    async def stream(
        self, ask: ChatRequest, model: str, *, max_tokens: int, tenant: str
    ) -> AsyncGenerator[Delta, None]:
        """See `completions.Source.stream`; ``model`` and ``tenant`` make no difference. Raises `ChatError` for an output
        format that cannot be used, or that the script cannot keep to."""
        for number, delta in enumerate(deltas_of(answer(ask, max_tokens))):
            if ask.stream and number > 1:  # the beginning and the first word come at once
                await self.pause(PAUSE)
            yield delta


def answer(ask: ChatRequest, max_tokens: int) -> ChatResult:
    """The whole answer. Raises `ChatError` as `Demo.stream` does."""
    uses = tuple(_uses(ask))
    if uses:
        fitting = _fitting(uses, max_tokens)
        stop = StopReason.TOOL_USE if fitting == uses else StopReason.MAX_TOKENS
        return _result(ask, fitting, stop)
    text, stop, sequence = _cut(_said(ask), ask.stop, max_tokens)
    return _result(ask, (Text(text),) if text else (), stop, sequence)


def _result(
    ask: ChatRequest, content: tuple[Text | ToolUse, ...], stop: StopReason, sequence: str | None = None
) -> ChatResult:
    return ChatResult(content, stop, MODEL, Usage(question_tokens(ask), answer_tokens(content)), sequence)


def _fitting(uses: tuple[ToolUse, ...], max_tokens: int) -> tuple[ToolUse, ...]:
    """Those that can be said in so many tokens: half a tool use is none."""
    count = len(uses)
    while count and answer_tokens(uses[:count]) > max_tokens:
        count -= 1
    return uses[:count]


def _cut(text: str, stops: Sequence[str], max_tokens: int) -> tuple[str, StopReason, str | None]:
    """The text up to its first stop text, or to the length that is allowed, and which of them ended it."""
    allowed = text[: max_tokens * _CHARACTERS]
    met = [(at, stop) for stop in stops if stop and (at := allowed.find(stop)) >= 0]
    if met:
        at, stop = min(met)
        return allowed[:at], StopReason.STOP_SEQUENCE, stop
    return allowed, StopReason.END if allowed == text else StopReason.MAX_TOKENS, None


# Words


def _said(ask: ChatRequest) -> str:
    """What it says where it uses no tool."""
    if ask.output is not None:
        return json_for(ask.output, _question(ask.messages))
    answered = [block for message in _turn(ask.messages) for block in message.content if isinstance(block, ToolResult)]
    if answered:
        return " ".join(_retold(result, ask.messages) for result in answered)
    return _introduction(ask)


def _introduction(ask: ChatRequest) -> str:
    words = sum(len(text.split()) for text in _texts(ask))
    tools = ", ".join(tool.name for tool in ask.tools)
    return (
        "I am the demo model of MCP Proxy API, a script that knows nothing but shows that the way to here works. "
        f"You said: “{_gist(_question(ask.messages))}”, and in all I saw {_counted(words, 'word')}, about"
        f" {_counted(question_tokens(ask), 'token')} and {_counted(len(ask.tools), 'tool')}"
        f"{f' ({_gist(tools)})' if tools else ''}."
    )


def _retold(result: ToolResult, messages: Sequence[Message]) -> str:
    name = next(
        (use.name for use in _blocks(messages) if isinstance(use, ToolUse) and use.id == result.tool_use_id), ""
    )
    said = " ".join(part.text if isinstance(part, Text) else f"({part.media_type})" for part in result.content)
    verb = "failed and said" if result.is_error else "answered"
    return f"The tool {name or result.tool_use_id} {verb}: {_gist(said) or 'nothing'}."


def _gist(text: str) -> str:
    """The beginning of a text, in one line."""
    line = " ".join(text.split())
    return line if len(line) <= _GIST else line[:_GIST].rsplit(" ", 1)[0] + " …"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


# What was asked


def _blocks(messages: Sequence[Message]) -> Iterator[Block]:
    return (block for message in messages for block in message.content)


def _texts(ask: ChatRequest) -> Iterator[str]:
    yield ask.system or ""
    yield from (block.text for block in _blocks(ask.messages) if isinstance(block, Text))


def _turn(messages: Sequence[Message]) -> Sequence[Message]:
    """What the user has said since the model spoke."""
    spoken = [number for number, message in enumerate(messages) if message.role is Role.ASSISTANT]
    return messages[spoken[-1] + 1 :] if spoken else messages


def _question(messages: Sequence[Message]) -> str:
    """The words of the user's last message that has some."""
    for message in reversed(messages):
        text = " ".join(block.text for block in message.content if isinstance(block, Text))
        if message.role is Role.USER and text.strip():
            return text
    return ""


# Tools


def _uses(ask: ChatRequest) -> Iterator[ToolUse]:
    """The tools that are to be used: those that the question names, or the one that has to be."""
    text = _question(ask.messages)
    chosen = list(_chosen(ask, text))
    earlier = sum(isinstance(block, ToolUse) for block in _blocks(ask.messages))
    for number, (at, tool) in enumerate(chosen):
        begin = at if number else 0
        end = chosen[number + 1][0] if number + 1 < len(chosen) else len(text)
        yield ToolUse(f"call_demo_{earlier + number + 1}", tool.name, arguments_for(tool, text[begin:end], text))


def _chosen(ask: ChatRequest, text: str) -> list[tuple[int, Tool]]:
    """Tools, each with where in the text it is named, in that order."""
    choice = ask.tool_choice
    if choice.mode is ToolMode.NONE or not ask.tools:
        return []
    if choice.mode is ToolMode.REQUIRED:
        able = [tool for tool in ask.tools if choice.name in (None, tool.name)]
        named = _named(able, text) or [(0, tool) for tool in able[:1]]
        return named[:1] if choice.name is not None or not choice.parallel else named
    if any(isinstance(block, ToolResult) for message in _turn(ask.messages) for block in message.content):
        return []  # they have been used: it is time to say what they answered
    named = _named(ask.tools, text)
    return named if choice.parallel else named[:1]


def _named(tools: Sequence[Tool], text: str) -> list[tuple[int, Tool]]:
    """The tools that a text names by their names or, elsewhere in it, by all words of those."""
    found: list[tuple[int, Tool]] = []
    rest, others = text, []
    # Long names first: one may be part of another.
    for tool in sorted(tools, key=lambda tool: -len(tool.name)):
        whole = re.search(rf"(?<!\w){re.escape(tool.name)}(?!\w)", rest, re.IGNORECASE)
        if whole is None:
            others.append(tool)
            continue
        found.append((whole.start(), tool))
        rest = rest[: whole.start()] + " " * len(whole[0]) + rest[whole.end() :]
    places = {match[0].lower(): match.start() for match in reversed(list(re.finditer(r"[^\W_]+", rest)))}
    for tool in others:
        parts = _words(tool.name)
        if parts and all(part in places for part in parts):
            found.append((min(places[part] for part in parts), tool))
    return sorted(found, key=lambda one: one[0])


def _words(name: str) -> list[str]:
    """The words of a tool's name, without that of its server."""
    return [part.lower() for part in _PARTS.findall(_ANYTHING_BUT_WORDS.split(name)[-1])]
