from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mcp_proxy.bridge.chat import Delta, Ended, Started, StopReason, TextDelta, ToolUseStarted, Usage
from mcp_proxy.bridge.stops import StopTexts

USAGE = Usage(1, 1)
END = Ended(StopReason.END, USAGE)


def passed(stops: list[str], *deltas: Delta | str) -> list[Delta]:
    watch = StopTexts(stops)
    given_ = [TextDelta(one) if isinstance(one, str) else one for one in deltas]
    return [seen for one in given_ for seen in watch.feed(one)]


def words(seen: list[Delta]) -> str:
    return "".join(one.text for one in seen if isinstance(one, TextDelta))


def test_without_stop_texts_everything_passes_as_it_is() -> None:
    deltas = [Started("m", 1), TextDelta("a"), END]
    assert passed([], *deltas) == deltas


def test_an_answer_ends_before_the_first_stop_text_and_says_which() -> None:
    seen = passed(["STOP", "halt"], "go on, ", "ha", "lt there STOP", "more", END)
    assert words(seen) == "go on, "
    assert seen[-1] == Ended(StopReason.STOP_SEQUENCE, USAGE, "halt")


def test_what_only_begins_like_a_stop_text_is_given_out_after_all() -> None:
    seen = passed(["STOP"], "a ST", "ART, ST", END)
    assert (words(seen), seen[-1]) == ("a START, ST", END)


def test_nothing_is_held_back_without_need() -> None:
    assert passed(["STOP"], "hello") == [TextDelta("hello")]


def test_held_words_come_before_a_tool_use() -> None:
    use = ToolUseStarted("1", "add")
    assert passed(["STOP"], "S", use) == [TextDelta("S"), use]


def test_after_the_stop_text_no_tool_use_passes() -> None:
    assert passed(["x"], "x", ToolUseStarted("1", "add"), END) == [Ended(StopReason.STOP_SEQUENCE, USAGE, "x")]


@given(st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), st.lists(st.text("abc", max_size=5), max_size=12))
def test_however_it_comes_the_answer_is_the_text_up_to_the_stop_text_that_is_complete_first(
    stops: list[str], parts: list[str]
) -> None:
    whole = "".join(parts)
    hits = [(at + len(stop), at) for stop in stops if (at := whole.find(stop)) >= 0]
    seen = passed(stops, *parts, END)
    assert words(seen) == whole[: min(hits, default=(0, len(whole)))[1]]
    if hits:
        assert isinstance(seen[-1], Ended)
        assert seen[-1].stop is StopReason.STOP_SEQUENCE
