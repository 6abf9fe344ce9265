from __future__ import annotations

import pytest

from mcp_proxy.core.catalog.naming import decide
from mcp_proxy.core.catalog.offer import Offer
from mcp_proxy.core.catalog.snapshot import Catalog, Conflict, build
from tests.unit.core.catalog.offers import (
    catalogue,
    prompt,
    resource,
    template,
    with_prompts,
    with_resources,
    with_tools,
)
from tests.unit.core.fakes import server, tool

FIRST, SECOND = server("first"), server("second")
IN_G = [server(f"m{n}", group="g") for n in (1, 2)]
OF_URLS = [server(f"u{n}", replica_set="MCP_URLS") for n in (1, 2)]


def owners(catalog: Catalog, name: str) -> list[str]:
    return [entry.server for entry in catalog.tools.by_full.get(name, ())]


def test_an_empty_catalogue_has_nothing() -> None:
    catalog = build([], decide("always", ".", 2), 1)
    assert (catalog.revision, catalog.tools.entries, catalog.tools.shown) == (1, (), ())
    assert catalog.offers_the_same_as(Catalog())


def test_the_order_is_that_of_servers_and_tools() -> None:
    catalog = catalogue(with_tools(server("b"), "y", "x"), with_tools(server("a"), "z"))
    assert [shown.name for shown in catalog.tools.shown] == ["b.y", "b.x", "a.z"]


def test_a_tool_is_found_bare_and_with_either_separator() -> None:
    catalog = catalogue(with_tools(server("calc"), "add"))
    assert [entry.server for entry in catalog.tools.by_bare["add"]] == ["calc"]
    assert owners(catalog, "calc.add") == owners(catalog, "calc__add") == ["calc"]


def test_a_group_is_listed_once_and_found_by_group_and_member() -> None:
    catalog = catalogue(
        with_tools(server("s1", group="search"), "find"), with_tools(server("s2", group="search"), "find", "more")
    )
    assert [(shown.name, shown.entry.server) for shown in catalog.tools.shown] == [
        ("search.find", "s1"), ("search.more", "s2"),
    ]  # fmt: skip
    assert owners(catalog, "search.find") == ["s1", "s2"]
    assert owners(catalog, "s2.find") == ["s2"]


def test_a_shortened_name_finds_its_tool() -> None:
    catalog = catalogue(with_tools(server("s"), "t" * 100, "t" * 101), separator="__")
    for shown in catalog.tools.shown:
        assert len(shown.name) <= 64
        assert catalog.tools.by_full[shown.name] == (shown.entry,)


def test_a_shortened_name_of_a_group_finds_all_members() -> None:
    members = [with_tools(server(name, group="g"), "t" * 100) for name in ("m1", "m2")]
    catalog = catalogue(*members, separator="__")
    assert owners(catalog, catalog.tools.shown[0].name) == ["m1", "m2"]


def test_a_snapshot_shows_no_names_of_servers_secrets() -> None:
    catalog = catalogue(with_tools(server("s", headers={"Authorization": "Bearer secret"}), "t"))
    assert "secret" not in repr(catalog)


def test_a_shown_name_finds_the_namespace_that_is_listed_under_it() -> None:
    catalog = catalogue(
        with_tools(FIRST, "add"), with_tools(IN_G[0], "add"), with_tools(IN_G[1], "add"), naming="never"
    )
    found = {name: [entry.server for entry in entries] for name, entries in catalog.tools.by_shown.items()}
    assert found == {"add": ["first"], "g.add": ["m1", "m2"]}


# Prompts


def test_prompts_are_named_by_the_same_rules_apart_from_tools() -> None:
    servers = [(FIRST, Offer((tool("add"),), (prompt("ask"),))), (SECOND, Offer((tool("ask"),), (prompt("ask"),)))]
    catalog = build(servers, decide("on-conflict", "__", 2), 1)
    assert [one.name for one in catalog.tools.shown] == ["add", "ask"]
    assert [one.name for one in catalog.prompts.shown] == ["first__ask", "second__ask"]
    assert [entry.server for entry in catalog.prompts.by_full["second.ask"]] == ["second"]


# Resources


def test_a_uri_is_listed_once_the_first_time_and_all_owners_are_known() -> None:
    catalog = catalogue(
        with_resources(FIRST, "x://1", "x://{n}"), with_resources(SECOND, "x://2", "x://1", "x://{n}", "y://{n}")
    )
    table = catalog.resources
    assert [(entry.name, entry.server) for entry in table.resources] == [("x://1", "first"), ("x://2", "second")]
    assert [(entry.name, entry.server) for entry in table.templates] == [("x://{n}", "first"), ("y://{n}", "second")]
    assert [entry.server for entry in table.by_uri["x://1"]] == ["first", "second"]
    assert [entry.server for entry in table.all_templates] == ["first", "second", "second"]


