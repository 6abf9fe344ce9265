"""One round of a completion with the tools of the house: what of it is the caller's, and what is to be used here. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from mcp_proxy.base.json import JsonError, encode, read_strict
from mcp_proxy.bridge.chat import (
    ArgumentsDelta,
    Block,
    ChatRequest,
    Delta,
    Ended,
    HouseUse,
    Started,
    StopReason,
    Text,
    TextDelta,
    ToolUse,
    ToolUseStarted,
    Usage,
    estimate,
)
from mcp_proxy.bridge.tool_names import OwnName, fitted

_UNKNOWN = "there is no tool of this name; use one of those that are given"


@dataclass(frozen=True, slots=True)
class Use:
    """A use of a tool of this service's. ``name`` is the model's name of it; ``fault``: why it cannot be used so."""

    id: str
    name: str
    server: str
    tool: str
    arguments: Mapping[str, Any]
    fault: str | None = None

    @property
    def delta(self) -> HouseUse:
        """It is being used."""
        return HouseUse(self.id, self.server, self.tool, encode(self.arguments).decode())


class Uses:
    """What is the same in all rounds: whose tools are whose, and that no two uses have one id."""

    def __init__(self, ask: ChatRequest, own_names: Mapping[str, OwnName]) -> None:
        """``own_names``: the tools of this service by the model's names of them."""
        self.own_names = own_names
        self.callers = {tool.name for tool in ask.tools}
        self.begun = False
        """Whether the caller has been told that the answer begins."""
        blocks = (block for message in ask.messages for block in message.content)
        self._ids = {block.id for block in blocks if isinstance(block, ToolUse)}

    def new_id(self, id: str) -> str:
        """That id, or one like it: models that are asked anew may begin to count anew."""
        while id in self._ids:
            id += "_"
        self._ids.add(id)
        return id

    def use(self, id: str, name: str, text: str) -> Use:
        """What the model wants of this service; ``text`` is the arguments, as it says them."""
        server, tool = self.own_names.get(name, ("", name))
        fault = _UNKNOWN if name not in self.own_names else None
        arguments: Any = None
        try:
            arguments = read_strict(text.encode()) if text.strip() else {}
        except JsonError as error:
            fault = fault or f"the arguments are not acceptable JSON: {error}"
        except UnicodeEncodeError:
            fault = fault or "the arguments are not acceptable JSON: they are no Unicode"
        if not isinstance(arguments, dict):
            fault = fault or "the arguments are no JSON object"
        return Use(id, fitted(name), server, tool, arguments if isinstance(arguments, dict) else {}, fault)


class Round:
    """One answer of the model, as it comes."""

    def __init__(self, uses: Uses) -> None:
        self._uses = uses
        self._blocks: list[str | _Held] = []
        """Words, and what is held back."""
        self._held: dict[str, _Held] = {}
        self._ids: dict[str, str] = {}
        """What the ids of the caller's tool uses have become."""
        self._input: int | None = None
        self._length = 0
        self._house: tuple[Use, ...] | None = None
        self.ended: Ended | None = None

    def feed(self, delta: Delta) -> Iterator[Delta]:
        """What of it the caller gets at once: words, and uses of its own tools."""
        match delta:
            case Started():
                self._input = delta.input_tokens
                if not self._uses.begun:
                    self._uses.begun = True
                    yield delta
            case TextDelta():
                self._length += len(delta.text)
                self._words(delta.text)
                yield delta
            case ToolUseStarted():
                yield from self._use(delta)
            case ArgumentsDelta():
                self._length += len(delta.json)
                if (held := self._held.get(delta.id)) is not None:
                    held.pieces.append(delta.json)
                else:
                    yield replace(delta, id=self._ids[delta.id])
            case Ended():
                self.ended = delta
            case _:
                yield delta

    def _words(self, text: str) -> None:
        if self._blocks and isinstance(last := self._blocks[-1], str):
            self._blocks[-1] = last + text
        else:
            self._blocks.append(text)

    def _use(self, delta: ToolUseStarted) -> Iterator[Delta]:
        id = self._uses.new_id(delta.id)
        if delta.name in self._uses.callers:
            self._ids[delta.id] = id
            yield replace(delta, id=id)
        else:
            held = self._held[delta.id] = _Held(id, delta.name, [])
            self._blocks.append(held)

    @property
    def wants_callers(self) -> bool:
        """Whether tools of the caller's are to be used."""
        return bool(self._ids)

    @property
    def goes_on(self) -> bool:
        """Whether there is another round: tools of this service are to be used, no others, and nothing was cut short."""
        whole = self.ended is not None and self.ended.stop in (StopReason.TOOL_USE, StopReason.END)
        return whole and bool(self._held) and not self.wants_callers

    @property
    def house(self) -> tuple[Use, ...]:
        """What is to be used of this service, once the round is over."""
        if self._house is None:
            self._house = tuple(
                self._uses.use(held.id, held.name, "".join(held.pieces)) for held in self._held.values()
            )
        return self._house

    @property
    def content(self) -> tuple[Block, ...]:
        """What the model is to be told that it said, once the round is over. Blank words are none: APIs refuse them."""
        uses = {use.id: ToolUse(use.id, use.name, use.arguments) for use in self.house}
        said = (Text(block) if isinstance(block, str) else uses[block.id] for block in self._blocks)
        return tuple(block for block in said if not isinstance(block, Text) or block.text.strip())

    @property
    def guess(self) -> Usage | None:
        """What a round that did not come to its end took; None if it did not begin."""
        return None if self._input is None else Usage(self._input, estimate(["x" * self._length]))


@dataclass(frozen=True, slots=True)
class _Held:
    """A use that the caller does not get. ``pieces`` are its arguments."""

    id: str
    name: str
    pieces: list[str]
