"""The cases of the npm clients: what each is called, how often the model is asked for it, and what it is asked.

What they do is in the files beside this one, under the same names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.llm.conversation import Question, Result, Use
from tests.llm.exceptions import is_declared

LONGEST = 3_000_000
"""Characters of the streams that are aborted midway."""
Seen = Callable[[list[Question]], object]


def _last(**fields: Any) -> Seen:
    return lambda asked: all(getattr(asked[-1], name) == value for name, value in fields.items())


def _history(*texts: str) -> Seen:
    return lambda asked: [turn.text for turn in asked[0].turns[:-1]] == list(texts)


def _looped(asked: list[Question]) -> bool:
    """Whether the last question has all four calls, each with its own result."""
    blocks = [block for turn in asked[-1].turns for block in turn.blocks]
    uses = [block.id for block in blocks if isinstance(block, Use)]
    results = [block.id for block in blocks if isinstance(block, Result)]
    return len(uses) == 4 and uses == results


def _in_form(asked: list[Question]) -> bool:
    """Whether the model heard of the form: as its source's own parameter, or in words."""
    return asked[0].schema is not None or "JSON" in (asked[0].system or "")


@dataclass(frozen=True)
class Case:
    """``asked``: how often the model is, in all. ``seen`` looks at these questions. ``like``: the case of the Python
    clients that it is the counterpart of, where `exceptions` says that some kind cannot have it."""

    name: str
    asked: int = 1
    seen: Seen = lambda _: True
    like: str | None = None

    def __str__(self) -> str:
        return self.name

    @property
    def api(self) -> str:
        return self.name.partition(":")[0]


def _cases(api: str, *given: Any) -> tuple[Case, ...]:
    """Cases of one API: each a name, or a `Case`."""
    return tuple(
        Case(f"{api}: {one}") if isinstance(one, str) else Case(f"{api}: {one.name}", one.asked, one.seen, one.like)
        for one in given
    )


