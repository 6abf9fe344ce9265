"""Tools of this service in the words of each API: wanted in requests, shown in answers, and brought back as history."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_proxy.bridge.chat import (
    ChatRequest,
    ChatResult,
    Delta,
    Ended,
    HouseCall,
    HouseResult,
    HouseUse,
    Message,
    Role,
    Started,
    StopReason,
    Text,
    TextDelta,
    ToolResult,
    ToolUse,
    Usage,
    deltas_of,
    question_tokens,
)
from mcp_proxy.bridge.errors import BAD_REQUEST, NO_ANSWER, ChatError
from mcp_proxy.bridge.wire import anthropic_messages, openai_chat, openai_responses
from mcp_proxy.core.upstream.sse import SseParser
from tests.unit.bridge.test_openai_chat import JSON, check_read, check_turns, spoiled

USAGE = Usage(3, 4)
HELLO = {"role": "user", "content": "hello"}
GOOD = HouseCall("h1", "calc", "add", '{"a":1}', "2")
BAD = HouseCall("h2", "files", "read.file", "{}", "no such file", is_error=True)
RESULT = ChatResult((Text("So: "), GOOD, BAD, Text("it is 2.")), StopReason.END, "clever-1", USAGE)
MANY = ChatResult((*RESULT.content, ToolUse("t", "own", {"b": 2})), StopReason.TOOL_USE, "clever-1", USAGE)
TOGETHER: list[Delta] = [
    Started("clever-1", 3),
    TextDelta("So: "),
    HouseUse("h1", "calc", "add", '{"a":1}'),
    HouseUse("h2", "files", "read.file", "{}"),
    HouseResult("h2", "no such file", is_error=True),
    HouseResult("h1", "2"),
    TextDelta("it is 2."),
    Ended(StopReason.END, USAGE),
]
Read = Callable[[Any], ChatRequest]
READERS: Mapping[str, tuple[Read, dict[str, Any]]] = {
    "chat": (openai_chat.read, {"messages": [HELLO]}),
    "responses": (openai_responses.read, {"input": "hello"}),
    "messages": (anthropic_messages.read, {"messages": [HELLO]}),
}


# Wanted


@pytest.mark.parametrize("api", READERS)
@pytest.mark.parametrize(
    ("more", "globs"),
    [
        ({}, ()),
        ({"mcp_tools": None}, ()),
        ({"mcp_tools": False}, ()),
        ({"mcp_tools": True}, ("*",)),
        ({"mcp_tools": ["calc", "files/read_*"]}, ("calc", "files/read_*")),
        ({"mcp_tools": []}, ()),
        ({"tools": [{"type": "mcp"}]}, ("*",)),
        ({"tools": [{"type": "mcp"}], "mcp_tools": True}, ("*",)),
        ({"tools": [{"type": "mcp"}], "mcp_tools": ["calc"]}, ("calc",)),
    ],
)
def test_which_tools_are_wanted_is_read(api: str, more: dict[str, Any], globs: tuple[str, ...]) -> None:
    read, body = READERS[api]
    assert read({**body, **more}).house_tools == globs


@pytest.mark.parametrize("api", READERS)
@pytest.mark.parametrize(
    ("value", "param"),
    [
        ("all", "mcp_tools"),
        (1, "mcp_tools"),
        ({}, "mcp_tools"),
        ([1], "mcp_tools[0]"),
        (["a", ""], "mcp_tools[1]"),
        (["a" * 201], "mcp_tools[0]"),
        (["a"] * 129, "mcp_tools"),
    ],
)
def test_what_is_no_list_of_globs_is_refused(api: str, value: Any, param: str) -> None:
    read, body = READERS[api]
    with pytest.raises(ChatError) as refused:
        read({**body, "mcp_tools": value})
    assert (refused.value.problem, refused.value.param) == (BAD_REQUEST, param)


# Shown


def chat_message(result: ChatResult) -> dict[str, Any]:
    found: dict[str, Any] = openai_chat.whole(result, ASK, id="i", created=0)["choices"][0]["message"]
    return found


ASK = ChatRequest("m", (Message(Role.USER, (Text("hello"),)),), stream=True)
CHAT_CALLS = [
    {"id": "h1", "server": "calc", "name": "add", "arguments": '{"a":1}', "output": "2", "is_error": False},
    {
        "id": "h2",
        "server": "files",
        "name": "read.file",
        "arguments": "{}",
        "output": "no such file",
        "is_error": True,
    },
]
BLOCKS = [
    {"type": "text", "text": "So: "},
    {"type": "mcp_tool_use", "id": "h1", "name": "add", "server_name": "calc", "input": {"a": 1}},
    {"type": "mcp_tool_result", "tool_use_id": "h1", "is_error": False, "content": [{"type": "text", "text": "2"}]},
    {"type": "mcp_tool_use", "id": "h2", "name": "read.file", "server_name": "files", "input": {}},
    {
        "type": "mcp_tool_result",
        "tool_use_id": "h2",
        "is_error": True,
        "content": [{"type": "text", "text": "no such file"}],
    },
    {"type": "text", "text": "it is 2."},
]
FAULT = {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": "no such file"}]}


def item(index: int, call: HouseCall, **state: Any) -> dict[str, Any]:
    return {
        "id": f"mcp_1_{index}",
        "type": "mcp_call",
        "approval_request_id": None,
        "server_label": call.server,
        "name": call.tool,
        "arguments": call.arguments,
        "output": None,
        "error": None,
        **state,
    }


ITEMS = [item(1, GOOD, status="completed", output="2"), item(2, BAD, status="failed", error=FAULT)]


def test_a_whole_chat_message_has_them_in_a_field_of_their_own() -> None:
    message = chat_message(MANY)
    assert (message["content"], message["mcp_calls"]) == ("So: it is 2.", CHAT_CALLS)
    assert [call["id"] for call in message["tool_calls"]] == ["t"]
    assert "mcp_calls" not in chat_message(ChatResult((Text("a"),), StopReason.END, "m", USAGE))


def test_a_whole_response_has_them_as_items() -> None:
    output = openai_responses.whole(RESULT, ASK, id="resp_1", created=0)["output"]
    assert [one["type"] for one in output] == ["message", "mcp_call", "mcp_call", "message"]
    assert output[1:3] == ITEMS


def test_a_whole_message_has_them_as_blocks() -> None:
    told = anthropic_messages.whole(MANY, ASK, id="msg_1", created=0)
    assert told["content"][:-1] == BLOCKS
    assert told["content"][-1]["type"] == "tool_use"


def events(data: bytes) -> list[dict[str, Any]]:
    found = (event.data for event in SseParser(10_000_000).feed(data))
    return [json.loads(text) for text in found if text != b"[DONE]"]


def streamed(wire: Any, deltas: Iterable[Delta], id: str = "resp_1") -> list[dict[str, Any]]:
    frames = wire.Frames(ASK, id=id, created=0)
    return events(b"".join(map(frames.delta, deltas)))


def test_a_chat_stream_has_a_chunk_for_each_when_it_is_over() -> None:
    told = [one["choices"][0] for one in streamed(openai_chat, TOGETHER)]
    assert [choice["delta"] for choice in told if "mcp_calls" in choice["delta"]] == [
        {"mcp_calls": [{"index": 0, **CHAT_CALLS[1]}]},
        {"mcp_calls": [{"index": 1, **CHAT_CALLS[0]}]},
    ]
    assert told[-1]["finish_reason"] == "stop"


def test_a_response_stream_tells_of_their_beginnings_and_ends() -> None:
    told = streamed(openai_responses, TOGETHER)
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    mine = [event for event in told if event.get("output_index") in (1, 2)]
    assert [(event["type"].removeprefix("response."), event["output_index"]) for event in mine] == [
        ("output_item.added", 1),
        ("mcp_call.in_progress", 1),
        ("mcp_call_arguments.delta", 1),
        ("mcp_call_arguments.done", 1),
        ("output_item.added", 2),
        ("mcp_call.in_progress", 2),
        ("mcp_call_arguments.delta", 2),
        ("mcp_call_arguments.done", 2),
        ("mcp_call.failed", 2),
        ("output_item.done", 2),
        ("mcp_call.completed", 1),
        ("output_item.done", 1),
    ]
    assert mine[0]["item"] == item(1, GOOD, status="in_progress", arguments="")
    assert (mine[2]["delta"], mine[3]["arguments"]) == ('{"a":1}', '{"a":1}')
    assert [event["item"] for event in mine if event["type"].endswith("item.done")] == ITEMS[::-1]
    assert {event["item_id"] for event in mine if "item_id" in event} == {"mcp_1_1", "mcp_1_2"}
    assert told[-1]["response"]["output"][1:3] == ITEMS


def test_words_before_one_end_when_it_begins() -> None:
    told = [event["type"] for event in streamed(openai_responses, TOGETHER[:3])]
    assert told.index("response.output_text.done") < len(told) - 4


def test_a_response_that_fails_leaves_what_was_being_used_incomplete() -> None:
    frames = openai_responses.Frames(ASK, id="resp_1", created=0)
    for delta in TOGETHER[:5]:
        frames.delta(delta)
    *_, last = events(frames.error(ChatError(NO_ANSWER, "gone"), "r"))
    assert [one["status"] for one in last["response"]["output"]] == ["completed", "incomplete", "failed"]


def test_a_message_stream_has_them_as_blocks_that_end_at_once() -> None:
    told = streamed(anthropic_messages, TOGETHER[:4])
    assert told[-1]["type"] == "content_block_stop"
    told = [event for event in streamed(anthropic_messages, TOGETHER) if event["type"].startswith("content_block")]
    starts = [event for event in told if event["type"] == "content_block_start"]
    assert [event["index"] for event in starts] == list(range(6))
    shown = [event["content_block"] for event in starts]
    assert [block["type"] for block in shown[1:5]] == ["mcp_tool_use"] * 2 + ["mcp_tool_result"] * 2
    assert (shown[1], shown[2], shown[3], shown[4]) == (BLOCKS[1], BLOCKS[3], BLOCKS[4], BLOCKS[2])
    pieces = [event["delta"] for event in told if event["type"] == "content_block_delta" and event["index"] in (1, 2)]
    assert pieces == [{"type": "input_json_delta", "partial_json": text} for text in ('{"a":1}', "{}")]
    assert [event["index"] for event in told if event["type"] == "content_block_stop"] == list(range(6))


# Brought back


def chat_again(result: ChatResult) -> dict[str, Any]:
    told = [{"role": "tool", "tool_call_id": "t", "content": "mine"}] * (result.stop is StopReason.TOOL_USE)
    return {"messages": [HELLO, chat_message(result), *told, HELLO]}


def response_again(result: ChatResult) -> dict[str, Any]:
    output = openai_responses.whole(result, ASK, id="resp_1", created=0)["output"]
    told = [{"type": "function_call_output", "call_id": "t", "output": "mine"}] * (result.stop is StopReason.TOOL_USE)
    return {"input": [HELLO, *output, *told, HELLO]}


def message_again(result: ChatResult) -> dict[str, Any]:
    content = anthropic_messages.whole(result, ASK, id="i", created=0)["content"]
    told = [{"type": "tool_result", "tool_use_id": "t", "content": "mine"}] * (result.stop is StopReason.TOOL_USE)
    return {
        "messages": [
            HELLO,
            {"role": "assistant", "content": content},
            {"role": "user", "content": [*told, {"type": "text", "text": "hello"}]},
        ]
    }


AGAIN: Mapping[str, tuple[Read, Callable[[ChatResult], dict[str, Any]]]] = {
    "chat": (openai_chat.read, chat_again),
    "responses": (openai_responses.read, response_again),
    "messages": (anthropic_messages.read, message_again),
}


def uses(ask: ChatRequest) -> list[tuple[str, Any]]:
    return [
        (block.name, block.arguments) for one in ask.messages for block in one.content if isinstance(block, ToolUse)
    ]


def results(ask: ChatRequest) -> list[tuple[str, bool]]:
    """What tools said, and whether they failed."""
    return [
        ("".join(part.text for part in block.content if isinstance(part, Text)), block.is_error)
        for one in ask.messages
        for block in one.content
        if isinstance(block, ToolResult)
    ]


def said(ask: ChatRequest) -> str:
    """All words of the assistant."""
    mine = (one.content for one in ask.messages if one.role is Role.ASSISTANT)
    return "".join(block.text for content in mine for block in content if isinstance(block, Text))


@pytest.mark.parametrize("api", AGAIN)
@pytest.mark.parametrize("result", [RESULT, MANY], ids=["alone", "beside the caller's"])
def test_where_they_are_wanted_again_they_are_the_uses_that_they_were(api: str, result: ChatResult) -> None:
    read, again = AGAIN[api]
    ask = read({**again(result), "mcp_tools": True})
    check_turns(ask.messages)
    own = [("own", {"b": 2})] if result is MANY else []
    (add, arguments), (other, none), *rest = uses(ask)
    assert (add, arguments, none, rest) == ("calc__add", {"a": 1}, {}, own)
    assert other.startswith("files__read_file_")
    assert results(ask) == [("2", False), ("no such file", True), *[("mine", False) for _ in own]]
    assert said(ask) == "So: it is 2."


@pytest.mark.parametrize("api", AGAIN)
@pytest.mark.parametrize("result", [RESULT, MANY], ids=["alone", "beside the caller's"])
def test_where_they_are_not_wanted_any_more_they_are_retold(api: str, result: ChatResult) -> None:
    read, again = AGAIN[api]
    ask = read(again(result))
    check_turns(ask.messages)
    assert uses(ask) == ([("own", {"b": 2})] if result is MANY else [])
    assert '[Used the tool add of calc with {"a":1}. It answered: 2]' in said(ask)
    assert "[Used the tool read.file of files with {}. It failed: no such file]" in said(ask)


def assistant(*content: Any) -> dict[str, Any]:
    return {"messages": [HELLO, {"role": "assistant", "content": list(content)}, HELLO], "mcp_tools": True}


USE_1, RESULT_1, USE_2, RESULT_2 = BLOCKS[1:5]


def test_what_was_used_at_the_same_time_stays_together() -> None:
    ask = anthropic_messages.read(assistant(USE_1, USE_2, RESULT_2, RESULT_1, {"type": "text", "text": "so"}))
    assert [len(one.content) for one in ask.messages] == [1, 2, 2, 1, 1]


def test_what_was_used_one_after_the_other_stays_apart() -> None:
    ask = anthropic_messages.read(assistant(USE_1, RESULT_1, USE_2, RESULT_2))
    assert [(one.role.value, len(one.content)) for one in ask.messages] == [
        ("user", 1),
        ("assistant", 1),
        ("user", 1),
        ("assistant", 1),
        ("user", 1),
        ("user", 1),
    ]


@pytest.mark.parametrize("left", [[USE_1], [RESULT_1], [RESULT_2, USE_1]])
def test_blocks_of_an_answer_that_broke_off_are_left_out(left: list[dict[str, Any]]) -> None:
    ask = anthropic_messages.read(assistant({"type": "text", "text": "so"}, *left))
    assert (uses(ask), results(ask), said(ask)) == ([], [], "so")


def test_a_call_that_did_not_come_to_an_end_is_left_out() -> None:
    ask = openai_responses.read({"input": [HELLO, item(1, GOOD, status="incomplete"), HELLO]})
    assert len(ask.messages) == 2


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ("plain", "plain"),
        ({"type": "http_error", "code": 500, "message": "down"}, "down"),
        ({"type": "mcp_tool_execution_error", "content": "plain"}, "plain"),
        ({"type": "mcp_tool_execution_error", "content": [{"text": "a"}, 1, {"text": "b"}]}, "a\nb"),
        ({}, ""),
    ],
)
def test_errors_are_read_in_all_their_shapes(error: Any, text: str) -> None:
    ask = openai_responses.read({"input": [HELLO, item(1, GOOD, error=error), HELLO], "mcp_tools": True})
    assert results(ask) == [(text, True)]


def test_lists_of_tools_that_other_services_tell_of_are_passed_over() -> None:
    listed = {"type": "mcp_list_tools", "id": "l", "server_label": "x", "tools": []}
    assert openai_responses.read({"input": [HELLO, listed]}).messages == ASK.messages


def test_two_with_one_id_are_retold() -> None:
    twice = {"role": "assistant", "content": "so", "mcp_calls": [CHAT_CALLS[0], CHAT_CALLS[0]]}
    ask = openai_chat.read({"messages": [HELLO, twice], "mcp_tools": True})
    assert uses(ask) == []
    assert said(ask).count("[Used the tool add of calc") == 2
    ask = anthropic_messages.read(assistant(USE_1, USE_1, RESULT_1))
    check_turns(ask.messages)
    assert len(uses(ask)) == 1


def test_one_beside_a_use_that_the_caller_answers_is_retold() -> None:
    own = {"type": "tool_use", "id": "t", "name": "own", "input": {}}
    answered = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "mine"}]}
    body = {"messages": [HELLO, {"role": "assistant", "content": [own, USE_1, RESULT_1]}, answered], "mcp_tools": True}
    ask = anthropic_messages.read(body)
    check_turns(ask.messages)
    assert uses(ask) == [("own", {})]
    assert "Used the tool add" in said(ask)


@pytest.mark.parametrize("api", AGAIN)
def test_what_comes_back_counts(api: str) -> None:
    read, again = AGAIN[api]
    plain = ChatResult((Text("So: it is 2."),), StopReason.END, "clever-1", USAGE)
    assert question_tokens(read(again(RESULT))) > question_tokens(read(again(plain)))


@pytest.mark.parametrize("api", AGAIN)
@given(st.data())
def test_whatever_stands_in_it_is_read_or_refused_in_our_words(api: str, data: st.DataObject) -> None:
    read, again = AGAIN[api]
    body = {**again(MANY), "mcp_tools": data.draw(st.sampled_from([True, False, ["calc"]]) | JSON)}
    check_read(data.draw(spoiled(copy.deepcopy(body))), read)


@given(st.lists(st.sampled_from([*BLOCKS[1:5], {"type": "text", "text": "x"}]), max_size=8), st.booleans())
def test_blocks_in_any_order_make_a_conversation_under_the_rules(blocks: list[Any], house: bool) -> None:
    check_turns(anthropic_messages.read({**assistant(*blocks), "mcp_tools": house}).messages)


@given(st.lists(st.sampled_from([GOOD, BAD, Text("a"), Text("b")]), max_size=5))
def test_a_stream_of_deltas_says_what_the_whole_says(content: list[Any]) -> None:
    distinct = [
        block if isinstance(block, Text) else HouseCall(f"h{index}", *_rest(block))
        for index, block in enumerate(content)
    ]
    result = ChatResult(tuple(distinct), StopReason.END, "clever-1", USAGE)
    told = streamed(openai_responses, deltas_of(result))
    output = [one for one in told[-1]["response"]["output"] if one["type"] == "mcp_call"]
    whole = openai_responses.whole(result, ASK, id="resp_1", created=0)["output"]
    assert [one["name"] for one in output] == [one["name"] for one in whole if one["type"] == "mcp_call"]
    starts = [
        event["content_block"]
        for event in streamed(anthropic_messages, deltas_of(result))
        if event["type"] == "content_block_start"
    ]
    blocks = anthropic_messages.whole(result, ASK, id="i", created=0)["content"]
    assert [one for one in starts if one["type"] != "text"] == [one for one in blocks if one["type"] != "text"]


def _rest(call: HouseCall) -> tuple[Any, ...]:
    return call.server, call.tool, call.arguments, call.text, call.is_error
