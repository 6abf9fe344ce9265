"""Every conversation, in every way of asking: what is asked reaches the model, what it answers reaches the caller."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.llm.brain import UNICODE, counted, long
from tests.llm.conversation import Picture, Question, Result, Tool, Turn, Use, Words, ask, merged, turns
from tests.llm.kinds import BEHIND, PATIENCE, Kind
from tests.llm.ways import TOKENS, WAYS, Way

pytestmark = pytest.mark.anyio

DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = Tool("get_weather", CITY, "what it is like in a city")
TIME = Tool("get_time", {"type": "object", "properties": {"zone": {"type": "string"}}}, "the time")
AWKWARD = Tool("a-Tool_of-64-" + "x" * 51, {"type": "object"}, "")
NESTED = {"city": "Zürich 🏔", "at": {"list": [1, 2.5, None, True], "quote": '"\\'}}


def used(*uses: Use, said: str = "") -> Turn:
    """An assistant's turn with tool calls."""
    return Turn("assistant", (*([Words(said)] if said else []), *uses))


def results(*given: Result) -> Turn:
    """What tools said."""
    return Turn("user", given)


OSLO = Use("use_a", "get_weather", {"city": "Oslo"})
NOON = Use("use_b", "get_time", {"zone": "UTC"})


@dataclass(frozen=True)
class Conversation:
    """``name`` is the sentence that the case is about. ``arrives``: what the model is to be asked, beyond the turns."""

    name: str
    question: Question
    text: str = ""
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    end: str = "end"
    usage: tuple[int, int] | None = None
    stopped_by: str | None = None
    seen: Callable[[Question], object] = lambda _: True

    def __str__(self) -> str:
        return self.name


