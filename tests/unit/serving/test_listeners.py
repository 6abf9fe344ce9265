from __future__ import annotations

from mcp_proxy.serving.listeners import wanted_ports


def test_without_the_switch_only_the_port_asked_for_is_tried() -> None:
    assert wanted_ports(5000, auto=False) == [5000]


def test_with_it_a_hundred_further_ones_are_tried_in_order() -> None:
    assert wanted_ports(5000, auto=True) == list(range(5000, 5101))


def test_ports_end_where_there_are_no_more() -> None:
    assert wanted_ports(65_530, auto=True) == [65_530, 65_531, 65_532, 65_533, 65_534, 65_535]
    assert wanted_ports(65_535, auto=True) == [65_535]


def test_what_the_system_chooses_needs_no_second_try() -> None:
    assert wanted_ports(0, auto=True) == [0]


def test_a_port_that_moves_does_not_take_the_place_of_another() -> None:
    assert wanted_ports(5000, auto=True, others={5001, None})[:3] == [5000, 5002, 5003]
