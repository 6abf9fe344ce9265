from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_proxy.base.json import Fields, decode_fields
from mcp_proxy.bridge import tool_results
from mcp_proxy.bridge.chat import Image, Text, ToolResult
from mcp_proxy.bridge.tool_results import failed, read_result, words

PNG = {"type": "image", "mimeType": "image/png", "data": "iVBORw0KGgo="}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KINDS = st.sampled_from(["text", "image", "audio", "resource", "resource_link", "other"])
KEYS = ("text", "data", "mimeType", "uri", "name", "resource")
BLOCKS = st.fixed_dictionaries({"type": KINDS | JSON}, optional=dict.fromkeys(KEYS, JSON | st.just("image/png")))


def fields(**result: Any) -> Fields:
    return decode_fields(json.dumps(result).encode())


def content(*blocks: Any, **more: Any) -> tuple[Text | Image, ...]:
    return read_result("u", fields(content=list(blocks), **more), is_error=False).content


def said(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def test_words_and_pictures_are_passed_on_in_their_order() -> None:
    result = read_result("u", fields(content=[said("see"), PNG]), is_error=True)
    assert result == ToolResult("u", (Text("see"), Image("image/png", "iVBORw0KGgo=")), is_error=True)
    assert words(result) == "see\n[image/png]"


def test_what_is_only_structured_is_told_as_json() -> None:
    assert content(structuredContent={"sum": 3}) == (Text('{"sum": 3}'),)
    assert content(said("three"), structuredContent={"sum": 3}) == (Text("three"), Text('{"sum": 3}'))


def test_what_is_structured_is_not_told_twice() -> None:
    assert content(said('{"sum":3}'), structuredContent={"sum": 3}) == (Text('{"sum":3}'),)


@pytest.mark.parametrize(
    ("block", "told"),
    [
        ({"type": "audio", "mimeType": "audio/wav", "data": "AA=="}, "a recording of type audio/wav"),
        ({"type": "resource_link", "uri": "file:///a", "name": "a"}, "resource a: file:///a"),
        ({"type": "resource", "resource": {"uri": "file:///a", "blob": "AA=="}}, "resource file:///a of type None"),
        ({**PNG, "mimeType": "image/svg+xml"}, "a picture of type image/svg+xml"),
        ({**PNG, "data": "no base64"}, "a picture of type image/png"),
        ({**PNG, "data": ""}, "a picture of type image/png"),
        ({**PNG, "mimeType": []}, "a picture of type []"),
        ({"type": "resource", "resource": {"uri": "x://1", "mimeType": {}}}, "resource x://1 of type {}"),
        ({"type": "text"}, "content of a kind"),
        ({"type": "hologram"}, "content of a kind"),
        ("text", "content of a kind"),
    ],
)
def test_what_models_cannot_be_shown_is_named(block: Any, told: str) -> None:
    (part,) = content(block)
    assert isinstance(part, Text)
    assert part.text.startswith(f"[{told}")


def test_embedded_resources_are_read_and_seen() -> None:
    text, picture = (
        {"type": "resource", "resource": {"uri": "x://1", **more}}
        for more in ({"text": "inside"}, {"mimeType": "image/png", "blob": "iVBORw0KGgo="})
    )
    assert content(text, picture) == (Text("inside"), Image("image/png", "iVBORw0KGgo="))


@pytest.mark.parametrize("result", [{"content": "text"}, {"content": {}}, {"content": None}])
def test_a_result_that_is_not_of_the_protocol_is_a_failure(result: Any) -> None:
    assert read_result("u", fields(**result), is_error=False).is_error


def test_a_large_result_is_cut_and_says_how_much_is_missing() -> None:
    most = tool_results.MOST_TEXT
    kept, note = content(said("a" * (most + 7)), said("more"))
    assert kept == Text("a" * most)
    assert note == Text("[The result is too large: 11 more characters are left out.]")


def test_a_result_that_just_fits_is_whole() -> None:
    text = "ä" * (tool_results.MOST_TEXT // 2)
    assert content(said(text)) == (Text(text),)


def test_no_character_is_cut_in_two_and_nothing_comes_after_the_gap() -> None:
    text = "a" + "ä" * (tool_results.MOST_TEXT // 2)
    kept, note = content(said(text), said("b"))
    assert kept == Text(text[:-1])
    assert note == Text("[The result is too large: 2 more characters are left out.]")


def test_pictures_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_results, "MOST_IMAGES", 2 * len(PNG["data"]))
    one, two, three = content(PNG, PNG, PNG)
    assert isinstance(one, Image)
    assert isinstance(two, Image)
    assert three == Text("[a picture of type image/png, which is too large to be passed on]")


def test_a_failure_says_why_within_bounds() -> None:
    assert failed("u", "no") == ToolResult("u", (Text("no"),), is_error=True)
    assert len(words(failed("u", "x" * 10**6))) == tool_results.MOST_TEXT


@given(st.lists(BLOCKS | JSON, max_size=4) | JSON, JSON)
def test_any_result_can_be_told(given_: Any, structured: Any) -> None:
    result = read_result("u", fields(content=given_, structuredContent=structured), is_error=False)
    assert len(words(result).encode()) <= 2 * tool_results.MOST_TEXT
    assert all(part.text for part in result.content if isinstance(part, Text))