PICTURE = Picture("image/png", DOT)
CONVERSATIONS = (
    Conversation("a plain question is answered", ask("say: hello"), "hello"),
    Conversation("an answer may be one letter", ask("say: x"), "x"),
    Conversation(
        "what the model has no cue for comes back as it was asked",
        ask("so  much\tfor that "),
        "You said: so  much\tfor that ",
    ),
    Conversation("a system prompt arrives as one", ask("say: aye", system="You are a sailor."), "aye"),
    Conversation("a system prompt keeps its lines", ask("say: aye", system="One.\n\nTwo.\n - three"), "aye"),
    Conversation(
        "a history arrives in its order", Question(turns("one", "first", "two", "second", "say: third")), "third"
    ),
    Conversation(
        "a long history arrives whole", Question(turns(*(f"turn {n}" for n in range(40)), "say: so many")), "so many"
    ),
    Conversation(
        "words in several parts arrive apart",
        Question((Turn("user", (Words("say: one"), Words("say: two"))),)),
        "one\ntwo",
    ),
    Conversation(
        "a picture arrives beside words",
        Question((Turn("user", (Words("look"), PICTURE)),)),
        f"I see image/png of {len(DOT)}",
    ),
    Conversation(
        "several pictures arrive",
        Question((Turn("user", (PICTURE, Words("look"), Picture("image/jpeg", "AAAA"))),)),
        f"I see image/png of {len(DOT)}, image/jpeg of 4",
    ),
    Conversation(
        "a picture of an earlier turn arrives",
        Question((Turn("user", (PICTURE, Words("this is it"))), *turns("", "well")[1:], *turns("look"))),
        f"I see image/png of {len(DOT)}",
    ),
    Conversation("other scripts and signs come unchanged", ask("unicode"), UNICODE),
    Conversation("other scripts and signs arrive unchanged", ask(f"say literally {json.dumps(UNICODE)}"), UNICODE),
    Conversation(
        "blanks at both ends are kept", ask(r'say literally "\n  in the middle \n\n"'), "\n  in the middle \n\n"
    ),
    Conversation("line ends of all sorts are kept", ask(r'say literally "a\r\nb\rc\nd\n\ne"'), "a\r\nb\rc\nd\n\ne"),
    Conversation(
        "an answer that looks like the stream is none",
        ask(r'say literally "data: [DONE]\n\nevent: error\ndata: {\"error\": {\"message\": \"no\"}}\n\n: x\n\n"'),
        'data: [DONE]\n\nevent: error\ndata: {"error": {"message": "no"}}\n\n: x\n\n',
    ),
    Conversation("every word of a long count comes", ask("count to 100"), counted(100)),
    Conversation("a long answer comes whole", ask("long 8000 characters"), long(8_000)),
    Conversation("a long question arrives whole", Question(turns("x" * 100_000, "I see", "say: long")), "long"),
    Conversation("an empty answer is one", ask("say nothing"), ""),
    Conversation(
        "the most tokens arrive", ask("say: few", max_tokens=77), "few", seen=lambda question: question.max_tokens == 77
    ),
    Conversation(
        "the temperature arrives",
        ask("say: warm", temperature=0.25),
        "warm",
        seen=lambda question: question.temperature == 0.25,
    ),
    Conversation("an answer that was cut short says so", ask("say: and then\nlength"), "and then", end="length"),
    Conversation(
        "a model that declines is seen to", ask("say: I'd rather not\nrefuse"), "I'd rather not", end="refusal"
    ),
    Conversation("tokens that were counted are told", ask("say: counted\nusage 1234 56"), "counted", usage=(1234, 56)),
    Conversation(
        "an answer ends before a stop text that the model does not heed",
        ask("say: one two END three", stop=("END",)),
        "one two ",
        end="stop",
        stopped_by="END",
        seen=lambda question: question.stop == ("END",),
    ),
    Conversation(
        "the first of several stop texts counts",
        ask("say: one; two. three", stop=(".", ";")),
        "one",
        end="stop",
        stopped_by=";",
        seen=lambda question: question.stop == (".", ";"),
    ),
    Conversation(
        "a stop text within one word counts",
        ask("say: abcdefgh", stop=("def",)),
        "abc",
        end="stop",
        stopped_by="def",
    ),
    Conversation(
        "a stop text that does not come changes nothing",
        ask("say: END OF FIL", stop=("END OF FILE",)),
        "END OF FIL",
        seen=lambda question: question.stop == ("END OF FILE",),
    ),
    Conversation(
        "a model that heeds a stop text is believed",
        ask("say: red green blue\nheed stop at  green", stop=(" green",)),
        "red",
        end="stop",
        stopped_by=" green",
    ),
    Conversation(
        "a tool is called",
        ask('call get_weather {"city": "Oslo"}', tools=(WEATHER,)),
        calls=[("get_weather", {"city": "Oslo"})],
        end="tools",
    ),
    Conversation(
        "a tool is called after some words",
        ask('say: Let me see.\ncall get_weather {"city": "Oslo"}', tools=(WEATHER, TIME)),
        "Let me see.",
        [("get_weather", {"city": "Oslo"})],
        "tools",
    ),
    Conversation(
        "a tool is called without arguments", ask("call get_time", tools=(TIME,)), calls=[("get_time", {})], end="tools"
    ),
    Conversation(
        "arguments come as deep and as strange as they are",
        ask(f"call get_weather {json.dumps(NESTED)}", tools=(WEATHER,)),
        calls=[("get_weather", NESTED)],
        end="tools",
    ),
    Conversation(
        "tools are called in parallel",
        ask("call two tools in parallel", tools=(WEATHER, TIME)),
        calls=[("get_weather", {}), ("get_time", {})],
        end="tools",
    ),
    Conversation(
        "one tool is called several times in parallel",
        ask("\n".join(f'call get_weather {{"city": "{n}"}}' for n in range(8)), tools=(WEATHER,)),
        calls=[("get_weather", {"city": str(n)}) for n in range(8)],
        end="tools",
    ),
    Conversation(
        "only one tool is called where only one may be",
        ask("call two tools in parallel", tools=(WEATHER, TIME), parallel=False),
        calls=[("get_weather", {})],
        end="tools",
    ),
    Conversation(
        "a tool has to be called",
        ask("say: I would rather talk", tools=(WEATHER, TIME), choice="required"),
        "I would rather talk",
        [("get_weather", {})],
        "tools",
        seen=lambda question: question.choice == "required",
    ),
    Conversation(
        "a certain tool has to be called",
        ask("say: talk", tools=(WEATHER, TIME), choice="get_time"),
        "talk",
        [("get_time", {})],
        "tools",
        seen=lambda question: question.choice in ("required", "get_time"),
    ),
    Conversation(
        "no tool may be called",
        ask('call get_weather {"city": "Oslo"}', tools=(WEATHER,), choice="none"),
        "I may not use tools.",
        seen=lambda question: question.choice == "none",
    ),
    Conversation(
        "tools that are not needed are not called",
        ask("say: no need", tools=(WEATHER, TIME)),
        "no need",
        seen=lambda question: question.choice == "auto",
    ),
    Conversation(
        "names of tools may be as long as the APIs allow",
        ask(f"call {AWKWARD.name}", tools=(AWKWARD,)),
        calls=[(AWKWARD.name, {})],
        end="tools",
    ),
    Conversation(
        "what a tool said leads to an answer",
        Question(
            (*turns("what is it like?"), used(OSLO), results(Result("use_a", (Words("12 °C"),)))), tools=(WEATHER,)
        ),
        "The tools say: 12 °C",
    ),
    Conversation(
        "what several tools said arrives in its order",
        Question(
            (
                *turns("what is it like?"),
                used(OSLO, NOON, said="Both, then."),
                results(Result("use_a", (Words("cold"),)), Result("use_b", (Words("noon"),))),
            ),
            tools=(WEATHER, TIME),
        ),
        "The tools say: cold; noon",
    ),
    Conversation(
        "a second tool is called for what the first said",
        Question(
            (
                *turns('call get_weather {"city": "Oslo"}\nthen call get_time {"zone": "UTC"}'),
                used(OSLO),
                results(Result("use_a", (Words("cold"),))),
            ),
            tools=(WEATHER, TIME),
        ),
        calls=[("get_time", {"zone": "UTC"})],
        end="tools",
    ),
    Conversation(
        "words after what a tool said count",
        Question(
            (
                *turns("what is it like?"),
                used(OSLO),
                Turn("user", (Result("use_a", (Words("cold"),)), Words("say: never mind"))),
            ),
            tools=(WEATHER,),
        ),
        "The tools say: cold",
        seen=lambda question: "say: never mind" in question.turns[-1].text,
    ),
    Conversation(
        "a talk goes on after tools were called in it",
        Question(
            (
                *turns("what is it like?"),
                used(OSLO),
                results(Result("use_a", (Words("cold"),))),
                Turn("assistant", (Words("It is cold."),)),
                *turns("say: thanks"),
            ),
            tools=(WEATHER,),
        ),
        "thanks",
    ),
    Conversation(
        "a tool that says nothing has said so",
        Question((*turns("go"), used(NOON), results(Result("use_b", ()))), tools=(TIME,)),
        "The tools say: ",
    ),
)


