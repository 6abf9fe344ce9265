"""One server's entry: which keys are accepted, and what refuses that server and no other."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_proxy.config.dialects import parse_servers
from mcp_proxy.config.model import RetryRules, Servers, ServerSpec, ToolRules, Transport

ENVIRON = {"TOKEN": "s3cret", "EMPTY": "", "LINES": "s3cret\n"}


def parse(entry: dict[str, Any], environ: dict[str, str] | None = ENVIRON) -> Servers:
    return parse_servers({"mcpServers": {"x": entry, "other": {"command": "y"}}}, "f.json", environ, "f")


def read(entry: dict[str, Any]) -> ServerSpec:
    servers = parse(entry)
    assert servers.refused == ()
    return servers.specs[0]


def finding(entry: dict[str, Any]) -> list[tuple[str, str]]:
    return [(found.field, found.grade.value) for found in parse(entry).findings]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({}, "has neither command nor url"),
        ({"command": "", "url": ""}, "has neither command nor url"),
        ({"command": "a", "url": "http://h"}, "has both command and url"),
        ({"command": 5}, "command must be text"),
        ({"command": []}, "command is empty"),
        ({"command": "http://h/x"}, "command is a URL"),
        ({"command": "a", "args": "b"}, "args must be a list"),
        ({"command": "a", "args": [None]}, "args must be a list"),
        ({"command": "a", "env": []}, None),
        ({"command": "a", "env": "s3cret"}, "env must be an object"),
        ({"command": "a", "env": {"K": {"s3cret": 1}}}, "env.K must be text or a number"),
        ({"command": "a", "env": {"A=B": "s3cret"}}, "cannot name a variable"),
        ({"command": "a", "env": {"K": "s3cret${NOPE}"}}, "env.K: the variable NOPE is not set"),
        ({"command": "a", "env": {"K": "s3cret\0"}}, "env.K holds a character"),
        ({"command": "a", "env_vars": "TOKEN"}, "env_vars must be a list"),
        ({"command": "a", "cwd": "${NOPE}"}, "cwd: the variable NOPE is not set"),
        ({"command": "a", "args": ["${NOPE}"]}, "args[0]: the variable NOPE is not set"),
        ({"command": "${NOPE}"}, "command: the variable NOPE is not set"),
        ({"command": "a", "type": "sse"}, "needs a url"),
        ({"command": "a", "type": "pigeon"}, "type is not a known transport"),
        ({"command": "a", "type": 5}, "type is not a known transport"),
        ({"url": "http://h", "type": "stdio"}, "needs a command"),
        ({"url": "http://h", "type": "sse", "transport": "http"}, "type and transport name different transports"),
        ({"url": "http://h", "serverUrl": "http://g"}, "url and serverUrl say the same thing twice"),
        ({"url": "http://h", "transport": {"url": "http://g"}}, "say the same thing twice"),
        ({"url": "https://u:s3cret@h"}, "url carries a user name or password"),
        ({"url": "http://${NOPE}"}, "url: the variable NOPE is not set"),
        ({"url": "http://h", "headers": {"A": "s3cret\r\nB: c"}}, "headers.A holds a control character"),
        ({"url": "http://h", "headers": {"A": "s3cret\tb"}}, "headers.A holds a control character"),
        ({"url": "http://h", "headers": {"A": "${LINES}"}}, "headers.A holds a control character"),
        ({"url": "http://h", "headers": {"A\n": "s3cret"}}, "cannot be the name of a header"),
        ({"url": "http://h", "headers": {"A": "s3cret", "a": "b"}}, "the header a is given twice"),
        ({"url": "http://h", "headers": {"A": "s3cret${NOPE}"}}, "headers.A: the variable NOPE is not set"),
        ({"url": "http://h", "headers": [{"value": "s3cret"}]}, "headers must be an object, or a list"),
        ({"url": "http://h", "bearer_token_env_var": "NOPE"}, "bearer_token_env_var: the variable NOPE is not set"),
        ({"url": "http://h", "env_http_headers": {"A": "NOPE"}}, "env_http_headers.A: the variable NOPE is not set"),
        ({"command": "a", "disabled": "false"}, "disabled must be true or false"),
        ({"command": "a", "enabled": "false"}, "enabled must be true or false"),
        ({"command": "a", "isActive": 1}, "isActive must be true or false"),
        ({"command": "a", "timeout": "5"}, "timeout must be a number"),
        ({"command": "a", "timeout": 0}, "timeout must be a number of seconds above 0"),
        ({"command": "a", "timeout": True}, "timeout must be a number"),
        ({"command": "a", "connect_timeout": -1}, "connect_timeout must be a number"),
        ({"command": "a", "max_concurrency": 0}, "max_concurrency must be a whole number"),
        ({"command": "a", "max_concurrency": 1.5}, "max_concurrency must be a whole number"),
        ({"command": "a", "retry": []}, "retry must be an object"),
        ({"command": "a", "retry": {"max": -1}}, "retry.max must be a whole number"),
        ({"command": "a", "retry": {"trust_annotations": "no"}}, "retry.trust_annotations must be true or false"),
        ({"command": "a", "tools": "add"}, "tools must be a list"),
        ({"command": "a", "tools": {"denny": ["rm"]}}, "tools.denny is not known"),
        ({"command": "a", "disabledTools": "rm"}, "disabledTools must be a list"),
        ({"command": "a", "group": 5}, "group must be text"),
        ({"command": "a", "group": "hook"}, "the name is reserved"),
        ({"command": "a", "group": "other"}, "which is the name of a server"),
        ({"command": "a", "description": 5}, "description must be text"),
    ],
)
def test_what_is_wrong_refuses_that_server_alone_and_names_the_field(entry: dict[str, Any], reason: str | None) -> None:
    servers = parse(entry)
    if reason is None:
        assert servers.refused == ()
        return
    assert [spec.name for spec in servers.specs] == ["other"]
    assert reason in servers.refused[0].reason
    assert "s3cret" not in servers.refused[0].reason


def test_variables_are_filled_in_every_field_that_may_hold_them() -> None:
    local = read({"command": "${TOKEN}", "args": ["${TOKEN}"], "env": {"A": "${TOKEN}"}, "cwd": "/${TOKEN}"})
    assert (local.command, local.args, local.env, local.cwd) == ("s3cret", ("s3cret",), {"A": "s3cret"}, "/s3cret")
    remote = read({"url": "http://h/${TOKEN}/sse", "headers": {"A": "${TOKEN}"}})
    assert (remote.url, remote.headers) == ("http://h/s3cret/sse", {"A": "s3cret"})


def test_nothing_is_expanded_in_an_entry_that_did_not_come_from_a_file() -> None:
    assert parse({"command": "${TOKEN}"}, None).specs[0].command == "${TOKEN}"
    assert "files only" in parse({"command": "a", "env_vars": ["TOKEN"]}, None).refused[0].reason


@pytest.mark.parametrize(
    ("entry", "transport"),
    [
        ({"httpUrl": "http://h/x"}, Transport.STREAMABLE_HTTP),
        ({"httpUrl": "http://h/sse"}, Transport.STREAMABLE_HTTP),
        ({"serverUrl": "http://h/sse"}, Transport.SSE),
        ({"url": "http://h/x"}, Transport.AUTO),
        ({"url": "http://h/sse", "type": "http"}, Transport.STREAMABLE_HTTP),
        ({"command": "http://h/x", "type": "http"}, Transport.STREAMABLE_HTTP),
        ({"command": "http://h/x", "type": "sse"}, Transport.SSE),
        ({"url": "http://h/x", "type": "", "transport": "sse"}, Transport.SSE),
        ({"url": "http://h/x", "type": "http", "transport": "streamable-http"}, Transport.STREAMABLE_HTTP),
    ],
)
def test_the_transport_comes_from_the_word_then_the_key_then_the_path(entry: dict[str, Any], transport: str) -> None:
    assert read(entry).transport == transport


def test_off_in_any_of_the_three_words_is_off() -> None:
    assert read({"command": "a", "disabled": True}).disabled
    assert read({"command": "a", "enabled": False}).disabled
    assert read({"command": "a", "isActive": False, "enabled": True}).disabled
    assert not read({"command": "a", "disabled": False, "enabled": True, "isActive": None}).disabled


@pytest.mark.parametrize(
    ("entry", "rules"),
    [
        ({}, ToolRules()),
        ({"tools": ["a*"]}, ToolRules(("a*",))),
        ({"tools": []}, ToolRules(())),
        ({"tools": {"deny": ["b"]}}, ToolRules(("*",), ("b",))),
        ({"tools": {"allow": ["a"], "deny": ["b"]}, "excludeTools": ["c"]}, ToolRules(("a",), ("b", "c"))),
        ({"enabled_tools": ["a"], "disabled_tools": ["b"]}, ToolRules(("a",), ("b",))),
        ({"includeTools": ["a"], "disabledTools": ["b"]}, ToolRules(("a",), ("b",))),
    ],
)
def test_allowed_and_denied_tools_are_gathered(entry: dict[str, Any], rules: ToolRules) -> None:
    assert read({"command": "a", **entry}).tools == rules


def test_the_limits_of_a_server_are_read() -> None:
    spec = read(
        {
            "command": "a",
            "timeout": 600,
            "connect_timeout": 2.5,
            "max_concurrency": 4,
            "group": "g",
            "description": "${NOT} expanded",
            "retry": {"max": 2, "idempotent": ["get_*"], "trust_annotations": True},
        }
    )
    assert (spec.timeout, spec.connect_timeout, spec.max_concurrency, spec.group) == (600.0, 2.5, 4, "g")
    assert spec.description == "${NOT} expanded"
    assert spec.retry == RetryRules(2, ("get_*",), True)


def test_a_timeout_that_looks_like_milliseconds_is_reported_and_not_used() -> None:
    assert read({"command": "a", "timeout": 30000}).timeout is None
    assert finding({"command": "a", "timeout": 30000}) == [("timeout", "manual")]
    assert "milliseconds" in parse({"command": "a", "timeout": 601}).findings[0].message


def test_a_null_is_a_variable_or_header_that_is_not_set() -> None:
    assert read({"command": "a", "env": {"A": None, "B": False, "C": 1.5, "D": ""}}).env == {
        "B": "false",
        "C": "1.5",
        "D": "",
    }
    assert read({"httpUrl": "http://h", "headers": {"A": None, "B": 2}}).headers == {"B": "2"}


def test_unknown_keys_are_kept_and_the_nearest_known_one_is_named() -> None:
    servers = parse({"command": "a", "disabledTool": ["b"], "oauth": {"id": 1}, "retry": {"maxx": 1}})
    assert servers.specs[0].extra == {"disabledTool": ["b"], "oauth": {"id": 1}}
    messages = {found.field: found.message for found in servers.findings}
    assert "did you mean disabledTools?" in messages["disabledTool"]
    assert "did you mean" not in messages["oauth"]
    assert "did you mean retry.max?" in messages["retry.maxx"]


@pytest.mark.parametrize("key", ["autoApprove", "alwaysAllow", "trust"])
def test_what_a_client_asks_its_user_is_kept_and_said(key: str) -> None:
    assert read({"command": "a", key: True}).extra == {key: True}
    assert finding({"command": "a", key: True}) == [(key, "approximate")]


def test_keys_of_the_other_kind_of_server_are_said_unless_empty() -> None:
    assert finding({"command": "a", "headers": {"A": "b"}}) == [("headers", "unsupported")]
    assert finding({"httpUrl": "http://h", "env": {"A": "b"}}) == [("env", "unsupported")]
    assert finding({"httpUrl": "http://h", "env": {}, "args": [], "cwd": ""}) == []
