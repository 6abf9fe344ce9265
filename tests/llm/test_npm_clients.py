"""The official npm clients, at every kind of source: what they make of the answers, and what the model was asked.

The cases are in `npm`, one function each. The program there runs once for a kind, and tells how each of them ended; the
questions that reached the model are told apart by the case's name, which stands in them.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mcp_proxy.base.tasks import TaskSet
from tests.harness import eventually, make_token
from tests.llm.brain import Brain
from tests.llm.conversation import Question, Result, Use
from tests.llm.exceptions import EXCEPTIONS
from tests.llm.kinds import KINDS, LANES, Kind, opened
from tests.servers.known import INSTALLED, node

pytestmark = pytest.mark.anyio

HERE = Path(__file__).resolve().parent / "npm"
PACKAGES = INSTALLED / "llm"
TIMEOUT = 1.5
"""Seconds that the service waits for a model here: less than it holds back the status of a stream."""
LIMIT = 90
"""Seconds that one run of all cases may take."""
VARIABLES = ("PATH", "HOME", "TMPDIR", "LANG", "SYSTEMROOT")
"""What the program is given of our environment: keys and addresses for these libraries are not among it."""
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
MIDWAY = "a stream that is aborted midway ends"
IN_PARALLEL = (
    "tools are called in parallel",
    Case("a certain tool has to be called", seen=lambda asked: asked[0].choice in ("required", "sum")),
)
ONE_TOOL = "only one tool is called where only one may be"
CHOICES = (
    Case("a tool has to be called", seen=_last(choice="required")),
    Case("no tool may be called", seen=_last(choice="none")),
)
CASES = (
    *_cases(
        "chat",
        "a plain question is answered",
        Case("a system prompt arrives", seen=_last(system="You are a sailor.")),
        Case("a history arrives in its order", seen=_history("one", "two")),
        Case("a picture is seen", seen=lambda asked: [one.kind for one in asked[0].pictures] == ["image/png"]),
        TWICE,
        "tokens that were counted are told",
        Case("an answer that was cut short says so", seen=_last(max_tokens=77)),
        "a model that declines is seen to",
        Case("an answer ends before a stop text", seen=_last(stop=("END",)), like=STOPS),
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
        "a model that does not answer in time is asked once",
        "a model that does not answer in time for a stream is asked once",
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
        "a model that does not answer in time is asked once",
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
        Case("a history arrives in its order", seen=_history("one", "two")),
        Case("a picture is seen", seen=lambda asked: [one.kind for one in asked[0].pictures] == ["image/png"]),
        TWICE,
        "tokens that were counted are told",
        Case("an answer that was cut short says so", seen=_last(max_tokens=77)),
        "a model that declines is seen to",
        Case("an answer ends before a stop text", seen=_last(stop=("END",)), like=STOPS),
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
        "a model that does not answer in time is asked once",
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


def _cannot(kind: str, case: Case) -> bool:
    """Whether that is declared of the kind."""
    return any((one.kind, one.case) == (kind, case.like) and one.api in (None, case.api) for one in EXCEPTIONS)


def cases_of(kind: str) -> list[Case]:
    """All but what the kind cannot have by its nature."""
    return [case for case in CASES if not _cannot(kind, case)]


@dataclass(frozen=True)
class Run:
    """What the program told, and what the model of that kind saw of it."""

    kind: str
    known: list[str]
    ended: dict[str, str | None]
    """Errors, by the case that ended with one; None where it went well."""
    asked: dict[str, list[Question]]
    brain: Brain


class Runs:
    """The program at a service of each kind, run when somebody first wants to know, and once."""

    def __init__(self) -> None:
        self._runs: dict[str, Run | Exception] = {}

    async def of(self, kind: str) -> Run:
        """What came of it, when everything has come to its end. Raises what a run ended with, every time."""
        if kind not in self._runs:
            try:
                self._runs[kind] = await _run(kind)
            except Exception as error:
                self._runs[kind] = error
        run = self._runs[kind]
        if isinstance(run, Exception):
            raise run
        return run


@pytest.fixture(scope="module")
def runs() -> Runs:
    """What has been run in this module."""
    return Runs()


async def _run(name: str) -> Run:
    async with opened(name, llm_timeout=TIMEOUT) as kind:
        program = _Program(kind, [case.name for case in cases_of(name)])
        await program.run()
        kind.brain.let_go()
        await kind.brain.is_idle()
        await _everything_was_taken_back(kind)
        return Run(name, program.known, program.ended, _by_case(kind.brain), kind.brain)


async def _everything_was_taken_back(kind: Kind) -> None:
    """Providers learn of streams that were left with the next piece that they send."""
    if kind.name not in LANES:
        await eventually(lambda: kind.brain.cut == _count(kind.name, MIDWAY), what="left streams have ended")


class _Program:
    """One run of all cases that are asked for."""

    def __init__(self, kind: Kind, names: list[str]) -> None:
        self._kind, self._names = kind, names
        self.known: list[str] = []
        self.ended: dict[str, str | None] = {}

    async def run(self) -> None:
        """Until it ends. Raises `AssertionError` with what it complained of, if it failed as a whole."""
        for part in (node(), PACKAGES / "node_modules"):
            if not Path(part).exists():
                pytest.fail(f"{part} is not installed; run scripts/test")
        argv = [node(), str(HERE / "cases.mjs"), "--packages", str(PACKAGES), "--base", self._kind.house.base]
        argv += ["--tokens", json.dumps(_tokens()), *self._names]
        environment = {name: os.environ[name] for name in VARIABLES if name in os.environ}
        pipe = asyncio.subprocess.PIPE
        with tempfile.TemporaryFile() as complaints:
            process = await asyncio.create_subprocess_exec(
                *argv, env=environment, stdin=pipe, stdout=pipe, stderr=complaints
            )
            try:
                async with asyncio.timeout(LIMIT):
                    await self._follow(process)
                    code = await process.wait()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            complaints.seek(0)
            assert code == 0, complaints.read().decode(errors="replace")[-3000:]

    async def _follow(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        failed: list[str] = []
        tasks = TaskSet(lambda name, error: failed.append(f"{name}: {error!r}"))
        try:
            async for line in process.stdout:
                match json.loads(line):
                    case {"cases": known}:
                        self.known = known
                    case {"waits": name}:
                        tasks.spawn(self._tell_when_asked(process, name), name)
                    case {"name": name, "error": error}:
                        self.ended[name] = error
        finally:
            await tasks.close()
        assert not failed, failed

    async def _tell_when_asked(self, process: asyncio.subprocess.Process, name: str) -> None:
        """Let a case go on once the model has its question."""
        await eventually(lambda: name in _by_case(self._kind.brain), what=f"the model is asked: {name}")
        assert process.stdin is not None
        process.stdin.write(f"{name}\n".encode())
        await process.stdin.drain()


def _tokens() -> dict[str, str]:
    """The keys that the cases use, by their names there."""
    return {
        "ordinary": make_token(),
        "unknown": "sk-nobody-knows",
        "expired": make_token(ttl=-100),
        "without": make_token(scope="tools:read tools:call llm:serve"),
        "elsewhere": make_token(models=["other-*"]),
        "chatOnce": make_token(sub="npm-chat", rpm=1),
        "messagesOnce": make_token(sub="npm-messages", rpm=1),
    }


def _by_case(brain: Brain) -> dict[str, list[Question]]:
    """The questions by the name that stands in them."""
    found: dict[str, list[Question]] = {}
    for question in brain.asked:
        names = {
            name for turn in question.turns if turn.role == "user" for name in re.findall(r"\(case: (.+)\)", turn.text)
        }
        (name,) = names
        found.setdefault(name, []).append(question)
    return found


def _count(kind: str, *suffixes: str) -> int:
    """How many cases of the kind have names that end so."""
    return sum(case.name.endswith(suffixes) for case in cases_of(kind))


@pytest.mark.parametrize(
    ("kind", "case"), [pytest.param(kind, case, id=f"{kind}-{case}") for kind in KINDS for case in cases_of(kind)]
)
async def test_npm_client(runs: Runs, kind: str, case: Case) -> None:
    run = await runs.of(kind)
    assert run.ended.get(case.name, "was not run") is None, run.ended.get(case.name)
    asked = run.asked.get(case.name, [])
    assert len(asked) == case.asked
    assert case.seen(asked), asked


@pytest.mark.parametrize("kind", KINDS)
async def test_the_program_has_no_other_cases(runs: Runs, kind: str) -> None:
    run = await runs.of(kind)
    assert sorted(run.known) == sorted(case.name for case in CASES)
    assert sorted(run.ended) == sorted(case.name for case in cases_of(kind))
    assert set(run.asked) <= set(run.ended)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "modern"])
async def test_the_model_was_told_of_everyone_who_left(runs: Runs, kind: str) -> None:
    in_time = "a model that does not answer in time is asked once"
    streamed = "a model that does not answer in time for a stream is asked once"
    brain = (await runs.of(kind)).brain
    assert brain.cancelled == _count(kind, "takes the question back", in_time, streamed)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_most_of_the_cases(kind: str) -> None:
    assert len(cases_of(kind)) >= 100
    assert len({case.name for case in CASES}) == len(CASES)


def test_what_a_kind_cannot_have_is_declared_for_the_python_clients() -> None:
    declared = {one.case for one in EXCEPTIONS}
    assert [case.name for case in CASES if case.like is not None and case.like not in declared] == []
