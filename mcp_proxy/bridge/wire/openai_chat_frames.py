"""An answer as the chunks of an OpenAI chat completion's stream, and errors in OpenAI's shape.

Order and required fields: platform.openai.com/docs (Chat Completions, Streaming) and what breaks the official library
where it is missing. All chunks have the same id, time and model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mcp_proxy.base.json import encode
from mcp_proxy.bridge.chat import (
    ArgumentsDelta,
    ChatRequest,
    Delta,
    Ended,
    HouseCall,
    HouseResult,
    HouseUse,
    Started,
    StopReason,
    TextDelta,
    ToolUse,
    ToolUseStarted,
    Usage,
)
from mcp_proxy.bridge.errors import ChatError

KEEP_ALIVE = b": keep-alive\n\n"
"""A comment (WHATWG HTML, server-sent events): readers pass it over, wherever it comes."""
_DONE = b"data: [DONE]\n\n"
_FINISH: Mapping[StopReason, str] = {StopReason.MAX_TOKENS: "length", StopReason.REFUSAL: "content_filter"}
_TYPES = {401: "authentication_error", 402: "insufficient_quota", 403: "permission_error", 429: "rate_limit_error"}


def error_body(error: ChatError, request_id: str) -> dict[str, Any]:
    """A failure, in the envelope of all of OpenAI's APIs."""
    status = error.problem.status
    return {
        "error": {
            "message": error.message,
            "type": _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error"),
            "param": error.param,
            "code": error.problem.code,
        },
        "request_id": request_id,
    }


def finish_reason(stop: StopReason, *, used: bool) -> str:
    """Why the answer ends; agents go by ``tool_calls``, so that it is said if and only if tools are ``used``."""
    return _FINISH.get(stop, "tool_calls" if used else "stop")


def usage_of(usage: Usage) -> dict[str, Any]:
    """Tokens, with the details that clients read without asking."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def arguments_text(use: ToolUse) -> str:
    """The arguments as the JSON text that both APIs carry."""
    return json.dumps(use.arguments, ensure_ascii=False)


def tool_call(use: ToolUse) -> dict[str, Any]:
    """One entry of a message's ``tool_calls``."""
    return {"id": use.id, "type": "function", "function": {"name": use.name, "arguments": arguments_text(use)}}


def mcp_call(call: HouseCall) -> dict[str, Any]:
    """One entry of a message's ``mcp_calls``, a field that this service adds."""
    return {
        "id": call.id,
        "server": call.server,
        "name": call.tool,
        "arguments": call.arguments,
        "output": call.text,
        "is_error": call.is_error,
    }


class Frames:
    """The chunks of one answer. `first`, then `delta` for each delta; `error` ends it early."""

    KEEP_ALIVE = KEEP_ALIVE

    def __init__(self, ask: ChatRequest, *, id: str, created: int) -> None:
        self._head: dict[str, Any] = {"id": id, "object": "chat.completion.chunk", "created": created}
        self._says_usage = ask.stream_usage
        self._indices: dict[str, int] = {}
        self._blank: set[str] = set()
        """Tool uses that have no arguments yet."""
        self._house: dict[str, HouseUse] = {}
        self._called = 0

    def first(self) -> bytes:
        """A sign of life. The answer itself begins with `Started`: what model answers is not known before."""
        return KEEP_ALIVE

    def delta(self, delta: Delta) -> bytes:
        """The chunks that say so; none for words that are none."""
        match delta:
            case Started():
                self._head["model"] = delta.model
                return self._chunk({"role": "assistant", "content": "", "refusal": None})
            case TextDelta():
                return self._chunk({"content": delta.text}) if delta.text else b""
            case ToolUseStarted():
                return self._tool(delta)
            case ArgumentsDelta():
                return self._arguments(delta.id, delta.json)
            case HouseUse():
                self._house[delta.id] = delta
                return b""
            case HouseResult():
                return self._house_call(self._house.pop(delta.id), delta)
            case Ended():
                return self._end(delta)

    def error(self, error: ChatError, request_id: str) -> bytes:
        """The event that tells of a failure. It is the last: without ``[DONE]`` nobody takes the answer for complete."""
        return _event(error_body(error, request_id))

    def _tool(self, started: ToolUseStarted) -> bytes:
        """Id and name once only: clients join what they get."""
        index = self._indices[started.id] = len(self._indices)
        self._blank.add(started.id)
        function = {"name": started.name, "arguments": ""}
        return self._chunk(
            {"tool_calls": [{"index": index, "id": started.id, "type": "function", "function": function}]}
        )

    def _house_call(self, use: HouseUse, result: HouseResult) -> bytes:
        """One chunk when it is over. Clients that put deltas together want an index in the entries of all lists."""
        call = HouseCall(use.id, use.server, use.tool, use.arguments, result.text, result.is_error)
        index, self._called = self._called, self._called + 1
        return self._chunk({"mcp_calls": [{"index": index, **mcp_call(call)}]})

    def _arguments(self, id: str, text: str) -> bytes:
        if not text:
            return b""
        if not text.isspace():
            self._blank.discard(id)
        return self._chunk({"tool_calls": [{"index": self._indices[id], "function": {"arguments": text}}]})

    def _end(self, ended: Ended) -> bytes:
        # No arguments at all are not JSON, which clients read them as.
        frames = [self._arguments(id, "{}") for id in self._indices if id in self._blank]
        frames.append(self._chunk({}, finish_reason(ended.stop, used=bool(self._indices))))
        if self._says_usage:
            frames.append(_event({**self._head, "choices": [], "usage": usage_of(ended.usage)}))
        return b"".join([*frames, _DONE])

    def _chunk(self, delta: Mapping[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        usage = {"usage": None} if self._says_usage else {}
        return _event({**self._head, "choices": [choice], **usage})


def _event(value: Mapping[str, Any]) -> bytes:
    return b"data: %b\n\n" % encode(value)
