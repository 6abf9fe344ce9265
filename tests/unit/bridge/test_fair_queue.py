from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_proxy.bridge.fair_queue import FairQueue, Full


def anything(_: int) -> bool:
    return True


def drained(queue: FairQueue[int]) -> list[int]:
    found = []
    while (job := queue.take(anything)) is not None:
        found.append(job)
    return found


def test_a_tenants_own_come_in_order_and_tenants_take_turns() -> None:
    queue = FairQueue[int](limit=10, share=10)
    for tenant, job in (("a", 1), ("a", 2), ("a", 3), ("b", 10), ("c", 20), ("b", 11)):
        queue.put(tenant, job)
    assert drained(queue) == [1, 10, 20, 2, 11, 3]


def test_what_does_not_fit_is_passed_and_keeps_its_place() -> None:
    queue = FairQueue[int](limit=10, share=10)
    for job in (1, 2, 3, 4):
        queue.put("a", job)
    assert queue.take(lambda job: job % 2 == 0) == 2
    assert queue.take(lambda job: job > 4) is None
    assert drained(queue) == [1, 3, 4]


def test_there_is_room_for_so_many_in_all_and_of_each_tenant() -> None:
    queue = FairQueue[int](limit=3, share=2)
    queue.put("a", 1)
    queue.put("a", 2)
    with pytest.raises(Full):
        queue.put("a", 3)
    queue.put("b", 4)
    with pytest.raises(Full):
        queue.put("c", 5)
    assert (len(queue), queue.of("a"), queue.of("c")) == (3, 2, 0)


def test_what_comes_back_is_taken_in_however_full_it_is_and_comes_next() -> None:
    queue = FairQueue[int](limit=2, share=1)
    queue.put("a", 1)
    queue.put("b", 2)
    queue.put("b", 3, first=True)
    assert drained(queue) == [3, 1, 2]


def test_what_nobody_waits_for_is_taken_out_once() -> None:
    queue = FairQueue[int](limit=2, share=2)
    queue.put("a", 1)
    assert [queue.discard("a", 1), queue.discard("a", 1), queue.discard("b", 1)] == [True, False, False]
    assert (len(queue), queue.take(anything)) == (0, None)


@given(st.lists(st.sampled_from("abc"), max_size=40))
def test_nobody_waits_for_more_than_one_turn_of_each_other_tenant(tenants: list[str]) -> None:
    queue = FairQueue[int](limit=100, share=100)
    for job, tenant in enumerate(tenants):
        queue.put(tenant, job)
    order = drained(queue)
    assert sorted(order) == list(range(len(tenants)))
    for tenant in set(tenants):
        own = [job for job in order if tenants[job] == tenant]
        assert own == sorted(own)
        for earlier, later in pairwise(own):
            between = [tenants[job] for job in order[order.index(earlier) + 1 : order.index(later)]]
            assert len(between) == len(set(between))
