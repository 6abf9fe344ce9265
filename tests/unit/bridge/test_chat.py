from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_proxy.bridge.chat import (
    ArgumentsDelta,
    ChatResult,
    Delta,
    Ended,
    HouseCall,
    HouseResult,
    HouseUse,
    Started,
    StopReason,
    Text,
    TextDelta,
    ToolUse,
    ToolUseStarted,
    Usage,
    answer_tokens,
    deltas_of,
    gathered,
)

USAGE = Usage(3, 4)
END = Ended(StopReason.END, USAGE)
CALL = HouseCall("h1", "calc", "add", '{"a":1}', "2", is_error=False)
WORD = st.text(min_size=1, max_size=20)
HOUSE_CALLS = st.builds(
    HouseCall, st.uuids().map(str), WORD, WORD, st.just('{"a":1}'), st.text(max_size=30), st.booleans()
)
BLOCKS = st.lists(
    st.builds(Text, WORD) | st.builds(ToolUse, st.uuids().map(str), WORD, st.just({"a": 1})) | HOUSE_CALLS, max_size=6
)


def joined(blocks: list[Text | ToolUse | HouseCall]) -> tuple[Text | ToolUse | HouseCall, ...]:
    """Words that follow one another as one block, which is what a stream knows."""
    found: list[Text | ToolUse | HouseCall] = []
    for block in blocks:
        last = found[-1] if found else None
        if isinstance(block, Text) and isinstance(last, Text):
            found[-1] = Text(last.text + block.text)
        else:
            found.append(block)
    return tuple(found)


@given(BLOCKS)
def test_an_answer_is_the_same_as_a_stream_and_whole(blocks: list[Text | ToolUse | HouseCall]) -> None:
    result = ChatResult(joined(blocks), StopReason.END, "m", USAGE)
    assert gathered(deltas_of(result)) == result


def test_uses_of_this_services_tools_stand_where_they_began_whatever_comes_between() -> None:
    deltas: list[Delta] = [
        Started("m", 3),
        TextDelta("one "),
        HouseUse("h1", "calc", "add", '{"a":1}'),
        HouseUse("h2", "calc", "sub", "{}"),
        HouseResult("h2", "no", is_error=True),
        HouseResult("h1", "2"),
        TextDelta("two"),
        ToolUseStarted("u", "own"),
        ArgumentsDelta("u", "{}"),
        END,
    ]
    assert gathered(deltas).content == (
        Text("one "),
        CALL,
        HouseCall("h2", "calc", "sub", "{}", "no", is_error=True),
        Text("two"),
        ToolUse("u", "own", {}),
    )


def test_a_tool_of_this_service_that_has_not_answered_leaves_the_answer_incomplete() -> None:
    with pytest.raises(ValueError, match="has not answered"):
        gathered([Started("m", 3), HouseUse("h1", "calc", "add", "{}"), END])


def test_what_tools_of_this_service_say_is_no_part_of_what_the_model_says() -> None:
    short, long = (HouseCall("h", "calc", "add", "{}", text) for text in ("x", "x" * 10_000))
    assert answer_tokens([short]) == answer_tokens([long]) == 2
    assert ChatResult((Text("a"), CALL, Text("b")), StopReason.END, "m", USAGE).text == "ab"
