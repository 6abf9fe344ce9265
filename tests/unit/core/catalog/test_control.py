from __future__ import annotations

from typing import Any

import pytest

from mcp_proxy.config.model import ToolOverride, ToolRules
from mcp_proxy.core.catalog.control import HELD, Control, Unmatched, offered_name, unmatched
from mcp_proxy.core.catalog.offer import Withheld
from mcp_proxy.core.catalog.tool import Tool
from tests.unit.core.fakes import tool

SEARCH = Tool(
    {
        "name": "search",
        "title": "Search",
        "description": "Finds things.",
        "inputSchema": {
            "type": "object",
            "properties": {"q": {"type": "string"}, "repo": {"type": "string"}, "debug": {"type": "boolean"}},
            "required": ["q", "repo"],
            "additionalProperties": False,
        },
        "_meta": {"any": 1},
    }
)


def shown(rules: ToolRules, *tools: Tool) -> list[Tool]:
    offered, withheld = Control(rules).apply(tools)
    assert withheld == ()
    return list(offered)


def withheld(override: ToolOverride, *tools: Tool) -> str:
    """Why the first of the tools is withheld."""
    offered, out = Control(ToolRules(override={tools[0].name: override})).apply(tools)
    assert [one.name for one in offered] == [one.name for one in tools[1:]]
    assert [(one.kind, one.name) for one in out] == [("tools", tools[0].name)]
    return out[0].reason


@pytest.mark.parametrize(
    ("rules", "offered"),
    [
        (ToolRules(), ["read", "write", "rm"]),
        (ToolRules(allow=("r*",)), ["read", "rm"]),
        (ToolRules(deny=("rm",)), ["read", "write"]),
        (ToolRules(allow=("r*",), deny=("rm",)), ["read"]),
        (ToolRules(allow=("READ",)), []),
        (ToolRules(allow=()), []),
    ],
)
def test_allow_and_deny_decide_what_is_offered_and_deny_wins(rules: ToolRules, offered: list[str]) -> None:
    assert [one.name for one in shown(rules, tool("read"), tool("write"), tool("rm"))] == offered


def test_allow_and_deny_know_a_tool_by_its_servers_name() -> None:
    rules = ToolRules(allow=("search",), deny=("find",), override={"search": ToolOverride(name="find")})
    assert [one.name for one in shown(rules, SEARCH)] == ["find"]


def test_without_an_override_a_tool_is_the_servers_own() -> None:
    assert shown(ToolRules(override={"other": ToolOverride(name="x")}), SEARCH)[0] is SEARCH
    assert SEARCH.own is SEARCH


def test_name_title_and_description_are_replaced_and_the_rest_stays() -> None:
    override = ToolOverride("find", "Find", "Finds what you need.")
    one = shown(ToolRules(override={"search": override}), SEARCH)[0]
    texts = {"name": "find", "title": "Find", "description": "Finds what you need."}
    assert one.definition == {**SEARCH.definition, **texts}
    assert (one.name, one.own) == ("find", SEARCH)
    assert one.digest != SEARCH.digest


def test_fixed_and_hidden_arguments_are_not_in_the_schema_that_callers_see() -> None:
    one = shown(ToolRules(override={"search": ToolOverride(fixed={"repo": "a/b"}, hidden=("debug",))}), SEARCH)[0]
    schema = one.definition["inputSchema"]
    assert (list(schema["properties"]), schema["required"]) == (["q"], ["q"])
    assert list(SEARCH.definition["inputSchema"]["properties"]) == ["q", "repo", "debug"], "the server's is not touched"
    assert "a/b" not in str(one.definition)


def test_a_schema_that_requires_nothing_more_says_so_by_silence() -> None:
    one = shown(ToolRules(override={"search": ToolOverride(fixed={"repo": "a/b", "q": "x"})}), SEARCH)[0]
    assert "required" not in one.definition["inputSchema"]


def test_fixed_arguments_are_filled_in_and_the_callers_stay() -> None:
    one = shown(ToolRules(override={"search": ToolOverride(fixed={"repo": "a/b"})}), SEARCH)[0]
    assert one.argument_fault({"q": "x"}) is None
    assert one.completed({"q": "x"}) == {"q": "x", "repo": "a/b"}
    assert SEARCH.completed({"q": "x"}) == {"q": "x"}


@pytest.mark.parametrize("argument", ["repo", "debug"])
def test_what_is_filled_in_or_hidden_cannot_be_given(argument: str) -> None:
    override = ToolOverride(fixed={"repo": "a/b"}, hidden=("debug",))
    one = shown(ToolRules(override={"search": override}), SEARCH)[0]
    fault = one.argument_fault({"q": "x", argument: None})
    assert fault == (f"/{argument}", "cannot be given by callers of this service")


def test_arguments_are_still_checked() -> None:
    one = shown(ToolRules(override={"search": ToolOverride(fixed={"repo": "a/b"})}), SEARCH)[0]
    assert one.argument_fault({}) == ("", "the property 'q' is required")


