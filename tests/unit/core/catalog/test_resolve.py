from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from mcp_proxy.base.errors import AMBIGUOUS_TOOL, SERVER_NOT_FOUND, TOOL_NOT_FOUND, Kind, ProxyError
from mcp_proxy.config.model import ServerSpec
from mcp_proxy.core.auth.principal import Principal
from mcp_proxy.core.catalog.resolve import Target, find_server, resolve_tool
from mcp_proxy.core.catalog.tool import Tool
from tests.unit.core.catalog.offers import catalogue, with_tools
from tests.unit.core.fakes import server, tool

ANYBODY = Principal("anybody")


class World:
    """Servers with their tools, and the question of the call path."""

    def __init__(
        self, *servers: tuple[ServerSpec, Sequence[Tool]], naming: str = "always", separator: str = "."
    ) -> None:
        self.specs = {spec.name: spec for spec, _ in servers}
        offers = [with_tools(spec, *tools) for spec, tools in servers]
        self.catalog = catalogue(*offers, naming=naming, separator=separator)

    def target(
        self, method: str, at: str | None = None, principal: Principal = ANYBODY, *, shown: bool = False
    ) -> Target[Tool]:
        return resolve_tool(self.catalog, self.specs, principal, method, at, shown=shown)

    def where(
        self, method: str, at: str | None = None, principal: Principal = ANYBODY, *, shown: bool = False
    ) -> tuple[list[str], str | None]:
        target = self.target(method, at, principal, shown=shown)
        return [entry.server for entry in target.entries], target.preferred

    def refuses(
        self, method: str, at: str | None = None, principal: Principal = ANYBODY, *, shown: bool = False
    ) -> ProxyError:
        with pytest.raises(ProxyError) as raised:
            self.target(method, at, principal, shown=shown)
        return raised.value


ADD, SUB, FIND = tool("add"), tool("sub"), tool("find")
PLAIN = World((server("calc"), [ADD, SUB]), (server("math"), [ADD]), (server("fs"), [FIND]))
GROUP = World(
    (server("s1", group="search"), [FIND]),
    (server("s2", group="search"), [FIND, ADD]),
    (server("calc"), [ADD]),
)
URLS = World(
    (server("u1", replica_set="MCP_URLS"), [ADD, tool("odd", description="one")]),
    (server("u2", replica_set="MCP_URLS"), [ADD, tool("odd", description="two")]),
)


# Bare names


def test_a_bare_name_of_one_server_goes_there() -> None:
    assert PLAIN.where("sub") == (["calc"], None)


def test_a_bare_name_of_several_servers_is_ambiguous_and_lists_them() -> None:
    error = PLAIN.refuses("add")
    assert error.kind is AMBIGUOUS_TOOL
    assert error.details == {"candidates": ["calc.add", "math.add"], "servers": ["calc", "math"]}


def test_servers_outside_a_group_are_no_replicas_however_alike() -> None:
    alike = World((server("root1"), [FIND]), (server("root2"), [FIND]))
    assert alike.refuses("find").kind is AMBIGUOUS_TOOL


def test_a_bare_name_in_no_catalogue_is_unknown() -> None:
    assert PLAIN.refuses("nothing").kind is TOOL_NOT_FOUND


def test_candidates_of_a_group_are_named_once_by_the_group() -> None:
    world = World((server("s1", group="g"), [ADD]), (server("s2", group="g"), [ADD]), (server("calc"), [ADD]))
    error = world.refuses("add")
    assert error.details == {"candidates": ["calc.add", "g.add"], "servers": ["calc", "s1", "s2"]}


# Full names


@pytest.mark.parametrize("method", ["calc.add", "calc__add"])
def test_a_full_name_goes_to_its_server_alone(method: str) -> None:
    target = PLAIN.target(method)
    assert target.name == target.tool == "add"
    assert [entry.server for entry in target.entries] == ["calc"]


