from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_proxy.bridge.chat import ChatRequest, Message, OutputFormat, Role, Text
from mcp_proxy.bridge.errors import BAD_REQUEST, ChatError
from mcp_proxy.bridge.output import Misfit, fit, instructed, instruction, repair

PERSON = OutputFormat(
    {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}, "required": ["name"]},
    "person",
)
ANY = OutputFormat()
ASK = ChatRequest("m", (Message(Role.USER, (Text("who?"),)),))


def test_the_schema_is_said_behind_the_system_prompt() -> None:
    ask = instructed(ChatRequest("m", ASK.messages, system="be kind", output=PERSON))
    assert ask.system is not None
    assert ask.system.startswith("be kind\n\nAnswer with JSON")
    assert '"required":["name"]' in ask.system
    assert "person" in ask.system
    assert ask.output is None
    assert instructed(ask) is ask


def test_any_object_needs_no_schema() -> None:
    ask = instructed(ChatRequest("m", ASK.messages, output=ANY))
    assert ask.system == instruction(ANY)
    assert "Schema" not in instruction(ANY)


@pytest.mark.parametrize(
    "schema", [{"type": "objekt"}, {"$ref": "https://example.com/schema"}, {"pattern": "("}, {"$schema": "x:y"}]
)
def test_a_schema_that_cannot_be_used_is_the_callers_fault(schema: Any) -> None:
    with pytest.raises(ChatError, match="cannot be used") as caught:
        instruction(OutputFormat(schema))
    assert caught.value.problem is BAD_REQUEST


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "Ann"}',
        '\n {"name": "Ann"} \n',
        '```json\n{"name": "Ann"}\n```',
        '```\r\n{"name": "Ann"}\r\n```\r\n',
        'Here you are:\n\n```json\n{"name": "Ann"}\n```\nAnything else?',
    ],
)
@pytest.mark.parametrize("output", [PERSON, ANY])
def test_an_answer_that_fits_is_its_json(text: str, output: OutputFormat) -> None:
    assert fit(text, output) == '{"name": "Ann"}'


def test_a_fence_within_the_json_stays() -> None:
    text = '{"name": "```json\\n1\\n```"}'
    assert fit(text, PERSON) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it is not JSON: empty"),
        ("Her name is Ann.", "it is not JSON: Expecting value at line 1, column 1"),
        ('{"name": "Ann"', "it is not JSON: Expecting ',' delimiter at line 1, column 15"),
        ("{}", 'at the top: "name" is a required property'),
        ('{"name": "Ann", "age": "secret"}', 'at /age: the value is not of type "integer"'),
    ],
)
def test_an_answer_that_does_not_fit_has_a_reason(text: str, reason: str) -> None:
    assert fit(text, PERSON) == Misfit(reason)


def test_any_object_is_an_object() -> None:
    assert fit("[1]", ANY) == Misfit("it is JSON, but no object")


def test_a_list_is_what_some_schemas_want() -> None:
    assert fit("[1]", OutputFormat({"type": "array"})) == "[1]"


def test_a_repair_shows_what_was_said_and_why_it_does_not_fit() -> None:
    asked, said, complaint = repair(ASK, "Ann", Misfit("it is not JSON")).messages
    assert asked == ASK.messages[0]
    assert said == Message(Role.ASSISTANT, (Text("Ann"),))
    assert complaint.role is Role.USER
    assert "it is not JSON" in str(complaint.content[0])


def test_a_repair_of_nothing_shows_nothing() -> None:
    assert [message.role for message in repair(ASK, " ", Misfit("empty")).messages] == [Role.USER, Role.USER]


KEYWORDS = [
    "type",
    "properties",
    "items",
    "$ref",
    "$id",
    "$schema",
    "$defs",
    "pattern",
    "enum",
    "minimum",
    "allOf",
    "not",
    "required",
    "const",
]
SCHEMAS = st.dictionaries(
    st.sampled_from(KEYWORDS),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["object", "#", "#/$defs/a"]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYWORDS), inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)


@settings(max_examples=200, deadline=None)
@given(SCHEMAS, st.text() | st.sampled_from(["{}", "[1]", '"x"', '{"a":{"b":[]}}']))
def test_any_schema_is_used_or_refused_and_any_text_fits_or_not(schema: dict[str, Any], text: str) -> None:
    problems = []
    try:
        instruction(OutputFormat(schema))
        assert isinstance(fit(text, OutputFormat(schema)), (str, Misfit))
    except ChatError as error:
        problems.append(error.problem)
    assert problems in ([], [BAD_REQUEST])
