"""One run of the npm clients at a service of some kind: the program beside this file, followed to its end.

Which cases there are is in `table`. Questions that reach the model are told apart by the case's name, which stands in
them.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mcp_proxy.base.tasks import TaskSet
from tests.harness import eventually, make_token
from tests.llm.brain import Brain
from tests.llm.conversation import Question
from tests.llm.kinds import Kind, opened
from tests.llm.npm.table import LEFT, MIDWAY, cases_of, count
from tests.servers.known import INSTALLED, node

PROGRAM = Path(__file__).resolve().parent / "cases.mjs"
PACKAGES = INSTALLED / "llm"
TIMEOUT = 1.5
"""Seconds that the service waits for a model here: less than it holds back the status of a stream."""
LIMIT = 90
"""Seconds that one run of all cases may take."""
VARIABLES = ("PATH", "HOME", "TMPDIR", "LANG", "SYSTEMROOT")
"""What the program is given of our environment: keys and addresses for these libraries are not among it."""


@dataclass(frozen=True)
class Run:
    """What the program told, and what the model of that kind saw of it."""

    kind: str
    known: list[str]
    ended: dict[str, str | None]
    """Errors, by the case that ended with one; None where it went well."""
    asked: dict[str, list[Question]]
    cancelled: int
    log: list[dict[str, Any]]
    """What the service notes of each completion. That is where it shows who left midway: a provider nearby has often
    sent all that it says by then."""


async def run_at(name: str) -> Run:
    """Run all cases at a service with that kind of source, until everything has come to its end.

    Raises `AssertionError` where that fails as a whole; of one case that fails, the report tells.
    """
    async with opened(name, llm_timeout=TIMEOUT) as kind:
        program = _Program(kind, [case.name for case in cases_of(name)])
        await program.run()
        kind.brain.let_go()
        await kind.brain.is_idle()
        left = count(name, LEFT, MIDWAY)
        lines = kind.house.inside.lines
        await eventually(
            lambda: len(lines(event="completion", error="client_gone")) >= left, what=f"{left} callers have left"
        )
        asked, cancelled = _by_case(kind.brain), kind.brain.cancelled
        return Run(name, program.known, program.ended, asked, cancelled, lines(event="completion"))


class _Program:
    """One run of all cases that are asked for."""

    def __init__(self, kind: Kind, names: list[str]) -> None:
        self._kind, self._names = kind, names
        self.known: list[str] = []
        self.ended: dict[str, str | None] = {}

    async def run(self) -> None:
        """Until it ends. Raises `AssertionError` with what it complained of, if it failed as a whole."""
        _installed()
        argv = [node(), str(PROGRAM), "--packages", str(PACKAGES), "--base", self._kind.house.base]
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


def _installed() -> None:
    for part in (Path(node()), PACKAGES / "node_modules"):
        if not part.exists():
            pytest.fail(f"{part} is not installed; run scripts/test")


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
