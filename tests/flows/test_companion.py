"""``mcp-proxy-api hook`` between a whole service and a scripted provider: the key stays on the companion's side.

Programs ask the service for completions as they always do; the companion is the real command, or for what needs a look
inside its parts in this process.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp
import pytest
from aiohttp import web

from tests.flows.mcp_client import House, reachable
from tests.harness import CLEAN, ROOT, ProxyProcess, Reply, eventually, free_port, make_token

pytestmark = pytest.mark.anyio

KEY = "sk-the-private-key-0123456789"
SERVES = "llm:serve"
PATIENCE = 20.0


@dataclass
class Provider:
    """OpenAI's chat completions. It answers what the last message says, in two pieces; ``wait…`` when it is let go."""

    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    at_work: int = 0
    most_at_work: int = 0
    left: int = 0
    may_go: asyncio.Event = field(default_factory=asyncio.Event)

    async def respond(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        self.keys.append(request.headers.get("Authorization"))
        if self.keys[-1] != f"Bearer {KEY}":
            return web.json_response({"error": {"message": f"unknown key {self.keys[-1]}"}}, status=401)
        said = _words(body["messages"][-1])
        if said == "fail":
            return web.json_response({"error": {"message": "the dog ate it"}}, status=400)
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        try:
            if said.startswith("wait"):
                await self.may_go.wait()
        except asyncio.CancelledError:
            self.left += 1
            raise
        finally:
            self.at_work -= 1
        return await self._stream(request, body, said)

    async def message(self, request: web.Request) -> web.Response:
        """Anthropic's API, as servers answer that know no streams."""
        body = await request.json()
        self.asked.append(body)
        self.keys.append(request.headers.get("x-api-key"))
        answer = {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": [{"type": "text", "text": f"you said {_words(body['messages'][-1])}"}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": 7, "output_tokens": 9},
        }
        return web.json_response(answer)

    async def _stream(self, request: web.Request, body: Any, said: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": "you said "}, {"content": said}]
        if said == "use" and body.get("tools"):
            call: dict[str, Any] = {"name": body["tools"][0]["function"]["name"], "arguments": '{"city": "Oslo"}'}
            deltas = [{"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": call}]}]
        head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": f"{body['model']}-2026"}
        reason = "tool_calls" if "tool_calls" in deltas[0] else "stop"
        chunks: list[dict[str, Any]] = [
            {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas
        ]
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
        chunks.append({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 9, "total_tokens": 16}})
        for chunk in chunks:
            await response.write(f"data: {json.dumps(head | chunk)}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response


def _words(message: dict[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else str(content[0].get("text", "a picture"))


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    one = Provider()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/v1/chat/completions", one.respond)
    app.router.add_post("/v1/messages", one.message)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    one.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield one
    one.may_go.set()
    await asyncio.wait_for(runner.cleanup(), 10)


class Command:
    """The command, as somebody types it; gone when the block is left."""

    def __init__(self, *args: str, **env: str) -> None:
        self._args, self._env = args, env

    async def __aenter__(self) -> Self:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(CLEAN)}
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-W", "error", "-m", "mcp_proxy", "hook", *self._args, stdin=asyncio.subprocess.DEVNULL,
            env={**inherited, "PYTHONPATH": str(ROOT), **self._env},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.communicate()

    async def says(self, words: str) -> str:
        """The next line with these words."""
        assert self.process.stderr is not None
        said = []
        async with asyncio.timeout(PATIENCE):
            while line := (await self.process.stderr.readline()).decode():
                said.append(line)
                if words in line:
                    return line
        raise AssertionError(f"ended without {words!r}, with {said}")

    async def stop(self, number: int = signal.SIGINT) -> None:
        """End it as its user does, if it runs: quietly, and well."""
        if self.process.returncode is None:
            self.process.send_signal(number)
            code, out, err = await self.ended()
            assert (code, out, "Traceback" in err) == (0, "", False), err

    async def ended(self) -> tuple[int, str, str]:
        """Exit code, stdout, and what is left of stderr."""
        async with asyncio.timeout(PATIENCE):
            out, err = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, out.decode(), err.decode()


def command(server: str, provider: Provider, *more: str, token: str | None = None, key: str = KEY) -> Command:
    args = ("--server", server, "--provider", "openai", "--base-url", provider.url, *more)
    named = args if "--model" in more else (*args, "--model", "gpt-x")
    return Command(*named, MCP_PROXY_TOKEN=token or make_token(scope=SERVES), OPENAI_API_KEY=key)


@pytest.fixture(scope="module")
async def house() -> AsyncIterator[House]:
    async with reachable(llm=True) as one:
        yield one


@asynccontextmanager
async def offered(house: House, provider: Provider, *more: str) -> AsyncIterator[Command]:
    """A companion that is connected; the service has no model when the block is left."""
    async with command(f"{house.base}/mcp", provider, *more) as companion:
        await companion.says("connected to")
        await has_model(house, True)
        yield companion
        await companion.stop()
    await has_model(house, False)


async def has_model(house: House, wanted: bool) -> None:
    """Wait until the service says that there is a model, or none."""

    async def says() -> bool:
        reply = await house.inside.get("/v1/models")
        return bool(reply.headers["x-mcp-session-ready"] == str(wanted).lower())

    await eventually(says, what=f"a model is there: {wanted}")


async def ask(base: str, text: Any, **more: Any) -> Reply:
    """One completion of an ordinary caller."""
    body = {"model": "auto", "messages": [{"role": "user", "content": text}], **more}
    headers = {"Authorization": f"Bearer {make_token()}", "Content-Type": "application/json"}
    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    data = io.BytesIO(json.dumps(body).encode())
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.post(f"{base}/v1/chat/completions", data=data, headers=headers) as answer,
    ):
        return Reply(answer.status, {k.lower(): v for k, v in answer.headers.items()}, await answer.read())


def text_of(reply: Reply) -> str:
    assert reply.status == 200, reply.body
    found: str = reply.json["choices"][0]["message"]["content"]
    return found


async def test_a_key_that_the_service_never_sees_answers_its_callers(house: House, provider: Provider) -> None:
    async with offered(house, provider):
        reply = await ask(house.base, "hello", temperature=0.5)
    assert text_of(reply) == "you said hello"
    assert reply.json["model"] == "gpt-x-2026"
    assert {name: reply.json["usage"][name] for name in ("prompt_tokens", "completion_tokens")} == {
        "prompt_tokens": 7,
        "completion_tokens": 9,
    }
    assert provider.keys == [f"Bearer {KEY}"]
    assert (provider.asked[0]["model"], provider.asked[0]["temperature"]) == ("gpt-x", 0.5)
    assert "max_completion_tokens" not in provider.asked[0]  # the caller named none
    assert KEY not in house.inside.log


async def test_a_provider_may_speak_anthropics_api(house: House, provider: Provider) -> None:
    args = ["--provider", "anthropic", "--model", "claude-x", "--base-url", provider.url.removesuffix("/v1")]
    async with Command(
        "--server", f"{house.base}/mcp", *args, "--key-env", "WORK_KEY",
        MCP_PROXY_TOKEN=make_token(scope=SERVES), WORK_KEY=KEY,
    ) as companion:  # fmt: skip
        await companion.says("connected to")
        await has_model(house, True)
        reply = await ask(house.base, "hello")
        await companion.stop()
    assert (text_of(reply), reply.json["model"], provider.keys) == ("you said hello", "claude-x", [KEY])


async def test_one_status_line_says_that_it_is_connected_and_ctrl_c_ends_it(house: House, provider: Provider) -> None:
    async with command(f"{house.base}/", provider, "--parallel", "3") as companion:
        line = await companion.says("connected")
        companion.process.send_signal(signal.SIGINT)
        assert await companion.ended() == (0, "", "")
    assert line == f"mcp-proxy-api: connected to {house.base}/mcp, answering with openai, model gpt-x, 3 at once\n"


async def test_a_stop_in_the_middle_of_an_answer_takes_it_back(house: House, provider: Provider) -> None:
    async with offered(house, provider) as companion:
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(ask(house.base, "wait"))
            await eventually(lambda: provider.at_work == 1)
            await companion.stop(signal.SIGTERM)
            reply = await asking
        assert reply.status == 504
        await eventually(lambda: provider.left == 1)


async def test_tools_pictures_and_limits_go_all_the_way(house: House, provider: Provider) -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    async with offered(house, provider):
        used = await ask(house.base, "use", tools=[tool], max_tokens=50)
        picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aW1n"}}
        seen = await ask(house.base, [picture])
    call = used.json["choices"][0]["message"]["tool_calls"][0]
    assert (call["id"], call["function"]) == ("call_1", {"name": "weather", "arguments": '{"city": "Oslo"}'})
    assert used.json["choices"][0]["finish_reason"] == "tool_calls"
    assert provider.asked[0]["max_completion_tokens"] == 50
    assert text_of(seen) == "you said a picture"
    assert provider.asked[1]["messages"][-1]["content"] == [picture]


async def test_large_pictures_come_through_also_several_at_once(house: House, provider: Provider) -> None:
    url = "data:image/png;base64," + "iVBORw0KGgo" * 700_000
    async with offered(house, provider), asyncio.TaskGroup() as group:
        asking = [group.create_task(ask(house.base, [{"type": "image_url", "image_url": {"url": url}}])) for _ in "abc"]
    assert [text_of(one.result()) for one in asking] == ["you said a picture"] * 3
    assert [body["messages"][-1]["content"][0]["image_url"]["url"] == url for body in provider.asked] == [True] * 3


async def test_a_stream_is_a_stream_for_the_caller(house: House, provider: Provider) -> None:
    async with offered(house, provider):
        reply = await ask(house.base, "hello", stream=True)
    data = [line[6:] for line in reply.body.decode().splitlines() if line.startswith("data: ")]
    chunks = [json.loads(one) for one in data if one != "[DONE]"]
    words = [chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"]]
    assert ("".join(words), data[-1]) == ("you said hello", "[DONE]")


async def test_as_many_are_answered_at_once_as_is_wanted_and_the_others_wait(house: House, provider: Provider) -> None:
    async with offered(house, provider, "--parallel", "3"), asyncio.TaskGroup() as group:
        asking = [group.create_task(ask(house.base, f"wait {index}")) for index in range(10)]
        await eventually(lambda: provider.at_work == 3)
        provider.may_go.set()
        replies = [await one for one in asking]
    assert [text_of(reply) for reply in replies] == [f"you said wait {index}" for index in range(10)]
    assert provider.most_at_work == 3


async def test_a_caller_that_leaves_is_not_paid_for(house: House, provider: Provider) -> None:
    async with offered(house, provider):
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(ask(house.base, "wait"))
            await eventually(lambda: provider.at_work == 1)
            asking.cancel()
        await eventually(lambda: (provider.left, provider.at_work) == (1, 0), what="the provider is no longer asked")
        provider.may_go.set()
        assert text_of(await ask(house.base, "hello")) == "you said hello"


async def test_what_the_provider_refuses_is_the_callers_answer(house: House, provider: Provider) -> None:
    async with offered(house, provider) as companion:
        reply = await ask(house.base, "fail")
        line = await companion.says("not answered")
        assert text_of(await ask(house.base, "hello")) == "you said hello"
    assert (reply.status, "the dog ate it" in reply.json["error"]["message"]) == (502, True)
    assert "the dog ate it" in line


async def test_a_key_that_the_provider_does_not_know_is_told_to_nobody(house: House, provider: Provider) -> None:
    async with command(f"{house.base}/mcp", provider, key="sk-wrong-0123") as companion:
        await companion.says("connected")
        await has_model(house, True)
        reply = await ask(house.base, "hello")
        line = await companion.says("not answered")
        await companion.stop()
    assert "does not accept the key" in line
    assert reply.status == 502
    assert "sk-wrong" not in line + reply.body.decode()


async def test_the_model_of_a_caller_counts_only_where_any_is_offered(house: House, provider: Provider) -> None:
    async with offered(house, provider, "--model", "any"):
        assert (await ask(house.base, "hello", model="gpt-y")).status == 200
        unnamed = await ask(house.base, "hello")
    async with offered(house, provider):
        assert (await ask(house.base, "hello", model="gpt-y")).status == 200
    assert [body["model"] for body in provider.asked] == ["gpt-y", "gpt-x"]
    assert (unnamed.status, "names no model" in unnamed.json["error"]["message"]) == (502, True)


async def test_a_service_that_is_started_anew_is_served_again(provider: Provider) -> None:
    async with ProxyProcess("--llm") as proxy, command(f"{proxy.base_url}/mcp", provider) as companion:
        await companion.says("connected to")
        await proxy.kill()
        assert "next attempt in" in await companion.says("not connected")
        await proxy.start()
        await companion.says("connected to")

        async def answered() -> str:
            reply = await ask(proxy.base_url, "hello")
            return text_of(reply) if reply.status == 200 else ""

        assert await eventually(answered, what="an answer") == "you said hello"
        await companion.stop()


async def test_a_service_that_is_not_there_yet_is_waited_for_until_ctrl_c(provider: Provider) -> None:
    async with command(f"http://127.0.0.1:{free_port()}/mcp", provider) as companion:
        assert "(connection refused); next attempt in" in await companion.says("not connected")
        await companion.stop()


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("not-a-token", "the service does not accept the token (HTTP 401)"),
        (make_token(scope="tools:call llm:call"), "there is no tool called 'hook'"),
        (make_token(scope="logs:read"), "the token needs the scope llm:serve"),
    ],
)
async def test_who_is_not_let_in_is_told_why_in_one_line(
    token: str, words: str, house: House, provider: Provider
) -> None:
    async with command(f"{house.base}/mcp", provider, token=token) as companion:
        code, out, err = await companion.ended()
    last = err.splitlines()[-1]
    assert (code, out, last.startswith("mcp-proxy-api: "), words in last) == (1, "", True, True), err
    assert "--scope" in last or "llm:serve" in last


