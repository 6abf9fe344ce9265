from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from mcp_proxy.base.json import Raw, encode
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.bridge.chat import ChatRequest, Delta, Ended, Started, StopReason, TextDelta, Usage
from mcp_proxy.bridge.companion import BEYOND, Companion, Refused, Service
from mcp_proxy.bridge.errors import RATE_LIMITED, ChatError
from mcp_proxy.bridge.provider import SourceDown
from mcp_proxy.core.upstream.client import OnRequest
from mcp_proxy.core.upstream.failures import Failure, Phase, RpcError, WireError
from mcp_proxy.core.upstream.messages import Incoming
from tests.harness import eventually

pytestmark = pytest.mark.anyio

HELLO = {"role": "user", "content": {"type": "text", "text": "hello"}}
ENDED = {"content": Raw(b'[{"type":"text","text":"call again"}]')}


def question(**more: Any) -> Incoming:
    params = {"messages": [HELLO], "maxTokens": 10, **more}
    return Incoming("sampling/createMessage", Raw(encode(params)), 1)


class Model:
    """A source that notes what it is asked, and answers when it is let go."""

    def __init__(self, *deltas: Delta) -> None:
        self.asked: list[tuple[ChatRequest, str]] = []
        self.at_work = self.most_at_work = self.left = 0
        self.may_go = asyncio.Event()
        self.error: Exception | None = None
        self._deltas = deltas or (Started("m-1", 1), TextDelta("hi"), Ended(StopReason.END, Usage(1, 2, False)))

    async def stream(
        self, ask: ChatRequest, model: str, *, max_tokens: int, tenant: str
    ) -> AsyncGenerator[Delta, None]:
        self.asked.append((ask, model))
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        try:
            await self.may_go.wait()
            if self.error is not None:
                raise self.error
            for delta in self._deltas:
                yield delta
        except asyncio.CancelledError:
            self.left += 1
            raise
        finally:
            self.at_work -= 1


class Notes:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def connected(self) -> None:
        self.said.append("connected")

    def lost(self, reason: str, pause: float) -> None:
        self.said.append(f"lost: {reason}, {pause:g}")

    def failed(self, reason: str) -> None:
        self.said.append(f"failed: {reason}")


def companion(model: Model, name: str | None = "gpt-x", *, parallel: int = 8) -> tuple[Companion, Notes]:
    notes = Notes()
    return Companion(model, name, parallel=parallel, observer=notes), notes


def ready(*deltas: Delta) -> Model:
    model = Model(*deltas)
    model.may_go.set()
    return model


async def refusal(one: Companion, request: Incoming) -> RpcError:
    with pytest.raises(RpcError) as caught:
        await one.answer(request)
    return caught.value


# Answering


async def test_a_question_is_answered_by_the_model_that_is_offered() -> None:
    model = ready()
    result = await companion(model)[0].answer(question(modelPreferences={"hints": [{"name": "other"}]}))
    assert result == {
        "role": "assistant",
        "content": {"type": "text", "text": "hi"},
        "model": "m-1",
        "stopReason": "endTurn",
        "_meta": {"usage": {"inputTokens": 1, "outputTokens": 2}},
    }
    assert [name for _, name in model.asked] == ["gpt-x"]


async def test_where_any_model_is_offered_the_hint_says_which() -> None:
    model = ready()
    one, _ = companion(model, None)
    await one.answer(question(modelPreferences={"hints": [{"name": "maker/model"}]}))
    assert [name for _, name in model.asked] == ["maker/model"]
    assert (await refusal(one, question())).code == -32602


@pytest.mark.parametrize(("said", "most"), [(10, 10), (BEYOND - 1, BEYOND - 1), (BEYOND, None), (327_680, None)])
async def test_a_limit_that_is_none_is_left_to_the_provider(said: int, most: int | None) -> None:
    model = ready()
    await companion(model)[0].answer(question(maxTokens=said))
    assert [ask.max_tokens for ask, _ in model.asked] == [most]


async def test_tools_make_the_answer_a_row_of_blocks() -> None:
    tools = [{"name": "weather", "inputSchema": {"type": "object"}}]
    result = await companion(ready())[0].answer(question(tools=tools))
    assert result["content"] == [{"type": "text", "text": "hi"}]


async def test_an_answer_ends_at_the_stop_text_whatever_the_provider_does() -> None:
    deltas = (Started("m", 1), TextDelta("one END two"), Ended(StopReason.END, Usage(1, 1)))
    result = await companion(ready(*deltas))[0].answer(question(stopSequences=["END"]))
    assert (result["content"]["text"], result["stopReason"]) == ("one ", "stopSequence")