FAILS = "test_a_model_that_fails_is_asked_once_and_its_failure_told"
NOBODY = "test_a_person_who_says_no_is_asked_once"
BUSY = "test_a_provider_that_has_too_much_to_do_is_tried_again_when_it_says"
LEAVES = "test_a_caller_who_leaves_takes_the_question_back"
STOPS = "test_conversation[an answer ends before a stop text that the model does not heed]"
TWICE = Case("other scripts and signs come unchanged", 2)
SCRIPTED = (
    Case("parse reads an answer in a form of zod's", seen=_in_form),
    Case("parse reads an answer of a JSON schema", seen=_in_form),
    Case("the helper reads a stream in a form of zod's", seen=_in_form),
)
LOOPS = tuple(
    Case(f"{name} comes to its end", 4, _looped)
    for name in ("a loop of tools by hand", "the runner's loop of tools", "the runner's loop of tools in streams")
)
REFUSED = tuple(
    Case(name, 0)
    for name in ("a key that is no token is an authentication error", "a model that the token may not use is not found")
)
ABORTED = Case("a caller who aborts takes the question back", like=LEAVES)
ABORTED_STREAM = Case("a caller who aborts a stream before it begins takes the question back", like=LEAVES)
LEFT, MIDWAY = "takes the question back", "a stream that is aborted midway ends"
LATE = "a model that does not answer in time is asked once"
LATE_STREAM = "a model that does not answer in time for a stream is asked once"
IN_PARALLEL = (
    "tools are called in parallel",
    Case("a certain tool has to be called", seen=lambda asked: asked[0].choice in ("required", "sum")),
)
ONE_TOOL = "only one tool is called where only one may be"
CHOICES = (
    Case("a tool has to be called", seen=_last(choice="required")),
    Case("no tool may be called", seen=_last(choice="none")),
)
PLAIN: tuple[str | Case, ...] = (
    Case("a history arrives in its order", seen=_history("one", "two")),
    Case("a picture is seen", seen=lambda asked: [one.kind for one in asked[0].pictures] == ["image/png"]),
    TWICE,
    "tokens that were counted are told",
    Case("an answer that was cut short says so", seen=_last(max_tokens=77)),
    "a model that declines is seen to",
    Case("an answer ends before a stop text", seen=_last(stop=("END",)), like=STOPS),
)
"""Of a chat and of messages alike."""
CASES = (
    *_cases(
        "chat",
        "a plain question is answered",
        Case("a system prompt arrives", seen=_last(system="You are a sailor.")),
        *PLAIN,
        Case("the answer comes with its headers", 2),
        "a stream comes in many pieces of one answer",
        "a stream tells its tokens when asked",
        "a long stream comes whole",
        "the helper tells of a stream as it grows",
        "a stream can be handed on to another program",
        "a tool is called",
        *IN_PARALLEL,
        ONE_TOOL,
        *CHOICES,
        "tool calls in a stream come piece by piece",
        "the helper tells of each tool call once",
        *LOOPS,
        *SCRIPTED,
        "parse reads the arguments of a tool of zod's",
        "parse does not read an answer that was cut short",
        Case("a model that fails is asked once", like=FAILS),
        Case("a model that fails in a stream is asked once", like=FAILS),
        Case("a person who says no is asked once", like=NOBODY),
        LATE,
        LATE_STREAM,
        Case("a provider that has too much to do is tried again later", like=BUSY),
        "a token's requests of a minute are counted",
        *REFUSED,
        Case("a token that has expired is an authentication error", 0),
        Case("a token without the right is told which it lacks", 0),
        Case("a number of tokens below one is a bad request", 0),
        Case("several answers are a bad request", 0, like="test_refused[chat: several answers]"),
        ABORTED,
        ABORTED_STREAM,
        Case("a caller who has no more patience takes the question back", like=LEAVES),
        MIDWAY,
    ),
    *_cases(
        "responses",
        "a plain question is answered",
        Case(
            "instructions and a history arrive",
            seen=lambda asked: _last(system="You are a sailor.")(asked) and _history("one", "two")(asked),
        ),
        Case("a picture is seen", seen=lambda asked: [one.kind for one in asked[0].pictures] == ["image/png"]),
        TWICE,
        "tokens that were counted are told",
        Case("an answer that was cut short says so", seen=_last(max_tokens=77)),
        "the events of a stream come in their order",
        "a long stream comes whole",
        "the helper tells of a stream as it grows",
        *IN_PARALLEL,
        ONE_TOOL,
        "the helper tells of arguments as they grow",
        *LOOPS,
        *SCRIPTED,
        Case("a model that fails is asked once", like=FAILS),
        LATE,
        *REFUSED,
        Case("a token without the right is refused", 0),
        Case("to go on from an answer before is a bad request", 0),
        ABORTED,
        MIDWAY,
    ),
    *_cases(
        "messages",
        "a plain question is answered",
        Case("a system prompt in blocks arrives", seen=_last(system="You are a sailor.\n\nBe brief.")),
        *PLAIN,
        "the answer comes with its headers",
        "the events of a stream come in their order",
        "a long stream comes whole",
        "the helper tells of a stream as it grows",
        "a stream can be handed on to another program",
        "a tool is called after some words",
        *IN_PARALLEL,
        ONE_TOOL,
        *CHOICES,
        "the helper tells of input as it grows",
        *LOOPS,
        Case("a tool that fails in the runner is told to the model", 2),
        Case(
            "a thread of the library goes on without the server's memory",
            2,
            lambda asked: len(asked[-1].turns) == 3 and asked[-1].system == "You are a sailor.",
        ),
        *SCRIPTED,
        Case("parse of the beta reads an answer in a form of zod's", seen=_in_form),
        Case("a model that fails is asked once", like=FAILS),
        Case("a model that fails in a stream is asked once", like=FAILS),
        Case("a person who says no is asked once", like=NOBODY),
        LATE,
        Case("a provider that has too much to do is tried again later", like=BUSY),
        "a token's requests of a minute are counted",
        *REFUSED,
        Case("a token that has expired is an authentication error", 0),
        Case("a token without the right is told which it lacks", 0),
        Case("a number of tokens below one is a bad request", 0),
        Case(
            "a picture that would have to be fetched is a bad request",
            0,
            like="test_refused[messages: a picture that would have to be fetched]",
        ),
        ABORTED,
        ABORTED_STREAM,
        MIDWAY,
        Case("tokens are counted without asking the model", 0),
    ),
    *_cases(
        "models",
        Case("OpenAI's client lists them and looks at one", 0),
        Case("OpenAI's client does not find one that there is not", 0),
        Case("Anthropic's client lists them and looks at one", 0),
        Case("Anthropic's client does not find one that there is not", 0),
    ),
)


def cases_of(kind: str) -> list[Case]:
    """All but what the kind cannot have by its nature."""
    return [case for case in CASES if not is_declared(kind, {case.like}, {case.api})]


def count(kind: str, *suffixes: str) -> int:
    """How many cases of the kind have names that end so."""
    return sum(case.name.endswith(suffixes) for case in cases_of(kind))
