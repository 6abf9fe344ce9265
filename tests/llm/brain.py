"""The scripted model that answers in these tests, wherever it is asked: it does what the lines of the last question say.

A line is a cue with its matter, such as ``say: hello``, ``count to 20``, ``call get_weather {"city": "Oslo"}``; the table
is `_CUES`. A question without a cue is repeated. What was asked, and how much at once, is kept for the test to look at.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.harness import eventually
from tests.llm.conversation import Answer, Picture, Question, Result, Turn, Use, Words

MODEL = "brain-1"
UNICODE = 'Grüße, 世界! 👩‍👩‍👧‍👦 é "quoted" \\ \t tab\nשלום — end\u2028line'
_COMPLAINT = "That does not fit"
"""How the service begins when it asks for an answer in the right form again."""
_SHOWN = "Images that the tool call"
"""How it begins when it shows what a tool returned to a model whose tools can only say words."""


class Fails(Exception):
    """The model's side has a fault."""


class Rejects(Exception):
    """The person in front of it does not want this answered."""


class Busy(Exception):
    """It has too much to do; ``seconds`` until it may be asked again."""

    def __init__(self, seconds: int) -> None:
        super().__init__("too much to do")
        self.seconds = seconds


class BreaksOff(Exception):
    """It ends in the middle of an answer, of which ``text`` has been said."""

    def __init__(self, text: str) -> None:
        super().__init__("broken off")
        self.text = text


@dataclass
class _Draft:
    """An answer in the making. ``round``: how often tools have answered since the cues; ``again``: the form was wrong."""

    question: Question
    round: int
    again: bool
    results: list[Result]
    said: list[str] = field(default_factory=list)
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    later: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    finally_: str | None = None
    end: str | None = None
    stopped_by: str | None = None
    usage: tuple[int, int] | None = None
    seconds: float = 0.0
    waits: bool = False
    lingers: bool = False
    error: Exception | None = None


def _calls(draft: _Draft, matter: str) -> None:
    draft.calls.append(_call(matter))


def _call(matter: str) -> tuple[str, dict[str, Any]]:
    name, _, arguments = matter.partition(" ")
    return name, json.loads(arguments or "{}")


def _call_two(draft: _Draft, _: str) -> None:
    draft.calls += [(tool.name, {}) for tool in draft.question.tools[:2]]


def _say(draft: _Draft, matter: str) -> None:
    draft.said.append(matter)


def _count(draft: _Draft, matter: str) -> None:
    draft.said.append(counted(int(matter)))


def _long(draft: _Draft, matter: str) -> None:
    draft.said.append(long(int(matter.split()[0])))


def _look(draft: _Draft, _: str) -> None:
    seen = [f"{picture.kind} of {len(picture.data)}" for picture in draft.question.pictures]
    draft.said.append("I see " + (", ".join(seen) or "nothing"))


def _prose_first(draft: _Draft, matter: str) -> None:
    draft.said.append(matter if draft.again else "Certainly! Here is what you asked for.")


def _fenced(draft: _Draft, matter: str) -> None:
    draft.said.append(f"Here you are:\n```json\n{matter}\n```\n")


def _stop_at(draft: _Draft, matter: str) -> None:
    text = "\n".join(draft.said)
    draft.said[:] = [text.partition(matter)[0]]
    draft.end, draft.stopped_by = "stop", matter


def _usage(draft: _Draft, matter: str) -> None:
    asked, answered = matter.split()
    draft.usage = int(asked), int(answered)


def _error(make: Callable[[_Draft, str], Exception]) -> Callable[[_Draft, str], None]:
    def cue(draft: _Draft, matter: str) -> None:
        draft.error = make(draft, matter)

    return cue


_CUES: dict[str, Callable[[_Draft, str], None]] = {
    "say: ": _say,
    "say literally ": lambda draft, matter: _say(draft, json.loads(matter)),
    "say nothing": lambda draft, _: _say(draft, ""),
    "count to ": _count,
    "long ": _long,
    "unicode": lambda draft, _: _say(draft, UNICODE),
    "look": _look,
    "json ": _say,
    "fenced json ": _fenced,
    "prose, then json ": _prose_first,
    "never json": lambda draft, _: _say(draft, "I would rather not."),
    "call two tools in parallel": _call_two,
    "call ": _calls,
    "then call ": lambda draft, matter: draft.later.append(_call(matter)),
    "finally say: ": lambda draft, matter: setattr(draft, "finally_", matter),
    "length": lambda draft, _: setattr(draft, "end", "length"),
    "refuse": lambda draft, _: setattr(draft, "end", "refusal"),
    "heed stop at ": _stop_at,
    "usage ": _usage,
    "slow ": lambda draft, matter: setattr(draft, "seconds", float(matter)),
    "wait": lambda draft, _: setattr(draft, "waits", True),
    "linger": lambda draft, _: setattr(draft, "lingers", True),
    "fail": _error(lambda _, matter: Fails(matter.strip(": ") or "the model has a fault")),
    "reject": _error(lambda *_: Rejects("the user does not want that")),
    "busy ": _error(lambda _, matter: Busy(int(matter))),
    "break off": _error(lambda draft, _: BreaksOff("\n".join(draft.said))),
}


