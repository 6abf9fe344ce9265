"""A completion in words of the tests' own: what is asked and what is answered, whatever API or protocol carries it.

The scripted model (`brain`) works on these, callers (`ways`) and sources write and read them. Kept apart from the
product's own values, so that a mistake there is not made twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Words:
    """Text."""

    text: str


@dataclass(frozen=True, slots=True)
class Picture:
    """An image; ``data`` is base64."""

    kind: str
    data: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Recording:
    """Audio; ``data`` is base64."""

    kind: str
    data: str = field(repr=False)


@dataclass(frozen=True)
class Use:
    """A tool call."""

    id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Result:
    """What a tool said."""

    id: str
    content: tuple[Words | Picture, ...]
    failed: bool = False


Block = Words | Picture | Recording | Use | Result


@dataclass(frozen=True, slots=True)
class Turn:
    """All that one side (``user``, ``assistant``) says until the other does."""

    role: str
    blocks: tuple[Block, ...]

    @property
    def text(self) -> str:
        """Its words, one block a line."""
        return "\n".join(block.text for block in self.blocks if isinstance(block, Words))


@dataclass(frozen=True)
class Tool:
    """A tool of the caller's."""

    name: str
    schema: Mapping[str, Any]
    description: str | None = None


@dataclass(frozen=True)
class Question:
    """``choice`` is auto, none, required, or the name of a tool. ``schema``: the answer is to be JSON of it."""

    turns: tuple[Turn, ...]
    model: str = "fast"
    system: str | None = None
    tools: tuple[Tool, ...] = ()
    choice: str = "auto"
    parallel: bool = True
    max_tokens: int | None = None
    temperature: float | None = None
    stop: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None

    @property
    def pictures(self) -> list[Picture]:
        """Every image, those of tools' results included."""
        found: list[Picture] = []
        for block in (block for turn in self.turns for block in turn.blocks):
            inside = block.content if isinstance(block, Result) else (block,)
            found += [part for part in inside if isinstance(part, Picture)]
        return found


@dataclass(frozen=True)
class Answer:
    """``end`` is end, length, stop, tools or refusal; ``usage`` the tokens of question and answer. One that ``lingers`` is
    begun and not gone on with, where it can be said in pieces."""

    blocks: tuple[Words | Use, ...]
    end: str = "end"
    model: str = "brain-1"
    usage: tuple[int, int] | None = None
    stopped_by: str | None = None
    lingers: bool = False

    @property
    def text(self) -> str:
        return "".join(block.text for block in self.blocks if isinstance(block, Words))

    @property
    def uses(self) -> list[Use]:
        return [block for block in self.blocks if isinstance(block, Use)]

    @property
    def calls(self) -> list[tuple[str, Mapping[str, Any]]]:
        """Names and arguments, without the ids."""
        return [(use.name, use.arguments) for use in self.uses]


def turns(*said: str | Turn) -> tuple[Turn, ...]:
    """Texts by user and assistant in turn, the user first."""
    roles = ("user", "assistant")
    return tuple(
        one if isinstance(one, Turn) else Turn(roles[index % 2], (Words(one),)) for index, one in enumerate(said)
    )


def ask(text: str, **more: Any) -> Question:
    """A question of one text."""
    return Question(turns(text), **more)


def merged(given: Iterable[Turn]) -> tuple[Turn, ...]:
    """Turns as they are meant: what one side says in several messages is one turn."""
    found: list[Turn] = []
    for turn in given:
        if found and found[-1].role == turn.role:
            found[-1] = replace(found[-1], blocks=found[-1].blocks + turn.blocks)
        else:
            found.append(turn)
    return tuple(found)
