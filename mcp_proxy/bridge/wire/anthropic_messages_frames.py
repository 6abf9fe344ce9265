"""An answer as the events of Anthropic's stream, and errors in its shape.

Order and required fields: platform.claude.com/docs (Streaming). Blocks follow one another there, each whole before the
next begins, which deltas need not do: what comes for a later block waits until the one before is complete.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mcp_proxy.base.json import encode
from mcp_proxy.bridge.chat import (
    ArgumentsDelta,
    ChatRequest,
    Delta,
    Ended,
    HouseResult,
    HouseUse,
    Started,
    StopReason,
    TextDelta,
    ToolUseStarted,
)
from mcp_proxy.bridge.errors import ChatError

STOP_REASONS: Mapping[StopReason, str] = {
    StopReason.END: "end_turn",
    StopReason.MAX_TOKENS: "max_tokens",
    StopReason.STOP_SEQUENCE: "stop_sequence",
    StopReason.TOOL_USE: "tool_use",
    StopReason.REFUSAL: "refusal",
}


THREAD = "thread"
"""The parameter of a beta by which the server keeps the conversation; the library's own tool loops ask for it."""
_NO_THREADS = {"details": {"error_code": "thread_unsupported_request", "unsupported": [THREAD]}}
"""By this the library goes on without: it then sends the whole conversation each time (message-threads-2026-08-12)."""


def error_body(error: ChatError, request_id: str) -> dict[str, Any]:
    """A failure; the parameter to blame goes into the message, since the format has no other place for it."""
    details: Mapping[str, Any] = {} if error.details is None else {"details": error.details}
    if error.param == THREAD and error.details is None:
        details = _NO_THREADS
    return {
        "type": "error",
        "error": {"type": error.problem.anthropic_type, "message": error.text, **details},
        "request_id": request_id,
    }


def usage_of(input_tokens: int, output_tokens: int) -> dict[str, int]:
    """Tokens. There is no cache here, and clients add its counts up without asking."""
    return {
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
    }


def mcp_tool_use(use: HouseUse) -> dict[str, Any]:
    """The block of a use of this service's tool. The libraries know it in betas, and pass it on elsewhere."""
    return {
        "type": "mcp_tool_use",
        "id": use.id,
        "name": use.tool,
        "server_name": use.server,
        "input": json.loads(use.arguments),
    }


def mcp_tool_result(result: HouseResult) -> dict[str, Any]:
    """The block of what the tool said."""
    content = [{"type": "text", "text": result.text}] if result.text else []
    return {"type": "mcp_tool_result", "tool_use_id": result.id, "is_error": result.is_error, "content": content}


def frame(event: str, value: Mapping[str, Any]) -> bytes:
    """One event. The official library passes over those without a name."""
    return b"event: %b\ndata: %b\n\n" % (event.encode(), encode({"type": event, **value}))


_PING = frame("ping", {})


@dataclass(slots=True)
class _Block:
    """A block that is being sent, or waits for its turn. ``tool``: the use that it is, or None for words; that of a tool
    of this service, and its result, come whole."""

    tool: ToolUseStarted | HouseUse | HouseResult | None
    waiting: list[str] = field(default_factory=list)
    whole: list[str] = field(default_factory=list)
    """The arguments so far, with which it can be told whether more can come."""

    @property
    def is_whole(self) -> bool:
        """Whether it came in one piece."""
        return isinstance(self.tool, (HouseUse, HouseResult))

    @property
    def is_complete(self) -> bool:
        """Whether nothing can follow: words are followed by another block only, arguments end with their object."""
        if not isinstance(self.tool, ToolUseStarted):
            return True
        if not self.whole or not self.whole[-1].rstrip().endswith("}"):
            return False
        try:
            json.loads("".join(self.whole))
        except (ValueError, RecursionError):
            return False
        return True


