"""The OpenAPI document is valid, says what the table of routes says, and has an operation per tool."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openapi_spec_validator import validate

from mcp_proxy.api.openapi import LONGEST_ID, Described, document, in_braces, operation_ids
from mcp_proxy.api.openapi_routes import ROUTES
from mcp_proxy.app import create_app
from mcp_proxy.base.errors import KINDS
from mcp_proxy.config.model import Servers
from mcp_proxy.core.catalog.names import Entry, Shown
from mcp_proxy.core.catalog.tool import Tool
from mcp_proxy.settings import Settings
from tests.unit.core.fakes import server, tool

BASE = "https://proxy.example"
EVERY_ROUTE = [(route.method, route.path) for route in ROUTES]


def shown(namespace: str, name: str, **definition: Any) -> Shown[Tool]:
    return Shown(f"{namespace}.{name}", Entry(tool(name, **definition), server(namespace)))


def ids(*tools: tuple[str, str]) -> list[str]:
    return [*operation_ids([shown(*one) for one in tools]).values()]


def made(*tools: Shown[Tool], served: Any = EVERY_ROUTE, tokens: bool = True) -> dict[str, Any]:
    """The document, which is valid and can be sent."""
    named = operation_ids(tools)
    described = [
        Described(named[one.entry.namespace, one.entry.name], one.entry.server, one.entry.tool) for one in tools
    ]
    found = document(served, described, base_url=BASE, tokens=tokens)
    validate(json.loads(json.dumps(found)))
    return found


def operation(one: Shown[Tool]) -> dict[str, Any]:
    """The only operation of a document for this tool alone."""
    (item,) = made(one, served=()).get("paths", {}).values()
    found: dict[str, Any] = item["post"]
    return found


# Operations' names


def test_an_operation_is_called_after_its_server_and_its_tool() -> None:
    assert ids(("calc", "add"), ("search-a", "find.all"), ("x", "größe/3")) == [
        "calc_add", "search_a_find_all", "x_gr__e_3",
    ]  # fmt: skip


def test_operations_that_would_be_called_the_same_are_told_apart() -> None:
    found = ids(("a_b", "c"), ("a", "b_c"), ("a-b", "c"))

    assert found[0] == "a_b_c"
    assert len(set(found)) == 3
    assert all(re.fullmatch(r"a_b_c_[0-9a-f]{8}", one) for one in found[1:])


def test_a_long_name_is_shortened_the_same_way_whoever_else_is_there() -> None:
    long, other = ("server", "x" * 80), ("server", "x" * 81)

    assert ids(long) == [ids(other, long)[1]]
    assert ids(long) != ids(other)
    assert len(ids(long)[0]) == LONGEST_ID


@given(st.lists(st.tuples(st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True), st.text(min_size=1)), unique=True))
def test_names_of_operations_are_different_and_fit_what_generators_and_models_accept(
    tools: list[tuple[str, str]],
) -> None:
    found = ids(*tools)

    assert len(set(found)) == len(tools)
    assert all(re.fullmatch(rf"[A-Za-z0-9_]{{1,{LONGEST_ID}}}", one) for one in found)


# Tools


def test_a_tool_is_an_operation_with_its_schemas_and_words() -> None:
    taken = {"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"]}
    given_back = {"type": "object", "properties": {"sum": {"type": "number"}}}

    found = made(shown("calc", "add", title="Add", description="Adds.", inputSchema=taken, outputSchema=given_back))

    one = found["paths"]["/tools/calc/add"]["post"]
    assert (one["operationId"], one["tags"], one["summary"], one["description"]) == (
        "calc_add",
        ["calc"],
        "Add",
        "Adds.",
    )
    assert one["requestBody"] == {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/calc_add_input"}}},
    }
    assert found["components"]["schemas"]["calc_add_input"] == taken
    answer = one["responses"]["200"]["content"]["application/json"]["schema"]
    assert answer["allOf"][0] == {"$ref": "#/components/schemas/CallResult"}
    assert answer["allOf"][1]["properties"] == {"structuredContent": {"$ref": "#/components/schemas/calc_add_output"}}
    assert found["components"]["schemas"]["calc_add_output"] == given_back
    assert one["security"] == [{"bearer": ["tools:call"]}]


def test_a_tool_that_needs_no_arguments_needs_no_body() -> None:
    assert operation(shown("calc", "now"))["requestBody"]["required"] is False


@pytest.mark.parametrize("name", ["a/b", "a b", "{x}", "ü", "a?b#c", "100%"])
def test_the_path_of_a_tool_reaches_it_whatever_it_is_called(name: str) -> None:
    (path,) = made(shown("calc", name), served=())["paths"]

    assert re.fullmatch(r"/tools/calc/[A-Za-z0-9%._~-]+", path)


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_tool_whose_path_would_be_that_of_something_else_is_left_out(name: str) -> None:
    assert made(shown("calc", name), shown("calc", "add"), served=())["paths"].keys() == {"/tools/calc/add"}


ODD: dict[str, dict[str, Any]] = {
    "no input schema": {"inputSchema": None},
    "an input schema that is none": {"inputSchema": {"type": "nothing"}},
    "an output schema that is none": {"outputSchema": {"properties": 3}},
    "an output schema that is no object": {"outputSchema": [1]},
    "words that are no strings": {"title": 5, "description": ["x"], "annotations": "x"},
    "annotations of another shape": {"annotations": {"title": {}}},
    "an empty description": {"description": ""},
    "a discriminator of another kind": {"inputSchema": {"type": "object", "discriminator": "kind", "xml": 1}},
    "a reference to nowhere": {"inputSchema": {"type": "object", "properties": {"a": {"$ref": "#/$defs/gone"}}}},
    "a schema within itself": {"inputSchema": {"type": "object", "properties": {"a": {"$ref": "#"}}}},
    "a tuple of older drafts": {"inputSchema": {"type": "object", "properties": {"a": {"items": [{}]}}}},
}


@pytest.mark.parametrize("definition", ODD.values(), ids=ODD)
def test_odd_definitions_do_not_spoil_the_document(definition: dict[str, Any]) -> None:
    assert operation(shown("calc", "odd", **definition))["operationId"] == "calc_odd"


# Routes


@pytest.fixture(scope="module")
def toolless() -> dict[str, Any]:
    """The document of every route, and no tool."""
    return made()


def test_every_route_that_is_served_is_described_and_no_other(tmp_path: Path) -> None:
    app = create_app(Settings(no_auth=True, state_dir=tmp_path, log_level="OFF"), Servers())
    rules = [(method, in_braces(rule.rule)) for rule in app.url_map.iter_rules() for method in rule.methods or ()]
    served = {one for one in rules if one[0] not in ("HEAD", "OPTIONS")}

    found = made(served=served)["paths"]

    assert {(method.upper(), path) for path, item in found.items() for method in item} == served
    assert served == set(EVERY_ROUTE)


def test_every_description_stands_once() -> None:
    assert len(set(EVERY_ROUTE)) == len(EVERY_ROUTE)


def test_importers_that_make_a_tool_of_each_operation_id_get_tools_only() -> None:
    found = made(shown("calc", "add"))["paths"]

    named = [path for path, item in found.items() for one in item.values() if "operationId" in one]
    assert named == ["/tools/calc/add"]


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_a_route_asks_for_its_scope_and_answers_the_refusals_of_it(route: Any, toolless: dict[str, Any]) -> None:
    found = toolless["paths"][route.path][route.method.lower()]

    assert found["security"] == ([] if route.scope is None else [{"bearer": [str(route.scope)]}])
    assert route.scope is None or {"401", "403"} <= set(found["responses"])
    assert route.body is None or {"400", "413", "415"} <= set(found["responses"])


def test_a_service_that_asks_for_no_tokens_describes_none() -> None:
    found = made(shown("calc", "add"), tokens=False)

    assert "securitySchemes" not in found["components"]
    assert {str(one["security"]) for item in found["paths"].values() for one in item.values()} == {"[]"}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.type)
def test_every_kind_of_error_is_named_at_its_status(kind: Any, toolless: dict[str, Any]) -> None:
    responses = toolless["components"]["responses"]

    assert f"`{kind.type}`" in responses[f"Error{kind.status}"]["description"]
