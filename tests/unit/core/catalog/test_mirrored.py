from __future__ import annotations

from typing import Any

import pytest

from mcp_proxy.core.catalog.mirrored import fault, headers_of


def schema(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def marked(header: object, kind: object = "string") -> dict[str, Any]:
    return {"type": kind, "x-mcp-header": header}


def test_annotated_properties_are_found_at_any_depth_of_properties() -> None:
    found = schema(region=marked("Region"), where={"type": "object", "properties": {"zone": marked("Zone", "integer")}})
    assert fault(found) is None
    assert headers_of(found) == {("region",): "Mcp-Param-Region", ("where", "zone"): "Mcp-Param-Zone"}


@pytest.mark.parametrize("nothing", [None, True, {}, [], "x", schema(a={"type": "string"}), {"properties": []}])
def test_a_schema_without_annotations_has_none_and_no_fault(nothing: object) -> None:
    assert (fault(nothing), headers_of(nothing)) == (None, {})


def test_an_annotation_among_data_is_none() -> None:
    assert fault(schema(a={"type": "object", "default": {"x-mcp-header": "no header"}, "enum": [marked("")]})) is None


@pytest.mark.parametrize(
    ("faulty", "reason"),
    [
        ({"x-mcp-header": "Root"}, "property names"),
        (schema(a={"type": "array", "items": marked("Item")}), "property names"),
        ({"anyOf": [schema(a=marked("A"))]}, "property names"),
        ({"$defs": {"d": marked("D")}}, "property names"),
        ({"if": schema(a=marked("A"))}, "property names"),
        (schema(a=marked("")), "no header name"),
        (schema(a=marked("two words")), "no header name"),
        (schema(a=marked(5)), "no header name"),
        (schema(a=marked("A", "number")), "no string"),
        (schema(a=marked("A", ["string", "null"])), "no string"),
        (schema(a=marked("Same"), b=marked("same")), "twice"),
    ],
)
def test_what_is_not_valid_is_said(faulty: dict[str, Any], reason: str) -> None:
    assert reason in (fault(faulty) or "")
