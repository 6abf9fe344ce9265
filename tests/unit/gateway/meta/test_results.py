from __future__ import annotations

from mcp_proxy.base.json import encode
from mcp_proxy.gateway.meta.results import MOST, Row, fitted, one_line, tool_in_full


def shown(count: int, size: int) -> tuple[list[Row], int]:
    """Rows for so many tools, each with a schema of that size."""
    schema = {"type": "object", "description": "x" * size}
    return fitted(range(count), lambda n: tool_in_full(f"one.t{n}", "one", {"name": f"t{n}", "inputSchema": schema}))


def test_what_fits_is_shown_whole() -> None:
    kept, more = shown(3, 100)
    assert ([row.data["name"] for row in kept], more) == (["one.t0", "one.t1", "one.t2"], 0)
    assert all("inputSchema" in row.data for row in kept)


def test_where_there_is_no_room_for_all_of_it_later_rows_are_short_and_the_rest_is_counted() -> None:
    kept, more = shown(1000, 2000)
    whole = [row for row in kept if "inputSchema" in row.data]
    assert kept[: len(whole)] == whole
    assert 5 < len(whole) < len(kept) < 1000
    assert len(kept) + more == 1000
    assert sum(len(row.text) for row in kept) <= MOST
    assert len(encode([row.data for row in kept])) <= MOST + 2


def test_a_definition_that_is_larger_than_an_answer_is_shown_short() -> None:
    kept, more = shown(2, MOST)
    assert (len(kept), more) == (2, 0)
    assert not any("inputSchema" in row.data for row in kept)


def test_a_line_is_the_first_of_a_text_and_not_long() -> None:
    assert one_line("\n  First.\nSecond.") == "First."
    assert len(one_line("word " * 100)) <= 160
    assert one_line("word " * 100).endswith("word…")
    assert (one_line(None), one_line(" \n"), one_line(3)) == ("", "", "")