async def test_an_address_where_no_mcp_is_said_to_be_wrong(house: House, provider: Provider) -> None:
    async with command(f"{house.base}/nowhere", provider) as companion:
        code, _, err = await companion.ended()
    assert (code, len(err.splitlines())) == (1, 1)
    assert "ends with /mcp" in err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--key-env", "NO_SUCH_KEY"], "the variable NO_SUCH_KEY is not set; put the provider's key there"),
        (["--key-env", "BROKEN_KEY"], "the key in BROKEN_KEY holds characters that cannot be sent"),
        (["--server", "ftp://x/mcp"], "--server must begin with http:// or https://"),
        (["--base-url", "http://"], "--base-url has no host"),
        (["--model", ""], "--model is empty"),
        (["--token", "a b"], "--token holds characters"),
    ],
)
async def test_what_cannot_work_is_said_before_anything_is_connected(more: list[str], words: str) -> None:
    args = ["--server", "http://127.0.0.1:1/mcp", "--provider", "openai", "--model", "m"]
    async with Command(*args, *more, OPENAI_API_KEY=KEY, BROKEN_KEY="a\nb") as companion:
        code, out, err = await companion.ended()
    assert (code, out, len(err.splitlines())) == (2, "", 1), err
    assert words in err


async def test_help_has_an_example_and_all_that_is_needed() -> None:
    async with Command("--help") as companion:
        code, out, err = await companion.ended()
    assert (code, err) == (0, "")
    assert "mcp-proxy-api hook --server https://" in out
    for option in ("--provider", "--model", "--base-url", "--key-env", "--token", "--parallel", "llm:serve"):
        assert option in out
