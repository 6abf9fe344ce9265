"""Answers that are to be JSON of a schema: the libraries' parsing helpers get what they can parse, from every source."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

import anthropic
import openai
import pytest
from openai import pydantic_function_tool
from pydantic import BaseModel, Field

from tests.llm.kinds import ALIAS, Clients, Kind

pytestmark = pytest.mark.anyio


class Step(BaseModel):
    """One of several."""

    says: str
    weight: float | None


class Plan(BaseModel):
    """What is asked for."""

    name: str
    mood: Literal["good", "bad"]
    steps: list[Step]


PLAN = Plan(name="Grüße 🌍", mood="good", steps=[Step(says='a "b"\nc', weight=1.5), Step(says="", weight=None)])
TEXT = PLAN.model_dump_json()
SCHEMA = Plan.model_json_schema()
Ask = Callable[[Clients, str], Awaitable[Any]]


@dataclass(frozen=True)
class Form:
    """One way of asking for a plan; ``ask`` returns it, as JSON text or parsed."""

    name: str
    ask: Ask

    def __str__(self) -> str:
        return self.name


def said(text: str) -> Any:
    return [{"role": "user", "content": text}]


async def _chat_parse(clients: Clients, text: str) -> Any:
    found = await clients.openai.chat.completions.parse(model=ALIAS, messages=said(text), response_format=Plan)
    return found.choices[0].message.parsed


async def _chat_stream(clients: Clients, text: str) -> Any:
    async with clients.openai.chat.completions.stream(model=ALIAS, messages=said(text), response_format=Plan) as stream:
        done = [event.parsed async for event in stream if event.type == "content.done"]
        final = (await stream.get_final_completion()).choices[0].message.parsed
    assert done == [final]
    return final


async def _chat_schema(clients: Clients, text: str) -> Any:
    form: Any = {"type": "json_schema", "json_schema": {"name": "plan", "schema": SCHEMA}}
    found = await clients.openai.chat.completions.create(model=ALIAS, messages=said(text), response_format=form)
    return found.choices[0].message.content


async def _chat_object(clients: Clients, text: str) -> Any:
    found = await clients.openai.chat.completions.create(
        model=ALIAS, messages=said(text), response_format={"type": "json_object"}
    )
    return found.choices[0].message.content


async def _responses_parse(clients: Clients, text: str) -> Any:
    return (await clients.openai.responses.parse(model=ALIAS, input=text, text_format=Plan)).output_parsed


async def _responses_stream(clients: Clients, text: str) -> Any:
    async with clients.openai.responses.stream(model=ALIAS, input=text, text_format=Plan) as stream:
        done = [event.parsed async for event in stream if event.type == "response.output_text.done"]
        final = (await stream.get_final_response()).output_parsed
    assert done == [final]
    return final


async def _responses_schema(clients: Clients, text: str) -> Any:
    form: Any = {"format": {"type": "json_schema", "name": "plan", "schema": SCHEMA}}
    return (await clients.openai.responses.create(model=ALIAS, input=text, text=form)).output_text


async def _messages_parse(clients: Clients, text: str) -> Any:
    found = await clients.anthropic.messages.parse(
        model=ALIAS, max_tokens=1000, messages=said(text), output_format=Plan
    )
    return found.parsed_output


async def _messages_stream(clients: Clients, text: str) -> Any:
    async with clients.anthropic.messages.stream(
        model=ALIAS, max_tokens=1000, messages=said(text), output_format=Plan
    ) as stream:
        return (await stream.get_final_message()).parsed_output


async def _messages_config(clients: Clients, text: str) -> Any:
    form: Any = {"format": {"type": "json_schema", "schema": SCHEMA}}
    found = await clients.anthropic.messages.create(
        model=ALIAS, max_tokens=1000, messages=said(text), output_config=form
    )
    (block,) = found.content
    assert block.type == "text"
    return block.text


async def _messages_beta(clients: Clients, text: str) -> Any:
    found = await clients.anthropic.beta.messages.parse(
        model=ALIAS, max_tokens=1000, messages=said(text), output_format=Plan, betas=["structured-outputs-2025-11-13"]
    )
    return found.parsed_output


async def _messages_of_old(clients: Clients, text: str) -> Any:
    form = {"output_format": {"type": "json_schema", "schema": SCHEMA}}
    found = await clients.anthropic.beta.messages.create(
        model=ALIAS, max_tokens=1000, messages=said(text), extra_body=form
    )
    (block,) = found.content
    assert block.type == "text"
    return block.text


FORMS = (
    Form("chat.completions.parse", _chat_parse),
    Form("chat.completions.stream with a model", _chat_stream),
    Form("chat.completions with a schema", _chat_schema),
    Form("chat.completions with any object", _chat_object),
    Form("responses.parse", _responses_parse),
    Form("responses.stream with a model", _responses_stream),
    Form("responses with a schema", _responses_schema),
    Form("messages.parse", _messages_parse),
    Form("messages.stream with a model", _messages_stream),
    Form("messages with a format in the configuration", _messages_config),
    Form("messages.parse of the beta", _messages_beta),
    Form("messages with the format of an older beta", _messages_of_old),
)


def plan(found: Any) -> Plan:
    return Plan.model_validate_json(found) if isinstance(found, str) else found


@pytest.mark.parametrize("form", FORMS, ids=str)
async def test_an_answer_in_the_form_that_was_asked_for_is_parsed(kind: Kind, form: Form) -> None:
    assert plan(await form.ask(kind.clients, f"json {TEXT}")) == PLAN
    asked = kind.brain.only
    # The model hears of the form: as its source's own parameter, or in words.
    assert (asked.schema or "JSON" in (asked.system or "")) or kind.name == "openai"


@pytest.mark.parametrize("form", FORMS, ids=str)
async def test_the_fence_around_an_answer_is_taken_off(kind: Kind, form: Form) -> None:
    assert plan(await form.ask(kind.clients, f"fenced json {TEXT}")) == PLAN
    assert len(kind.brain.asked) == 1


@pytest.mark.parametrize("form", FORMS, ids=str)
async def test_an_answer_in_another_form_is_asked_for_again(kind: Kind, form: Form) -> None:
    assert plan(await form.ask(kind.clients, f"prose, then json {TEXT}")) == PLAN
    first, second = kind.brain.asked
    assert second.turns[: len(first.turns)] == first.turns
    assert "Certainly!" in second.turns[-2].text


@pytest.mark.parametrize("form", FORMS, ids=str)
async def test_an_answer_that_stays_in_another_form_is_an_error_and_no_answer(kind: Kind, form: Form) -> None:
    with pytest.raises((openai.InternalServerError, anthropic.InternalServerError)) as caught:
        await form.ask(kind.clients, "never json")
    assert caught.value.status_code == 502
    assert "form" in str(caught.value)
    assert len(kind.brain.asked) == 2  # asked for again by the service, and not by the library


async def test_an_answer_that_breaks_a_rule_of_the_schema_is_asked_for_again(kind: Kind) -> None:
    wrong = json.dumps({"name": "x", "mood": "so so", "steps": []})
    with pytest.raises(openai.InternalServerError) as caught:
        await _chat_parse(kind.clients, f"json {wrong}")
    assert "so so" not in str(caught.value)
    complaint = kind.brain.last.turns[-1].text
    assert "/mood" in complaint


async def test_a_system_prompt_stays_beside_the_form(kind: Kind) -> None:
    messages: Any = [{"role": "system", "content": "You are a planner."}, *said(f"json {TEXT}")]
    await kind.clients.openai.chat.completions.parse(model=ALIAS, messages=messages, response_format=Plan)
    assert (kind.brain.only.system or "").startswith("You are a planner.")


async def test_a_tool_may_be_called_before_an_answer_in_a_form(kind: Kind) -> None:
    class Look(BaseModel):
        """Looks it up."""

        what: str = Field(description="what to look up")

    found = await kind.clients.openai.chat.completions.parse(
        model=ALIAS,
        messages=said('call Look {"what": "it"}'),
        response_format=Plan,
        tools=[pydantic_function_tool(Look)],
    )
    message = found.choices[0].message
    assert message.parsed is None
    assert message.tool_calls is not None
    assert message.tool_calls[0].function.parsed_arguments == Look(what="it")
    assert kind.brain.only.tools[0].description == "Looks it up."


async def test_an_answer_in_a_form_that_was_cut_short_says_so(kind: Kind) -> None:
    with pytest.raises(openai.LengthFinishReasonError):
        await _chat_parse(kind.clients, 'json {"name": "cut\nlength')
    assert len(kind.brain.asked) == 1
