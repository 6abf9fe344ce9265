from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_proxy.base.names import RESERVED, fit_name, is_name, name_from_url


@pytest.mark.parametrize("name", ["a", "A-Z_09", "x" * 64, "mcp2", "-"])
def test_names_within_the_rules_are_accepted(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize("name", ["", "x" * 65, "a.b", "a b", "ä", "a\n", "a/b", *sorted(RESERVED)])
def test_names_outside_the_rules_are_not(name: str) -> None:
    assert not is_name(name)


def test_the_reserved_names_are_those_of_the_doors() -> None:
    assert {"mcp", "hook", "v1", "api"} == RESERVED


@given(st.text())
def test_whatever_is_left_after_fitting_is_a_name(text: str) -> None:
    fitted = fit_name(text)
    assert fitted == "" or is_name(fitted)
    assert bool(fitted) == bool(text.strip())


@given(st.text())
def test_fitting_twice_changes_nothing(text: str) -> None:
    assert fit_name(fit_name(text)) == fit_name(text)


@given(st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True).filter(lambda name: name not in RESERVED))
def test_a_name_that_fits_stays_as_it_is(name: str) -> None:
    assert fit_name(name) == name


def test_misfits_are_replaced_character_by_character() -> None:
    assert fit_name("my server/é!") == "my-server---"
    assert fit_name("mcp") == "mcp-server"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://10.0.0.5:8999/sse", "10-0-0-5-8999-sse"),
        ("https://tools.example.com/mcp", "tools-example-com-mcp"),
        ("https://tools.example.com", "tools-example-com"),
        ("http://localhost:8000/a/b/", "localhost-8000-a-b"),
        ("http://[::1]:9/mcp", "--1-9-mcp"),
        ("http://user:secret@host/mcp?token=secret", "host-mcp"),
        ("http://mcp", "mcp-server"),
    ],
)
def test_a_url_becomes_host_port_and_path(url: str, name: str) -> None:
    assert name_from_url(url) == name
