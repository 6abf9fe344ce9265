"""What Anthropic's Messages API answers, whole or as a stream. The requests are `anthropic_provider`.

Beside words and tool uses an answer can hold thinking, which is left out; anything else was not asked for. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mcp_proxy.base.json import JsonError, decode, encode
from mcp_proxy.bridge.chat import (
    ArgumentsDelta,
    ChatResult,
    Delta,
    Ended,
    Started,
    StopReason,
    Text,
    TextDelta,
    ToolUse,
    ToolUseStarted,
    Usage,
    answer_tokens,
    estimate,
)
from mcp_proxy.bridge.errors import NOT_READY, RATE_LIMITED, SOURCE_ERROR, ChatError

_MESSAGE = 500
_STOPS = {
    "max_tokens": StopReason.MAX_TOKENS,
    "model_context_window_exceeded": StopReason.MAX_TOKENS,
    "stop_sequence": StopReason.STOP_SEQUENCE,
    "tool_use": StopReason.TOOL_USE,
    "refusal": StopReason.REFUSAL,
}
_THOUGHTS = frozenset({"thinking", "redacted_thinking"})
_INPUT = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
_BUSY = {"overloaded_error": NOT_READY, "rate_limit_error": RATE_LIMITED}


def read_result(body: Any) -> ChatResult:
    """A whole answer. Raises `ChatError` (SOURCE_ERROR)."""
    if not isinstance(body, dict) or body.get("type") != "message":
        raise _reported(body) if _is_error(body) else _bad("what came is no message")
    content, model = body.get("content"), body.get("model")
    if not isinstance(content, list) or not isinstance(model, str):
        raise _bad("the message has no content or model")
    blocks = tuple(block for entry in content if (block := _answered(entry)) is not None)
    counted = _Count()
    counted.note(body.get("usage"))
    sequence = body.get("stop_sequence")
    return ChatResult(
        content=blocks,
        stop=_stop(body.get("stop_reason")),
        model=model,
        usage=counted.usage(answer_tokens(blocks)),
        stop_sequence=sequence if isinstance(sequence, str) else None,
    )


class Reader:
    """Reads one stream. Events of kinds that are not known are passed over, as the API's documentation asks."""

    def __init__(self) -> None:
        self._begun = False
        self._ended = False
        self._count = _Count()
        self._length = 0
        self._ending: Mapping[str, Any] = {}
        self._tools: dict[int, tuple[str, str]] = {}
        """Of the blocks that are tool uses: the id, and arguments that came with the beginning."""
        self._said: set[int] = set()
        """Tool uses whose arguments come in pieces."""

    def feed(self, event: str | None, data: bytes) -> list[Delta]:
        """What one event says. Raises `ChatError`."""
        if self._ended:
            return []
        value = _decoded(data)
        kind = value.get("type", event)
        if kind == "error":
            raise _reported(value, begun=self._begun)
        if kind == "message_start":
            return self._start(value)
        if not self._begun and kind != "ping":
            raise _bad("the stream does not begin with its message")
        match kind:
            case "content_block_start":
                return self._block_start(_index(value), value.get("content_block"))
            case "content_block_delta":
                return self._block_delta(_index(value), value.get("delta"))
            case "content_block_stop":
                return self._block_stop(_index(value))
            case "message_delta":
                delta = value.get("delta")
                self._ending = delta if isinstance(delta, dict) else {}
                self._count.note(value.get("usage"))
            case "message_stop":
                return self._end()
        return []

    def end(self) -> None:
        """The stream has ended. Raises `ChatError` when the answer had not."""
        if not self._ended:
            raise ChatError(SOURCE_ERROR, "the provider's answer broke off")

    def _start(self, value: Mapping[str, Any]) -> list[Delta]:
        message = value.get("message")
        model = message.get("model") if isinstance(message, dict) else None
        if self._begun or not isinstance(message, dict) or not isinstance(model, str):
            raise _bad("its beginning is not of the format")
        self._begun = True
        self._count.note(message.get("usage"), final=False)
        return [Started(model, self._count.input_tokens)]

    def _block_start(self, index: int, block: Any) -> list[Delta]:
        match _answered(block):
            case Text(text):
                return self._text(text)
            case ToolUse() as use:
                given = encode(use.arguments).decode() if use.arguments else ""
                self._tools[index] = use.id, given
                return [ToolUseStarted(use.id, use.name)]
            case _:
                return []

    def _block_delta(self, index: int, delta: Any) -> list[Delta]:
        kind = delta.get("type") if isinstance(delta, dict) else None
        if kind == "text_delta" and isinstance(delta.get("text"), str):
            return self._text(delta["text"])
        if kind == "input_json_delta" and index in self._tools and isinstance(delta.get("partial_json"), str):
            if not delta["partial_json"]:
                return []
            self._said.add(index)
            return self._arguments(self._tools[index][0], delta["partial_json"])
        if kind in ("text_delta", "input_json_delta"):
            raise _bad("a piece of it is not of the format")
        return []  # thinking, its signature, citations

    def _block_stop(self, index: int) -> list[Delta]:
        id, given = self._tools.get(index, ("", ""))
        return self._arguments(id, given) if given and index not in self._said else []

    def _text(self, text: str) -> list[Delta]:
        self._length += len(text)
        return [TextDelta(text)] if text else []

    def _arguments(self, id: str, text: str) -> list[Delta]:
        self._length += len(text)
        return [ArgumentsDelta(id, text)]

    def _end(self) -> list[Delta]:
        self._ended = True
        sequence = self._ending.get("stop_sequence")
        usage = self._count.usage(estimate(["x" * self._length]))
        stop = _stop(self._ending.get("stop_reason"))
        return [Ended(stop, usage, sequence if isinstance(sequence, str) else None)]


