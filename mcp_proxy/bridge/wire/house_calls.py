"""Tools of this service in requests: which are wanted, and how uses of them are put that clients bring back as history.

Where they are wanted again, a use is put as the tool use it was, under the name that the model is given for it now; else
it is retold in words, since models that are given no tools take no tool uses. What the uses look like is each API's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from mcp_proxy.bridge.chat import (
    ALL_TOOLS,
    Block,
    HouseCall,
    HouseResult,
    HouseUse,
    Message,
    Role,
    Text,
    ToolResult,
    ToolUse,
)
from mcp_proxy.bridge.tool_names import tool_name
from mcp_proxy.bridge.wire import reading
from mcp_proxy.bridge.wire.openai_chat_content import Conversation
from mcp_proxy.bridge.wire.reading import wrong

_MOST_GLOBS = 128
_LONGEST_GLOB = 200


def wanted(value: Any, *, listed: bool) -> tuple[str, ...]:
    """The globs of ``mcp_tools`` (`ChatRequest.house_tools`). Raises `ChatError`.

    ``listed``: a tool of type ``mcp`` is listed, which wants all of them; a list of globs narrows that.
    """
    if value is None or isinstance(value, bool):
        return ALL_TOOLS if value or listed else ()
    if not isinstance(value, list):
        raise wrong("mcp_tools", "must be true, false or an array of strings")
    if len(value) > _MOST_GLOBS:
        raise wrong("mcp_tools", f"must hold at most {_MOST_GLOBS} strings")
    globs = tuple(reading.name(glob, f"mcp_tools[{index}]") for index, glob in enumerate(value))
    for index, glob in enumerate(globs):
        if len(glob) > _LONGEST_GLOB:
            raise wrong(f"mcp_tools[{index}]", f"must be at most {_LONGEST_GLOB} characters long")
    return globs


def put(turns: Conversation, calls: Iterable[HouseCall], at: str, *, house: bool) -> None:
    """Put uses, made at the same time, into the conversation. ``house``: they are wanted again. Raises `ChatError`."""
    calls = list(calls)
    if not house or len({call.id for call in calls}) < len(calls):
        turns.assistant([retold(call) for call in calls], at)
        return
    turns.assistant([_use(call) for call in calls], at)
    for call in calls:
        turns.result(_result(call), at)


def replayed(blocks: Iterable[Block | HouseUse | HouseResult], *, house: bool) -> Iterator[Message]:
    """What the assistant said in one turn as messages: results end one. Uses without a result, and the other way round,
    are of an answer that broke off, and are left out.
    """
    blocks = list(blocks)
    results = {block.id: block for block in blocks if isinstance(block, HouseResult)}
    segment = _Segment()
    for block in blocks:
        match block:
            case HouseResult():
                segment.answered = bool(segment.results)
            case HouseUse():
                if (result := results.get(block.id)) is None:
                    continue
                call = HouseCall(block.id, block.server, block.tool, block.arguments, result.text, result.is_error)
                if segment.answered:  # what is used now was used later
                    yield from segment.taken()
                segment.use(call, house=house)
            case _:
                if segment.results:
                    yield from segment.taken()
                segment.said.append(block)
    yield from segment.taken()


class _Segment:
    """What is said up to results, and these."""

    def __init__(self) -> None:
        self.said: list[Block] = []
        self.results: list[ToolResult] = []
        self.answered = False

    def use(self, call: HouseCall, *, house: bool) -> None:
        """Put a use: in words, where it would stand beside one that the caller has to answer, or one of the same id."""
        uses = [block.id for block in self.said if isinstance(block, ToolUse)]
        if house and len(uses) == len(self.results) and call.id not in uses:
            self.said.append(_use(call))
            self.results.append(_result(call))
        else:
            self.said.append(retold(call))

    def taken(self) -> Iterator[Message]:
        """The messages that it is; another segment begins."""
        if self.said:
            yield Message(Role.ASSISTANT, tuple(self.said))
        if self.results:
            yield Message(Role.USER, tuple(self.results))
        self.said, self.results, self.answered = [], [], False


def retold(call: HouseCall) -> Text:
    """A use in words."""
    what = f"{call.tool} of {call.server}" if call.server else call.tool
    how = "It failed" if call.is_error else "It answered"
    return Text(f"[Used the tool {what} with {call.arguments}. {how}: {call.text}]\n")


def _use(call: HouseCall) -> ToolUse:
    return ToolUse(call.id, tool_name(call.server, call.tool), json.loads(call.arguments))


def _result(call: HouseCall) -> ToolResult:
    return ToolResult(call.id, (Text(call.text),) if call.text else (), call.is_error)
