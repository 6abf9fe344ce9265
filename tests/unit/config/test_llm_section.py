from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mcp_proxy.base.errors import StartError
from mcp_proxy.config.llm import LlmSpec, load_llm, parse_llm
from mcp_proxy.config.model import ConfigError


@pytest.mark.parametrize(
    ("given", "read"),
    [([], ()), (None, ()), (["summarizer"], ("summarizer",)), (["summarizer", "docs-*"], ("summarizer", "docs-*"))],
)
def test_servers_are_globs_of_those_that_may_ask_for_completions(given: Any, read: tuple[str, ...]) -> None:
    assert parse_llm({"servers": given}, "f", {}).servers == read


WORK = {"work": {"type": "openai", "api_key": "k"}}


@pytest.mark.parametrize(
    ("section", "asked"),
    [
        ({}, True),
        ({"servers": ["a"]}, True),
        ({"providers": WORK}, False),
        ({"providers": WORK, "models": {"fast": ["work/x"]}}, False),
        ({"providers": WORK, "models": {"fast": ["work/x"], "deep": ["work/y", "sampling"]}}, True),
        ({"providers": WORK, "models": {"fast": ["sampling/hint"]}}, True),
    ],
)
def test_connected_clients_answer_where_they_are_named_or_nobody_else_could(section: Any, asked: bool) -> None:
    assert parse_llm(section, "f", {}).asks_clients is asked


def test_none_may_ask_unless_they_are_named() -> None:
    assert LlmSpec().servers == ()
    assert parse_llm({}, "f", {}).servers == ()


@pytest.mark.parametrize("given", ["summarizer", {"a": True}, [7], [""], [None], True, 0, ""])
def test_what_is_no_list_of_names_stops_the_start_with_one_line(given: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"f: llm\.servers must be a list"):
        parse_llm({"servers": given}, "f", {})
    file = tmp_path / "servers.json"
    file.write_text(json.dumps({"mcpServers": {}, "llm": {"servers": given}}))
    with pytest.raises(StartError) as raised:
        load_llm([file], {})
    assert "\n" not in str(raised.value)