class Frames:
    """The events of one answer. `first`, then `delta` for each delta; `error` ends it early."""

    KEEP_ALIVE = _PING
    """The libraries pass it over, wherever it comes."""

    def __init__(self, ask: ChatRequest, *, id: str, created: int) -> None:
        self._id = id
        self._index = 0
        self._open = False
        self._blocks: deque[_Block] = deque()
        self._tools: dict[str, _Block] = {}

    def first(self) -> bytes:
        """A sign of life. The message itself begins with `Started`: what model answers is not known before."""
        return _PING

    def delta(self, delta: Delta) -> bytes:
        """The events that a delta allows to be sent; none where it has to wait."""
        match delta:
            case Started():
                return self._message_start(delta)
            case TextDelta():
                return self._words(delta.text)
            case ToolUseStarted():
                self._tools[delta.id] = _Block(delta)
                self._blocks.append(self._tools[delta.id])
                return self._sendable()
            case ArgumentsDelta():
                return self._arguments(self._tools[delta.id], delta.json)
            case HouseUse():
                # The input stands in the block already, for the libraries that pass its pieces over.
                self._blocks.append(_Block(delta, [delta.arguments], [delta.arguments]))
                return self._sendable()
            case HouseResult():
                self._blocks.append(_Block(delta))
                return self._sendable()
            case Ended():
                return self._all() + self._message_stop(delta)

    def error(self, error: ChatError, request_id: str) -> bytes:
        """The event that tells of a failure and ends the stream."""
        return b"event: error\ndata: %b\n\n" % encode(error_body(error, request_id))

    def _words(self, text: str) -> bytes:
        if not text:
            return b""
        if not self._blocks or self._blocks[-1].tool is not None:
            self._blocks.append(_Block(None))
        self._blocks[-1].waiting.append(text)
        return self._sendable()

    def _arguments(self, block: _Block, text: str) -> bytes:
        block.waiting.append(text)
        block.whole.append(text)
        return self._sendable() if self._blocks and block is self._blocks[0] else b""

    def _sendable(self) -> bytes:
        """What of the first block is there; and of the next, as far as the first is complete and others wait."""
        frames: list[bytes] = []
        while self._blocks:
            first = self._blocks[0]
            frames.append(self._sent(first))
            if not first.is_complete or (len(self._blocks) == 1 and not first.is_whole):
                break
            frames.append(self._closed())
        return b"".join(frames)

    def _all(self) -> bytes:
        frames: list[bytes] = []
        while self._blocks:
            frames += (self._sent(self._blocks[0]), self._closed())
        return b"".join(frames)

    def _sent(self, block: _Block) -> bytes:
        """The beginning of the block, unless it has begun, and what of it waits."""
        frames = b""
        if not self._open:
            self._open = True
            frames = frame("content_block_start", {"index": self._index, "content_block": _begun(block.tool)})
        text = "".join(block.waiting)
        block.waiting.clear()
        return frames + (self._piece(block, text) if text else b"")

    def _piece(self, block: _Block, text: str) -> bytes:
        if block.tool is None:
            delta = {"type": "text_delta", "text": text}
        else:
            delta = {"type": "input_json_delta", "partial_json": text}
        return frame("content_block_delta", {"index": self._index, "delta": delta})

    def _closed(self) -> bytes:
        """The end of the first block."""
        block = self._blocks.popleft()
        frames = b""
        if isinstance(block.tool, ToolUseStarted) and not any(block.whole):
            # Not every client takes no arguments at all for an empty object.
            frames = self._piece(block, "{}")
        frames += frame("content_block_stop", {"index": self._index})
        self._index += 1
        self._open = False
        return frames

    def _message_start(self, delta: Started) -> bytes:
        message: dict[str, Any] = {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": delta.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage_of(delta.input_tokens, 0),
        }
        return frame("message_start", {"message": message}) + _PING

    def _message_stop(self, delta: Ended) -> bytes:
        reason = {"stop_reason": STOP_REASONS[delta.stop], "stop_sequence": delta.stop_sequence}
        usage = usage_of(delta.usage.input_tokens, delta.usage.output_tokens)
        return frame("message_delta", {"delta": reason, "usage": usage}) + frame("message_stop", {})


def _begun(tool: ToolUseStarted | HouseUse | HouseResult | None) -> dict[str, Any]:
    """The block as it is when it begins."""
    match tool:
        case None:
            return {"type": "text", "text": ""}
        case ToolUseStarted():
            return {"type": "tool_use", "id": tool.id, "name": tool.name, "input": {}}
        case HouseUse():
            return mcp_tool_use(tool)
        case HouseResult():
            return mcp_tool_result(tool)
