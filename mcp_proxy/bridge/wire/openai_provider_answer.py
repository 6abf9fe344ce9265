"""What a server of OpenAI's chat completions answers, whole or as a stream. The requests are `openai_provider`.

Servers of others leave out parts of the format: indices and ids of tool calls, tokens, the reason of the end. What can be
told without them is. Thoughts are left out, and so is whatever else stands beside words and tool calls. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mcp_proxy.base.json import JsonError, decode
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
from mcp_proxy.bridge.errors import SOURCE_ERROR, ChatError

_MESSAGE = 500
_STOPS = {"length": StopReason.MAX_TOKENS, "content_filter": StopReason.REFUSAL}


def read_result(body: Any) -> ChatResult:
    """A whole answer. Raises `ChatError` (SOURCE_ERROR)."""
    given = _object(body, "what came is no object")
    _check(given)
    choice = _object(_first(given.get("choices")), "it has no choice")
    message = _object(choice.get("message"), "it has no message")
    words, refused = _words(message.get("content")), _words(message.get("refusal"))
    blocks: list[Text | ToolUse] = [Text(words + refused)] if words + refused else []
    ids = _Ids(given.get("id"))
    for call in _array(message.get("tool_calls")):
        function = _object(_object(call, "a tool call is no object").get("function"), "a tool call has no function")
        blocks.append(ToolUse(ids.unique(call.get("id")), _name(function), _arguments(function.get("arguments"))))
    used = any(isinstance(block, ToolUse) for block in blocks)
    return ChatResult(
        content=tuple(blocks),
        stop=_stop(choice.get("finish_reason"), used=used, refused=bool(refused)),
        model=_model(given),
        usage=_usage(given.get("usage")) or Usage(0, answer_tokens(blocks)),
    )


class Reader:
    """Reads one stream. It ends with ``[DONE]``, or with its tokens once the reason of its end was told."""

    def __init__(self) -> None:
        self._begun = False
        self._ended = False
        self._finish: Any = None
        self._refused = False
        self._usage: Usage | None = None
        self._length = 0
        self._ids = _Ids(None)
        self._calls: dict[int, tuple[Any, str]] = {}
        """Tool calls by their index: the id that the provider gave it, and ours."""

    def feed(self, event: str | None, data: bytes) -> list[Delta]:
        """What one event says. Raises `ChatError`."""
        if self._ended:
            return []
        if data.strip() == b"[DONE]":
            return self._end()
        chunk = _object(_decoded(data), "an event is no JSON object")
        _check(chunk, event)
        deltas = list(self._chunk(chunk))
        if (usage := _usage(chunk.get("usage"))) is not None:
            self._usage = usage
            if self._finish is not None:
                deltas += self._end()
        return deltas

    def end(self) -> None:
        """The stream has ended. Raises `ChatError` when the answer had not."""
        if not self._ended:
            raise ChatError(SOURCE_ERROR, "the provider's answer broke off")

    def _chunk(self, chunk: Mapping[str, Any]) -> Iterator[Delta]:
        choice = _first(chunk.get("choices"))
        if choice is None:  # tokens, or a filter's verdict on the question
            return
        choice = _object(choice, "a choice is no object")
        if not self._begun:
            self._begun = True
            self._ids = _Ids(chunk.get("id"))
            yield Started(_model(chunk), 0)
        delta = choice.get("delta")
        yield from self._delta({} if delta is None else _object(delta, "a delta is no object"))
        if choice.get("finish_reason") is not None:
            self._finish = choice["finish_reason"]

    def _delta(self, delta: Mapping[str, Any]) -> Iterator[Delta]:
        refused = _words(delta.get("refusal"))
        self._refused = self._refused or bool(refused)
        if words := _words(delta.get("content")) + refused:
            self._length += len(words)
            yield TextDelta(words)
        for call in _array(delta.get("tool_calls")):
            yield from self._tool_call(_object(call, "a tool call is no object"))

    def _tool_call(self, call: Mapping[str, Any]) -> Iterator[Delta]:
        """A new tool call, or more of one: by its index, and where that is the same for all, by its id and name."""
        function = call.get("function")
        function = {} if function is None else _object(function, "a function is no object")
        given, index = call.get("id") or None, self._index(call)
        known = self._calls.get(index)
        if known is None or (given is not None and function.get("name") and given != known[0]):
            started = ToolUseStarted(self._ids.unique(given), _name(function))
            self._calls[index] = given, started.id
            yield started
        text = function.get("arguments")
        if text is not None and not isinstance(text, str):
            raise _bad("the arguments of a tool call are no text")
        if text:
            self._length += len(text)
            yield ArgumentsDelta(self._calls[index][1], text)

    def _index(self, call: Mapping[str, Any]) -> int:
        index = call.get("index")
        if isinstance(index, int):
            return index
        last = max(self._calls, default=-1)
        return last + 1 if call.get("id") and self._calls.get(last, (None, ""))[0] != call["id"] else max(last, 0)

    def _end(self) -> list[Delta]:
        if not self._begun:
            raise _bad("it is empty")
        self._ended = True
        usage = self._usage or Usage(0, estimate(["x" * self._length]))
        return [Ended(_stop(self._finish, used=bool(self._calls), refused=self._refused), usage)]


class _Ids:
    """The ids of an answer's tool calls, told apart where the provider does not."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer if isinstance(answer, str) else ""
        self._seen: set[str] = set()

    def unique(self, given: Any) -> str:
        """The id that was given where it is one, and none before it was the same."""
        id = given if isinstance(given, str) and given else f"call_{self._answer}_{len(self._seen)}"
        while id in self._seen:
            id += "_"
        self._seen.add(id)
        return id


