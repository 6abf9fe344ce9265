from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_proxy.gateway.accept import Accepts
from mcp_proxy.gateway.head import read_head


def test_only_mcp_headers_are_kept_by_their_lower_case_names() -> None:
    raw = [(b"host", b"x"), (b"mcp-method", b"tools/list"), (b"mcp-session-id", b"s"), (b"accept", b"*/*")]
    headers = read_head(raw).mcp
    assert headers == {"mcp-method": "tools/list", "mcp-session-id": "s"}
    assert headers.repeated == frozenset()


def test_of_repeated_headers_the_first_counts_and_the_name_is_known() -> None:
    raw = [(b"mcp-name", b"a"), (b"mcp-method", b"m"), (b"mcp-name", b"b"), (b"mcp-method", b"m"), (b"mcp-name", b"c")]
    headers = read_head(raw).mcp
    assert headers == {"mcp-name": "a", "mcp-method": "m"}
    assert headers.repeated == {"mcp-name", "mcp-method"}


def test_other_headers_may_be_repeated() -> None:
    assert read_head([(b"accept", b"a"), (b"accept", b"b")]).mcp.repeated == frozenset()


@given(st.lists(st.tuples(st.binary(max_size=6).map(lambda name: b"mcp-" + name), st.binary(max_size=8))))
def test_no_bytes_in_headers_raise_anything(raw: list[tuple[bytes, bytes]]) -> None:
    headers = read_head(raw).mcp
    assert len(headers) == len({name for name, _ in raw})
    assert headers.repeated <= headers.keys()


@pytest.mark.parametrize(
    ("accept", "json", "events"),
    [
        (None, True, False),
        (b"", True, False),
        (b"*/*", True, False),
        (b"application/json", True, False),
        (b"application/json, text/event-stream", True, True),
        (b"Text/Event-Stream;q=0.5 ,APPLICATION/JSON; q=1", True, True),
        (b"text/event-stream", False, True),
        (b"text/*", False, True),
        (b"application/*", True, False),
        (b"text/html", False, False),
        (b"*/*, text/event-stream", True, True),
        (b"*/*, application/json;q=0", False, False),
        (b"text/*, text/event-stream; q=0", False, False),
        (b"application/json;q=0.0, text/event-stream;charset=utf-8", False, True),
        (b"application/json;q=x", True, False),
        (b"*/*;q=0", False, False),
        (b",,", True, False),
        (b"\xff", False, False),
    ],
)
def test_accept_says_which_forms_a_client_takes(accept: bytes | None, json: bool, events: bool) -> None:
    headers = [(b"host", b"x")] if accept is None else [(b"accept", accept)]
    assert read_head(headers).accepts == Accepts(json, events)


def test_several_accept_headers_count_as_one() -> None:
    assert read_head([(b"accept", b"application/json"), (b"accept", b"text/event-stream")]).accepts == Accepts(
        True, True
    )


@pytest.mark.parametrize(
    ("values", "found"), [([], None), ([b""], b""), ([b"text/json", b"application/json"], b"text/json")]
)
def test_the_first_content_type_counts(values: list[bytes], found: bytes | None) -> None:
    assert read_head([(b"content-type", value) for value in values]).content_type == found
