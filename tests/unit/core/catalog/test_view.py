from __future__ import annotations

from typing import Any

import pytest

from mcp_proxy.core.auth.principal import Principal
from mcp_proxy.core.catalog.offer import Offer
from mcp_proxy.core.catalog.resolve import resolve_prompt, resolve_tool
from mcp_proxy.core.catalog.view import Listing, View, view
from tests.unit.core.catalog.offers import catalogue, prompt, resource, template, with_resources, with_tools
from tests.unit.core.fakes import server, tool

ANYBODY = Principal("anybody")
SPECS = [server("calc"), server("s1", group="search"), server("s2", group="search")]
EVERYTHING = (
    (SPECS[0], Offer((tool("add"),), (prompt("ask"),), (resource("x://1"),), (template("x://{n}"),))),
    (SPECS[1], Offer((tool("find", description="one"),), (prompt("ask"),), (resource("x://1"), resource("x://2")))),
    (
        SPECS[2],
        Offer(
            (tool("find", description="two"), tool("more")),
            (prompt("ask"), prompt("tell")),
            (resource("x://2", mimeType="text/plain"),),
            (template("x://{n}"), template("y://{n}")),
        ),
    ),
)
CATALOG = catalogue(*EVERYTHING)


def narrow(**claims: Any) -> Principal:
    return Principal("narrow", **claims)


def lists(seen: View) -> list[list[tuple[str, str]]]:
    """(name, server) of everything, by kind."""
    return [
        [(one.name, one.entry.server) for one in seen.tools],
        [(one.name, one.entry.server) for one in seen.prompts],
        [(entry.name, entry.server) for entry in seen.resources],
        [(entry.name, entry.server) for entry in seen.templates],
    ]


def test_without_a_namespace_everything_is_there_once_under_its_shown_name() -> None:
    assert lists(view(CATALOG, ANYBODY)) == [
        [("calc.add", "calc"), ("search.find", "s1"), ("search.more", "s2")],
        [("calc.ask", "calc"), ("search.ask", "s1"), ("search.tell", "s2")],
        [("x://1", "calc"), ("x://2", "s1")],
        [("x://{n}", "calc"), ("y://{n}", "s2")],
    ]


def test_a_token_that_narrows_nothing_away_sees_what_an_open_one_sees() -> None:
    assert view(CATALOG, narrow(servers=("*",), tools=("*",))) == view(CATALOG, ANYBODY)


def test_a_namespace_has_its_own_under_bare_names() -> None:
    assert lists(view(CATALOG, ANYBODY, "search")) == [
        [("find", "s1"), ("more", "s2")],
        [("ask", "s1"), ("tell", "s2")],
        [("x://1", "s1"), ("x://2", "s1")],
        [("x://{n}", "s2"), ("y://{n}", "s2")],
    ]


def test_a_member_shows_what_it_has_itself() -> None:
    seen = view(CATALOG, ANYBODY, "s2")
    assert lists(seen)[0] == [("find", "s2"), ("more", "s2")]
    assert seen.tools[0].entry.item.definition["description"] == "two"
    assert seen.resources[0].item.definition["mimeType"] == "text/plain"


@pytest.mark.parametrize("namespace", ["nobody", "", "CALC", "search.find"])
def test_a_namespace_that_does_not_exist_shows_nothing(namespace: str) -> None:
    assert view(CATALOG, ANYBODY, namespace) == View()


def test_a_groups_tool_is_that_of_the_first_member_in_sight() -> None:
    seen = view(CATALOG, narrow(servers=("s2",)))
    assert lists(seen)[0] == [("search.find", "s2"), ("search.more", "s2")]
    assert seen.tools[0].entry.item.definition["description"] == "two"
    assert lists(view(CATALOG, narrow(servers=("s2",)), "search"))[0] == [("find", "s2"), ("more", "s2")]


@pytest.mark.parametrize("namespace", ["calc", "s1"])
def test_a_namespace_out_of_sight_shows_nothing(namespace: str) -> None:
    assert view(CATALOG, narrow(servers=("s2",)), namespace) == View()


