from __future__ import annotations

from typing import Any

import pytest

from mcp_proxy.core.catalog.closing import fault, without

NAMED = {"required": ["secret"]}
SHAPE = {
    "type": "object",
    "properties": {"text": {"type": "string"}, "secret": {"type": "string"}},
    "required": ["text", "secret"],
}


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("oneOf", [{"required": ["text"]}, NAMED]),
        ("anyOf", [{"properties": {"secret": {"const": "x"}}}]),
        ("allOf", [{"allOf": [{"not": NAMED}]}]),
        ("not", NAMED),
        ("if", NAMED),
        ("then", NAMED),
        ("else", {"anyOf": [NAMED]}),
        ("dependentRequired", {"text": ["secret"]}),
        ("dependentRequired", {"secret": ["text"]}),
        ("dependentSchemas", {"text": NAMED}),
        ("dependencies", {"text": ["secret"]}),
        ("dependencies", {"text": {"anyOf": [NAMED]}}),
        ("$ref", "#/$defs/named"),
        ("allOf", [{"$ref": "#/$defs/around"}]),
        ("allOf", [{"$ref": "#/$defs/list/1"}]),
        ("allOf", [{"$ref": "#/$defs/a~1b%20c"}]),
        ("allOf", [{"$ref": "#"}]),
    ],
)
def test_what_is_named_elsewhere_cannot_be_taken_out(keyword: str, value: Any) -> None:
    kept = {"named": NAMED, "around": {"$ref": "#/$defs/named"}, "list": [True, NAMED], "a/b c": NAMED}
    schema = {**SHAPE, keyword: value, "$defs": kept}
    reason = fault(schema, ["secret"])
    assert reason is not None
    assert "'secret'" in reason
    assert f"'{keyword}'" in reason


@pytest.mark.parametrize("reference", ["https://example.com/schema", "#anchor", "#/$defs/none", "#/$defs/list/9", 7])
def test_what_cannot_be_looked_into_may_name_it(reference: Any) -> None:
    assert fault({**SHAPE, "$ref": reference, "$defs": {"list": []}}, ["secret"]) is not None
    assert fault({**SHAPE, "$dynamicRef": "#/$defs/list", "$defs": {"list": []}}, ["secret"]) is None


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"oneOf": [{"required": ["text"]}, {"properties": {"text": {"const": "x"}}}, True]},
        {"properties": {**SHAPE["properties"], "text": {"type": "object", **NAMED}}},
        {"$defs": {"unused": NAMED}},
        {"allOf": [{"$ref": "#/$defs/loop"}], "$defs": {"loop": {"allOf": [{"$ref": "#/$defs/loop"}]}}},
        {"dependentRequired": {"text": ["other"]}, "if": True, "oneOf": "no list", "$comment": "secret"},
        {"properties": {**SHAPE["properties"], "secret": {"$ref": "#"}}},
    ],
)
def test_what_speaks_of_other_things_is_in_nobodys_way(more: dict[str, Any]) -> None:
    assert fault({**SHAPE, **more}, ["secret"]) is None


@pytest.mark.parametrize("reference", ["#", "#/properties/secret", "#/properties/secret/items"])
def test_what_another_argument_refers_to_cannot_be_taken_out(reference: str) -> None:
    schema = {**SHAPE, "properties": {**SHAPE["properties"], "text": {"items": [{"$ref": reference}]}}}
    assert "refers to them" in (fault(schema, ["secret"]) or "")
    assert fault(schema, []) is None


def test_the_schema_is_not_touched() -> None:
    assert without(SHAPE, ["secret"]) == {
        "type": "object",
        "properties": {"text": {"type": "string"}},
        "required": ["text"],
    }
    assert SHAPE["required"] == ["text", "secret"]