def test_a_tool_that_would_take_anothers_name_is_withheld() -> None:
    assert "'other'" in withheld(ToolOverride(name="other"), SEARCH, tool("other"))


def test_two_tools_may_change_names() -> None:
    rules = ToolRules(override={"a": ToolOverride(name="b"), "b": ToolOverride(name="a")})
    assert [(one.name, one.own.name) for one in shown(rules, tool("a"), tool("b"))] == [("b", "a"), ("a", "b")]


def test_an_argument_that_does_not_exist_cannot_be_filled_in() -> None:
    assert "'rpeo'" in withheld(ToolOverride(fixed={"rpeo": "a/b"}), SEARCH)


def test_a_tool_that_says_nothing_of_its_arguments_may_be_given_any() -> None:
    one = shown(ToolRules(override={"t": ToolOverride(fixed={"x": 1})}), Tool({"name": "t", "inputSchema": {}}))[0]
    assert one.completed({}) == {"x": 1}


def test_an_argument_that_is_required_cannot_be_hidden_unless_it_is_filled_in() -> None:
    assert "'repo'" in withheld(ToolOverride(hidden=("repo",)), SEARCH)
    assert shown(ToolRules(override={"search": ToolOverride(fixed={"repo": "x"}, hidden=("repo",))}), SEARCH)


@pytest.mark.parametrize("override", [ToolOverride(fixed={"repo": "a/b"}), ToolOverride(hidden=("repo",))])
@pytest.mark.parametrize(
    "more",
    [
        {"oneOf": [{"required": ["q"]}, {"required": ["repo"]}]},
        {"dependentRequired": {"q": ["repo"]}},
        {"$ref": "#/$defs/all", "$defs": {"all": {"properties": {"repo": {"type": "string"}}}}},
    ],
)
def test_an_argument_that_more_than_its_property_speaks_of_is_not_taken_out(
    override: ToolOverride, more: dict[str, Any]
) -> None:
    properties = {"q": {"type": "string"}, "repo": {"type": "string"}}
    one = Tool({"name": "t", "inputSchema": {"type": "object", "properties": properties, **more}})
    reason = withheld(override, one)
    assert "'repo'" in reason
    assert repr(next(iter(more))) in reason
    assert shown(ToolRules(override={"t": ToolOverride(name="find")}), one)[0].name == "find"


def test_a_schema_that_composes_without_the_argument_stays_whole() -> None:
    schema = {**SEARCH.definition["inputSchema"], "anyOf": [{"required": ["q"]}]}
    rules = ToolRules(override={"search": ToolOverride(fixed={"repo": "x"})})
    one = shown(rules, Tool({"name": "search", "inputSchema": schema}))[0]
    assert one.definition["inputSchema"]["anyOf"] == [{"required": ["q"]}]
    assert one.argument_fault({"q": "x"}) is None


@pytest.mark.parametrize(
    ("rules", "name"),
    [
        (ToolRules(), "search"),
        (ToolRules(override={"search": ToolOverride(name="find")}), "find"),
        (ToolRules(override={"search": ToolOverride(title="Find")}), "search"),
        (ToolRules(allow=("find",), override={"search": ToolOverride(name="find")}), None),
        (ToolRules(deny=("sea*",)), None),
    ],
)
def test_callers_know_a_tool_by_the_name_that_it_is_offered_under(rules: ToolRules, name: str | None) -> None:
    assert offered_name("search", rules) == name


def test_rules_that_mean_no_tool_are_named_and_the_glob_for_all_is_not() -> None:
    rules = ToolRules(("*", "se*", "x*"), ("rm", "SEARCH"), {"search": ToolOverride(), "sarch": ToolOverride()})
    idle = [("allow", "x*"), ("deny", "rm"), ("deny", "SEARCH"), ("override", "sarch")]
    assert unmatched(rules, {"search"}) == tuple(Unmatched(*one) for one in idle)
    assert unmatched(ToolRules(), ()) == ()


def test_a_rule_is_of_use_that_means_a_tool_which_only_some_clients_are_listed() -> None:
    control = Control(ToolRules(deny=("rm", "mv"), override={"gated": ToolOverride(name="g")}))
    control.meets([tool("gated"), tool("rm")])
    control.meets([tool("other")])
    assert control.met == {Unmatched("deny", "rm"), Unmatched("override", "gated")}


def test_held_tools_are_withheld_with_the_reason() -> None:
    offered, out = Control(ToolRules()).apply([SEARCH, tool("other")], {"search"})
    assert [one.name for one in offered] == ["other"]
    assert out == (Withheld("tools", "search", HELD),)


def test_a_tool_that_has_not_changed_keeps_its_twin_and_its_validator() -> None:
    control = Control(ToolRules(override={"search": ToolOverride(name="find")}))
    first = control.apply([SEARCH])[0][0]
    assert control.apply([SEARCH])[0][0] is first
    changed: dict[str, Any] = {**SEARCH.definition, "description": "New."}
    assert control.apply([Tool(changed)])[0][0].definition["description"] == "New."
