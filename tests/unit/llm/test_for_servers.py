from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import pytest

from mcp_proxy.bridge.chat import (
    ArgumentsDelta,
    ChatRequest,
    Delta,
    Ended,
    Started,
    StopReason,
    TextDelta,
    ToolUseStarted,
    Usage,
)
from mcp_proxy.bridge.completions import Completions
from mcp_proxy.bridge.errors import NOT_READY, REFUSED, SOURCE_ERROR, ChatError
from mcp_proxy.bridge.routes import Routes, Step
from mcp_proxy.core.upstream.client import House
from mcp_proxy.core.upstream.failures import RpcError
from mcp_proxy.llm.for_servers import AT_ONCE, ForServers, model_of
from tests.harness import eventually
from tests.unit.core.fakes import FakeClock, RecordingLog, server

pytestmark = pytest.mark.anyio

HELLO = {"role": "user", "content": {"type": "text", "text": "Hello, secret"}}
TOOL = {"name": "look", "inputSchema": {"type": "object"}}
SAYS = (Started("m-1", 3), TextDelta("Hi "), TextDelta("there"), Ended(StopReason.END, Usage(3, 2, estimated=False)))
USES = (
    Started("m-1", 3),
    ToolUseStarted("u1", "look"),
    ArgumentsDelta("u1", '{"at":1}'),
    Ended(StopReason.TOOL_USE, Usage(3, 2)),
)


class Model:
    """A source that says this, once it is let go."""

    def __init__(self, *says: Delta | Exception) -> None:
        self.says: Sequence[Delta | Exception] = says or SAYS
        self.asked: list[tuple[ChatRequest, str, int, str]] = []
        self.in_flight = self.closed = 0
        self.go = asyncio.Event()
        self.go.set()

    async def stream(
        self, ask: ChatRequest, model: str, *, max_tokens: int, tenant: str
    ) -> AsyncGenerator[Delta, None]:
        self.asked.append((ask, model, max_tokens, tenant))
        self.in_flight += 1
        try:
            await self.go.wait()
            for one in self.says:
                if isinstance(one, Exception):
                    raise one
                yield one
        finally:
            self.in_flight -= 1
            self.closed += 1


class Bench:
    """What answers the servers ``one``, ``docs-*`` and the group ``writers``."""

    def __init__(self, *says: Delta | Exception, log_bodies: bool = False) -> None:
        self.model, self.log, self.clock = Model(*says), RecordingLog(), FakeClock()
        ids = itertools.count(1)
        completions = Completions(Routes({"auto": [Step("work", "usual")]}, ["work"]), {"work": self.model}, 1000)
        self.servers = ForServers(
            ("one", "docs-*", "writers"),
            lambda: completions,
            clock=self.clock,
            ids=lambda: f"id-{next(ids)}",
            log=self.log,
            log_bodies=log_bodies,
        )

    def house(self, name: str = "one", **spec: Any) -> House:
        found = self.servers.house_of(server(name, **spec))
        assert found is not None
        return found

    async def ask(self, name: str = "one", **params: Any) -> Mapping[str, Any]:
        async with asyncio.timeout(10):
            return await self.house(name)({"messages": [HELLO], "maxTokens": 50, **params})

    async def refused(self, **params: Any) -> RpcError:
        with pytest.raises(RpcError) as raised:
            await self.ask(**params)
        return raised.value

    def lines(self, event: str = "completion") -> list[dict[str, Any]]:
        return [fields for _, name, fields in self.log.lines if name == event]


# Who is answered


@pytest.mark.parametrize(
    ("name", "group", "answered"),
    [
        ("one", None, True),
        ("docs-a", None, True),
        ("any", "writers", True),
        ("any", "docs-all", True),
        ("two", None, False),
        ("One", None, False),
        ("docs", None, False),
        ("any", "readers", False),
    ],
)
def test_servers_are_answered_that_are_named_or_whose_group_is(name: str, group: str | None, answered: bool) -> None:
    assert (Bench().servers.house_of(server(name, group=group)) is not None) is answered


# What is answered


async def test_the_answer_is_the_models_in_the_words_of_mcp() -> None:
    bench = Bench()
    assert await bench.ask(systemPrompt="Be brief") == {
        "role": "assistant",
        "content": {"type": "text", "text": "Hi there"},
        "model": "m-1",
        "stopReason": "endTurn",
        "_meta": {"usage": {"inputTokens": 3, "outputTokens": 2}},
    }
    ((ask, model, most, tenant),) = bench.model.asked
    assert (ask.system, ask.house_tools, model, most, tenant) == ("Be brief", (), "usual", 50, "server:one")