async def test_no_more_questions_are_asked_at_once_than_is_wanted() -> None:
    model = Model()
    one, _ = companion(model, parallel=2)
    tasks = TaskSet(lambda name, error: None)
    answers = [tasks.spawn(one.answer(question()), "ask") for _ in range(5)]
    await eventually(lambda: model.at_work == 2)
    model.may_go.set()
    async with asyncio.timeout(5):
        await asyncio.gather(*answers)
    assert (len(model.asked), model.most_at_work) == (5, 2)


async def test_a_question_that_is_taken_back_is_taken_back_from_the_provider() -> None:
    model = Model()
    one, notes = companion(model, parallel=1)
    tasks = TaskSet(lambda name, error: None)
    first, second = tasks.spawn(one.answer(question()), "first"), tasks.spawn(one.answer(question()), "second")
    await eventually(lambda: model.at_work == 1)
    first.cancel()
    model.may_go.set()
    async with asyncio.timeout(5):
        await asyncio.wait([first, second])
    assert (model.left, first.cancelled(), second.result()["model"]) == (1, True, "m-1")
    assert notes.said == []


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (Incoming("roots/list", None, 1), -32601),
        (Incoming("sampling/createMessage", None, 1), -32602),
        (Incoming("sampling/createMessage", Raw(b"[]"), 1), -32602),
        (Incoming("sampling/createMessage", Raw(b'{"maxTokens": NaN}'), 1), -32602),
        (question(messages=[]), -32602),
    ],
)
async def test_what_is_no_question_is_refused(request_: Incoming, code: int) -> None:
    model = ready()
    assert (await refusal(companion(model)[0], request_)).code == code
    assert model.asked == []


async def test_a_refusal_names_the_place() -> None:
    error = await refusal(companion(ready())[0], question(maxTokens="many"))
    assert error.message == "maxTokens: must be an integer"


@pytest.mark.parametrize("wrapped", [False, True])
async def test_what_ails_the_provider_is_told_to_both_sides(wrapped: bool) -> None:
    model, failed = ready(), ChatError(RATE_LIMITED, "openai answered with 429")
    model.error = SourceDown(failed) if wrapped else failed
    one, notes = companion(model)
    assert (await refusal(one, question())).message == "openai answered with 429"
    assert notes.said == ["failed: openai answered with 429"]


async def test_an_answer_that_breaks_off_is_none() -> None:
    error = await refusal(companion(ready(Started("m", 1), TextDelta("on")))[0], question())
    assert (error.code, error.message) == (-32603, "the model's answer broke off")


# Serving

Call = Callable[[OnRequest], Awaitable[Any]]


class Session:
    """A connection whose calls of ``hook`` do what they are told, one after the other; the last one, for ever."""

    def __init__(self, *calls: Call | Exception | Any) -> None:
        self.calls = list(calls)
        self.called = self.closed = 0
        self.check_fails: Exception | None = None

    async def hook(self, on_request: OnRequest) -> Any:
        self.called += 1
        if not self.calls:
            await asyncio.Event().wait()
        call = self.calls.pop(0)
        if isinstance(call, Exception):
            raise call
        return await call(on_request) if callable(call) else call

    async def check(self) -> None:
        if self.check_fails is not None:
            raise self.check_fails

    async def close(self) -> None:
        self.closed += 1


