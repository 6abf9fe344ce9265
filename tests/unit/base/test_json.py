from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_proxy.base import json as strict
from mcp_proxy.base.json import (
    MAX_DEPTH,
    JsonError,
    Raw,
    decode,
    decode_fields,
    deeper_than,
    encode,
    is_deep,
    read_strict,
)

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@given(json_values)
def test_what_any_writer_writes_is_read_back(value: Any) -> None:
    assert read_strict(json.dumps(value).encode()) == value
    assert read_strict(json.dumps(value, ensure_ascii=False).encode()) == value


@given(json_values)
def test_what_upstreams_write_is_read_the_same_way(value: Any) -> None:
    assert decode(json.dumps(value).encode()) == value


@given(st.binary(max_size=40))
def test_no_bytes_raise_anything_but_a_json_error(data: bytes) -> None:
    for read in (read_strict, decode, decode_fields):
        try:
            read(data)
        except JsonError:
            continue


def outcome(data: bytes) -> object:
    try:
        return repr(read_strict(data))
    except JsonError as error:
        return error.args


@given(
    json_values,
    st.integers(0, 200),
    st.sampled_from(['"', ":", ",", "}", "]", "\\", "\x01", "1", "e9", "-", " ", "{}", ""]),
)
def test_small_texts_are_judged_as_large_ones_are(value: Any, place: int, damage: str) -> None:
    text = json.dumps({"a": value})
    for data in (text.encode(), (text[:place] + damage + text[place + len(damage) :]).encode()):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(strict, "_SMALL", -1)
            large = outcome(data)
        assert outcome(data) == large


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"a":2}',
        '{"a":"\\u003a","a":2}',
        '{"a":"x:y","a":"x"}',
        '{"a":"x","a":"x:"}',
        '{"a":":","b":1}',
        '[{"a":{"b":1,"b":1}}]',
        '{"a":"\\":"}',
        "{}",
        '{":":1}',
    ],
)
def test_names_that_stand_twice_and_colons_in_texts_are_told_apart(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strict, "_SMALL", -1)
        large = outcome(text.encode())
    assert outcome(text.encode()) == large


@given(st.text(alphabet='{}[]",:\\ud8dc0a1e.-NaI tf', max_size=40))
def test_no_text_that_looks_like_json_raises_anything_but_a_json_error(text: str) -> None:
    for read in (read_strict, decode, decode_fields):
        try:
            read(text.encode())
        except JsonError:
            continue


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"\xff", "not UTF-8 at byte 0"),
        (b'{"a": "\xe9"}', "not UTF-8 at byte 7"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b'{"a": 1, "a": 1}', "'a' stands twice"),
        (b'{"b": {"a": 1, "a": 2}}', "'a' stands twice"),
        (b'{"\\u0061": 1, "a": 2}', "'a' stands twice"),
        (b"[NaN]", "NaN is not"),
        (b"[Infinity]", "Infinity is not"),
        (b"[-Infinity]", "-Infinity is not"),
        (b"[1e999]", "out of range"),
        (b"[-1e999]", "out of range"),
        (b'["\\ud800"]', "surrogate"),
        (b'["\\udc00\\ud800"]', "surrogate"),
        (b'{"a": 1', "line 1, column 8"),
        (b"{} {}", "Extra data"),
        (b"[" + b"1" * 5000 + b"]", "too long"),
        (b"\x00", "line 1"),
    ],
)
def test_what_parsers_disagree_about_is_refused_with_the_reason(data: bytes, why: str) -> None:
    with pytest.raises(JsonError, match=why):
        read_strict(data)


def test_the_reason_does_not_repeat_long_keys() -> None:
    with pytest.raises(JsonError) as raised:
        read_strict(json.dumps({"k" * 500: 1})[:-1].encode() + b', "' + b"k" * 500 + b'": 2}')
    assert len(str(raised.value)) < 150


@pytest.mark.parametrize("text", ['"\\ud83d\\ude00"', '"\\\\ud800"', '["\\uD83D\\uDE00", 1]'])
def test_whole_surrogate_pairs_and_escaped_backslashes_are_accepted(text: str) -> None:
    assert read_strict(text.encode()) == json.loads(text)