@pytest.mark.parametrize("method", ["calc.find", "nobody.add", "calc.", ".add", "calc..add", "", "CALC.add"])
def test_a_full_name_that_does_not_exist_is_unknown(method: str) -> None:
    assert PLAIN.refuses(method).kind is TOOL_NOT_FOUND


def test_the_servers_own_full_name_wins_over_a_tool_that_another_server_calls_so() -> None:
    world = World((server("evil"), [tool("calc.add")]), (server("calc"), [ADD]))
    assert world.where("calc.add")[0] == ["calc"]
    assert world.where("evil.calc.add")[0] == ["evil"]
    assert world.where("calc.add", "evil")[0] == ["evil"]


def test_a_tool_with_a_dot_in_its_name_is_found_bare_when_nothing_else_is_called_so() -> None:
    world = World((server("fs"), [tool("file.read")]))
    assert world.where("file.read")[0] == ["fs"]


def test_a_full_name_that_reads_two_ways_is_ambiguous() -> None:
    world = World((server("a"), [tool("b__c")]), (server("a__b"), [tool("c")]))
    error = world.refuses("a__b__c")
    assert error.kind is AMBIGUOUS_TOOL
    assert error.details is not None
    assert error.details["candidates"] == ["a.b__c", "a__b.c"]
    assert world.where("a.b__c")[0] == ["a"]
    assert world.where("a__b.c")[0] == ["a__b"]


# Groups


@pytest.mark.parametrize("method", ["search.find", "search__find", "find"])
def test_a_group_is_all_its_members(method: str) -> None:
    assert GROUP.where(method) == (["s1", "s2"], None)


@pytest.mark.parametrize("method", ["s2.find", "s2__find"])
def test_a_members_name_means_this_member_first(method: str) -> None:
    assert GROUP.where(method) == (["s2", "s1"], "s2")


def test_members_of_a_group_are_replicas_even_when_their_definitions_differ() -> None:
    world = World(
        (server("s1", group="g"), [tool("find", description="old")]),
        (server("s2", group="g"), [tool("find", description="new")]),
    )
    assert world.where("find")[0] == ["s1", "s2"]


def test_only_members_that_have_the_tool_can_stand_in() -> None:
    assert GROUP.where("search.add") == (["s2"], "s2")


# MCP_URLS


def test_entries_of_mcp_urls_are_replicas_for_what_they_define_identically() -> None:
    assert URLS.where("add") == (["u1", "u2"], None)


def test_entries_of_mcp_urls_are_no_replicas_for_what_they_define_differently() -> None:
    assert URLS.refuses("odd").kind is AMBIGUOUS_TOOL


def test_an_entry_of_mcp_urls_that_is_named_is_never_left() -> None:
    assert URLS.where("u1.add")[0] == ["u1"]
    assert URLS.where("add", "u1")[0] == ["u1"]


def test_an_entry_of_mcp_urls_is_no_replica_of_a_configured_server() -> None:
    world = World((server("u1", replica_set="MCP_URLS"), [ADD]), (server("calc"), [ADD]))
    assert world.refuses("add").kind is AMBIGUOUS_TOOL


# A named server


def test_a_named_server_is_never_left() -> None:
    assert PLAIN.where("add", "math") == (["math"], "math")
    assert PLAIN.refuses("find", "math").kind is TOOL_NOT_FOUND


def test_a_named_server_takes_its_own_full_names() -> None:
    assert PLAIN.where("calc.add", "calc")[0] == ["calc"]
    assert PLAIN.refuses("math.add", "calc").kind is TOOL_NOT_FOUND


@pytest.mark.parametrize("url", ["http://math.test/mcp", "http://math.test/mcp/"])
def test_a_server_can_be_named_by_its_url(url: str) -> None:
    assert PLAIN.where("add", url) == (["math"], "math")


def test_a_named_member_comes_first_and_the_group_stands_in() -> None:
    assert GROUP.where("find", "s2") == (["s2", "s1"], "s2")


