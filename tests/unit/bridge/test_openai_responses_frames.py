from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings

from mcp_proxy.bridge.chat import (
    ArgumentsDelta,
    ChatRequest,
    ChatResult,
    Delta,
    Ended,
    Message,
    Role,
    Started,
    StopReason,
    Text,
    TextDelta,
    ToolUse,
    ToolUseStarted,
    deltas_of,
    gathered,
)
from mcp_proxy.bridge.errors import NO_ANSWER, RATE_LIMITED, ChatError
from mcp_proxy.bridge.wire.openai_responses import Frames, whole
from mcp_proxy.core.upstream.sse import SseParser
from tests.unit.bridge.test_openai_chat_frames import INTERLEAVED, RESULTS, START, USAGE

ASK = ChatRequest("m", (Message(Role.USER, (Text("hello"),)),), stream=True)
END = Ended(StopReason.END, USAGE)


def stream(deltas: Iterable[Delta]) -> bytes:
    frames = Frames(ASK, id="resp_1", created=5)
    return frames.first() + frames.KEEP_ALIVE + b"".join(map(frames.delta, deltas))


def events(data: bytes) -> list[dict[str, Any]]:
    """All events, which must be named as they say and numbered without a gap."""
    found = []
    for number, event in enumerate(SseParser(10_000_000).feed(data)):
        value = json.loads(event.data)
        assert value["type"] == event.event
        assert value["sequence_number"] == number
        found.append(value)
    return found


def kinds(data: bytes) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events(data)]


class Client:
    """Puts a response together from its events, and takes none that is out of its order."""

    def __init__(self, data: bytes) -> None:
        created, progress, *between, last = events(data)
        assert (created["type"], progress["type"]) == ("response.created", "response.in_progress")
        assert created["response"] == progress["response"]
        assert created["response"]["status"] == "in_progress"
        self._open: dict[int, dict[str, Any]] = {}
        self._pieces: dict[int, str] = {}
        self._done: dict[int, dict[str, Any]] = {}
        for event in between:
            getattr(self, "_" + event.pop("type").removeprefix("response.").replace(".", "_"))(**event)
        assert not self._open
        self.response = last["response"]
        assert last["type"] == f"response.{self.response['status']}"
        assert self.response["output"] == [self._done[index] for index in range(len(self._done))]
        assert {**self.response, "status": 0} | created["response"] == created["response"]

    def _item(self, item_id: str, output_index: int, content_index: int | None) -> dict[str, Any]:
        item = self._open[output_index]
        assert item["id"] == item_id
        assert content_index == (0 if item["type"] == "message" else None)
        return item

    def _output_item_added(self, output_index: int, item: dict[str, Any], **_: Any) -> None:
        assert output_index == len(self._open) + len(self._done)
        assert item["status"] == "in_progress"
        self._open[output_index] = item

    def _content_part_added(
        self, item_id: str, output_index: int, content_index: int, part: dict[str, Any], **_: Any
    ) -> None:
        assert part == {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        content = self._item(item_id, output_index, content_index)["content"]
        assert content == []
        content.append(part)

    def _piece(self, item_id: str, output_index: int, delta: str, content_index: int | None = None, **_: Any) -> None:
        item = self._item(item_id, output_index, content_index)
        assert delta
        assert item["type"] == "function_call" or item["content"]
        self._pieces[output_index] = self._pieces.get(output_index, "") + delta

    _output_text_delta = _function_call_arguments_delta = _piece

    def _output_text_done(self, item_id: str, output_index: int, content_index: int, text: str, **_: Any) -> None:
        assert text == self._pieces[output_index]
        self._item(item_id, output_index, content_index)["content"][0]["text"] = text

    def _content_part_done(
        self, item_id: str, output_index: int, content_index: int, part: dict[str, Any], **_: Any
    ) -> None:
        assert self._item(item_id, output_index, content_index)["content"] == [part]

    def _function_call_arguments_done(
        self, item_id: str, output_index: int, name: str, arguments: str, **_: Any
    ) -> None:
        item = self._item(item_id, output_index, None)
        assert (name, arguments) == (item["name"], self._pieces[output_index])
        item["arguments"] = arguments

    def _output_item_done(self, output_index: int, item: dict[str, Any], **_: Any) -> None:
        begun = self._open.pop(output_index)
        assert item["status"] in ("completed", "incomplete")
        assert {**begun, "status": item["status"]} == item
        self._done[output_index] = item


def blocks(response: dict[str, Any]) -> tuple[Text | ToolUse, ...]:
    return tuple(
        ToolUse(item["call_id"], item["name"], json.loads(item["arguments"]))
        if item["type"] == "function_call"
        else Text("".join(part["text"] for part in item["content"]))
        for item in response["output"]
    )


def streamed(result: ChatResult) -> ChatResult:
    """The same, where neighbouring words are one block and words that are none are no block."""
    return gathered(deltas_of(result))


@settings(deadline=None)
@given(RESULTS)
def test_what_is_streamed_is_what_a_client_gathers(result: ChatResult) -> None:
    response = Client(stream(deltas_of(result))).response
    assert blocks(response) == streamed(result).content


@settings(deadline=None)
@given(RESULTS)
def test_a_streams_response_is_the_whole_one(result: ChatResult) -> None:
    response = Client(stream(deltas_of(result))).response
    told = whole(streamed(result), ASK, id="resp_1", created=5)
    assert {**response, "request_id": "resp_1"} == json.loads(json.dumps(told))


def test_tool_uses_that_go_on_together_are_told_apart_by_their_place() -> None:
    assert blocks(Client(stream(INTERLEAVED)).response) == (
        Text("so "),
        ToolUse("a", "f", {"y": 2}),
        ToolUse("b", "g", {"x": 1}),
        Text("late"),
        ToolUse("c", "h", {}),
    )


def test_words_are_told_in_all_the_events_that_clients_look_for() -> None:
    assert kinds(stream([START, TextDelta("a"), TextDelta(""), TextDelta("b"), END])) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]