async def test_a_server_that_brings_tools_gets_their_uses() -> None:
    answer = await Bench(*USES).ask(tools=[TOOL])
    assert answer["content"] == [{"type": "tool_use", "id": "u1", "name": "look", "input": {"at": 1}}]
    assert answer["stopReason"] == "toolUse"


async def test_no_server_gets_more_tokens_than_anybody() -> None:
    bench = Bench()
    await bench.ask(maxTokens=10_000_000)
    assert bench.model.asked[0][2] == 1000


@pytest.mark.parametrize(
    ("aliases", "hint", "model"),
    [
        (["auto", "fast"], "", "auto"),
        (["auto", "fast"], "auto", "auto"),
        (["auto", "fast"], "fast", "fast"),
        (["auto", "fast"], "work/other", "work/other"),
        (["auto", "fast"], "theirs", "auto"),
        (["auto", "fast"], "nobody/other", "auto"),
        (["fast"], "theirs", "theirs"),
        (["fast"], "", ""),
    ],
)
def test_a_hint_is_a_wish(aliases: list[str], hint: str, model: str) -> None:
    routes = Routes({name: [Step("work", "x")] for name in aliases}, ["work"])
    assert model_of(routes, hint) == model


# What is refused


@pytest.mark.parametrize(
    ("problem", "code"), [(REFUSED, -1), (SOURCE_ERROR, -32603), (NOT_READY, -32603)], ids=lambda one: str(one)
)
async def test_a_failure_is_an_error_with_its_words(problem: Any, code: int) -> None:
    bench = Bench(ChatError(problem, "it is like this"))
    error = await bench.refused()
    assert (error.code, error.message) == (code, "it is like this")
    assert bench.lines()[0]["error"] == problem.code


@pytest.mark.parametrize(
    ("params", "place"),
    [
        ({"messages": []}, "messages: "),
        ({"messages": [{"role": "user", "content": {"type": "resource"}}]}, "messages[0].content: "),
        ({"maxTokens": "many"}, "maxTokens: "),
    ],
)
async def test_what_cannot_be_read_is_an_error_that_names_the_place(params: dict[str, Any], place: str) -> None:
    bench = Bench()
    error = await bench.refused(**params)
    assert error.code == -32603
    assert error.message.startswith(place)
    assert bench.model.asked == []
    assert len(bench.lines()) == 1


async def test_a_tool_that_nobody_brought_is_the_models_fault() -> None:
    bench = Bench(*USES)
    assert (await bench.refused()).code == -32603
    assert bench.lines()[0]["error"] == "source_error"


async def test_an_answer_that_breaks_off_is_none() -> None:
    bench = Bench(Started("m-1", 3), TextDelta("Hi"))
    assert (await bench.refused()).code == -32603


async def test_each_server_gets_so_many_at_once() -> None:
    bench = Bench()
    bench.model.go.clear()
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(bench.ask()) for _ in range(AT_ONCE)]
        other = group.create_task(bench.ask("docs-a"))
        await eventually(lambda: bench.model.in_flight == AT_ONCE + 1)
        error = await bench.refused()
        assert "8 completions" in error.message
        assert bench.lines()[0]["error"] == "too_many_parallel"
        bench.model.go.set()
    assert all(task.result()["stopReason"] == "endTurn" for task in (*asked, other))
    await bench.ask()
    assert not bench.servers._under_way


async def test_cancelling_ends_the_work_and_gives_the_place_back() -> None:
    bench = Bench()
    bench.model.go.clear()
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(bench.ask())
        await eventually(lambda: bench.model.in_flight == 1)
        asking.cancel()
    assert (bench.model.in_flight, bench.model.closed) == (0, 1)
    assert bench.lines()[0]["error"] == "cancelled"
    assert not bench.servers._under_way


# What is noted


async def test_a_completion_is_a_line_without_what_was_said() -> None:
    bench = Bench()
    await bench.ask(modelPreferences={"hints": [{"name": "theirs"}]})
    await bench.ask("docs-a")
    first, second = bench.lines()
    told = ("request_id", "principal", "api", "model", "served_by", "source", "output_tokens", "error")
    assert [first[name] for name in told] == ["id-1", "server:one", "sampling", "theirs", "m-1", "work", 2, None]
    assert (second["request_id"], second["principal"]) == ("id-2", "server:docs-a")
    assert "secret" not in json.dumps(bench.log.lines)
    assert "there" not in json.dumps(bench.log.lines)


async def test_with_bodies_on_two_more_lines_say_what_was_said() -> None:
    bench = Bench(log_bodies=True)
    await bench.ask()
    (received,), (sent,) = bench.lines("llm_rx"), bench.lines("llm_tx")
    assert received["request"]["messages"] == [HELLO]
    assert sent["text"] == "Hi there"
    assert received["request_id"] == sent["request_id"] == "id-1"