def test_a_named_group_is_all_its_members() -> None:
    assert GROUP.where("find", "search") == (["s1", "s2"], None)


@pytest.mark.parametrize("name", ["nobody", "", "http://math.test/other", "http://math.test"])
def test_a_server_that_does_not_exist_is_unknown(name: str) -> None:
    assert PLAIN.refuses("add", name).kind is SERVER_NOT_FOUND


def test_what_a_message_repeats_of_a_name_is_bounded() -> None:
    assert len(PLAIN.refuses("x" * 10_000).message) < 400
    assert len(PLAIN.refuses("add", "x" * 10_000).message) < 400


# Tokens that narrow


def hidden(**claims: Any) -> Principal:
    return Principal("narrow", **claims)


@pytest.mark.parametrize(
    ("method", "at", "claims", "kind"),
    [
        ("calc.add", None, {"servers": ("math",)}, TOOL_NOT_FOUND),
        ("sub", None, {"servers": ("math",)}, TOOL_NOT_FOUND),
        ("add", "calc", {"servers": ("math",)}, SERVER_NOT_FOUND),
        ("add", "http://calc.test/mcp", {"servers": ("math",)}, SERVER_NOT_FOUND),
        ("sub", None, {"tools": ("add",)}, TOOL_NOT_FOUND),
        ("calc.sub", None, {"tools": ("calc.add",)}, TOOL_NOT_FOUND),
        ("sub", "calc", {"tools": ("calc.add",)}, TOOL_NOT_FOUND),
        ("add", None, {"servers": ()}, TOOL_NOT_FOUND),
        ("add", None, {"tools": ()}, TOOL_NOT_FOUND),
    ],
)
def test_what_a_token_does_not_reach_looks_like_what_does_not_exist(
    method: str, at: str | None, claims: dict[str, Any], kind: Kind
) -> None:
    error = PLAIN.refuses(method, at, hidden(**claims))
    assert error.kind is kind
    if kind is SERVER_NOT_FOUND:
        unknown = PLAIN.refuses("add", "nobody")
        assert error.message.replace(repr(at), "X") == unknown.message.replace("'nobody'", "X")
    else:
        unknown = PLAIN.refuses("nothing", at)
        assert error.message.replace(repr(method), "X") == unknown.message.replace("'nothing'", "X")
    assert (error.details, error.status) == (unknown.details, unknown.status)


def test_a_token_that_sees_one_of_two_servers_finds_no_ambiguity() -> None:
    assert PLAIN.where("add", None, hidden(servers=("ma*",)))[0] == ["math"]
    assert PLAIN.where("add", None, hidden(tools=("math.*",)))[0] == ["math"]


def test_ambiguity_lists_only_what_the_token_sees() -> None:
    world = World((server("a"), [ADD]), (server("b"), [ADD]), (server("c"), [ADD]))
    error = world.refuses("add", None, hidden(servers=("a", "b")))
    assert error.details == {"candidates": ["a.add", "b.add"], "servers": ["a", "b"]}


def test_a_token_for_one_member_never_reaches_the_others() -> None:
    only = hidden(servers=("s2",))
    assert GROUP.where("find", None, only)[0] == ["s2"]
    assert GROUP.where("search.find", None, only)[0] == ["s2"]
    assert GROUP.where("s2.find", None, only) == (["s2"], "s2")
    assert GROUP.where("find", "search", only) == (["s2"], None)
    assert GROUP.refuses("s1.find", None, only).kind is TOOL_NOT_FOUND


def test_a_token_for_a_group_reaches_all_members() -> None:
    assert GROUP.where("find", None, hidden(servers=("search",)))[0] == ["s1", "s2"]
    assert GROUP.where("find", None, hidden(tools=("search.*",)))[0] == ["s1", "s2"]


def test_a_hidden_full_name_does_not_shadow_a_visible_bare_one() -> None:
    world = World((server("fs"), [tool("calc.add")]), (server("calc"), [ADD]))
    assert world.where("calc.add", None, hidden(servers=("fs",)))[0] == ["fs"]


