"""``llm.servers``: what real servers of each era ask their client for is answered by the service itself, where the client in
front cannot. The model is the scripted one.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.flows.inside import Inside
from tests.flows.inside import serving as application
from tests.flows.mcp_client import House, reachable
from tests.flows.mcp_upstream import _abort, _event, upstream
from tests.harness import eventually
from tests.llm.brain import Brain
from tests.llm.providers import KEY, OpenAi, provider
from tests.servers.known import INSTALLED, _installed, serving

pytestmark = pytest.mark.anyio

HERE = Path(__file__).resolve().parent / "sampling_servers"
SERVERS = ("piped", "streamed", "older", "modern")
LEGACY = SERVERS[:3]
LLM = {"servers": ["modern", "piped", "strea*", "older"]}


def legacy(mode: str) -> list[str]:
    return [*_installed(INSTALLED / "legacy/bin/python", HERE / "legacy.py"), mode]


def modern() -> list[str]:
    return [sys.executable, str(HERE / "modern.py"), "streamable-http"]


@asynccontextmanager
async def real_servers() -> AsyncIterator[dict[str, Any]]:
    """One of each kind, as a configuration has them."""
    command, *args = legacy("stdio")
    async with AsyncExitStack() as stack:
        streamed = await stack.enter_async_context(serving(legacy("streamable-http")))
        older = await stack.enter_async_context(serving(legacy("sse")))
        urls = {"streamed": streamed, "older": older, "modern": await stack.enter_async_context(serving(modern()))}
        yield {"piped": {"command": command, "args": args}, **{name: {"url": url} for name, url in urls.items()}}


def llm_file(directory: Path, llm: Mapping[str, Any] = LLM) -> tuple[Path, ...]:
    file = directory / "llm.json"
    file.write_text(json.dumps({"mcpServers": {}, "llm": llm}))
    return (file,)


@pytest.fixture(scope="module")
async def servers() -> AsyncIterator[dict[str, Any]]:
    async with real_servers() as found:
        yield found


@pytest.fixture(scope="module")
async def house(servers: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """A service that answers all of them."""
    async with reachable(servers, config=llm_file(tmp_path_factory.mktemp("llm")), llm_demo=True) as house:
        yield house


@pytest.fixture
def inside(house: House) -> Inside:
    return house.inside


async def text_of(inside: Inside, server: str, tool: str, **args: Any) -> str:
    reply = await inside.call(tool, args, server=server)
    assert reply.status == 200, reply.json
    assert reply.json["isError"] is False, reply.json
    found: str = reply.json["content"][0]["text"]
    return found


@pytest.mark.parametrize("server", SERVERS)
async def test_a_tool_that_needs_a_completion_works_over_rest(inside: Inside, server: str) -> None:
    said = await text_of(inside, server, "summarize", text=f"the tale of {server}")
    assert said.startswith("demo: ")
    assert f"“the tale of {server}”" in said


@pytest.mark.parametrize("server", LEGACY)
async def test_a_question_that_does_not_say_which_call_it_is_for_is_answered_too(inside: Inside, server: str) -> None:
    assert "“apart”" in await text_of(inside, server, "summarize_apart", text="apart")


@pytest.mark.parametrize("server", SERVERS)
async def test_the_model_may_want_a_tool_of_the_servers(inside: Inside, server: str) -> None:
    assert await text_of(inside, server, "weather", city="Oslo") == "toolUse: get_weather Oslo"


async def test_a_modern_server_is_answered_round_by_round(inside: Inside) -> None:
    assert "“more on rivers: " in await text_of(inside, "modern", "in_two_rounds", text="rivers")


@pytest.mark.parametrize("server", SERVERS)
async def test_each_completion_is_a_line_of_the_log_with_the_server_as_its_caller(inside: Inside, server: str) -> None:
    before = len(inside.lines(event="completion", principal=f"server:{server}"))
    await text_of(inside, server, "summarize_as", text="logged", model="their-favourite")
    (line,) = inside.lines(event="completion", principal=f"server:{server}")[before:]
    assert (line["api"], line["model"], line["served_by"]) == ("sampling", "their-favourite", "demo")
    assert line["error"] is None
    assert line["output_tokens"] > 0
    assert "logged" not in json.dumps(line)
    requests = {one["request_id"] for one in inside.lines(event="request")}
    assert line["request_id"] not in requests


@pytest.mark.parametrize("kind", ["legacy", "sse", "modern"])
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("capabilities", [{}, {"elicitation": {"form": {}}}], ids=["asks-nothing", "elicits"])
async def test_a_client_without_sampling_is_not_asked(
    house: House, kind: str, server: str, capabilities: dict[str, Any]
) -> None:
    async with house.client(kind, capabilities=capabilities) as client:
        assert (await client.call(f"{server}__summarize", {"text": "for a client"})).text.startswith("demo: ")
        assert client.asked == []


@pytest.mark.parametrize("kind", ["legacy", "sse", "modern"])
@pytest.mark.parametrize("server", SERVERS)
async def test_a_client_that_can_is_asked_itself(house: House, kind: str, server: str) -> None:
    async with house.client(kind) as client:
        assert (await client.call(f"{server}__summarize", {"text": "ours"})).text == "m: model on ours"
        assert [method for method, _ in client.asked] == ["sampling/createMessage"]


@pytest.mark.parametrize("kind", ["legacy", "sse", "modern"])
async def test_what_only_a_person_can_answer_is_left_to_the_client(house: House, kind: str) -> None:
    async with house.client(kind, capabilities={"elicitation": {"form": {}}}) as client:
        answer = await client.call("modern__confirmed", {"text": "both"})
        assert answer.text.startswith("answer to Your word?, demo: ")
        assert [method for method, _ in client.asked] == ["elicitation/create"]


async def test_over_rest_a_tool_that_needs_a_person_too_says_what_is_missing(inside: Inside) -> None:
    reply = await inside.call("confirmed", {"text": "both"}, server="modern")
    assert reply.json["error"]["type"] == "input_required"


async def test_the_tools_of_the_house_may_ask_on_their_part(inside: Inside) -> None:
    ask = {
        "model": "demo",
        "mcp_tools": ["modern/summarize"],
        "messages": [{"role": "user", "content": 'summarize "it"'}],
    }
    reply = await inside.post("/v1/chat/completions", ask)
    assert reply.status == 200, reply.json
    assert "demo: I am the demo model" in reply.json["choices"][0]["message"]["content"]


# What is behind them, and what they cost


@dataclass
class Works:
    """A service whose model is a provider's: the brain is what that works with."""

    brain: Brain
    house: House

    async def call(self, server: str, tool: str = "summarize", **args: Any) -> Any:
        """The answer of ``POST /tools``."""
        http = self.house.http()
        try:
            body = json.dumps({"method": tool, "args": args, "server": server}).encode()
            return (await http.send("POST", "/tools", {"Content-Type": "application/json"}, body)).message
        finally:
            await http.close()

    def lines(self, server: str, **fields: Any) -> list[dict[str, Any]]:
        """The completions of a server, in the log."""
        return self.house.inside.lines(event="completion", principal=f"server:{server}", **fields)


