from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_proxy.core.catalog.naming import STRICT_LENGTH, Named, NamingPolicy, decide, name_all, shown_names

STRICT = re.compile(r"[A-Za-z0-9_-]{1,64}")
TWO_ADDS = [("calc", "add"), ("math", "add"), ("math", "sub")]

policies = st.builds(
    decide, st.sampled_from(["auto", "always", "on-conflict", "never"]), st.sampled_from([".", "__"]), st.integers(0, 3)
)
words = st.text(alphabet="ab_", min_size=1, max_size=6) | st.text(min_size=1, max_size=80)
namespaces = st.text(alphabet="ab_", min_size=1, max_size=4)
listings = st.lists(st.tuples(namespaces, words), unique=True, max_size=12)


@pytest.mark.parametrize(
    ("naming", "namespaces", "names"),
    [
        ("auto", 1, ["add", "sub"]),
        ("auto", 2, ["calc.add", "calc.sub"]),
        ("auto", 0, ["calc.add", "calc.sub"]),
        ("always", 1, ["calc.add", "calc.sub"]),
        ("on-conflict", 2, ["add", "sub"]),
        ("never", 2, ["add", "sub"]),
    ],
)
def test_the_policy_is_decided_by_the_number_of_namespaces_at_the_start(
    naming: str, namespaces: int, names: list[str]
) -> None:
    assert shown_names(decide(naming, ".", namespaces), [("calc", "add"), ("calc", "sub")]) == names


def test_on_conflict_prefixes_all_that_share_a_name_and_nothing_else() -> None:
    assert shown_names(decide("on-conflict", ".", 2), TWO_ADDS) == ["calc.add", "math.add", "sub"]


def test_never_lets_the_first_keep_the_bare_name() -> None:
    assert shown_names(decide("never", ".", 2), TWO_ADDS) == ["add", "math.add", "sub"]


def test_the_separator_is_the_one_asked_for() -> None:
    assert shown_names(decide("always", "__", 2), TWO_ADDS) == ["calc__add", "math__add", "math__sub"]


def test_long_names_are_shortened_for_strict_clients_only() -> None:
    long = "t" * 100
    assert shown_names(decide("always", ".", 2), [("s", long)]) == [f"s.{long}"]
    [short] = shown_names(decide("always", "__", 2), [("s", long)])
    assert len(short) == STRICT_LENGTH
    assert short.startswith("s__ttt")


def test_shortened_names_stay_apart_when_their_beginnings_are_equal() -> None:
    one, other = shown_names(decide("always", "__", 2), [("s", "t" * 100), ("s", "t" * 101)])
    assert one != other


def test_characters_that_strict_clients_refuse_are_replaced() -> None:
    dotted, dashed = shown_names(decide("always", "__", 2), [("s", "read.file"), ("s", "read-file")])
    assert STRICT.fullmatch(dotted)
    assert dotted.startswith("s__read_file_")
    assert dashed == "s__read-file"


def test_three_ways_to_the_same_name_give_three_names() -> None:
    names = shown_names(decide("always", "__", 3), [("a", "b__c__d"), ("a__b", "c__d"), ("a__b__c", "d")])
    assert len(set(names)) == 3
    assert names[0] == "a__b__c__d"


def test_a_name_that_gives_way_says_what_it_wanted_and_to_whom() -> None:
    first, second, long = name_all(decide("always", "__", 3), [("a", "b__c"), ("a__b", "c"), ("s", "t" * 100)])
    assert first == Named("a__b__c", "a__b__c")
    assert (second.wanted, second.gave_way_to) == ("a__b__c", 0)
    assert (long.wanted, long.gave_way_to) == ("s__" + "t" * 100, None)


@given(policies, listings)
def test_all_names_are_different(policy: NamingPolicy, tools: list[tuple[str, str]]) -> None:
    names = shown_names(policy, tools)
    assert len(names) == len(tools)
    assert len(set(names)) == len(names)


@given(policies, listings)
def test_the_same_tools_are_always_called_the_same(policy: NamingPolicy, tools: list[tuple[str, str]]) -> None:
    assert shown_names(policy, tools) == shown_names(policy, tools)


@given(listings)
def test_strict_clients_accept_every_name(tools: list[tuple[str, str]]) -> None:
    assert all(STRICT.fullmatch(name) for name in shown_names(decide("always", "__", 2), tools))


@given(listings, st.tuples(namespaces, words))
def test_a_tool_that_comes_last_renames_no_other_where_all_are_prefixed(
    tools: list[tuple[str, str]], late: tuple[str, str]
) -> None:
    policy = decide("always", ".", 2)
    assert shown_names(policy, [*tools, late])[: len(tools)] == shown_names(policy, tools)