def _decoded(data: bytes) -> Mapping[str, Any]:
    try:
        value = decode(data)
    except JsonError:
        value = None
    if not isinstance(value, dict):
        raise _bad("an event is no JSON object")
    return value


def _index(value: Mapping[str, Any]) -> int:
    index = value.get("index")
    if not isinstance(index, int):
        raise _bad("an event has no index")
    return index


def _bad(message: str) -> ChatError:
    return ChatError(SOURCE_ERROR, f"the provider's answer cannot be read: {message}")


def _is_error(value: Any) -> bool:
    return isinstance(value, dict) and value.get("type") == "error"


def _reported(value: Mapping[str, Any], *, begun: bool = True) -> ChatError:
    """An error that the provider tells of. One that is over soon may be told as such while nothing was passed on."""
    error = value.get("error")
    error = error if isinstance(error, dict) else {}
    kind, message = error.get("type"), error.get("message")
    said = f": {message[:_MESSAGE]}" if isinstance(message, str) else ""
    problem = SOURCE_ERROR if begun or not isinstance(kind, str) else _BUSY.get(kind, SOURCE_ERROR)
    return ChatError(problem, f"the provider reports an error{said}")


def _stop(reason: Any) -> StopReason:
    return _STOPS.get(reason, StopReason.END) if isinstance(reason, str) else StopReason.END


def _answered(block: Any) -> Text | ToolUse | None:
    """A block of an answer; None for thinking."""
    kind = block.get("type") if isinstance(block, dict) else None
    if kind == "text" and isinstance(block.get("text"), str):
        return Text(block["text"])
    if kind == "tool_use":
        id, name, arguments = block.get("id"), block.get("name"), block.get("input")
        if isinstance(id, str) and isinstance(name, str) and isinstance(arguments, dict):
            return ToolUse(id, name, arguments)
    if isinstance(kind, str) and kind in _THOUGHTS:
        return None
    raise _bad("it has a block that is neither words nor a tool use")


class _Count:
    """Tokens as they are told; later counts replace earlier ones."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def note(self, usage: Any, *, final: bool = True) -> None:
        """What a usage says; one that is not ``final`` says nothing of the answer yet."""
        for key in (*_INPUT, "output_tokens") if final else _INPUT:
            value = usage.get(key) if isinstance(usage, dict) else None
            if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
                self._counts[key] = value

    @property
    def input_tokens(self) -> int:
        """With those that came from a cache, which the API counts apart."""
        return sum(self._counts.get(key, 0) for key in _INPUT)

    def usage(self, guess: int) -> Usage:
        """``guess``: of the answer's length, for when nobody says it."""
        output = self._counts.get("output_tokens")
        known = output is not None and "input_tokens" in self._counts
        return Usage(self.input_tokens, guess if output is None else output, estimated=not known)