@pytest.fixture(scope="module")
async def provided(servers: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Works]:
    brain = Brain()
    async with provider(brain, OpenAi()) as address:
        work = {"type": "openai", "base_url": f"{address}/v1", "api_key": KEY}
        models = {"auto": ["work/gpt-usual"], "fast": ["work/gpt-fast"]}
        llm = {**LLM, "providers": {"work": work}, "models": models}
        hurried = {name: {**entry, "timeout": 1} for name, entry in servers.items()}
        async with reachable(hurried, config=llm_file(tmp_path_factory.mktemp("llm"), llm)) as house:
            yield Works(brain, house)


@pytest.fixture
def works(provided: Works) -> Works:
    provided.brain.forget()
    return provided


@pytest.mark.parametrize("server", SERVERS)
async def test_all_that_a_server_asks_for_reaches_the_model(works: Works, server: str) -> None:
    answer = await works.call(server, text="say: short")
    assert answer["content"][0]["text"] == "brain-1: short"
    asked = works.brain.only
    assert (asked.model, asked.system, asked.max_tokens) == ("gpt-usual", "Be brief", 300)


@pytest.mark.parametrize(
    ("hint", "model"),
    [("fast", "gpt-fast"), ("work/gpt-other", "gpt-other"), ("their-favourite", "gpt-usual"), ("auto", "gpt-usual")],
)
@pytest.mark.parametrize("server", ["piped", "modern"])
async def test_a_hint_is_a_name_of_ours_or_else_the_usual_model_is_taken(
    works: Works, server: str, hint: str, model: str
) -> None:
    await works.call(server, "summarize_as", text="say: x", model=hint)
    assert works.brain.only.model == model
    assert works.lines(server)[-1]["model"] == hint


@pytest.mark.parametrize("server", SERVERS)
async def test_the_calls_time_stands_still_while_the_model_works(works: Works, server: str) -> None:
    answer = await works.call(server, text="slow 1.5\nsay: at last")
    assert answer["content"][0]["text"] == "brain-1: at last"


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("tool", ["summarize", "summarize_apart"])
async def test_a_call_that_its_caller_gives_up_takes_the_question_back(works: Works, server: str, tool: str) -> None:
    if (server, tool) == ("modern", "summarize_apart"):
        tool = "in_two_rounds"
    async with asyncio.TaskGroup() as group:
        call = group.create_task(works.call(server, tool, text="wait"))
        await works.brain.is_at_work_on(1)
        call.cancel()
    await eventually(lambda: works.brain.cancelled == 1, what="the model has been told")
    line = await eventually(lambda: works.lines(server)[-1:])
    assert line[0]["error"] == "cancelled"