ASKED = [
    pytest.param(case, way, id=f"{case}, {way}")
    for case in CONVERSATIONS
    for way in WAYS
    if not any(getattr(case.question, field) for field in way.lacks)
]


@pytest.mark.parametrize(("case", "way"), ASKED)
async def test_conversation(kind: Kind, case: Conversation, way: Way) -> None:
    async with asyncio.timeout(PATIENCE):
        answer = await way.ask(kind.clients, case.question)
    assert (answer.text, answer.calls, answer.end) == (case.text, case.calls, way.says(case.end))
    assert answer.model == "brain-1"
    assert len({use.id for use in answer.uses}) == len(case.calls)
    assert answer.usage is not None
    assert answer.usage == case.usage if case.usage else min(answer.usage) > 0
    if way.api == "messages":
        assert answer.stopped_by == case.stopped_by
    asked = kind.brain.only
    assert _essence(asked) == _essence(case.question)
    assert asked.model == BEHIND
    assert case.seen(asked), asked
    assert way.api != "messages" or asked.max_tokens == (case.question.max_tokens or TOKENS)


def _essence(question: Question) -> Any:
    """What has to arrive as it was sent, whatever carries it."""
    given = merged(question.turns)
    names = [tool for tool in question.tools if question.choice in ("auto", "none", "required", tool.name)]
    return given, question.system, [(tool.name, tool.schema, tool.description) for tool in names]
