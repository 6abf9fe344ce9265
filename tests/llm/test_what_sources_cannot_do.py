"""What happens where a kind of source cannot do what others do: the counterpart of the table in `exceptions`."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import chain
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from tests.llm.callers import create, parameters, text_of
from tests.llm.conversation import Result, Words, ask
from tests.llm.exceptions import EXCEPTIONS, LANES, PROVIDERS, UNREAD
from tests.llm.kinds import BEHIND, KINDS, Kind, opened
from tests.llm.kinds import LANES as PLACES
from tests.llm.test_conversations import CONVERSATIONS
from tests.llm.test_failures import read
from tests.llm.test_structured_answers import FORMS, TEXT, Form
from tests.llm.test_what_requests_may_not_say import REFUSED, Refused
from tests.llm.test_what_requests_may_say import ACCEPTED, OBJECT, USE, WAV, user
from tests.llm.ways import WAYS

PLAIN = tuple(form for form in FORMS if " with " in form.name and "stream" not in form.name)
"""Ways of asking for a form that leave the reading to the caller."""


@pytest.fixture(scope="module")
async def modern() -> AsyncIterator[Kind]:
    """Modern lanes, in a service that waits for an answer for a second."""
    async with opened("modern", llm_timeout=1) as kind:
        yield kind


@pytest.fixture(scope="module")
async def lanes() -> AsyncIterator[Kind]:
    """Modern lanes that have all the time they want."""
    async with opened("modern") as kind:
        yield kind


@pytest.fixture(scope="module")
async def providers() -> AsyncIterator[dict[str, Kind]]:
    """A service for each kind of provider."""
    async with AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(opened(name)) for name in PROVIDERS}


# Modern clients


@pytest.mark.anyio
@pytest.mark.parametrize("cue", ["fail", "reject"])
async def test_a_refusal_of_a_modern_client_is_a_time_that_runs_out(modern: Kind, cue: str) -> None:
    modern.brain.forget()
    with pytest.raises(openai.InternalServerError) as caught:
        await create(modern.clients, "chat", cue)
    assert (caught.value.status_code, caught.value.code) == (504, "no_answer")
    assert len(modern.brain.asked) == 1


@pytest.mark.anyio
async def test_modern_clients_that_have_all_refused_come_back(modern: Kind) -> None:
    modern.brain.forget()
    refused = [create(modern.clients, "chat", "fail") for _ in range(PLACES["modern"])]
    assert all(isinstance(one, openai.APIError) for one in await asyncio.gather(*refused, return_exceptions=True))
    answers = await asyncio.gather(*(create(modern.clients, "chat", f"say: {n}") for n in range(20)))
    assert [text_of("chat", answer) for answer in answers] == [str(n) for n in range(20)]


@pytest.mark.anyio
async def test_a_modern_client_that_comes_back_too_late_goes_on_with_the_next(modern: Kind) -> None:
    modern.brain.forget()
    with pytest.raises(openai.InternalServerError):
        await create(modern.clients, "chat", "wait")
    assert modern.brain.in_flight == 1
    modern.brain.let_go()
    answers = await asyncio.gather(*(create(modern.clients, "chat", f"say: {n}") for n in range(20)))
    assert [text_of("chat", answer) for answer in answers] == [str(n) for n in range(20)]


@pytest.mark.anyio
async def test_what_nobody_waits_for_any_more_keeps_one_modern_lane_busy_and_no_other(lanes: Kind) -> None:
    lanes.brain.forget()
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(create(lanes.clients, "chat", "wait"))
        await lanes.brain.is_at_work_on(1)
        asked.cancel()
    answers = [text_of("chat", await create(lanes.clients, "chat", f"say: {n}")) for n in range(20)]
    assert answers == [str(n) for n in range(20)]
    assert (lanes.brain.in_flight, lanes.brain.cancelled) == (1, 0)
    lanes.brain.let_go()
    await lanes.brain.is_idle()


@pytest.mark.anyio
async def test_modern_clients_are_asked_as_many_questions_as_they_have_lanes(lanes: Kind) -> None:
    lanes.brain.forget()
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(create(lanes.clients, "chat", f"wait\nsay: {n}")) for n in range(32)]
        await lanes.brain.is_at_work_on(PLACES["modern"])
        lanes.brain.let_go()
    assert [text_of("chat", one.result()) for one in asked] == [str(n) for n in range(32)]
    assert lanes.brain.peak == PLACES["modern"]


# Connected clients of either era


@pytest.mark.anyio
@pytest.mark.parametrize("cue", ["busy 3", "say: half a\nbreak off"])
async def test_what_a_connected_client_cannot_say_better_is_a_failure_of_the_source(cue: str) -> None:
    async with opened("legacy") as kind:
        with pytest.raises(openai.InternalServerError) as caught:
            await create(kind.clients, "chat", cue)
        assert (caught.value.status_code, caught.value.code) == (502, "source_error")
        assert len(kind.brain.asked) == 1


# Providers


@pytest.mark.anyio
@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("form", PLAIN, ids=str)
@pytest.mark.parametrize("cue", ["fenced json", "prose, then json"])
async def test_an_answer_of_a_provider_in_another_form_is_passed_on(
    providers: dict[str, Kind], name: str, form: Form, cue: str
) -> None:
    kind = providers[name]
    kind.brain.forget()
    text = await form.ask(kind.clients, f"{cue} {TEXT}")
    assert text.startswith(("Here you are", "Certainly!"))
    assert len(kind.brain.asked) == 1


@pytest.mark.anyio
@pytest.mark.parametrize("way", [way for way in WAYS if way.api == "messages"], ids=str)
async def test_a_stop_text_that_an_openai_provider_heeds_is_an_end_like_others(
    providers: dict[str, Kind], way: Any
) -> None:
    answer = await way.ask(providers["openai"].clients, ask("say: red green\nheed stop at  green", stop=(" green",)))
    assert (answer.text, answer.end, answer.stopped_by) == ("red", "end", None)


@pytest.mark.anyio
async def test_what_a_failed_tool_said_reaches_an_openai_provider(providers: dict[str, Kind]) -> None:
    kind = providers["openai"]
    kind.brain.forget()
    result = {"type": "tool_result", "tool_use_id": "use_1", "content": "no such city", "is_error": True}
    messages = [user("hello"), {"role": "assistant", "content": [USE]}, user(result)]
    await create(kind.clients, "messages", "", messages=messages, tools=[{"name": "go", "input_schema": OBJECT}])
    assert kind.brain.only.turns[-1].blocks == (Result("use_1", (Words("no such city"),)),)


@pytest.mark.anyio
async def test_a_recording_is_refused_where_an_anthropic_provider_would_have_to_hear_it(
    providers: dict[str, Kind],
) -> None:
    kind = providers["anthropic"]
    kind.brain.forget()
    recording = {"type": "input_audio", "input_audio": {"data": WAV, "format": "wav"}}
    with pytest.raises(openai.BadRequestError) as caught:
        await create(kind.clients, "chat", "", messages=[user(recording)])
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "messages")
    assert not kind.brain.asked


@pytest.mark.anyio
@pytest.mark.parametrize("model", ["gone", "auto", "other/model"])
async def test_a_model_that_no_provider_has_is_not_there_where_no_client_is_to_answer(
    providers: dict[str, Kind], model: str
) -> None:
    clients = providers["openai"].clients_of(max_retries=0)
    with pytest.raises(openai.NotFoundError) as caught:
        await clients.openai.responses.create(model=model, input="say: never")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    with pytest.raises(anthropic.NotFoundError) as other:
        await clients.anthropic.messages.create(
            model=model, max_tokens=9, messages=[{"role": "user", "content": "say: never"}]
        )
    assert other.value.type == "not_found_error"
    assert "mcp-external-sampling" not in [one.id async for one in clients.openai.models.list()]


PASSED_ON = [(kind, case) for kind in PROVIDERS for case in REFUSED if str(case) in UNREAD[kind]]


@pytest.mark.anyio
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("name", "case"), PASSED_ON, ids=[f"{kind}-{case}" for kind, case in PASSED_ON])
async def test_what_is_not_understood_is_passed_on_to_who_may_understand_it(
    providers: dict[str, Kind], name: str, case: Refused, stream: bool
) -> None:
    kind = providers[name]
    kind.brain.forget()
    answer = await create(kind.clients, case.api, "hello", **case.says, extra_body=case.beside, stream=stream)
    assert [event async for event in answer] if stream else text_of(case.api, answer)
    (body,) = kind.brain.bodies
    given = {**case.says, **case.beside}
    assert {key: body[key] for key in given} == given
    assert body["model"] == BEHIND


@pytest.mark.anyio
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_request_that_is_passed_on_is_changed_in_its_model_alone(
    providers: dict[str, Kind], stream: bool
) -> None:
    for name, api in (("openai", "chat"), ("anthropic", "messages")):
        kind = providers[name]
        kind.brain.forget()
        asked = parameters(api, "say: hello", {"extra_body": {"x_y": {"z": [1, None, "é"]}}, "stream": stream})
        await read(kind.clients, api, "say: hello", [], **asked)
        (body,) = kind.brain.bodies
        sent = {**asked, **asked.pop("extra_body"), "model": BEHIND}
        sent.pop("extra_body", None)
        told = {"stream_options": {"include_usage": True}} if stream and api == "chat" else {}
        assert body == {**sent, **told}


# The table itself


def _tests() -> dict[str, list[str]]:
    """Every test here, with the rows of its table where it has one."""
    found: dict[str, list[str]] = {}
    for file in sorted(Path(__file__).parent.glob("test_*.py")):
        module = importlib.import_module(f"tests.llm.{file.stem}")
        found |= {name: [] for name in vars(module) if name.startswith("test_")}
    found["test_conversation"] = [case.name for case in CONVERSATIONS]
    found["test_accepted"] = [str(case) for case in ACCEPTED]
    found["test_refused"] = [str(case) for case in REFUSED]
    return found


def test_every_exception_is_one_to_a_case_that_there_is() -> None:
    tests = _tests()
    cases = {*tests, *chain.from_iterable((f"{name}[{row}]" for row in rows) for name, rows in tests.items())}
    assert [one for one in EXCEPTIONS if one.case not in cases] == []
    assert {one.kind for one in EXCEPTIONS} <= set(KINDS)
    assert len(set(EXCEPTIONS)) == len(EXCEPTIONS)
    assert all(one.reason for one in EXCEPTIONS)
    assert set(LANES) | set(PROVIDERS) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_its_cases(kind: str) -> None:
    out = {one.case for one in EXCEPTIONS if one.kind == kind}
    rows = {
        *(f"test_conversation[{case}]" for case in CONVERSATIONS),
        *(f"test_accepted[{case}]" for case in ACCEPTED),
    }
    assert len(rows - out) >= 80
