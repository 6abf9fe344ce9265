"""Variables in configuration files."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_proxy.config.expand import ExpandError, expand, input_variable

ENVIRON = {"HOST": "example.org", "EMPTY": "", "MONEY": "$HOST", "MCP_INPUT_API_KEY": "from-prompt"}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("${HOST}", "example.org"),
        ("https://${HOST}/mcp", "https://example.org/mcp"),
        ("${HOST}${HOST}", "example.orgexample.org"),
        ("${env:HOST}", "example.org"),
        ("${env:NOPE:-x}", "x"),
        ("${input:api-key}", "from-prompt"),
        ("${EMPTY}", ""),
        ("${EMPTY:-default}", "default"),
        ("${NOPE:-default}", "default"),
        ("${NOPE:-}", ""),
        ("${NOPE:-two words: a}", "two words: a"),
        ("${HOST:-default}", "example.org"),
        ("$HOST", "$HOST"),
        ("$", "$"),
        ("$$", "$"),
        ("$${HOST}", "${HOST}"),
        ("$$$HOST", "$$HOST"),
        ("cost: 5$", "cost: 5$"),
        ("{env:HOST}", "{env:HOST}"),
    ],
)
def test_a_reference_is_filled_and_everything_else_stays(text: str, result: str) -> None:
    assert expand(text, ENVIRON) == result


def test_what_a_variable_holds_is_not_expanded_again() -> None:
    assert expand("${MONEY}", ENVIRON) == "$HOST"
    assert expand("${A}", {"A": "${B}", "B": "no"}) == "${B}"


@pytest.mark.parametrize(
    ("text", "variable"),
    [("${NOPE}", "NOPE"), ("${env:NOPE}", "NOPE"), ("a${HOST}b${NOPE}", "NOPE"), ("${input:a.b}", "MCP_INPUT_A_B")],
)
def test_an_unset_variable_is_named(text: str, variable: str) -> None:
    with pytest.raises(ExpandError) as caught:
        expand(text, ENVIRON)
    assert caught.value.variable == variable
    assert variable in str(caught.value)
    assert "example.org" not in str(caught.value)


@pytest.mark.parametrize("text", ["s3cret${", "${s3cret", "${}", "${s3-cret}", "${keyring:s3cret}", "${1s3cret}"])
def test_an_unknown_form_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ExpandError) as caught:
        expand(text, ENVIRON)
    assert caught.value.variable is None
    assert "s3" not in str(caught.value)


def test_a_prompt_is_read_from_a_variable_of_its_own() -> None:
    assert input_variable("perplexity-key 2") == "MCP_INPUT_PERPLEXITY_KEY_2"


PIECES = st.lists(st.sampled_from(["$", "{", "}", ":-", "env:", "input:", "HOST", "NOPE", "é", "\n", " "]) | st.text())


@settings(deadline=None)
@given(PIECES.map("".join), st.dictionaries(st.text(), st.text()))
def test_no_text_raises_anything_but_the_one_error(text: str, environ: dict[str, str]) -> None:
    try:
        result = expand(text, environ)
    except ExpandError:
        assert "${" in text
    else:
        assert "$" in text or result == text


@settings(deadline=None)
@given(st.text(alphabet=st.characters(exclude_characters="$")))
def test_text_without_a_dollar_is_unchanged(text: str) -> None:
    assert expand(text, ENVIRON) == text


@settings(deadline=None)
@given(st.text())
def test_doubling_every_dollar_protects_any_text(text: str) -> None:
    assert expand(text.replace("$", "$$"), ENVIRON) == text


@settings(deadline=None)
@given(st.text())
def test_a_set_variable_gives_exactly_its_value(value: str) -> None:
    assert expand("${V}", {"V": value}) == value
