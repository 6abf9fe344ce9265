"""Texts of others inside messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_proxy.base.quote import quote


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", "''"),
        ("plain", "'plain'"),
        (r"C:\new\é", r"'C:\new\é'"),
        ("uvx 'x", '"uvx \'x"'),
        ("""a'b"c""", """'a'b"c'"""),
        ("a\nb\tc\0", r"'a\nb\tc\x00'"),
        ("turned \u202e round", r"'turned \u202e round'"),
        ("half \udc80", r"'half \udc80'"),
    ],
)
def test_a_text_is_shown_as_it_was_written_with_escapes_for_what_cannot_be_printed(text: str, shown: str) -> None:
    assert quote(text) == shown


def test_a_long_text_is_cut() -> None:
    assert quote("x" * 100) == f"'{'x' * 80}'"
    assert quote("x" * 100, 3) == "'xxx'"


@given(st.text())
def test_any_text_stays_on_one_line_and_can_be_written_out(text: str) -> None:
    shown = quote(text)
    assert len(shown.splitlines()) == 1
    assert shown.encode()