def counted(most: int) -> str:
    """What ``count to`` says."""
    return " ".join(map(str, range(1, most + 1)))


def long(length: int) -> str:
    """What ``long … characters`` says: words that tell where they stand, all of one size."""
    return "".join(f"{start:09d}{'abcdefghijklmnopqrstuvwxyz' * 2}"[:39] + " " for start in range(0, length, 40))[
        :length
    ]


class Brain:
    """One model. Everything that it was asked since `forget` is there to be looked at."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self.asked: list[Question] = []
        self.cancelled = 0
        """How many questions were taken back."""
        self.bodies: list[Any] = []
        """Requests as they came to a provider."""
        self.cut = 0
        """How many answers of a provider were not read to their end."""
        self.in_flight = 0
        self.peak = 0
        self.answered = 0
        self._go = asyncio.Event()

    @property
    def last(self) -> Question:
        """What it was asked last."""
        return self.asked[-1]

    @property
    def only(self) -> Question:
        """The one question that it was asked."""
        (question,) = self.asked
        return question

    def let_go(self) -> None:
        """Answer what waits."""
        self._go.set()

    async def has_leave(self) -> None:
        """Wait until it may go on."""
        await self._go.wait()

    async def is_at_work_on(self, number: int) -> None:
        """Wait until so many questions are in its hands."""
        await eventually(lambda: self.in_flight == number, what=f"{number} questions in flight, now {self.in_flight}")

    async def is_idle(self) -> None:
        """Wait until nothing is in its hands."""
        await self.is_at_work_on(0)

    async def answer(self, question: Question) -> Answer:
        """What the cues say. Raises `Fails`, `Rejects`, `Busy`, `BreaksOff`."""
        self.asked.append(question)
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            return await self._answer(question)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.in_flight -= 1

    async def _answer(self, question: Question) -> Answer:
        draft = _draft(question)
        if draft.seconds:
            await asyncio.sleep(draft.seconds)
        if draft.waits:
            await self.has_leave()
        if draft.error is not None:
            raise draft.error
        self.answered += 1
        return self._written(draft)

    def _written(self, draft: _Draft) -> Answer:
        question = draft.question
        text, calls = _reply(draft)
        calls = calls if question.parallel else calls[:1]
        blocks: list[Words | Use] = [Words(text)] if text or not calls else []
        blocks += [Use(f"use_{next(self._ids)}", name, arguments) for name, arguments in calls]
        end = draft.end or ("tools" if calls else "end")
        return Answer(tuple(blocks), end, MODEL, draft.usage, draft.stopped_by, draft.lingers)


def _draft(question: Question) -> _Draft:
    """The cues of the question, each heeded."""
    spoken = (
        index
        for index, turn in enumerate(question.turns)
        if turn.role == "user" and turn.text and not turn.text.startswith((_COMPLAINT, _SHOWN))
    )
    at = max(spoken, default=len(question.turns) - 1)
    since = question.turns[at:]
    results = [block for turn in since for block in turn.blocks if isinstance(block, Result)]
    again = any(turn.text.startswith(_COMPLAINT) for turn in since)
    rounds = sum(any(isinstance(block, Result) for block in turn.blocks) for turn in since)
    draft = _Draft(question, rounds, again, results)
    heeded = [_heed(draft, line) for line in _lines(question.turns[at])]
    if not any(heeded):
        draft.said.append(f"You said: {question.turns[at].text}")
    return draft


def _lines(turn: Turn) -> list[str]:
    return re.split(r"\n", turn.text)


def _heed(draft: _Draft, line: str) -> bool:
    cue = next((cue for cue in _CUES if line.startswith(cue)), None)
    if cue is None:
        return False
    _CUES[cue](draft, line[len(cue) :])
    return True


def _reply(draft: _Draft) -> tuple[str, list[tuple[str, dict[str, Any]]]]:
    """Words and calls: of the cues, or of the round that tools' results have led to."""
    question = draft.question
    if draft.round:
        due = draft.later[draft.round - 1 : draft.round]
        return ("" if due else draft.finally_ or _retold(draft.results)), due
    if question.choice == "none":
        return "\n".join(draft.said) or "I may not use tools.", []
    calls = draft.calls
    if question.choice != "auto" and not calls:
        name = question.tools[0].name if question.choice == "required" else question.choice
        calls = [(name, {})]
    return "\n".join(draft.said), calls


def _retold(results: list[Result]) -> str:
    """What tools said."""
    told = []
    for result in results:
        parts = [part.kind if isinstance(part, Picture) else part.text for part in result.content]
        told.append(("failed: " if result.failed else "") + " ".join(parts))
    return "The tools say: " + "; ".join(told)
