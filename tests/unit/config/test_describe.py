"""What people are shown of a server."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_proxy.config.describe import MASK, describe, shown_url
from mcp_proxy.config.dialects import parse_servers
from mcp_proxy.config.model import ServerSpec

ENVIRON = {"TOKEN": "s3cret", "HOST": "h.example"}


def spec(entry: dict[str, Any]) -> ServerSpec:
    (found,) = parse_servers({"mcpServers": {"x": entry}}, "f", ENVIRON, "f").specs
    return found


def test_a_started_server_is_shown_in_canonical_keys() -> None:
    shown = describe(spec({"command": ["npx", "-y", "srv"], "environment": {"A": "s3cret"}, "isActive": False}))
    assert shown == {
        "name": "x",
        "transport": "stdio",
        "command": "npx",
        "args": ["-y", "srv"],
        "env": {"A": MASK},
        "disabled": True,
        "tools": {"allow": ["*"], "deny": []},
        "retry": {"max": 1, "idempotent": [], "trust_annotations": False},
    }


def test_rules_for_tools_are_shown_without_the_arguments_that_are_filled_in() -> None:
    override = {"name": "find", "fixed": {"key": "s3cret"}, "hidden": ["debug"]}
    shown = describe(spec({"command": "x", "tools": {"override": {"search": override}, "pin": False}}))
    assert shown["tools"] == {
        "allow": ["*"],
        "deny": [],
        "override": {"search": {"name": "find", "fixed": {"key": MASK}, "hidden": ["debug"]}},
        "pin": False,
    }


def test_a_called_server_is_shown_with_what_was_set() -> None:
    entry = {
        "type": "http",
        "serverUrl": "https://h/mcp?key=s3cret",
        "headers": {"Authorization": "s3cret"},
        "group": "g",
        "timeout": 5,
        "connect_timeout": 2,
        "max_concurrency": 3,
        "description": "d",
    }
    shown = describe(spec(entry))
    assert shown | {"tools": 0, "retry": 0} == {
        "name": "x",
        "transport": "streamable-http",
        "url": f"https://h/mcp?key={MASK}",
        "headers": {"Authorization": MASK},
        "disabled": False,
        "group": "g",
        "timeout": 5.0,
        "connect_timeout": 2.0,
        "max_concurrency": 3,
        "description": "d",
        "tools": 0,
        "retry": 0,
    }


@pytest.mark.parametrize(
    "entry",
    [
        {"command": "${TOKEN}", "args": ["--token", "${TOKEN}"], "env": {"A": "${TOKEN}"}, "working_dir": "/${TOKEN}"},
        {"command": ["x", "${TOKEN}"], "args": ["${TOKEN}"]},
        {"httpUrl": "https://${HOST}/${TOKEN}?a=${TOKEN}&${TOKEN}", "headers": {"A": "Bearer ${TOKEN}"}},
        {"type": "sse", "command": "https://h/${TOKEN}"},
        {"transport": {"type": "http", "url": "https://h/${TOKEN}"}},
        {"url": "https://h/", "bearer_token_env_var": "TOKEN"},
        {"command": "x", "env_vars": ["TOKEN"]},
        {"command": "x", "odd": "s3cret"},
    ],
)
def test_nothing_that_came_out_of_a_variable_is_shown(entry: dict[str, Any]) -> None:
    assert "s3cret" not in json.dumps(describe(spec(entry)), ensure_ascii=False)


def test_a_reference_is_shown_in_place_of_its_value() -> None:
    started = describe(spec({"command": "${HOST}", "args": ["--token", "${TOKEN}"], "working_dir": "/${HOST}"}))
    assert (started["command"], started["args"], started["cwd"]) == ("${HOST}", ["--token", "${TOKEN}"], "/${HOST}")
    assert describe(spec({"serverUrl": "https://${HOST}/mcp"}))["url"] == "https://${HOST}/mcp"
    assert describe(spec({"type": "http", "command": "https://${HOST}/mcp"}))["url"] == "https://${HOST}/mcp"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://h:1/mcp", "https://h:1/mcp"),
        ("https://h/mcp?a=s3cret&b=", f"https://h/mcp?a={MASK}&b={MASK}"),
        ("https://h/mcp?s3cret", f"https://h/mcp?{MASK}"),
        ("https://me:s3cret@h/mcp", "https://h/mcp"),
        ("https://h/mcp#s3cret", "https://h/mcp"),
        ("https://[s3cret", MASK),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert shown_url(url) == shown


@pytest.mark.parametrize(
    "entry",
    [
        {"command": "x", "args": ["a"], "cwd": "/"},
        {"url": "https://h/mcp", "group": "g", "timeout": 7},
        {
            "type": "http",
            "url": "https://h/mcp",
            "group": "g",
            "tools": {"allow": ["a*"], "deny": ["ab"]},
            "retry": {"max": 2, "idempotent": ["a"], "trust_annotations": True},
            "connect_timeout": 3,
            "max_concurrency": 7,
            "description": "d",
        },
    ],
)
def test_what_is_shown_can_be_read_back_as_the_same_server(entry: dict[str, Any]) -> None:
    first = spec(entry)
    shown = describe(first)
    for written in (shown, {key: value for key, value in shown.items() if key != "name"}):
        again = spec(written)
        assert describe(again) == shown
        assert (again.tools, again.retry, again.group) == (first.tools, first.retry, first.group)


@given(st.text(alphabet="0123456789", min_size=12))
def test_no_secret_is_shown(digits: str) -> None:
    secret = f"s3{digits}"
    called = spec({"type": "http", "url": f"https://h/?a={secret}#{secret}", "headers": {"A": secret}})
    started = spec({"command": "a", "env": {"A": secret}, "unknown": secret})
    assert secret not in json.dumps([describe(called), describe(started)])
