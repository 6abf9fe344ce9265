from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from mcp_proxy.core.balance import choose


@dataclass
class Replica:
    inflight: int = 0
    is_available: bool = True


def pick(
    replicas: dict[str, Replica], preferred: str | None = None, tried: tuple[str, ...] = (), chance: float = 0.0
) -> str | None:
    found = choose(list(replicas.items()), preferred=preferred, tried=tried, random=lambda: chance)
    return next((name for name, one in replicas.items() if one is found), None)


def test_the_one_with_the_least_in_flight_is_chosen() -> None:
    assert pick({"a": Replica(3), "b": Replica(1), "c": Replica(2)}) == "b"


def test_ties_are_settled_by_chance() -> None:
    replicas = {"a": Replica(1), "b": Replica(1), "c": Replica(1), "busy": Replica(2)}
    assert [pick(replicas, chance=chance) for chance in (0.0, 0.34, 0.99, 1.0)] == ["a", "b", "c", "a"]


def test_the_preferred_one_comes_first_however_busy() -> None:
    assert pick({"a": Replica(0), "b": Replica(9)}, preferred="b") == "b"


def test_a_preferred_one_that_is_not_available_is_replaced() -> None:
    assert pick({"a": Replica(5), "b": Replica(is_available=False)}, preferred="b") == "a"


def test_what_was_tried_is_not_tried_again() -> None:
    assert pick({"a": Replica(0), "b": Replica(9)}, tried=("a",)) == "b"
    assert pick({"a": Replica(0), "b": Replica(9)}, preferred="a", tried=("a",)) == "b"


def test_nobody_left_is_none() -> None:
    assert pick({}) is None
    assert pick({"a": Replica(is_available=False)}) is None
    assert pick({"a": Replica()}, tried=("a",)) is None


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.builds(Replica, st.integers(0, 5), st.booleans())),
    st.sets(st.sampled_from("abcdef")),
    st.floats(0, 1),
)
def test_a_choice_is_always_free_untried_and_least_loaded(
    replicas: dict[str, Replica], tried: set[str], chance: float
) -> None:
    free = {name: one for name, one in replicas.items() if one.is_available and name not in tried}
    found = pick(replicas, tried=tuple(tried), chance=chance)
    assert (found is None) == (not free)
    if found is not None:
        assert free[found].inflight == min(one.inflight for one in free.values())
