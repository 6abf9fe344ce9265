from __future__ import annotations

import random
import time

import pytest

from mcp_proxy.gateway.meta.ranking import Index, words


def index(*documents: tuple[str, str]) -> Index:
    """Documents of a name and a description."""
    return Index([((name, 4.0), (description, 1.0)) for name, description in documents])


FILES = index(
    ("read_file", "Returns what a file holds."),
    ("writeFile", "Puts text where you say."),
    ("list-directories", "Names what a directory holds, each file on a line."),
    ("send_mail", "Sends a message."),
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("readFile", ["readfile", "read", "file"]),
        ("read_file read-file", ["read", "file", "read", "file"]),
        ("HTTPServer", ["httpserver", "http", "server"]),
        ("GitHub issues", ["github", "git", "hub", "issue"]),
        ("entries status class s3 is", ["entry", "status", "class", "s3", "is"]),
        ("读取文件 naïve", ["读", "取", "文", "件", "naïve"]),
        ("… -- __", []),
    ],
)
def test_words_are_taken_apart_and_made_comparable(text: str, found: list[str]) -> None:
    assert list(words(text)) == found


@pytest.mark.parametrize("question", ["file", "files", "FILE", "a file, please"])
def test_a_word_counts_more_in_a_name_than_in_a_description(question: str) -> None:
    assert FILES.ranked(question)[:2] in ([0, 1], [1, 0])
    assert 2 in FILES.ranked(question)
    assert 3 not in FILES.ranked("file")


@pytest.mark.parametrize(("question", "best"), [("read file", 0), ("write a file", 1), ("directory", 2), ("mail", 3)])
def test_the_document_with_most_of_the_words_is_the_best(question: str, best: int) -> None:
    assert FILES.ranked(question)[0] == best


def test_a_rare_word_counts_more_than_a_common_one() -> None:
    many = index(*[(f"get_{number}", "the data") for number in range(20)], ("weather", "of the place"))
    assert many.ranked("the weather")[0] == 20


def test_the_beginning_of_a_word_finds_it_for_less() -> None:
    both = index(("calendar_add", "x"), ("cal", "x"))
    assert both.ranked("cal") == [1, 0]
    assert both.ranked("calen") == [0]
    assert both.ranked("ca") == []


@pytest.mark.parametrize("question", ["", "  ", "nothing of the kind", "?!"])
def test_words_that_stand_nowhere_find_nothing(question: str) -> None:
    assert index(("add", "two numbers")).ranked(question) == []


def test_an_empty_index_answers_too() -> None:
    assert Index([]).ranked("anything") == []
    assert Index([()]).ranked("anything") == []


def test_equals_keep_their_order() -> None:
    assert index(*[("same", "same")] * 5).ranked("same") == [0, 1, 2, 3, 4]


def test_ten_thousand_documents_are_searched_within_fifty_milliseconds() -> None:
    chance = random.Random(1)
    known = ["".join(chance.choices("abcdefghijklmnopqrst", k=chance.randint(3, 9))) for _ in range(4000)]
    large = index(
        *(
            ("_".join(chance.choices(known, k=3)), "A tool to " + " ".join(chance.choices(known, k=30)))
            for _ in range(10_000)
        )
    )
    worst = " ".join(["a", "tool", "to", *known[:60]])
    for question in ("a tool to", worst, known[5]):
        taken = []
        for _ in range(5):
            began = time.process_time()
            found = large.ranked(question)
            taken.append(time.process_time() - began)
        assert found
        assert min(taken) < 0.05
