"""Schemas that are moved into another document go on meaning what they meant."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_proxy.api.openapi_schema import transplant

PLACE = "#/$defs/one"


def moved(schema: Any) -> dict[str, Any]:
    return transplant(schema, PLACE)


def accepts(schema: dict[str, Any], value: Any) -> bool:
    """Whether the schema, standing in a document at `PLACE`, takes the value."""
    document = {"$ref": PLACE, "$defs": {"one": moved(schema)}}
    return jsonschema_rs.validator_for(document, offline=True).is_valid(value)


NODE = {"type": "object", "properties": {"next": {"$ref": "#"}, "n": {"type": "integer"}}}
CASES: dict[str, tuple[dict[str, Any], Any, Any]] = {
    "definitions beside it": (
        {"properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"type": "string"}}},
        {"a": "x"}, {"a": 1},
    ),
    "definitions of older drafts": (
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "properties": {"a": {"$ref": "#/definitions/A"}}, "definitions": {"A": {"type": "string"}},
        },
        {"a": "x"}, {"a": 1},
    ),
    "the whole schema again": (NODE, {"next": {"next": {"n": 1}}}, {"next": {"next": {"n": "x"}}}),
    "a place by a pointer with escapes": (
        {"properties": {"a": {"$ref": "#/$defs/b~1c%20d~0"}}, "$defs": {"b/c d~": {"type": "string"}}},
        {"a": "x"}, {"a": 1},
    ),
    "an anchor": (
        {"properties": {"a": {"$ref": "#A"}}, "$defs": {"x": {"$anchor": "A", "type": "string"}}},
        {"a": "x"}, {"a": 1},
    ),
    "an anchor of older drafts": (
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "properties": {"a": {"$ref": "#A"}}, "definitions": {"x": {"$id": "#A", "type": "string"}},
        },
        {"a": "x"}, {"a": 1},
    ),
    "a dynamic anchor": (
        {"properties": {"a": {"$dynamicRef": "#A"}}, "$defs": {"x": {"$dynamicAnchor": "A", "type": "string"}}},
        {"a": "x"}, {"a": 1},
    ),
    "its own identifier": (
        {
            "$id": "https://tool.example/in.json",
            "properties": {"a": {"$ref": "https://tool.example/in.json#/$defs/A"}, "b": {"$ref": "in.json#/$defs/A"}},
            "$defs": {"A": {"type": "string"}},
        },
        {"a": "x", "b": "y"}, {"b": 1},
    ),
    "its own identifier that is a name": (
        {"$id": "urn:tool:in", "properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"type": "string"}}},
        {"a": "x"}, {"a": 1},
    ),
    "a document within": (
        {
            "$id": "https://tool.example/in.json",
            "properties": {"a": {"$ref": "part.json"}},
            "$defs": {"p": {"$id": "part.json", "$ref": "#/$defs/A", "$defs": {"A": {"type": "string"}}}},
        },
        {"a": "x"}, {"a": 1},
    ),
    "a property that is called like a keyword": (
        {"properties": {"$ref": {"type": "string"}, "items": {"type": "array", "items": {"type": "string"}}}},
        {"$ref": "#/x", "items": ["x"]}, {"$ref": 1},
    ),
    "data that looks like a reference": ({"properties": {"a": {"enum": [{"$ref": "#/x"}]}}}, {"a": {"$ref": "#/x"}}, {"a": 1}),
    "a tuple of older drafts": (
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "properties": {"a": {"items": [{"type": "string"}], "additionalItems": False}},
        },
        {"a": ["x"]}, {"a": ["x", 1]},
    ),
    "an exclusive bound of older drafts": (
        {
            "$schema": "http://json-schema.org/draft-04/schema#",
            "properties": {"a": {"minimum": 1, "exclusiveMinimum": True}},
        },
        {"a": 2}, {"a": 1},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_was_accepted_is_accepted_and_what_was_refused_is_refused(case: tuple[dict[str, Any], Any, Any]) -> None:
    schema, good, bad = case
    before = jsonschema_rs.validator_for(schema, offline=True)
    assert (before.is_valid(good), before.is_valid(bad)) == (True, False)

    assert (accepts(schema, good), accepts(schema, bad)) == (True, False)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_servers_own_schema_is_not_changed(case: tuple[dict[str, Any], Any, Any]) -> None:
    before = copy.deepcopy(case[0])

    moved(case[0])

    assert case[0] == before


def test_references_lead_to_the_place_where_the_schema_now_stands() -> None:
    schema = {"properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {}}}

    assert moved(schema)["properties"]["a"] == {"$ref": f"{PLACE}/$defs/A"}


def test_references_into_the_network_stay_as_they_are() -> None:
    schema = {"properties": {"a": {"$ref": "https://elsewhere.example/a.json#/$defs/A"}, "b": {"$ref": "http://[bad"}}}

    assert moved(schema) == schema


def test_references_that_lead_nowhere_are_left_out() -> None:
    schema = {
        "properties": {"a": {"$ref": "#/$defs/gone"}, "b": {"$ref": "#gone"}, "c": {"$ref": "#/type"}},
        "type": "object",
    }

    assert moved(schema)["properties"] == {"a": {}, "b": {}, "c": {}}


def test_the_mapping_of_a_discriminator_is_moved_along() -> None:
    kinds = {"mapping": {"cat": "#/$defs/Cat", "dog": "Dog"}, "propertyName": "kind"}
    schema = {"discriminator": kinds, "oneOf": [{"$ref": "#/$defs/Cat"}], "$defs": {"Cat": {"type": "object"}}}

    assert moved(schema)["discriminator"] == {
        "propertyName": "kind", "mapping": {"cat": f"{PLACE}/$defs/Cat", "dog": "Dog"},
    }  # fmt: skip


def test_words_that_have_another_shape_in_openapi_are_left_out() -> None:
    schema = {"type": "object", "discriminator": "kind", "xml": 1, "externalDocs": "https://docs.example"}

    assert moved(schema) == {"type": "object"}


@pytest.mark.parametrize(
    "schema",
    [
        None,
        [],
        "object",
        True,
        {"type": "objekt"},
        {"properties": []},
        {"required": "a"},
        {"$ref": 5},
        {"$defs": {"A": 3}},
    ],
    ids=str,
)
def test_what_is_no_schema_of_an_object_says_nothing(schema: Any) -> None:
    assert moved(schema) == {}


WORDS = (
    "$ref", "$dynamicRef", "$anchor", "$dynamicAnchor", "$id", "$schema", "$defs", "allOf", "items", "prefixItems",
    "additionalItems", "properties", "discriminator", "mapping", "propertyName", "exclusiveMinimum", "minimum", "required",
    "type", "enum", "x-other",
)  # fmt: skip
VALUES = ("#", "#/", "#/$defs/x", "#a", "a", "https://a.example/b#/c", "//[", "urn:a", "object", "%", "#%ff")
SCHEMAS: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from(VALUES) | st.booleans() | st.none() | st.integers(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS) | st.just("x"), inner, max_size=5)
    ),
    max_leaves=20,
)


@given(SCHEMAS)
def test_whatever_a_server_sends_becomes_a_valid_schema(schema: Any) -> None:
    assert jsonschema_rs.meta.is_valid(moved(schema))


def pointers(value: Any) -> Iterator[str]:
    """References into `PLACE`, wherever they stand."""
    if isinstance(value, list):
        for inner in value:
            yield from pointers(inner)
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str) and value["$ref"].startswith(PLACE):
            yield value["$ref"]
        yield from pointers(list(value.values()))


@given(SCHEMAS)
def test_no_reference_within_leads_nowhere(schema: Any) -> None:
    found = moved(schema)

    for pointer in pointers(found):
        place: Any = found
        for step in pointer.removeprefix(PLACE).split("/")[1:]:
            place = place[int(step)] if isinstance(place, list) else place[step]


def test_a_dynamic_reference_beside_a_plain_one_holds_too() -> None:
    schema = {"$ref": "#/$defs/A", "$dynamicRef": "#B", "$defs": {"A": {}, "B": {"$dynamicAnchor": "B"}}}

    assert moved(schema)["allOf"] == [{"$ref": f"{PLACE}/$defs/B"}]
    assert moved({**schema, "allOf": [{}]})["allOf"] == [{}, {"$ref": f"{PLACE}/$defs/B"}]
    assert "allOf" in moved({**schema, "allOf": 3})
