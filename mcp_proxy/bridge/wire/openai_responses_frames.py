"""An answer as the events of a stream of ``/v1/responses``.

Order and required fields: platform.openai.com/docs (Responses, Streaming events) and what the official library fails
without. Items have their place in the answer in every event, so that several tool uses can go on at the same time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
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
    TextDelta,
    ToolUseStarted,
)
from mcp_proxy.bridge.errors import ChatError
from mcp_proxy.bridge.wire.openai_chat_frames import KEEP_ALIVE, error_body
from mcp_proxy.bridge.wire.openai_responses_object import Head, call, mcp_call, message, outcome, text_part


@dataclass(slots=True)
class _Item:
    """A place of the answer. ``tool``: the use that it is, or None for words."""

    id: str
    index: int
    tool: ToolUseStarted | None
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def is_complete(self) -> bool:
        """Whether nothing can follow: words are followed by another item only, arguments end with their object."""
        if self.tool is None:
            return True
        if not self.pieces or not self.pieces[-1].rstrip().endswith("}"):
            return False
        try:
            json.loads(self.text)
        except (ValueError, RecursionError):
            return False
        return True

    def value(self, status: str) -> dict[str, Any]:
        """The item as it is in an answer."""
        if self.tool is None:
            return message(self.id, self.text, status)
        return call(self.id, self.tool.id, self.tool.name, self.text, status)


class Frames:
    """The events of one answer. `first`, then `delta` for each delta; `error` ends it early."""

    KEEP_ALIVE = KEEP_ALIVE

    def __init__(self, ask: ChatRequest, *, id: str, created: int) -> None:
        self._head = Head(ask, id, created)
        self._model: str | None = None
        self._sent = 0
        self._output: list[dict[str, Any]] = []
        """The items as they are when complete; those that are open are in it too, at their place."""
        self._open: dict[int, _Item] = {}
        self._uses: dict[str, _Item] = {}
        self._house: dict[str, tuple[HouseUse, int]] = {}
        """Uses of this service's tools that go on, and their places."""

    def first(self) -> bytes:
        """A sign of life. The response itself begins with `Started`: what model answers is not known before."""
        return KEEP_ALIVE

    def delta(self, delta: Delta) -> bytes:
        """The events that say so; none for words that are none."""
        match delta:
            case Started():
                return self._begin(delta.model)
            case TextDelta():
                return self._words(delta.text)
            case ToolUseStarted():
                frames, item = self._added("fc", delta)
                self._uses[delta.id] = item
                return frames
            case ArgumentsDelta():
                return self._piece(self._uses[delta.id], delta.json)
            case HouseUse():
                return self._house_use(delta)
            case HouseResult():
                return self._house_result(delta)
            case Ended():
                return self._end(delta)

    def error(self, error: ChatError, request_id: str) -> bytes:
        """The events that tell of a failure: one that the libraries raise, and the response's end, which others look for."""
        frames = self._begin(self._head.ask.model) if self._model is None else b""
        told = error_body(error, request_id)["error"]
        flat = {"code": told["code"], "message": told["message"], "param": told["param"]}
        frames += self._event("error", {**flat, "error": told})
        for item in self._open.values():
            self._output[item.index] = item.value("incomplete")
        for _, index in self._house.values():
            self._output[index] = {**self._output[index], "status": "incomplete"}
        response = self._head.failed(self._model or "", self._output, error)
        return frames + self._event("response.failed", {"response": response})

    def _event(self, kind: str, fields: dict[str, Any]) -> bytes:
        value = {"type": kind, **fields, "sequence_number": self._sent}
        self._sent += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), encode(value))

    def _begin(self, model: str) -> bytes:
        self._model = model
        begun = {"response": self._head.begun(model)}
        return self._event("response.created", begun) + self._event("response.in_progress", begun)

    def _words(self, text: str) -> bytes:
        if not text:
            return b""
        item = self._open.get(len(self._output) - 1)
        frames = b""
        if item is None or item.tool is not None:
            frames, item = self._added("msg", None)
        return frames + self._piece(item, text)

    def _added(self, kind: str, tool: ToolUseStarted | None) -> tuple[bytes, _Item]:
        """The end of what is complete, and the beginning of a new item."""
        ended = self._complete()
        index = len(self._output)
        item = _Item(self._head.item(kind, index), index, tool)
        begun = message(item.id, None, "in_progress") if tool is None else item.value("in_progress")
        self._output.append(begun)
        self._open[index] = item
        frames = ended + self._event("response.output_item.added", {"output_index": index, "item": begun})
        if tool is None:
            frames += self._event("response.content_part.added", {**_at(item), "part": text_part("")})
        return frames, item

    def _complete(self) -> bytes:
        """The end of what is complete."""
        return b"".join(self._done(item, "completed") for item in list(self._open.values()) if item.is_complete)

    def _house_use(self, use: HouseUse) -> bytes:
        ended = self._complete()
        index = len(self._output)
        id = self._head.item("mcp", index)
        self._house[use.id] = use, index
        self._output.append(mcp_call(id, use))
        # Clients put arguments together from what follows.
        begun = {**self._output[index], "arguments": ""}
        place = {"item_id": id, "output_index": index}
        return b"".join(
            [
                ended,
                self._event("response.output_item.added", {"output_index": index, "item": begun}),
                self._event("response.mcp_call.in_progress", place),
                self._event("response.mcp_call_arguments.delta", {**place, "delta": use.arguments}),
                self._event("response.mcp_call_arguments.done", {**place, "arguments": use.arguments}),
            ]
        )

    def _house_result(self, result: HouseResult) -> bytes:
        use, index = self._house.pop(result.id)
        id = self._head.item("mcp", index)
        called = HouseCall(use.id, use.server, use.tool, use.arguments, result.text, result.is_error)
        self._output[index] = mcp_call(id, called)
        ended = "failed" if result.is_error else "completed"
        return self._event(f"response.mcp_call.{ended}", {"item_id": id, "output_index": index}) + self._event(
            "response.output_item.done", {"output_index": index, "item": self._output[index]}
        )

    def _piece(self, item: _Item, text: str) -> bytes:
        # After its object there can only be white space, which need not be told.
        if not text or item.index not in self._open:
            return b""
        item.pieces.append(text)
        if item.tool is None:
            return self._event("response.output_text.delta", {**_at(item), "delta": text, "logprobs": []})
        return self._event("response.function_call_arguments.delta", {**_at(item), "delta": text})

    def _done(self, item: _Item, status: str) -> bytes:
        """The end of an item."""
        frames = b""
        if item.tool is not None and not item.text.strip():
            # No arguments at all are not JSON, which clients read them as.
            frames = self._piece(item, "{}")
        del self._open[item.index]
        value = self._output[item.index] = item.value(status)
        if item.tool is None:
            frames += self._event("response.output_text.done", {**_at(item), "text": item.text, "logprobs": []})
            frames += self._event("response.content_part.done", {**_at(item), "part": text_part(item.text)})
        else:
            told = {"name": item.tool.name, "arguments": item.text}
            frames += self._event("response.function_call_arguments.done", {**_at(item), **told})
        return frames + self._event("response.output_item.done", {"output_index": item.index, "item": value})

    def _end(self, ended: Ended) -> bytes:
        status, _ = outcome(ended.stop)
        last = len(self._output) - 1
        frames = b"".join(
            self._done(item, status if item.index == last else "completed") for item in list(self._open.values())
        )
        response = self._head.ended(self._model or "", self._output, ended.stop, ended.usage)
        return frames + self._event(f"response.{status}", {"response": response})


def _at(item: _Item) -> dict[str, Any]:
    place: dict[str, Any] = {"item_id": item.id, "output_index": item.index}
    return place | {"content_index": 0} if item.tool is None else place