@pytest.mark.parametrize("server", LEGACY)
async def test_a_server_gets_eight_at_once_and_is_told_so(works: Works, server: str) -> None:
    async with asyncio.TaskGroup() as group:
        call = group.create_task(works.call(server, "chorus", text="wait", count=12))
        await works.brain.is_at_work_on(8)
        await eventually(lambda: len(works.lines(server, error="too_many_parallel")) == 4, what="four are refused")
        works.brain.let_go()
    assert call.result()["content"][0]["text"] == "8 of 12"
    assert works.brain.peak == 8


@pytest.mark.parametrize("server", SERVERS)
async def test_a_failure_of_the_models_is_told_to_the_server(works: Works, server: str) -> None:
    answer = await works.call(server, text="fail: out of order")
    if server == "modern":
        assert answer["error"]["details"]["rpc_code"] == -32603
    else:
        assert answer["isError"] is True
    assert works.lines(server)[-1]["error"] == "source_error"
    assert len(works.brain.asked) == 1


# What real servers rarely do


async def test_the_stream_on_which_a_server_asks_is_soon_there_again(tmp_path: Path) -> None:
    config = llm_file(tmp_path, {"servers": ["up*"]})
    async with upstream(era="legacy") as one, application({"up": {"url": one.url}}, config=config, llm_demo=True):
        (opened,) = one.opened.values()
        assert opened["capabilities"] == {"sampling": {"tools": {}}}
        first = await eventually(lambda: next(iter(one._streams.values()), None), what="a stream to ask on")
        _abort(first)
        # Without questions it has time: fifteen seconds at least.
        await eventually(lambda: any(stream is not first for stream in one._streams.values()), what="another one")


async def test_a_server_that_takes_its_question_back_gets_no_completion(tmp_path: Path) -> None:
    brain = Brain()
    async with provider(brain, OpenAi()) as address, upstream(era="legacy") as one:
        work = {"type": "openai", "base_url": f"{address}/v1", "api_key": KEY}
        llm = {"servers": ["up"], "providers": {"work": work}, "models": {"auto": ["work/gpt-usual"]}}
        async with application({"up": {"url": one.url}}, config=llm_file(tmp_path, llm)) as inside:
            stream = await eventually(lambda: next(iter(one._streams.values()), None), what="a stream to ask on")
            ask = {"messages": [{"role": "user", "content": {"type": "text", "text": "wait"}}], "maxTokens": 9}
            message = {"jsonrpc": "2.0", "id": "own", "method": "sampling/createMessage", "params": ask}
            await _event(stream, message)
            await brain.is_at_work_on(1)
            back = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "own"}}
            await _event(stream, back)
            await eventually(lambda: brain.cancelled == 1, what="the model has been told")
            line = await eventually(lambda: inside.lines(event="completion"))
            assert line[0]["error"] == "cancelled"


# Servers that are not named


async def test_nobody_answers_a_server_that_is_not_named(servers: dict[str, Any], tmp_path: Path) -> None:
    config = llm_file(tmp_path, {"servers": ["other*"]})
    async with application(servers, config=config, llm_demo=True) as inside:
        for server in LEGACY:
            reply = await inside.call("summarize", {"text": "x"}, server=server)
            assert reply.json["isError"] is True
        reply = await inside.call("summarize", {"text": "x"}, server="modern")
        assert reply.json["error"]["type"] == "input_required"
        assert not inside.lines(event="completion")


async def test_nobody_is_answered_while_the_door_is_shut(servers: dict[str, Any], tmp_path: Path) -> None:
    config = llm_file(tmp_path, {"enabled": False, "servers": ["*"]})
    async with application({"streamed": servers["streamed"]}, config=config) as inside:
        assert (await inside.call("summarize", {"text": "x"}, server="streamed")).json["isError"] is True


async def test_without_anything_that_could_answer_the_tool_is_told_so(servers: dict[str, Any], tmp_path: Path) -> None:
    config = llm_file(tmp_path, {"servers": ["streamed"]})
    async with application({"streamed": servers["streamed"]}, config=config) as inside:
        reply = await inside.call("summarize", {"text": "x"}, server="streamed")
        assert reply.json["isError"] is True
        assert "hook" in reply.json["content"][0]["text"]
        line = await eventually(lambda: inside.lines(event="completion"))
        assert line[0]["error"] == "hook_not_ready"