class Time:
    """A clock that is moved by hand, and pauses that take no time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


def lost(failure: Failure = Failure.LOST, status: int | None = None) -> WireError:
    return WireError(failure, Phase.SENT, "connection lost", status=status)


@asynccontextmanager
async def serving(*attempts: Session | Exception) -> Any:
    """A companion at work, that finds these one after the other, and nothing any more then."""
    left = list(attempts)
    time, notes, done = Time(), Notes(), asyncio.Event()

    async def connect() -> Session:
        if not left:
            done.set()
            await asyncio.Event().wait()
        found = left.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    service = Service(connect, notes, time, lambda: 0.5, time.sleep)
    tasks = TaskSet(lambda name, error: None)
    work = tasks.spawn(service.served_by(Companion(ready(), "m", parallel=1, observer=notes)), "serve")

    async def over() -> None:
        """Wait until there is nothing left to connect to, or it has been given up."""
        waiting = tasks.spawn(done.wait(), "done")
        async with asyncio.timeout(5):
            await asyncio.wait([work, waiting], return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()

    try:
        yield time, notes, over, work
    finally:
        await tasks.close()


async def test_what_is_asked_during_the_call_is_answered() -> None:
    answers = []

    async def call(on_request: OnRequest) -> Any:
        answers.append(await on_request(question()))
        raise lost()

    async with serving(Session(call)) as (_, notes, over, _):
        await over()
    assert [answer["model"] for answer in answers] == ["m-1"]
    assert notes.said == ["connected", "lost: connection lost, 0.5"]


async def test_pauses_grow_while_there_is_no_service() -> None:
    failed = [lost(Failure.UNREACHABLE)] * 8
    async with serving(*failed) as (_, notes, over, _):
        await over()
    assert [line.rpartition(" ")[2] for line in notes.said] == ["0.5", "1", "2", "4", "8", "16", "30", "30"]


async def test_a_call_that_ends_in_time_is_made_again_at_once() -> None:
    session = Session()

    async with serving(session) as (time, notes, over, _):

        async def call(_: OnRequest) -> Any:
            time.now += 100
            return ENDED

        session.calls = [call, call, lost()]
        await over()
    assert (session.called, session.closed) == (3, 1)
    assert notes.said == ["connected", "lost: connection lost, 0.5"]


async def test_calls_that_end_at_once_are_made_with_pauses() -> None:
    sessions = [Session(ENDED) for _ in range(3)]
    async with serving(*sessions) as (_, notes, over, _):
        await over()
    assert notes.said[1::2] == ["lost: call again, 0.5", "lost: call again, 1", "lost: call again, 2"]
    assert [session.closed for session in sessions] == [1, 1, 1]


@pytest.mark.parametrize("result", [{}, {"content": Raw(b"[]")}, {"content": Raw(b"{")}, {"content": Raw(b"[1]")}])
async def test_a_call_may_end_without_a_word(result: Any) -> None:
    async with serving(Session(result)) as (_, notes, over, _):
        await over()
    assert notes.said[-1] == "lost: the call of hook ended, 0.5"


async def test_a_connection_that_has_died_in_silence_is_given_up() -> None:
    session = Session()
    session.check_fails = lost()
    async with serving(session) as (time, notes, over, _):
        await over()
    assert (notes.said[-1], session.closed) == ("lost: connection lost, 0.5", 1)
    assert 20.0 in time.slept


async def test_a_service_that_is_busy_or_does_not_like_the_question_is_there() -> None:
    session = Session()
    looks: list[Exception] = [RpcError(-32601, "no ping"), WireError(Failure.BUSY, Phase.SENT, "HTTP 503", status=503)]

    async def check() -> None:
        raise looks.pop(0) if looks else lost()

    session.check = check  # type: ignore[method-assign]
    async with serving(session) as (_, notes, over, _):
        await over()
    assert (looks, notes.said[-1]) == ([], "lost: connection lost, 0.5")


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("reached", [False, True])
async def test_a_token_that_is_not_accepted_is_the_end(status: int, reached: bool) -> None:
    error = WireError(Failure.HTTP, Phase.STREAMING, "HTTP", status=status)
    attempts = [Session(error)] if reached else [error]
    async with serving(*attempts) as (_, _, over, _):
        with pytest.raises(Refused, match=f"{status}"):
            await over()


@pytest.mark.parametrize("code", [-32602, -32601, -31011])
async def test_a_service_without_the_tool_is_the_end(code: int) -> None:
    session = Session(RpcError(code, "there is no tool called 'hook'"))
    async with serving(session) as (_, _, over, _):
        with pytest.raises(Refused, match=r"no tool called 'hook'.*llm:serve"):
            await over()
    assert session.closed == 1


async def test_a_service_that_has_no_time_is_asked_again() -> None:
    async with serving(Session(RpcError(-31003, "too many")), Session(lost())) as (_, notes, over, _):
        await over()
    assert notes.said == ["connected", "lost: too many, 0.5", "connected", "lost: connection lost, 1"]


@pytest.mark.parametrize(
    "error",
    [lost(Failure.HTTP, 404), lost(Failure.HTTP, 308), lost(Failure.BAD_REPLY)],
)
async def test_a_wrong_address_is_the_end_unless_it_was_right_before(error: WireError) -> None:
    async with serving(error) as (_, _, over, _):
        with pytest.raises(Refused, match="/mcp"):
            await over()
    async with serving(Session(lost()), error) as (_, notes, over, _):
        await over()
    assert len(notes.said) == 3


@pytest.mark.parametrize("error", [lost(Failure.HTTP, 502), lost(Failure.BUSY, 429), RpcError(-31003, "too many")])
async def test_a_service_that_is_not_there_yet_is_waited_for(error: Exception) -> None:
    async with serving(error) as (_, notes, over, _):
        await over()
    assert len(notes.said) == 1


async def test_stopping_ends_the_session() -> None:
    session = Session()
    async with serving(session) as (_, _, _, work):
        await eventually(lambda: session.called == 1)
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work
    assert session.closed == 1