# Names as they are listed


@pytest.mark.parametrize("naming", ["never", "on-conflict", "always"])
@pytest.mark.parametrize("separator", [".", "__"])
def test_what_is_listed_is_what_a_call_of_that_name_reaches(naming: str, separator: str) -> None:
    world = World(
        (server("calc"), [ADD, tool("math__add"), tool("x" * 70)]),
        (server("math"), [ADD, tool("calc.add"), tool("x" * 70)]),
        (server("calc__math"), [ADD]),
        (server("s1", group="g"), [ADD]),
        (server("s2", group="g"), [ADD, tool("calc__add")]),
        naming=naming,
        separator=separator,
    )
    for shown in world.catalog.tools.shown:
        target = world.target(shown.name, shown=True)
        assert target.name == shown.entry.name
        assert {entry.namespace for entry in target.entries} == {shown.entry.namespace}


def test_under_never_the_listed_bare_name_is_the_first_servers_where_a_bare_name_is_ambiguous() -> None:
    world = World((server("calc"), [ADD]), (server("math"), [ADD]), naming="never")
    assert world.where("add", shown=True)[0] == ["calc"]
    assert world.refuses("add").kind is AMBIGUOUS_TOOL


def test_a_name_that_reads_two_ways_is_the_one_that_is_listed_so() -> None:
    world = World((server("a"), [tool("b__c")]), (server("a__b"), [tool("c")]), separator="__")
    assert world.refuses("a__b__c").kind is AMBIGUOUS_TOOL
    assert world.where("a__b__c", shown=True)[0] == ["a"]
    hashed = world.catalog.tools.shown[1].name
    assert world.where(hashed, shown=True)[0] == world.where(hashed)[0] == ["a__b"]


def test_names_that_are_not_listed_mean_the_same_to_one_who_has_a_list() -> None:
    assert PLAIN.where("sub", shown=True)[0] == ["calc"]
    assert PLAIN.where("calc__add", shown=True)[0] == ["calc"]
    assert PLAIN.refuses("add", shown=True).kind is AMBIGUOUS_TOOL
    assert PLAIN.refuses("nothing", shown=True).kind is TOOL_NOT_FOUND


def test_a_listed_name_of_a_server_out_of_reach_is_not_found_by_it() -> None:
    world = World((server("calc"), [ADD]), (server("math"), [ADD]), naming="never")
    assert world.where("add", None, hidden(servers=("math",)), shown=True)[0] == ["math"]
    assert world.refuses("add", None, hidden(servers=("fs",)), shown=True).kind is TOOL_NOT_FOUND


def test_a_listed_bare_name_keeps_its_replicas() -> None:
    world = World(
        (server("u1", replica_set="MCP_URLS"), [ADD]),
        (server("other"), [ADD]),
        (server("u2", replica_set="MCP_URLS"), [ADD]),
        naming="never",
    )
    assert world.where("add", shown=True) == (["u1", "u2"], None)
    assert world.where("u2.add", shown=True) == (["u2"], "u2")


def test_a_listed_name_of_a_group_is_all_members_in_sight() -> None:
    assert GROUP.where("search.find", shown=True) == (["s1", "s2"], None)
    assert GROUP.where("search.find", None, hidden(servers=("s2",)), shown=True)[0] == ["s2"]


def test_at_a_named_server_its_bare_names_are_the_listed_ones() -> None:
    world = World((server("calc"), [tool("math.add")]), (server("math"), [ADD]), naming="never")
    assert world.where("math.add", "calc", shown=True) == (["calc"], "calc")
    assert world.where("add", "math", shown=True) == (["math"], "math")


# Finding servers


def test_a_server_is_found_with_its_mates() -> None:
    named = find_server("s1", GROUP.specs, ANYBODY)
    assert ([spec.name for spec in named.members], named.preferred) == (["s1", "s2"], "s1")


