from __future__ import annotations

from mcp_proxy.bridge.window import MOST, START, Window


def test_it_grows_by_one_with_each_answer_while_it_is_used_in_full() -> None:
    window = Window(start=2)
    window.answered(0, 1, 2)
    window.answered(0, 1, 3)
    window.answered(0, 1, 1)
    assert window.size == 4


def test_it_has_a_bound() -> None:
    window = Window(start=MOST)
    window.answered(0, 1, MOST)
    assert window.size == MOST


def test_it_halves_on_trouble_and_is_never_nothing() -> None:
    window = Window()
    sizes = []
    for _ in range(7):
        window.in_trouble()
        sizes.append(window.size)
    assert sizes == [16, 8, 4, 2, 1, 1, 1]


def test_a_client_that_answers_one_at_a_time_gets_one_at_a_time() -> None:
    window = Window()
    for number in range(1, 6):
        window.answered(0, number * 1.0, START - number)
    assert window.size == 1


def test_a_client_that_answers_all_at_once_keeps_its_width() -> None:
    window = Window()
    for number in range(20):
        window.answered(0, 1 + number * 0.001, 10)
    assert window.size == START


def test_answers_that_come_at_any_time_are_no_queue() -> None:
    window = Window()
    for now in (1.0, 1.9, 2.0, 2.7, 3.9, 4.0, 4.8):
        window.answered(0, now, 10)
    assert window.size == START


def test_a_client_that_worked_on_one_at_a_time_is_tried_with_more_now_and_then() -> None:
    window = Window()
    for number in range(1, 6):
        window.answered(0, number * 1.0, 10)
    for number in range(8):
        window.answered(10 + number, 10.5 + number, 1)
    assert window.size == 2


def test_questions_that_were_not_asked_together_show_nothing() -> None:
    window = Window()
    for number in range(10):
        window.answered(number * 1.0, number + 0.9, 2)
    assert window.size == START