def test_an_item_that_is_complete_ends_before_the_next_begins() -> None:
    deltas: list[Delta] = [START, ToolUseStarted("a", "f"), ArgumentsDelta("a", '{"x": 1}'), ToolUseStarted("b", "g")]
    assert kinds(stream(deltas))[2:] == [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
    ]


def test_an_item_whose_arguments_only_look_complete_goes_on() -> None:
    begun: list[Delta] = [START, ToolUseStarted("a", "f"), ArgumentsDelta("a", '{"x": {}'), TextDelta("so")]
    response = Client(stream([*begun, ArgumentsDelta("a", "}"), END])).response
    assert blocks(response) == (ToolUse("a", "f", {"x": {}}), Text("so"))


def test_white_space_after_the_arguments_of_an_item_that_ended_is_not_told() -> None:
    begun: list[Delta] = [START, ToolUseStarted("a", "f"), ArgumentsDelta("a", "{}"), TextDelta("so")]
    assert stream([*begun, ArgumentsDelta("a", "\n")]) == stream(begun)


@pytest.mark.parametrize("blank", [[], [ArgumentsDelta("a", "")], [ArgumentsDelta("a", " ")]])
def test_no_arguments_are_an_empty_object(blank: list[Delta]) -> None:
    response = Client(stream([START, ToolUseStarted("a", "f"), *blank, END])).response
    assert blocks(response) == (ToolUse("a", "f", {}),)


@pytest.mark.parametrize(
    ("stop", "reason"), [(StopReason.MAX_TOKENS, "max_output_tokens"), (StopReason.REFUSAL, "content_filter")]
)
def test_a_stream_that_is_not_complete_says_why(stop: StopReason, reason: str) -> None:
    response = Client(stream([START, TextDelta("a"), Ended(stop, USAGE)])).response
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": reason})


def test_what_comes_before_the_answer_is_no_event() -> None:
    frames = Frames(ASK, id="i", created=0)
    assert events(frames.first() + frames.KEEP_ALIVE) == []


def failed(*begun: Delta, error: ChatError) -> list[dict[str, Any]]:
    frames = Frames(ASK, id="resp_1", created=0)
    return events(b"".join(map(frames.delta, begun)) + frames.error(error, "req-1"))


def test_an_error_is_one_that_libraries_raise_and_the_responses_end() -> None:
    *_, raised, last = failed(START, TextDelta("so "), error=ChatError(NO_ANSWER, "gone", param="model"))
    told = {"code": "no_answer", "message": "gone", "param": "model"}
    assert raised == {
        "type": "error",
        **told,
        "error": {**told, "type": "server_error"},
        "sequence_number": raised["sequence_number"],
    }
    response = last["response"]
    assert (last["type"], response["status"]) == ("response.failed", "failed")
    assert response["error"] == {"code": "no_answer", "message": "gone"}
    assert [(item["status"], item["content"][0]["text"]) for item in response["output"]] == [("incomplete", "so ")]


def test_an_error_before_the_answer_has_a_response_too() -> None:
    told = failed(error=ChatError(NO_ANSWER, "gone"))
    assert [event["type"] for event in told] == [
        "response.created",
        "response.in_progress",
        "error",
        "response.failed",
    ]
    assert {event["response"]["model"] for event in told if "response" in event} == {"m"}


def test_a_limit_is_called_what_clients_wait_for() -> None:
    *_, last = failed(START, error=ChatError(RATE_LIMITED, "slower"))
    assert last["response"]["error"]["code"] == "rate_limit_exceeded"


def test_all_that_is_told_after_a_start_names_the_model_that_answers() -> None:
    told = events(stream([Started("clever-2", 1), TextDelta("a"), END]))
    assert {event["response"]["model"] for event in told if "response" in event} == {"clever-2"}
