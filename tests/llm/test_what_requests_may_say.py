"""Forms of requests, API by API, that clients use beyond the plain ones: each is understood, or passed over by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.llm.callers import raw, text_of
from tests.llm.conversation import Picture, Question, Recording, Result, Turn, Use, Words
from tests.llm.kinds import Kind, relays

pytestmark = pytest.mark.anyio

DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
URL = f"data:image/png;base64,{DOT}"
WAV = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA="
OBJECT = {"type": "object"}
GO = {"name": "go", "parameters": OBJECT}
CALL = {"id": "use_1", "type": "function", "function": {"name": "go", "arguments": '{"n": 1}'}}
USE = {"type": "tool_use", "id": "use_1", "name": "go", "input": {"n": 1}}
ITEM = {"type": "function_call", "call_id": "use_1", "name": "go", "arguments": '{"n": 1}'}
Seen = Callable[[Question], object]


@dataclass(frozen=True)
class Accepted:
    """``says``: parameters beside the model; ``beside``: of these, what the library has no parameter for."""

    name: str
    api: str
    says: dict[str, Any]
    seen: Seen
    text: str = "yes"
    ignored: tuple[str, ...] = ()
    beside: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.api}: {self.name}"


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": blocks[0] if isinstance(blocks[0], str) else list(blocks)}


def chat(name: str, *messages: Any, seen: Seen = bool, **more: Any) -> Accepted:
    own = {key: more.pop(key) for key in ("text", "ignored", "beside") if key in more}
    said = {"messages": list(messages)} if messages else {}
    return Accepted(name, "chat", {**said, **more}, seen, **own)


def responses(name: str, *items: Any, seen: Seen = bool, **more: Any) -> Accepted:
    own = {key: more.pop(key) for key in ("ignored", "beside") if key in more}
    own |= {"text": more.pop("answers")} if "answers" in more else {}
    said = {"input": list(items)} if items else {}
    return Accepted(name, "responses", {**said, **more}, seen, **own)


def messages(name: str, *given: Any, seen: Seen = bool, **more: Any) -> Accepted:
    own = {key: more.pop(key) for key in ("text", "ignored", "beside") if key in more}
    said = {"messages": list(given)} if given else {}
    return Accepted(name, "messages", {**said, **more}, seen, **own)


def last(question: Question) -> Turn:
    return question.turns[-1]


def has(**fields: Any) -> Seen:
    return lambda question: all(getattr(question, name) == value for name, value in fields.items())


SAY = user("say: yes")
TEXT = {"type": "text", "text": "say: yes"}
INPUT = {"type": "input_text", "text": "say: yes"}
ACCEPTED = (
    # Chat completions
    chat(
        "the developer's words are the system's",
        {"role": "developer", "content": "Be brief."},
        SAY,
        seen=has(system="Be brief."),
    ),
    chat(
        "several system messages are one prompt",
        {"role": "system", "content": "One."},
        {"role": "developer", "content": "Two."},
        SAY,
        seen=has(system="One.\n\nTwo."),
    ),
    chat(
        "a system message between others is part of the prompt",
        user("hello"),
        {"role": "assistant", "content": "hi"},
        {"role": "system", "content": "Now be brief."},
        SAY,
        seen=has(system="Now be brief."),
    ),
    chat(
        "a system message may have parts",
        {"role": "system", "content": [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]},
        SAY,
        seen=lambda question: question.system in ("One.\n\nTwo.", "One.Two."),
    ),
    chat("a system message alone is a question", {"role": "system", "content": "say: yes"}, seen=has(system=None)),
    chat("one part of text is a text", user(TEXT), seen=lambda question: last(question).text == "say: yes"),
    chat(
        "an empty part is none",
        user({"type": "text", "text": ""}, TEXT),
        seen=lambda question: last(question).blocks == (Words("say: yes"),),
    ),
    chat(
        "a picture's detail is passed over by name",
        user(TEXT, {"type": "image_url", "image_url": {"url": URL, "detail": "low"}}),
        seen=lambda question: question.pictures == [Picture("image/png", DOT)],
        ignored=("image_url.detail",),
    ),
    chat(
        "a recording is heard",
        user(TEXT, {"type": "input_audio", "input_audio": {"data": WAV, "format": "wav"}}),
        seen=lambda question: Recording("audio/wav", WAV) in last(question).blocks,
    ),
    chat("a name of who speaks is passed over", {**SAY, "name": "ann"}, ignored=("messages.name",)),
    chat(
        "the assistant's words may have parts, a refusal among them",
        user("hello"),
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "well, "}, {"type": "refusal", "refusal": "I can't"}],
        },
        SAY,
        seen=lambda question: (
            [block for block in question.turns[1].blocks if isinstance(block, Words)]
            and "I can't" in "".join(block.text for block in question.turns[1].blocks if isinstance(block, Words))
        ),
    ),
    chat(
        "the assistant may have refused",
        user("hello"),
        {"role": "assistant", "content": None, "refusal": "I can't"},
        SAY,
        seen=lambda question: question.turns[1].text == "I can't",
    ),
    chat(
        "a message of the assistant as the library gives it can be sent back",
        user("hello"),
        {"role": "assistant", "content": "hi", "refusal": None, "annotations": [], "audio": None, "tool_calls": None},
        SAY,
        seen=lambda question: question.turns[1].text == "hi",
    ),
    chat(
        "a tool's result may have parts",
        user("say: yes\nfinally say: yes"),
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "use_1", "content": [{"type": "text", "text": "done"}]},
        seen=lambda question: Result("use_1", (Words("done"),)) in last(question).blocks,
        tools=[{"type": "function", "function": GO}],
    ),
    chat(
        "a tool's result may show a picture",
        user("finally say: yes"),
        {"role": "assistant", "tool_calls": [CALL]},
        {
            "role": "tool",
            "tool_call_id": "use_1",
            "content": [{"type": "text", "text": "done"}, {"type": "image_url", "image_url": {"url": URL}}],
        },
        seen=lambda question: question.pictures == [Picture("image/png", DOT)],
        tools=[{"type": "function", "function": GO}],
    ),
    chat(
        "an old tool call is known though no tools are offered any more",
        user("hello"),
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "use_1", "content": "done"},
        {"role": "assistant", "content": "so"},
        SAY,
        seen=lambda question: question.turns[1].blocks == (Use("use_1", "go", {"n": 1}),),
    ),
    chat(
        "a tool without parameters takes an empty object",
        SAY,
        seen=lambda question: question.tools[0].schema["type"] == "object",
        tools=[{"type": "function", "function": {"name": "go"}}],
    ),
    chat(
        "a tool that is to be strict is offered as others are",
        SAY,
        seen=lambda question: question.tools[0].name == "go",
        tools=[{"type": "function", "function": {**GO, "strict": True}}],
        ignored=("tools.strict",),
    ),
    chat("the older name of the most tokens counts", SAY, seen=has(max_tokens=33), max_tokens=33),
    chat(
        "the newer name of the most tokens goes before the older",
        SAY,
        seen=has(max_tokens=44),
        max_tokens=33,
        max_completion_tokens=44,
    ),
    chat("one stop text may stand alone", SAY, seen=has(stop=("END",)), stop="END"),
    chat("words as the format are words", SAY, seen=has(schema=None), response_format={"type": "text"}),
    chat("one answer may be asked for", SAY, n=1),
    chat("no probabilities may be asked for", SAY, logprobs=False, top_logprobs=0),
    chat("words as the only modality are words", SAY, modalities=["text"]),
    chat("not to be stored is what nothing is", SAY, store=False),
    chat("a cache's key is of no matter", SAY, prompt_cache_key="k"),
    chat(
        "what changes the manner of an answer is passed over by name",
        SAY,
        frequency_penalty=0.5,
        presence_penalty=0.5,
        seed=7,
        logit_bias={"50256": -100},
        top_p=0.9,
        user="ann",
        metadata={"a": "b"},
        reasoning_effort="low",
        service_tier="auto",
        ignored=(
            "frequency_penalty",
            "presence_penalty",
            "seed",
            "logit_bias",
            "top_p",
            "user",
            "metadata",
            "reasoning_effort",
            "service_tier",
        ),
    ),
    chat(
        "fields of other services are passed over by name",
        SAY,
        beside={"top_k": 5, "x_y": {"z": 1}},
        ignored=("top_k", "x_y"),
    ),
    chat("a temperature of nought is one", SAY, seen=has(temperature=0.0), temperature=0),
    # Responses
    responses("instructions are the system's words", seen=has(system="Be brief."), instructions="Be brief."),
    responses(
        "the developer's words follow the instructions",
        {"role": "developer", "content": "Two."},
        SAY,
        seen=has(system="One.\n\nTwo."),
        instructions="One.",
    ),
    responses("a message may have parts", user(INPUT), seen=lambda question: last(question).text == "say: yes"),
    responses("a message may say that it is one", {"type": "message", **user(INPUT)}),
    responses(
        "an easy message of the assistant is history",
        user("hello"),
        {"role": "assistant", "content": "hi"},
        SAY,
        seen=lambda question: question.turns[1].text == "hi",
    ),
    responses(
        "the output of an answer before is history",
        user("hello"),
        {
            "id": "msg_1",
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "hi", "annotations": [], "logprobs": []}],
        },
        SAY,
        seen=lambda question: question.turns[1].text == "hi",
    ),
    responses(
        "thoughts of an answer before are left out",
        user("hello"),
        {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "x"},
        {"role": "assistant", "content": "hi"},
        SAY,
        seen=lambda question: [turn.role for turn in question.turns] == ["user", "assistant", "user"],
    ),
    responses(
        "words and calls of one answer are one turn",
        user("finally say: yes"),
        {"role": "assistant", "content": "let me see"},
        {**ITEM, "id": "fc_1", "status": "completed"},
        {"type": "function_call_output", "call_id": "use_1", "output": "done"},
        seen=lambda question: question.turns[1].blocks == (Words("let me see"), Use("use_1", "go", {"n": 1})),
        tools=[{"type": "function", **GO, "strict": False}],
    ),
    responses(
        "a tool's output may have parts and show a picture",
        user("finally say: yes"),
        ITEM,
        {
            "type": "function_call_output",
            "call_id": "use_1",
            "output": [{"type": "input_text", "text": "done"}, {"type": "input_image", "image_url": URL}],
        },
        seen=lambda question: question.pictures == [Picture("image/png", DOT)],
        tools=[{"type": "function", **GO, "strict": False}],
    ),
    responses(
        "a picture is seen",
        user(INPUT, {"type": "input_image", "image_url": URL, "detail": "auto"}),
        seen=lambda question: question.pictures == [Picture("image/png", DOT)],
    ),
    responses(
        "a picture's detail is passed over by name",
        user(INPUT, {"type": "input_image", "image_url": URL, "detail": "high"}),
        ignored=("input_image.detail",),
    ),
    responses("the most tokens count", seen=has(max_tokens=55), max_output_tokens=55),
    responses("the temperature counts", seen=has(temperature=1.5), temperature=1.5),
    responses("words as the format are words", text={"format": {"type": "text"}}),
    responses(
        "what changes the manner of an answer is passed over by name",
        text={"verbosity": "low"},
        reasoning={"effort": "low"},
        top_p=0.9,
        include=["reasoning.encrypted_content"],
        metadata={"a": "b"},
        truncation="auto",
        user="ann",
        ignored=("text.verbosity", "reasoning", "top_p", "include", "metadata", "truncation", "user"),
    ),
    responses("not to be stored is what nothing is", store=False, truncation="disabled"),
    responses("what is to be stored is told that it is not", store=True, ignored=("store",)),
    responses("fields of other services are passed over by name", beside={"x_y": 1}, ignored=("x_y",)),
    # Messages
    messages("the system's words are a text", system="Be brief.", seen=has(system="Be brief.")),
    messages(
        "the system's words may be blocks that are cached",
        system=[
            {"type": "text", "text": "One.", "cache_control": {"type": "ephemeral"}},
            {"type": "text", "text": "Two."},
        ],
        seen=has(system="One.\n\nTwo."),
    ),
    messages(
        "the system may speak in between",
        user("hello"),
        {"role": "assistant", "content": "hi"},
        {"role": "system", "content": "Now be brief."},
        SAY,
        seen=has(system="Now be brief."),
    ),
    messages(
        "consecutive messages of one side are one turn",
        user("one"),
        user("two"),
        SAY,
        seen=lambda question: question.turns == (Turn("user", (Words("one"), Words("two"), Words("say: yes"))),),
    ),
    messages(
        "a cached block is a block",
        user({**TEXT, "cache_control": {"type": "ephemeral", "ttl": "1h"}}),
        seen=lambda question: last(question).text == "say: yes",
    ),
    messages(
        "a document of words is read with its title",
        user(
            {
                "type": "document",
                "title": "Report",
                "context": "of today",
                "source": {"type": "text", "media_type": "text/plain", "data": "all is well"},
            },
            TEXT,
        ),
        seen=lambda question: last(question).text == "Report\nof today\nall is well\nsay: yes",
    ),
    messages(
        "a document of blocks is read and looked at",
        user(
            {
                "type": "document",
                "source": {
                    "type": "content",
                    "content": [
                        {"type": "text", "text": "see"},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": DOT}},
                    ],
                },
            },
            TEXT,
        ),
        seen=lambda question: question.pictures == [Picture("image/png", DOT)],
    ),
    messages(
        "thoughts of an answer before are left out",
        user("hello"),
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "text", "text": "hi"},
            ],
        },
        SAY,
        seen=lambda question: question.turns[1].blocks == (Words("hi"),),
    ),
    messages(
        "a tool's result is a text",
        user("finally say: yes"),
        {"role": "assistant", "content": [USE]},
        user({"type": "tool_result", "tool_use_id": "use_1", "content": "done"}),
        seen=lambda question: Result("use_1", (Words("done"),)) in last(question).blocks,
        tools=[{"name": "go", "input_schema": OBJECT}],
    ),
    messages(
        "a tool's result may show a picture",
        user("finally say: yes"),
        {"role": "assistant", "content": [USE]},
        user(
            {
                "type": "tool_result",
                "tool_use_id": "use_1",
                "content": [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": DOT}}],
            }
        ),
        seen=lambda question: question.pictures == [Picture("image/png", DOT)],
        tools=[{"name": "go", "input_schema": OBJECT}],
    ),
    messages(
        "a tool may have said nothing",
        user("finally say: yes"),
        {"role": "assistant", "content": [USE]},
        user({"type": "tool_result", "tool_use_id": "use_1"}),
        tools=[{"name": "go", "input_schema": OBJECT}],
    ),
    messages(
        "a tool that failed has failed",
        user("finally say: yes"),
        {"role": "assistant", "content": [USE]},
        user({"type": "tool_result", "tool_use_id": "use_1", "content": "no", "is_error": True}),
        seen=lambda question: Result("use_1", (Words("no"),), failed=True) in last(question).blocks,
        tools=[{"name": "go", "input_schema": OBJECT}],
    ),
    messages(
        "words beside a tool's result are said after it",
        user("hello"),
        {"role": "assistant", "content": [USE]},
        user(
            {"type": "text", "text": "finally say: yes"},
            {"type": "tool_result", "tool_use_id": "use_1", "content": "no"},
        ),
        seen=lambda question: isinstance(last(question).blocks[0], Result),
        tools=[{"name": "go", "input_schema": OBJECT}],
    ),
    messages(
        "a tool may say that it is the caller's own",
        SAY,
        seen=lambda question: question.tools[0].name == "go",
        tools=[{"type": "custom", "name": "go", "input_schema": OBJECT, "cache_control": {"type": "ephemeral"}}],
    ),
    messages(
        "a choice may be left to the model",
        SAY,
        tools=[{"name": "go", "input_schema": OBJECT}],
        tool_choice={"type": "auto"},
    ),
    messages(
        "what changes the manner of an answer is passed over by name",
        thinking={"type": "enabled", "budget_tokens": 1024},
        metadata={"user_id": "ann"},
        service_tier="auto",
        output_config={"effort": "low"},
        ignored=("thinking", "metadata", "service_tier", "output_config.effort"),
    ),
    messages(
        "parameters of older libraries are understood or passed over",
        beside={"temperature": 0.5, "top_p": 0.9, "top_k": 5},
        seen=has(temperature=0.5),
        ignored=("top_p", "top_k"),
    ),
    messages(
        "fields of betas are passed over by name",
        beside={"context_management": {"edits": []}, "x_y": 1},
        ignored=("context_management", "x_y"),
    ),
    messages("a cache for the whole is of no matter", cache_control={"type": "ephemeral"}),
)


@pytest.mark.parametrize("case", ACCEPTED, ids=str)
async def test_accepted(kind: Kind, case: Accepted) -> None:
    more = {"extra_body": case.beside} if case.beside else {}
    answer, headers = await raw(kind.clients, case.api, "say: yes", **case.says, **more)
    assert text_of(case.api, answer) == case.text
    named = headers.get("x-bridge-ignored-params", "")
    ignored = sorted(filter(None, (name.strip() for name in named.split(","))))
    if relays(kind.name, case.api):
        (body,) = kind.brain.bodies
        given = {**case.says, **case.beside}
        assert {name: body[name] for name in given} == given
        assert ignored == []
    else:
        assert case.seen(kind.brain.only), kind.brain.only
        assert ignored == sorted(case.ignored)
