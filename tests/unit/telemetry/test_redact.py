"""What may not be read in a log."""

from __future__ import annotations

import copy
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_proxy.base.json import encode
from mcp_proxy.telemetry.redact import LIMIT, MASK, MAX_NODES, harmless, redact, redact_text

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJl"
LOOKS_LIKE_JWT = re.compile(r"eyJ[A-Za-z0-9_-]*\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")

section = st.text("ABCabc012_-", max_size=12)
jwts = st.builds("eyJ{}.{}.{}".format, section, section.filter(bool), section)
texts = st.one_of(st.text(), jwts, st.builds("{}{}{}".format, st.text(), jwts, st.text()))
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts, st.binary())
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner), st.tuples(inner), st.dictionaries(texts, inner), st.dictionaries(st.integers(), inner)
    ),
)


@given(values)
def test_redaction_never_raises_and_its_output_is_json_without_a_jwt(value: Any) -> None:
    assert LOOKS_LIKE_JWT.search(encode(redact(value)).decode()) is None


@given(st.text().map(lambda text: text + "x" * LIMIT), jwts, st.integers(0, 4 * LIMIT))
def test_a_jwt_at_any_place_of_a_long_text_is_masked(text: str, jwt: str, place: int) -> None:
    for tail in (False, True):
        assert LOOKS_LIKE_JWT.search(redact_text(text[:place] + " " + jwt + text[place:], tail=tail)) is None


@given(st.dictionaries(st.text(max_size=20), st.one_of(st.none(), st.booleans(), st.integers(), texts), max_size=5))
def test_what_counts_as_harmless_is_what_redaction_would_not_change(fields: dict[str, Any]) -> None:
    try:
        line = encode(fields)
    except ValueError:
        return
    if harmless(line):
        assert redact(fields) == fields


@pytest.mark.parametrize(
    "text",
    ["Authorization", "cookie", "TOKEN", "my_secret", "passwd", "api_key", "bearer x", JWT, "sk-1", "a@b", "\x7f", "é"],
)
def test_a_line_with_a_suspicious_word_is_looked_at(text: str) -> None:
    assert not harmless(encode({"field": text}))


def test_an_ordinary_line_is_harmless() -> None:
    assert harmless(b'{"timestamp":"2026-11-20T10:15:00.000Z","event":"request","path":"/tools","error":null}')


@pytest.mark.parametrize(
    "key",
    ["authorization", "Authorization", "cookie", "Set-Cookie", "token", "access_token", "SECRET", "client_secret",
     "password", "passwd", "api_key", "apiKey", "API-Key", "x-api-key", "private_key"],
)  # fmt: skip
@pytest.mark.parametrize("value", ["plain", "", 12345, ["a", "b"], {"deep": "er"}, b"bytes"])
def test_values_of_telling_keys_are_masked_at_any_depth(key: str, value: Any) -> None:
    assert redact({"outer": [{key: value}]}) == {"outer": [{key: MASK}]}


def test_counts_of_tokens_are_kept() -> None:
    usage = {"max_tokens": 100, "usage": {"prompt_tokens": 3, "prompt_tokens_details": {"cached": 1}}}
    assert redact(usage) == usage


def test_tokens_in_a_list_are_no_counts() -> None:
    assert redact({"api_tokens": "name:secret:admin", "tokens": ["a"]}) == {"api_tokens": MASK, "tokens": MASK}


def test_an_absent_secret_shows_as_absent() -> None:
    assert redact({"token": None}) == {"token": None}


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (f"got {JWT}, refused", "got ***, refused"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJz", "***"),
        ("the key sk-proj-abcdefgh12345 leaked", "the key *** leaked"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("BEARER abc", "BEARER ***"),
        ("GET /tools?token=abc&x=1 HTTP/1.1", "GET /tools?token=***&x=1 HTTP/1.1"),
        ("/ws?access_token=abc#top", "/ws?access_token=***#top"),
        ('{"password": "hunter2", "user": "me"}', '{"password": "***", "user": "me"}'),
        (r"{\"api_key\":\"abc\"}", r"{\"api_key\":\"***\"}"),
        ("http://me:pass@host/path", "http://***@host/path"),
    ],
)
def test_secrets_inside_texts_are_masked(text: str, masked: str) -> None:
    assert redact_text(text) == masked
    assert redact({"event": text}) == {"event": masked}


@pytest.mark.parametrize(
    "text",
    ["a bearer token is needed", 'Bearer realm="mcp-proxy-api"', "task-list-of-things", "invalid token: expired",
     "https://host:8000/path", "mail me@example.org", "sk-learn"],
)  # fmt: skip
def test_prose_about_secrets_is_left_alone(text: str) -> None:
    assert redact_text(text) == text


def test_long_texts_are_cut_and_say_how_much_is_missing() -> None:
    assert redact("a" * (LIMIT + 5)) == "a" * LIMIT + "…(5 characters left out)"
    assert redact_text("ab" * LIMIT, 4, tail=True) == f"({2 * LIMIT - 4} characters left out)…abab"
    assert redact("a" * LIMIT) == "a" * LIMIT


@pytest.mark.parametrize("character", ["\x7f", "\x80", "\x9b", "\u2028", "\u2029", "\u202e", "\u2066", "\ud800"])
def test_characters_that_json_leaves_alone_and_terminals_do_not_are_escaped(character: str) -> None:
    assert redact({f"k{character}": f"a{character}b"}) == {f"k\\u{ord(character):04x}": f"a\\u{ord(character):04x}b"}


def test_the_value_given_is_not_changed() -> None:
    value = {"token": "x", "list": [{"password": "y"}, "\u202e"]}
    before = copy.deepcopy(value)
    redact(value)
    assert value == before


def test_spliced_json_and_bytes_are_looked_into() -> None:
    assert redact(msgspec.Raw(b'{"token":"x","n":1}')) == {"token": MASK, "n": 1}
    assert redact(msgspec.Raw(b"not json")) == "not json"
    assert redact(f"{JWT}\xff".encode("latin-1")) == f"{MASK}\\xff"


def test_strange_values_become_text() -> None:
    class Unprintable:
        def __repr__(self) -> str:
            raise RuntimeError

    class Holder:
        def __repr__(self) -> str:
            return f"Holder(token='abc', jwt={JWT})"

    assert redact(Unprintable()) == "(an unprintable Unprintable)"
    assert redact(Holder()) == "Holder(token='***', jwt=***)"
    assert redact(10**5000) == "(an integer of 16610 bits)"
    assert redact({JWT: 1, (1, 2): 2}) == {MASK: 1, "…": 2}


def test_cycles_and_bushes_end() -> None:
    cycle: list[Any] = []
    cycle.extend([cycle] * 10)
    encode(redact(cycle))
    assert len(redact(list(range(100_000)))) <= MAX_NODES + 1
    deep: Any = "end"
    for _ in range(5000):
        deep = [deep]
    encode(redact(deep))