def _bad(message: str) -> ChatError:
    return ChatError(SOURCE_ERROR, f"the provider's answer cannot be read: {message}")


def _decoded(data: bytes) -> Any:
    try:
        return decode(data)
    except JsonError:
        return None


def _object(value: Any, fault: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _bad(fault)
    return value


def _array(value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise _bad("an array is none")
    return value


def _first(choices: Any) -> Any:
    """The choice that was asked for; None where there is none."""
    return next(iter(_array(choices)), None)


def _model(given: Mapping[str, Any]) -> str:
    model = given.get("model")
    return model if isinstance(model, str) else ""


def _name(function: Mapping[str, Any]) -> str:
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise _bad("a tool call has no name")
    return name


def _words(content: Any) -> str:
    """The words of a content; in an array of parts there can be thoughts beside them."""
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        return "".join(text for text in texts if isinstance(text, str))
    if content is not None and not isinstance(content, str):
        raise _bad("its content is no text")
    return content or ""


def _arguments(value: Any) -> Mapping[str, Any]:
    if isinstance(value, str):
        value = _decoded(value.encode(errors="replace")) if value.strip() else {}
    if value is None:
        return {}
    return _object(value, "the arguments of a tool call are no JSON object")


def _check(given: Mapping[str, Any], event: str | None = None) -> None:
    """Raises `ChatError` for an error that the provider tells of."""
    error = given.get("error")
    if not error and event != "error":
        return
    message = error.get("message") if isinstance(error, dict) else error or given.get("message")
    said = f": {message[:_MESSAGE]}" if isinstance(message, str) else ""
    raise ChatError(SOURCE_ERROR, f"the provider reports an error{said}")


def _stop(finish: Any, *, used: bool, refused: bool) -> StopReason:
    """``used``: there are tool calls, which not all providers say in their reason."""
    ended = StopReason.TOOL_USE if used else StopReason.REFUSAL if refused else StopReason.END
    return _STOPS.get(finish, ended) if isinstance(finish, str) else ended


def _usage(value: Any) -> Usage | None:
    if not isinstance(value, dict):
        return None
    counts = value.get("prompt_tokens"), value.get("completion_tokens")
    if any(isinstance(count, bool) or not isinstance(count, int) or count < 0 for count in counts):
        return None
    return Usage(counts[0] or 0, counts[1] or 0, estimated=False)
