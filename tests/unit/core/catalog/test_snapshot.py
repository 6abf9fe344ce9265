from __future__ import annotations

import pytest

from mcp_proxy.config.model import ToolRules
from mcp_proxy.core.catalog.naming import decide
from mcp_proxy.core.catalog.snapshot import Catalog, build
from tests.unit.core.fakes import server, tool

DOTS = decide("always", ".", 2)


def owners(catalog: Catalog, name: str) -> list[str]:
    return [entry.server for entry in catalog.by_full.get(name, ())]


def test_an_empty_catalogue_has_nothing() -> None:
    catalog = build([], DOTS, 1)
    assert (catalog.revision, catalog.entries, catalog.shown) == (1, (), ())


def test_the_order_is_that_of_servers_and_tools() -> None:
    catalog = build([(server("b"), [tool("y"), tool("x")]), (server("a"), [tool("z")])], DOTS, 1)
    assert [shown.name for shown in catalog.shown] == ["b.y", "b.x", "a.z"]


def test_a_tool_is_found_bare_and_with_either_separator() -> None:
    catalog = build([(server("calc"), [tool("add")])], DOTS, 1)
    assert [entry.server for entry in catalog.by_bare["add"]] == ["calc"]
    assert owners(catalog, "calc.add") == owners(catalog, "calc__add") == ["calc"]


def test_a_group_is_listed_once_and_found_by_group_and_member() -> None:
    catalog = build(
        [(server("s1", group="search"), [tool("find")]), (server("s2", group="search"), [tool("find"), tool("more")])],
        DOTS,
        1,
    )
    assert [(shown.name, shown.entry.server) for shown in catalog.shown] == [
        ("search.find", "s1"), ("search.more", "s2"),
    ]  # fmt: skip
    assert owners(catalog, "search.find") == ["s1", "s2"]
    assert owners(catalog, "s2.find") == ["s2"]


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
    catalog = build([(server("fs", tools=rules), [tool("read"), tool("write"), tool("rm")])], DOTS, 1)
    assert [entry.tool.name for entry in catalog.entries] == offered
    assert sorted(catalog.by_bare) == sorted(offered)


def test_a_shortened_name_finds_its_tool() -> None:
    catalog = build([(server("s"), [tool("t" * 100), tool("t" * 101)])], decide("always", "__", 2), 1)
    for shown in catalog.shown:
        assert len(shown.name) <= 64
        assert catalog.by_full[shown.name] == (shown.entry,)


def test_a_shortened_name_of_a_group_finds_all_members() -> None:
    members = [(server(name, group="g"), [tool("t" * 100)]) for name in ("m1", "m2")]
    catalog = build(members, decide("always", "__", 2), 1)
    assert owners(catalog, catalog.shown[0].name) == ["m1", "m2"]


def test_a_snapshot_shows_no_names_of_servers_secrets() -> None:
    catalog = build([(server("s", headers={"Authorization": "Bearer secret"}), [tool("t")])], DOTS, 1)
    assert "secret" not in repr(catalog)
