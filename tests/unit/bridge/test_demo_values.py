from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest

from mcp_proxy.bridge.chat import OutputFormat, Tool
from mcp_proxy.bridge.demo_values import arguments_for, json_for
from mcp_proxy.bridge.errors import BAD_REQUEST, SOURCE_ERROR, ChatError


def obj(required: str = "", **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required.split()}


def arguments(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return arguments_for(Tool("t", schema), text, text)


def made(schema: dict[str, Any] | None, text: str = "") -> Any:
    return json.loads(json_for(OutputFormat(schema), text))


INTEGER, NUMBER, STRING, BOOLEAN = ({"type": kind} for kind in ("integer", "number", "string", "boolean"))


@pytest.mark.parametrize(
    ("text", "schema", "expected"),
    [
        ('"x" 1 "y" 2', obj(a=STRING, b=INTEGER, c=INTEGER, d=STRING), {"a": "x", "b": 1, "c": 2, "d": "y"}),
        ("1.5 and 2", obj("n m", n=INTEGER, m=NUMBER), {"n": 2, "m": 1.5}),
        ("50 or 3", obj(n={"type": "integer", "maximum": 10}), {"n": 3}),
        ("“a” `b` 'c' «d»", obj(x={"type": "array", "items": STRING}), {"x": ["a", "b", "c", "d"]}),
        ("sum 1, 2 and 3", obj("values", values={"type": "array", "items": NUMBER}), {"values": [1, 2, 3]}),
        ("it's Bob's, isn't it", obj(a=STRING), {}),
        ("base64 v2.1 x86", obj(a=NUMBER), {}),
        ('the "number 5"', obj(a=NUMBER, b=STRING), {"b": "number 5"}),
        ('{"city": "Oslo", "days": 3}', obj(city=STRING, days=INTEGER), {"city": "Oslo", "days": 3}),
        ("in Red please", obj(colour={"enum": ["blue", "red"]}), {"colour": "red"}),
        ("level 2", obj(level={"enum": [1, 2]}), {"level": 2}),
        ("red and blue", obj(c={"type": "array", "items": {"enum": ["blue", "green", "red"]}}), {"c": ["blue", "red"]}),
        ('at "Oslo"', obj(where=obj(city=STRING)), {"where": {"city": "Oslo"}}),
        ("nothing", obj(where=obj(city=STRING), at=STRING, n=NUMBER, yes=BOOLEAN), {}),
    ],
)
def test_arguments_are_what_the_text_says(text: str, schema: dict[str, Any], expected: dict[str, Any]) -> None:
    assert arguments(text, schema) == expected


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (STRING, "demo"),
        (INTEGER, 1),
        (BOOLEAN, True),
        ({"type": "null"}, None),
        ({"const": 7}, 7),
        ({"enum": ["b", "a"]}, "b"),
        ({"type": "string", "default": "d"}, "d"),
        ({"enum": ["b", "a"], "default": "a"}, "a"),
        ({"type": "string", "examples": ["e"]}, "e"),
        ({"type": ["null", "integer"]}, 1),
        ({"anyOf": [{"type": "null"}, {"type": "integer", "minimum": 5}]}, 5),
        ({"type": "array", "items": STRING, "minItems": 2}, ["demo", "demo"]),
        ({"type": "string", "format": "date"}, "2026-01-01"),
        ({"type": "string", "minLength": 6}, "demode"),
        ({"type": "string", "maxLength": 2}, "de"),
        ({"type": "number", "exclusiveMinimum": 2, "multipleOf": 1.5}, 3),
        ({"type": "integer", "maximum": -3}, -3),
        ({}, "demo"),
    ],
)
def test_what_is_required_is_there_whatever_the_text(part: dict[str, Any], expected: Any) -> None:
    assert arguments("nothing to take", obj("x", x=part)) == {"x": expected}


def test_the_part_of_the_text_that_says_something_is_enough() -> None:
    tool = Tool("add", obj("a b", a=NUMBER, b=NUMBER))
    assert arguments_for(tool, "add 2 and 3", "add 2 and 3, or 4 and 5") == {"a": 2, "b": 3}
    assert arguments_for(tool, "add or", "add or multiply 4 and 5") == {"a": 4, "b": 5}


def test_what_does_not_fit_together_is_left_out() -> None:
    schema = obj("a", a=STRING, b=STRING) | {"maxProperties": 1}
    assert arguments('"x" and "y"', schema) == {"a": "demo"}


@pytest.mark.parametrize("schema", [{"type": "nonsense"}, {"$ref": "https://example.com/schema"}, {"required": 5}])
def test_a_tool_whose_schema_cannot_be_used_gets_no_arguments(schema: dict[str, Any]) -> None:
    assert arguments("5", schema) == {}


NODE = {
    "$defs": {"node": obj("v", v=INTEGER, next={"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]})},
    "$ref": "#/$defs/node",
}
STEPS = obj(
    "steps final",
    steps={"type": "array", "items": obj("do out", do=STRING, out=NUMBER) | {"additionalProperties": False}},
    final=STRING,
)


@pytest.mark.parametrize(
    "schema",
    [
        NODE,
        STEPS | {"additionalProperties": False},
        obj(a=STRING, b=NUMBER) | {"maxProperties": 1},
        {"type": "array", "items": NUMBER},
        {"type": "array", "items": NUMBER, "maxItems": 0},
        {"allOf": [obj("a", a=STRING), {"description": "more"}]},
        obj("a", a={"oneOf": [{"const": 1}, {"const": 2}]}),
        {"enum": [None, 1]},
        {"$ref": "#"},
        {},
        obj("i", i={"type": "integer", "minimum": 10**400}),
        obj("i", i={"type": "number", "multipleOf": 1e-300, "exclusiveMaximum": -5}),
    ],
)
@pytest.mark.parametrize("text", ["", 'solve 8x + 7 = -23 "now", or 2', "true"])
def test_json_fits_its_schema(schema: dict[str, Any], text: str) -> None:
    jsonschema_rs.validate(schema, made(schema, text))


def test_all_that_a_form_has_is_shown() -> None:
    assert made(STEPS | {"properties": STEPS["properties"] | {"more": BOOLEAN}}, '"so" 3') == {
        "steps": [{"do": "so", "out": 3}],
        "final": "demo",
        "more": True,
    }


def test_json_without_a_schema_is_an_object() -> None:
    assert made(None, "Hello") == {"demo": True, "said": "Hello"}


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"type": "nonsense"}, BAD_REQUEST),
        ({"$ref": "https://example.com/schema"}, BAD_REQUEST),
        ({"type": "string", "pattern": "^[a-c]{3}!$"}, SOURCE_ERROR),
        ({"type": "string", "minLength": 1e300}, SOURCE_ERROR),
        ({"type": "array", "items": STRING, "minItems": 10**9}, SOURCE_ERROR),
        ({"$defs": {"n": obj("l r", l={"$ref": "#/$defs/n"}, r={"$ref": "#/$defs/n"})}, "$ref": "#/$defs/n"}, SOURCE_ERROR),
        ({"not": {}}, SOURCE_ERROR),
        ({"enum": []}, SOURCE_ERROR),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_refused(schema: dict[str, Any], problem: Any) -> None:
    with pytest.raises(ChatError) as refused:
        made(schema, "1 and 'two'")
    assert refused.value.problem is problem