def test_a_uri_is_that_of_the_first_server_in_sight() -> None:
    seen = view(CATALOG, narrow(servers=("search",)))
    assert lists(seen)[2:] == [[("x://1", "s1"), ("x://2", "s1")], [("x://{n}", "s2"), ("y://{n}", "s2")]]


@pytest.mark.parametrize(
    ("globs", "expected"),
    [
        (("add",), [["calc.add"], [], [], []]),
        (("search.*",), [["search.find", "search.more"], ["search.ask", "search.tell"], ["x://1", "x://2"], ["x://{n}", "y://{n}"]]),
        (("ask", "x://?"), [[], ["calc.ask", "search.ask"], ["x://1", "x://2"], []]),
        (("s2.x:*",), [[], [], ["x://2"], ["x://{n}"]]),
        ((), [[], [], [], []]),
    ],
)  # fmt: skip
def test_a_tokens_globs_are_read_for_every_kind(globs: tuple[str, ...], expected: list[list[str]]) -> None:
    assert [[name for name, _ in one] for one in lists(view(CATALOG, narrow(tools=globs)))] == expected


@pytest.mark.parametrize("naming", ["always", "on-conflict", "never"])
@pytest.mark.parametrize("separator", [".", "__"])
@pytest.mark.parametrize("principal", [ANYBODY, narrow(servers=("s2", "calc")), narrow(tools=("find", "search.*"))])
@pytest.mark.parametrize("namespace", [None, "search", "s2", "calc"])
def test_every_name_in_a_list_reaches_the_entry_it_stands_for(
    naming: str, separator: str, principal: Principal, namespace: str | None
) -> None:
    catalog = catalogue(*EVERYTHING, naming=naming, separator=separator)
    servers = {spec.name: spec for spec in SPECS}
    seen = view(catalog, principal, namespace)
    for tool_row in seen.tools:
        target = resolve_tool(catalog, servers, principal, tool_row.name, namespace, shown=True)
        assert target.entries[0] == tool_row.entry
    for prompt_row in seen.prompts:
        found = resolve_prompt(catalog, servers, principal, prompt_row.name, namespace, shown=True)
        assert found.entries[0] == prompt_row.entry


# Digests

KINDS: list[Listing] = ["tools", "prompts", "resources"]


def digests(*servers: Any, principal: Principal = ANYBODY) -> list[str]:
    seen = view(catalogue(*servers), principal)
    return [seen.digest(kind) for kind in KINDS]


def test_the_same_lists_have_the_same_digests() -> None:
    assert digests(*EVERYTHING) == digests(*EVERYTHING)
    assert digests(*EVERYTHING, principal=narrow(servers=("*",))) == digests(*EVERYTHING)


@pytest.mark.parametrize(
    ("offer", "changed"),
    [
        (Offer(tools=(tool("new"),)), "tools"),
        (Offer(prompts=(prompt("new"),)), "prompts"),
        (Offer(resources=(resource("z://1"),)), "resources"),
        (Offer(templates=(template("z://{n}"),)), "resources"),
    ],
)
def test_a_change_of_one_list_changes_its_digest_and_no_other(offer: Offer, changed: Listing) -> None:
    before, after = digests(*EVERYTHING), digests(*EVERYTHING, (server("late"), offer))
    assert [kind for kind, one, other in zip(KINDS, before, after, strict=True) if one != other] == [changed]


def test_a_changed_definition_or_name_changes_the_digest() -> None:
    plain = digests(with_tools(server("a"), tool("t")))
    assert digests(with_tools(server("a"), tool("t", description="new")))[0] != plain[0]
    assert digests(with_tools(server("b"), tool("t")))[0] != plain[0]


def test_a_change_out_of_sight_leaves_the_digest() -> None:
    only_calc = narrow(servers=("calc",))
    assert digests(*EVERYTHING, principal=only_calc) == digests(EVERYTHING[0], principal=only_calc)
    assert digests(*EVERYTHING, principal=only_calc) != digests(*EVERYTHING)


def test_a_second_owner_of_a_listed_uri_leaves_the_digest() -> None:
    first = with_resources(server("a"), "x://1")
    assert digests(first) == digests(first, with_resources(server("b"), "x://1"))