def test_a_group_is_found_without_preference() -> None:
    named = find_server("search", GROUP.specs, ANYBODY)
    assert ([spec.name for spec in named.members], named.preferred) == (["s1", "s2"], None)


# Providers

ACME = World(
    (server("one", provider="acme"), [ADD]),
    (server("two", provider="zoo"), [ADD]),
    (server("three", provider="zoo"), [FIND]),
    (server("four", provider="one"), [FIND]),
)


@pytest.mark.parametrize(("method", "at"), [("acme.add", None), ("acme__add", None), ("add", "acme")])
def test_a_provider_of_one_server_is_another_name_for_it(method: str, at: str | None) -> None:
    assert ACME.where(method, at)[0] == ["one"]


def test_a_provider_of_several_servers_names_none_of_them() -> None:
    assert ACME.refuses("find", "zoo").kind is SERVER_NOT_FOUND
    ambiguous = World((server("a", provider="zoo"), [ADD]), (server("b", provider="zoo"), [ADD])).refuses("zoo.add")
    assert (ambiguous.kind, ambiguous.details["candidates"]) == (AMBIGUOUS_TOOL, ["a.add", "b.add"])


def test_a_servers_own_name_wins_over_a_provider_that_is_called_so() -> None:
    assert ACME.where("add", "one")[0] == ["one"]
    assert ACME.refuses("one.find").kind is TOOL_NOT_FOUND


# Names of a server that is preferred


def preferring(
    world: World, method: str, prefer: str, principal: Principal = ANYBODY, *, shown: bool = False
) -> tuple[list[str], str | None]:
    target = resolve_tool(world.catalog, world.specs, principal, method, None, shown=shown, prefer=prefer)
    return [entry.server for entry in target.entries], target.preferred


@pytest.mark.parametrize("shown", [False, True])
def test_a_bare_name_means_the_preferred_server_where_it_has_the_tool(shown: bool) -> None:
    assert preferring(PLAIN, "add", "math", shown=shown) == (["math"], "math")
    assert preferring(PLAIN, "add", "calc", shown=shown) == (["calc"], "calc")
    assert preferring(PLAIN, "find", "calc", shown=shown) == (["fs"], None)


def test_a_full_name_means_its_own_server_whatever_is_preferred() -> None:
    assert preferring(PLAIN, "calc.add", "math") == (["calc"], "calc")
    odd = World((server("calc"), [ADD]), (server("other"), [tool("calc.add")]))
    assert preferring(odd, "calc.add", "other") == (["calc"], "calc")


def test_a_preferred_server_comes_before_the_one_whose_bare_name_is_listed() -> None:
    bare = World((server("calc"), [ADD]), (server("math"), [ADD]), naming="never")
    assert bare.where("add", shown=True) == (["calc"], None)
    assert preferring(bare, "add", "math", shown=True) == (["math"], "math")


def test_replicas_stand_in_for_a_preferred_server_after_it() -> None:
    assert preferring(URLS, "add", "u2") == (["u2", "u1"], "u2")
    assert preferring(URLS, "odd", "u2") == (["u2"], "u2")
    assert preferring(GROUP, "find", "s2") == (["s2", "s1"], "s2")
    assert preferring(GROUP, "add", "search") == (["s2"], None)


def test_a_preference_for_what_is_gone_or_not_visible_is_none() -> None:
    assert preferring(PLAIN, "find", "gone") == (["fs"], None)
    narrow = Principal("narrow", servers=("calc",))
    assert preferring(PLAIN, "add", "math", narrow) == (["calc"], None)
    with pytest.raises(ProxyError) as raised:
        preferring(PLAIN, "add", "gone")
    assert raised.value.kind is AMBIGUOUS_TOOL


def test_a_server_that_is_named_is_asked_whatever_is_preferred() -> None:
    target = resolve_tool(PLAIN.catalog, PLAIN.specs, ANYBODY, "add", "calc", prefer="math")
    assert [entry.server for entry in target.entries] == ["calc"]