# Conflicts


def test_servers_that_list_one_uri_or_one_template_are_in_conflict() -> None:
    catalog = catalogue(with_resources(FIRST, "x://1", "x://{n}"), with_resources(SECOND, "x://1", "x://{n}", "x://2"))
    assert catalog.conflicts == (
        Conflict("resources", "x://1", "first", "second"),
        Conflict("resourceTemplates", "x://{n}", "first", "second"),
    )


def test_members_of_a_group_and_identical_entries_of_mcp_urls_are_never_in_conflict() -> None:
    for specs in (IN_G, OF_URLS):
        for naming in ("always", "on-conflict", "never"):
            assert catalogue(*(with_tools(spec, "a") for spec in specs), naming=naming).conflicts == ()
            assert catalogue(*(with_prompts(spec, "a") for spec in specs), naming=naming).conflicts == ()
        assert catalogue(*(with_resources(spec, "x://1", "x://{n}") for spec in specs)).conflicts == ()


def test_entries_of_mcp_urls_that_differ_are_in_conflict() -> None:
    catalog = catalogue(
        with_tools(OF_URLS[0], tool("a")), with_tools(OF_URLS[1], tool("a", description="other")), naming="never"
    )
    assert catalog.conflicts == (Conflict("tools", "a", "u1", "u2"),)


def test_a_group_is_in_conflict_once() -> None:
    catalog = catalogue(with_resources(FIRST, "x://1"), *(with_resources(spec, "x://1") for spec in IN_G))
    assert catalog.conflicts == (Conflict("resources", "x://1", "first", "m1"),)


@pytest.mark.parametrize("naming", ["never", "on-conflict"])
def test_a_bare_name_of_two_servers_is_a_conflict_where_bare_names_are_shown(naming: str) -> None:
    both = [(spec, Offer((tool("add"),), (prompt("ask"),))) for spec in (FIRST, SECOND)]
    assert catalogue(*both, naming=naming).conflicts == (
        Conflict("tools", "add", "first", "second"),
        Conflict("prompts", "ask", "first", "second"),
    )


def test_a_bare_name_of_two_servers_is_no_conflict_where_all_are_prefixed() -> None:
    assert catalogue(with_tools(FIRST, "add"), with_tools(SECOND, "add")).conflicts == ()


def test_a_name_that_had_to_give_way_is_a_conflict() -> None:
    catalog = catalogue(with_tools(server("a"), "b__c"), with_tools(server("a__b"), "c"), separator="__")
    assert catalog.conflicts == (Conflict("tools", "a__b__c", "a", "a__b"),)


def test_a_name_that_was_only_too_long_is_no_conflict() -> None:
    assert catalogue(with_tools(FIRST, "t" * 100), separator="__").conflicts == ()


# Change


def test_the_same_offers_are_the_same_whatever_the_revision() -> None:
    offer = Offer((tool("a"),), (prompt("p"),), (resource("x://1"),), (template("x://{n}"),))
    policy = decide("always", ".", 2)
    one, other = build([(FIRST, offer)], policy, 1), build([(FIRST, offer)], policy, 2)
    assert one.offers_the_same_as(other)


@pytest.mark.parametrize("kind", ["tools", "prompts", "resources", "templates"])
def test_any_kind_that_changes_is_a_change(kind: str) -> None:
    offers = {
        "tools": tool("a"),
        "prompts": prompt("p"),
        "resources": resource("x://1"),
        "templates": template("x:{n}"),
    }
    changed = catalogue((FIRST, Offer(**{kind: (offers[kind],)})))
    assert not changed.offers_the_same_as(catalogue((FIRST, Offer())))


# Size


@pytest.mark.parametrize("naming", ["always", "on-conflict", "never"])
@pytest.mark.parametrize("separator", [".", "__"])
def test_ten_thousand_tools_of_fifty_servers_are_all_there_under_names_of_their_own(
    naming: str, separator: str
) -> None:
    tools = Offer(tools=tuple(tool(f"tool_{n}" if n < 150 else "long_name_" * 7 + str(n)) for n in range(200)))
    catalog = catalogue(*((server(f"s{n}"), tools) for n in range(50)), naming=naming, separator=separator)
    names = [one.name for one in catalog.tools.shown]
    assert len(catalog.tools.entries) == len(names) == len(set(names)) == len(catalog.tools.by_shown) == 10_000
    assert {len(entries) for entries in catalog.tools.by_bare.values()} == {50}
    assert all(catalog.tools.by_shown[one.name] == (one.entry,) for one in catalog.tools.shown)
    assert len(catalog.conflicts) == (0 if naming == "always" else 200 * 49)
