from __future__ import annotations

from typing import Any

import mcp.shared.inbound as sdk
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_proxy.core.catalog.tool import Tool
from mcp_proxy.core.upstream.streamable import header_value
from tests.unit.core.fakes import tool

ADD = tool(
    "add",
    inputSchema={
        "type": "object",
        "properties": {
            "a": {"type": "integer", "minimum": 0},
            "b": {"type": "string", "maxLength": 3, "pattern": "^x"},
            "c": {"enum": [1, 2]},
            "deep": {"type": "array", "items": {"type": "object", "properties": {"x/y~z": {"type": "integer"}}}},
        },
        "required": ["a"],
        "additionalProperties": False,
    },
)


@pytest.mark.parametrize(
    ("arguments", "path", "reason"),
    [
        ({}, "", "the property 'a' is required"),
        ({"a": "1"}, "/a", "must be of type integer"),
        ({"a": 1.5}, "/a", "must be of type integer"),
        ({"a": True}, "/a", "must be of type integer"),
        ({"a": -1}, "/a", "does not satisfy minimum 0"),
        ({"a": 1, "b": "xxxx"}, "/b", "does not satisfy maxLength 3"),
        ({"a": 1, "b": "y"}, "/b", 'does not satisfy pattern "^x"'),
        ({"a": 1, "c": 3}, "/c", "does not satisfy enum [1,2]"),
        ({"a": 1, "z": 3}, "", "unknown property 'z'"),
        ({"a": 1, "deep": [{}, {"x/y~z": "no"}]}, "/deep/1/x~1y~0z", "must be of type integer"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_with_path_and_rule(
    arguments: dict[str, Any], path: str, reason: str
) -> None:
    assert ADD.argument_fault(arguments) == (path, reason)


@pytest.mark.parametrize("arguments", [{"a": 1}, {"a": 2**80}, {"a": 1, "b": "xy", "c": 2, "deep": [{"x/y~z": 1}]}])
def test_arguments_that_fit_have_no_fault(arguments: dict[str, Any]) -> None:
    assert ADD.argument_fault(arguments) is None


@given(st.text(min_size=4, max_size=30).filter(lambda text: not text.startswith("x")))
def test_a_reason_never_repeats_the_value(secret: str) -> None:
    fault = ADD.argument_fault({"a": 1, "b": f"secret-{secret}"})
    assert fault is not None
    assert "secret-" not in fault[1]


@pytest.mark.parametrize(
    "schema",
    [
        None,
        "string",
        {"type": "nonsense"},
        {"$ref": "http://127.0.0.1:1/schema.json"},
        {"$ref": "#/nowhere"},
        {"properties": {"a": {"pattern": "("}}},
    ],
)
def test_a_schema_that_cannot_be_used_is_left_to_the_server(schema: Any) -> None:
    odd = Tool({"name": "odd", "inputSchema": schema})
    assert not odd.checkable
    assert odd.argument_fault({"anything": 1}) is None


def test_a_tool_without_a_schema_takes_anything() -> None:
    assert Tool({"name": "bare"}).argument_fault({"x": 1}) is None


def test_local_references_are_followed() -> None:
    schema = {"$defs": {"n": {"type": "integer"}}, "properties": {"a": {"$ref": "#/$defs/n"}}}
    assert Tool({"name": "t", "inputSchema": schema}).argument_fault({"a": "x"}) == ("/a", "must be of type integer")


def test_a_pattern_that_explodes_ends_with_an_answer() -> None:
    schema = {"properties": {"a": {"type": "string", "pattern": "^(a+)+(?=b)$"}}}
    fault = Tool({"name": "t", "inputSchema": schema}).argument_fault({"a": "a" * 200})
    assert fault is not None
    assert fault[0] == "/a"


def test_the_digest_is_that_of_the_definition_whatever_the_order_of_its_keys() -> None:
    one = Tool({"name": "t", "description": "d", "inputSchema": {"type": "object", "x": [1, {"b": 1, "a": 2}]}})
    same = Tool({"inputSchema": {"x": [1, {"a": 2, "b": 1}], "type": "object"}, "description": "d", "name": "t"})
    other = Tool({"name": "t", "description": "d", "inputSchema": {"type": "object", "x": [{"b": 1, "a": 2}, 1]}})
    assert one.digest == same.digest
    assert one.digest != other.digest


def test_a_definition_with_huge_numbers_has_a_digest() -> None:
    assert tool("t", inputSchema={"maximum": 2**100}).digest


# Mirrored arguments (streamable-http, Custom Headers)

MIRROR = tool(
    "mirror",
    inputSchema={
        "type": "object",
        "properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "count": {"type": "integer", "x-mcp-header": "Count"},
            "dry": {"type": "boolean", "x-mcp-header": "Dry"},
            "ratio": {"type": "number", "x-mcp-header": "Ratio"},
            "bad": {"type": "string", "x-mcp-header": "not a token"},
            "plain": {"type": "string"},
            "inner": {"type": "object", "properties": {"id": {"type": "string", "x-mcp-header": "Inner-Id"}}},
            "list": {"type": "array", "items": {"type": "string", "x-mcp-header": "Item"}},
        },
    },
)


def test_annotated_arguments_become_headers() -> None:
    headers = MIRROR.header_arguments(
        {"region": "eu", "count": 3, "dry": False, "ratio": 1.5, "bad": "x", "plain": "y", "inner": {"id": "7"}}
    )
    assert headers == {
        "Mcp-Param-Region": "eu", "Mcp-Param-Count": "3", "Mcp-Param-Dry": "false", "Mcp-Param-Inner-Id": "7"
    }  # fmt: skip


@pytest.mark.parametrize("arguments", [{}, {"region": None}, {"inner": "text"}, {"inner": None}, {"region": ["x"]}])
def test_arguments_that_are_absent_or_of_another_kind_have_no_header(arguments: dict[str, Any]) -> None:
    assert MIRROR.header_arguments(arguments) == {}


def test_the_headers_are_those_that_the_sdk_finds() -> None:
    valid = {"type": "object", "properties": dict(MIRROR.definition["inputSchema"]["properties"])}
    for odd in ("ratio", "bad", "list"):
        del valid["properties"][odd]
    ours = {path: header.removeprefix("Mcp-Param-") for path, header in tool("t", inputSchema=valid).mirrored.items()}
    assert ours == sdk.x_mcp_header_map(valid)


@pytest.mark.parametrize(
    ("annotations", "declared"),
    [
        ({"readOnlyHint": True}, True),
        ({"idempotentHint": True}, True),
        ({"readOnlyHint": False, "idempotentHint": False}, False),
        ({"readOnlyHint": "true"}, False),
        ({"destructiveHint": False}, False),
        ({}, False),
        (None, False),
        ("readOnlyHint", False),
    ],
)
def test_only_a_plain_true_declares_a_tool_idempotent(annotations: Any, declared: bool) -> None:
    assert tool("t", annotations=annotations).is_declared_idempotent() is declared


@given(st.text())
def test_header_values_are_written_as_the_sdk_reads_them(text: str) -> None:
    assert sdk.decode_header_value(header_value(text)) == text
