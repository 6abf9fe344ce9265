from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_proxy.bridge.tool_names import fitted, named, tool_name

ALLOWED = re.compile(r"[a-zA-Z0-9_-]{1,64}")
PLAIN = st.text("ab_-9", min_size=1, max_size=5)
ANY = st.text(max_size=80) | PLAIN
PAIRS = st.lists(st.tuples(PLAIN | ANY, PLAIN | ANY), max_size=12)


@pytest.mark.parametrize(
    ("server", "tool", "name"),
    [
        ("calc", "add", "calc__add"),
        ("a-b", "C_9", "a-b__C_9"),
        ("s" * 30, "t" * 32, "s" * 30 + "__" + "t" * 32),
    ],
)
def test_names_that_fit_stay_readable(server: str, tool: str, name: str) -> None:
    assert tool_name(server, tool) == name
    assert named([(server, tool)]) == {name: (server, tool)}


@pytest.mark.parametrize(
    ("tool", "begins"), [("read.file", "files__read_file_"), ("größe", "files__gr__e_"), ("x" * 80, "files__xxx")]
)
def test_names_that_do_not_fit_keep_what_can_be_read(tool: str, begins: str) -> None:
    name = tool_name("files", tool)
    assert name.startswith(begins)
    assert ALLOWED.fullmatch(name)
    assert name == tool_name("files", tool)


def test_two_tools_never_have_one_name() -> None:
    names = named([("a", "b__c"), ("a__b", "c"), ("f", "x.y"), ("f", "x_y"), ("f", "x-y"), ("f", "x y")])
    assert list(names.values()) == [
        ("a", "b__c"),
        ("a__b", "c"),
        ("f", "x.y"),
        ("f", "x_y"),
        ("f", "x-y"),
        ("f", "x y"),
    ]


def test_a_name_that_is_taken_is_given_up() -> None:
    (name,) = named([("calc", "add")], {"calc__add"})
    assert name.startswith("calc__add_")
    (other,) = named([("calc", "add")], {"calc__add", name})
    assert other not in ("calc__add", name)


@settings(deadline=None)
@given(PAIRS, st.sets(PLAIN | st.just("a__b"), max_size=5))
def test_names_are_allowed_free_and_lead_back(pairs: list[tuple[str, str]], taken: set[str]) -> None:
    names = named(pairs, taken)
    assert all(ALLOWED.fullmatch(name) for name in names)
    assert not taken & names.keys()
    assert list(names.values()) == list(dict.fromkeys(pairs))
    assert named(pairs, taken) == names


@settings(deadline=None)
@given(PAIRS)
def test_all_the_names_of_one_asking_may_be_taken_in_the_next(pairs: list[tuple[str, str]]) -> None:
    first = named(pairs)
    assert not first.keys() & named(pairs, first).keys()


@settings(deadline=None)
@given(ANY)
def test_any_name_can_be_made_to_fit(name: str) -> None:
    assert ALLOWED.fullmatch(fitted(name))
    assert fitted(fitted(name)) == fitted(name)
    if ALLOWED.fullmatch(name):
        assert fitted(name) == name