def test_large_integers_keep_their_value() -> None:
    big = 2**200
    assert read_strict(str(big).encode()) == big
    assert decode(str(big).encode()) == big
    assert encode({"n": big}) == b'{"n":%d}' % big


@pytest.mark.parametrize("shape", [b"[", b'{"a":'])
def test_nesting_is_accepted_to_the_limit_and_not_beyond(shape: bytes) -> None:
    close, leaf = (b"]", b"") if shape == b"[" else (b"}", b"1")
    read_strict(shape * MAX_DEPTH + leaf + close * MAX_DEPTH)
    with pytest.raises(JsonError, match=f"deeper than {MAX_DEPTH}"):
        read_strict(shape * (MAX_DEPTH + 1) + leaf + close * (MAX_DEPTH + 1))


@pytest.mark.parametrize("depth", [1_000, 2_000, 200_000])
def test_absurd_nesting_is_refused_without_exhausting_the_stack(depth: int) -> None:
    for read in (read_strict, decode):
        with pytest.raises(JsonError):
            read(nested(depth))
    with pytest.raises(JsonError):
        read_strict(b'["\\ud800"' + b"," + nested(depth) + b"]")


def test_brackets_in_a_string_are_not_nesting() -> None:
    assert read_strict(b'"' + b"[" * 500 + b'"') == "[" * 500


def test_breadth_is_not_nesting() -> None:
    assert len(read_strict(b"[" + b",".join([b"[]"] * 500) + b"]")) == 500


def test_fields_of_an_object_keep_their_bytes() -> None:
    fields = decode_fields(b'{"a": { "x" : 1.50 }, "b":[1,  2]}')
    assert {name: bytes(raw).strip() for name, raw in fields.items()} == {"a": b'{ "x" : 1.50 }', "b": b"[1,  2]"}
    assert encode({"spliced": fields["a"]}).replace(b" ", b"") == b'{"spliced":{"x":1.50}}'


@pytest.mark.parametrize("data", [b"[]", b"1", b"null", b'"x"', b"", b"{", b'{"a": NaN}', b'{"a": "\xff"}'])
def test_anything_but_one_object_has_no_fields(data: bytes) -> None:
    with pytest.raises(JsonError, match="not a JSON object"):
        decode_fields(data)


def test_a_raw_value_can_be_opened() -> None:
    assert decode(Raw(b'{"a":1}')) == {"a": 1}
    assert list(decode_fields(Raw(b'{"a":1}'))) == ["a"]


@pytest.mark.parametrize("data", [b"[123456789012345678901234567890, NaN]", b"[1e400]", b"[1e999, Infinity]"])
def test_numbers_that_are_none_are_refused_from_upstreams_too(data: bytes) -> None:
    with pytest.raises(JsonError):
        decode(data)


@pytest.mark.parametrize("depth", [1, 63, 64])
def test_text_up_to_the_limit_is_not_deep(depth: int) -> None:
    assert not is_deep(nested(depth), 64)
    assert not is_deep(b'{"a":' * depth + b"1" + b"}" * depth, 64)


@pytest.mark.parametrize("depth", [65, 66, 5000])
def test_text_beyond_the_limit_is_deep(depth: int) -> None:
    assert is_deep(nested(depth), 64)
    assert is_deep(b'{"a":[0,' * depth + b"1" + b"]}" * depth, 64)


def test_brackets_in_strings_and_side_by_side_are_not_depth() -> None:
    assert not is_deep(b'["' + b'[{\\"' * 500 + b'", "' + b"\\\\" + b'"]', 64)
    assert not is_deep(b"[" + b",".join([b"[{}]"] * 1000) + b"]", 3)
    assert is_deep(b"[" + b",".join([b"[{}]"] * 1000) + b"]", 2)


@given(
    st.recursive(
        st.none() | st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_depth_told_from_the_text_is_the_depth_of_the_value(value: object) -> None:
    text = encode(value)
    for limit in (0, 1, 2, 3):
        assert is_deep(text, limit) == (isinstance(value, (dict, list)) and (limit == 0 or deeper_than(value, limit)))
