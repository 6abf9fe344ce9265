from __future__ import annotations

import re
from typing import Any

import jsonschema_rs
import pytest

from mcp_proxy.core.auth.principal import Scope
from mcp_proxy.gateway.meta.definitions import META_NAMES, META_TOOLS, MetaTool, listed

ALL = pytest.mark.parametrize("one", META_TOOLS.values(), ids=lambda one: one.word)


def test_the_tools_and_their_arguments_are_those_of_the_router_and_search() -> None:
    arguments = {word: sorted(one.tool.definition["inputSchema"]["properties"]) for word, one in META_TOOLS.items()}
    assert arguments == {
        "list": ["provider_name"],
        "help": ["instance_name", "tool_name"],
        "use": ["instance_name", "provider_name"],
        "search": ["limit", "query"],
        "call": ["arguments", "instance_name", "tool_name"],
        "add": ["config", "instance_name", "provider_name"],
        "remove": ["instance_name"],
        "enable": ["instance_name"],
        "disable": ["instance_name"],
    }


@ALL
@pytest.mark.parametrize("separator", [".", "__"])
def test_names_follow_the_separator_in_texts_too(one: MetaTool, separator: str) -> None:
    definition = listed(one, separator)
    assert definition["name"] == f"mcp{separator}router{separator}{one.word}"
    mentioned = re.findall(r"mcp\W*_*router\W*_*\w+", definition["description"])
    assert all(name in META_NAMES for name in mentioned)
    assert separator == "." or "mcp.router" not in str(definition)


@ALL
def test_schemas_are_valid_and_plain(one: MetaTool) -> None:
    definition = one.tool.definition
    for key in ("inputSchema", "outputSchema"):
        schema = definition.get(key, {"type": "object"})
        jsonschema_rs.meta.validate(schema)
        assert schema["type"] == "object"
        # Models' APIs refuse these at the top.
        assert not {"anyOf", "oneOf", "allOf", "enum", "not"} & set(schema)
    assert definition["title"]
    assert definition["description"].endswith(".")


@ALL
def test_annotations_say_what_a_call_can_do(one: MetaTool) -> None:
    hints = one.tool.definition["annotations"]
    assert hints["readOnlyHint"] is (one.word in ("list", "help", "search"))
    assert hints["destructiveHint"] is (one.word in ("call", "remove"))


def test_what_manages_servers_needs_the_right_to_write_them() -> None:
    scopes = {word: one.scope for word, one in META_TOOLS.items()}
    assert {word for word, one in META_TOOLS.items() if one.manages} == {"add", "remove", "enable", "disable"}
    assert all((one.scope is Scope.SERVERS_WRITE) is one.manages for one in META_TOOLS.values())
    assert (scopes["call"], scopes["search"]) == (Scope.TOOLS_CALL, Scope.TOOLS_READ)


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ({}, ""),
        ({"query": ""}, "/query"),
        ({"query": "x" * 501}, "/query"),
        ({"query": 3}, "/query"),
        ({"query": "x", "limit": 0}, "/limit"),
        ({"query": "x", "limit": 51}, "/limit"),
        ({"query": "x", "words": "y"}, ""),
        ({"query": "x"}, None),
        ({"query": "x", "limit": None}, None),
    ],
)
def test_arguments_are_checked_as_those_of_other_tools(arguments: dict[str, Any], path: str | None) -> None:
    fault = META_TOOLS["search"].tool.argument_fault(arguments)
    assert (fault and fault[0]) == path


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("mcp.router.call", "call"), ("mcp__router__call", "call"), ("mcp.router__call", None), ("mcp.router.", None),
        ("mcp.router.calls", None), ("router.call", None), ("call", None), ("mcp.router.call.call", None), ("", None),
    ],
)  # fmt: skip
def test_both_forms_of_a_name_are_known_and_no_others(name: str, word: str | None) -> None:
    found = META_NAMES.get(name)
    assert (found and found.word) == word
