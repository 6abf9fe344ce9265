"""One server's entry: what each key means, and which entries are refused."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_proxy.config.dialects import parse_servers
from mcp_proxy.config.model import Finding, RetryRules, ServerSpec, ToolOverride, ToolRules, Transport

ENVIRON = {"HOST": "h.example", "LINES": "a\nb", "LAST": "s3cret\n", "EMPTY": "", "TOKEN": "s3cret"}


def read(entry: dict[str, Any], environ: dict[str, str] | None = ENVIRON) -> tuple[ServerSpec, tuple[Finding, ...]]:
    servers = parse_servers({"mcpServers": {"x": entry}}, "f.json", environ, "f")
    assert servers.refused == ()
    return servers.specs[0], servers.findings


def reason(entry: dict[str, Any], environ: dict[str, str] | None = ENVIRON) -> str:
    servers = parse_servers({"mcpServers": {"x": entry, "good": {"command": "x"}}}, "f.json", environ, "f")
    assert [spec.name for spec in servers.specs] == ["good"]
    (refused,) = servers.refused
    assert (refused.name, refused.source) == ("x", "f.json")
    return refused.reason


@pytest.mark.parametrize("key", ["type", "transport", "transportType", "protocol"])
@pytest.mark.parametrize(
    ("word", "transport"),
    [
        ("http", Transport.STREAMABLE_HTTP),
        ("HTTP", Transport.STREAMABLE_HTTP),
        ("streamable-http", Transport.STREAMABLE_HTTP),
        ("streamableHttp", Transport.STREAMABLE_HTTP),
        ("STREAMABLE_HTTP", Transport.STREAMABLE_HTTP),
        ("remote", Transport.STREAMABLE_HTTP),
        ("sse", Transport.SSE),
        ("SSE", Transport.SSE),
        ("auto", Transport.AUTO),
    ],
)
def test_words_for_transports_are_normalised_wherever_they_stand(key: str, word: str, transport: Transport) -> None:
    spec, findings = read({key: word, "url": "https://h/x"})
    assert (spec.transport, findings) == (transport, ())


@pytest.mark.parametrize("word", ["stdio", "STDIO", "std", "local"])
def test_words_for_stdio_are_normalised(word: str) -> None:
    assert read({"type": word, "command": "x"})[0].transport is Transport.STDIO


@pytest.mark.parametrize(
    ("entry", "transport"),
    [
        ({"httpUrl": "https://h/x"}, Transport.STREAMABLE_HTTP),
        ({"httpUrl": "https://h/sse"}, Transport.STREAMABLE_HTTP),
        ({"serverUrl": "https://h/sse"}, Transport.SSE),
        ({"url": "https://h/sse"}, Transport.SSE),
        ({"url": "https://h/sse/?key=v"}, Transport.SSE),
        ({"url": "https://h/x"}, Transport.AUTO),
        ({"url": "https://h/sse", "type": "http"}, Transport.STREAMABLE_HTTP),
        ({"url": "https://h/x", "type": "", "transport": "sse"}, Transport.SSE),
        ({"url": "https://h/x", "type": "http", "transport": "streamable-http"}, Transport.STREAMABLE_HTTP),
        ({"url": "https://h/x?next=/sse"}, Transport.AUTO),
        ({"url": "https://h/asse"}, Transport.AUTO),
        ({"serverUrl": "https://h"}, Transport.AUTO),
    ],
)
def test_the_transport_comes_from_the_word_then_the_key_then_the_path(
    entry: dict[str, Any], transport: Transport
) -> None:
    assert read(entry)[0].transport is transport


@pytest.mark.parametrize(("word", "transport"), [("sse", Transport.SSE), ("http", Transport.STREAMABLE_HTTP)])
def test_a_url_in_command_is_a_url_when_the_type_says_so(word: str, transport: Transport) -> None:
    spec, _ = read({"type": word, "command": "https://${HOST}/mcp", "args": []})
    assert (spec.command, spec.url, spec.transport) == (None, "https://h.example/mcp", transport)
    assert dict(spec.written) == {"url": "https://${HOST}/mcp"}
    plain, _ = read({"type": word, "command": "https://h/mcp"})
    assert (plain.command, plain.url, plain.transport, dict(plain.written)) == (None, "https://h/mcp", transport, {})


@pytest.mark.parametrize(
    ("entry", "part"),
    [
        ({}, "neither command nor url"),
        ({"command": None, "url": ""}, "neither command nor url"),
        ({"command": "", "url": ""}, "neither command nor url"),
        ({"command": "x", "url": "https://h"}, "both command and url"),
        ({"command": "https://h/mcp"}, "command is a URL"),
        ({"command": "https://h/mcp", "type": "stdio"}, "command is a URL"),
        ({"command": ["x", 5, None]}, "args[1] must be text"),
        ({"command": []}, "command is empty"),
        ({"command": "${EMPTY}"}, "command is empty"),
        ({"command": {"path": "x"}}, "command must be text"),
        ({"command": 5}, "command must be text"),
        ({"command": "x", "type": "http"}, "needs a url"),
        ({"command": "x", "type": "sse"}, "needs a url"),
        ({"command": "x", "type": "pigeon"}, "type is not a known transport"),
        ({"command": "x", "type": 5}, "type is not a known transport"),
        ({"url": "https://h", "type": "stdio"}, "needs a command"),
        ({"url": "https://h", "type": "ws"}, "type is not a known transport"),
        ({"url": "https://h", "transport": 5}, "transport is not a known transport"),
        ({"url": "https://h", "type": "sse", "transport": "http"}, "type and transport name different"),
        ({"httpUrl": "https://h", "type": "sse"}, "httpUrl means streamable-http"),
        ({"url": "https://h", "httpUrl": "https://i"}, "url and httpUrl say the same thing twice"),
        ({"url": "https://h", "serverUrl": "https://i"}, "url and serverUrl say the same thing twice"),
        ({"url": "https://h", "transport": {"url": "https://i"}}, "url and transport.url say the same thing twice"),
        ({"command": "x", "args": "-y"}, "args must be a list"),
        ({"command": "x", "args": [True]}, "args must be a list"),
        ({"command": "x", "args": [None]}, "args must be a list"),
        ({"command": "x\0"}, "cannot be passed on"),
        ({"command": "x", "env": ["A=b"]}, "env must be an object"),
        ({"command": "x", "env": "s3cret"}, "env must be an object"),
        ({"command": "x", "env": {"A": ["b"]}}, "env.A must be text or a number"),
        ({"command": "x", "env": {"A": {"s3cret": 1}}}, "env.A must be text or a number"),
        ({"command": "x", "env": {"A": "s3cret\0"}}, "env.A holds a character that cannot be passed on"),
        ({"command": "x", "env": {"A=B": "s3cret"}}, "cannot name a variable"),
        ({"command": "x", "env_vars": "HOST"}, "env_vars must be a list"),
        ({"command": "x", "cwd": 5}, "cwd must be text"),
        ({"command": "x", "cwd": "a", "working_dir": "b"}, "cwd and working_dir say the same thing twice"),
        ({"command": "x", "disabled": "false"}, "disabled must be true or false"),
        ({"command": "x", "enabled": "false"}, "enabled must be true or false"),
        ({"command": "x", "isActive": 0}, "isActive must be true or false"),
        ({"command": "x", "isActive": 1}, "isActive must be true or false"),
        ({"command": "x", "timeout": "30"}, "timeout must be a number of seconds"),
        ({"command": "x", "timeout": True}, "timeout must be a number of seconds"),
        ({"command": "x", "timeout": 0}, "timeout must be a number of seconds above 0"),
        ({"command": "x", "timeout": float("nan")}, "timeout must be a number of seconds above 0"),
        ({"command": "x", "connect_timeout": -1}, "connect_timeout must be a number"),
        ({"command": "x", "max_concurrency": 0}, "max_concurrency must be a whole number, 1 or more"),
        ({"command": "x", "max_concurrency": 1.5}, "max_concurrency must be a whole number"),
        ({"command": "x", "max_concurrency": True}, "max_concurrency must be a whole number"),
        ({"command": "x", "retry": 3}, "retry must be an object"),
        ({"command": "x", "retry": []}, "retry must be an object"),
        ({"command": "x", "retry": {"max": -1}}, "retry.max must be a whole number"),
        ({"command": "x", "retry": {"trust_annotations": "no"}}, "retry.trust_annotations must be true or false"),
        ({"command": "x", "retry": {"idempotent": "get_*"}}, "retry.idempotent must be a list"),
        ({"command": "x", "tools": "add"}, "tools must be a list"),
        ({"command": "x", "tools": [1]}, "tools must be a list"),
        ({"command": "x", "tools": {"alow": ["a"]}}, "tools.alow is not known"),
        ({"command": "x", "tools": {"deny": "a"}}, "tools.deny must be a list"),
        ({"command": "x", "disabledTools": "a"}, "disabledTools must be a list"),
        ({"command": "x", "tools": {"pin": "yes"}}, "tools.pin must be true or false"),
        ({"command": "x", "tools": {"override": []}}, "tools.override must be an object"),
        ({"command": "x", "tools": {"override": {"a": "b"}}}, "tools.override.a must be an object"),
        ({"command": "x", "tools": {"override": {"a": {"nam": "b"}}}}, "tools.override.a.nam is not known"),
        ({"command": "x", "tools": {"override": {"a": {"name": "b c"}}}}, "tools.override.a.name must be 1 to 128"),
        ({"command": "x", "tools": {"override": {"a": {"name": 1}}}}, "tools.override.a.name must be text"),
        ({"command": "x", "tools": {"override": {"a": {"title": []}}}}, "tools.override.a.title must be text"),
        ({"command": "x", "tools": {"override": {"a": {"fixed": ["b"]}}}}, "tools.override.a.fixed must be an object"),
        ({"command": "x", "tools": {"override": {"a": {"hidden": "b"}}}}, "tools.override.a.hidden must be a list"),
        ({"command": "x", "tools": {"override": {"a": {"fixed": {"k": "${NONE}"}}}}}, "tools.override.a.fixed.k"),
        (
            {"command": "x", "tools": {"override": {"a": {"name": "c"}, "b": {"name": "c"}}}},
            "a and b get the same name",
        ),
        ({"command": "x", "includeTools": ["a"], "enabled_tools": ["b"]}, "say the same thing twice"),
        ({"command": "x", "group": 5}, "group must be text"),
        ({"command": "x", "group": "mcp"}, "the name is reserved"),
        ({"command": "x", "group": "hook"}, "the name is reserved"),
        ({"command": "x", "group": "good"}, "group is 'good', which is the name of a server"),
        ({"command": "x", "description": []}, "description must be text"),
        ({"command": "x", "description": 5}, "description must be text"),
        ({"url": "https://h", "headers": "A: b"}, "headers must be an object"),
        ({"url": "https://h", "headers": [{"value": "s3cret"}]}, "headers must be an object, or a list"),
        ({"url": "https://h", "headers": {"A b": "c"}}, "cannot be the name of a header"),
        ({"url": "https://h", "headers": {"A\r\nB": "c"}}, "cannot be the name of a header"),
        ({"url": "https://h", "headers": {"A\n": "s3cret"}}, "cannot be the name of a header"),
        ({"url": "https://h", "headers": {"A": "s3cret\r\nC: d"}}, "headers.A holds a control character"),
        ({"url": "https://h", "headers": {"A": "s3cret\tb"}}, "headers.A holds a control character"),
        ({"url": "https://h", "headers": {"A": "${LINES}"}}, "headers.A holds a control character"),
        ({"url": "https://h", "headers": {"A": "${LAST}"}}, "headers.A holds a control character"),
        ({"url": "https://h", "headers": {"A": "s3cret", "a": "c"}}, "the header a is given twice"),
        ({"url": "https://h", "headers": {"authorization": "b"}, "bearer_token_env_var": "TOKEN"}, "given twice"),
        ({"url": "https://h", "bearer_token_env_var": "EMPTY"}, "the variable EMPTY is not set"),
        ({"url": "https://h", "bearer_token_env_var": "NOPE"}, "bearer_token_env_var: the variable NOPE is not set"),
        ({"url": "https://h", "bearer_token_env_var": "sk-s3cret"}, "bearer_token_env_var must name a variable"),
        ({"url": "https://h", "env_http_headers": {"A": "NOPE"}}, "env_http_headers.A: the variable NOPE is not set"),
    ],
)
def test_an_entry_that_makes_no_sense_is_refused_alone_naming_the_field(entry: dict[str, Any], part: str) -> None:
    said = reason(entry)
    assert part in said
    assert "s3cret" not in said


@pytest.mark.parametrize(
    ("entry", "field"),
    [
        ({"command": "${NOPE}"}, "command"),
        ({"command": "x", "args": ["a", "${NOPE}"]}, "args[1]"),
        ({"command": ["x", "${NOPE}"]}, "args[0]"),
        ({"command": "x", "env": {"A": "s3cret${NOPE}"}}, "env.A"),
        ({"command": "x", "cwd": "${NOPE}"}, "cwd"),
        ({"url": "https://${NOPE}"}, "url"),
        ({"url": "https://h", "headers": {"A": "Bearer s3cret ${NOPE}"}}, "headers.A"),
    ],
)
def test_an_unset_variable_refuses_that_server_naming_field_and_variable(entry: dict[str, Any], field: str) -> None:
    assert reason(entry) == f"{field}: the variable NOPE is not set"


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("ftp://h/x", "must begin with http:// or https://"),
        ("unix:///tmp/x", "must begin with http:// or https://"),
        ("h.example/mcp", "must begin with http:// or https://"),
        ("https://", "host"),
        ("https:///mcp", "host"),
        ("https://:80/", "host"),
        ("https://[::1", "is not a URL"),
        ("https://h:99999/", "is not a URL"),
        ("https://h:x/", "is not a URL"),
        ("https://me:s3cret@h/", "user name or password"),
        ("https://s3cret@h/", "user name or password"),
        ("https://h/\tx", "control character"),
        ("https://h/a b", "space"),
        ("https://h\\x/", "host"),
        ("${HOST}", "must begin with"),
    ],
)
def test_a_url_that_cannot_be_called_is_refused_without_repeating_it(url: str, part: str) -> None:
    said = reason({"url": url})
    assert said.startswith("url ")
    assert part in said
    assert "s3cret" not in said


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000/mcp", "http://[::1]:80/", "HTTPS://H.example", "http://a_b/x?y=z"]
)
def test_an_ordinary_url_is_accepted(url: str) -> None:
    assert read({"url": url})[0].url == url


def test_variables_fill_command_args_env_cwd_url_and_headers() -> None:
    started, _ = read({"command": "${HOST}", "args": ["${TOKEN}"], "env": {"A": "${TOKEN}"}, "cwd": "/${HOST}"})
    called, _ = read({"url": "https://${HOST}", "type": "sse", "headers": {"A": "Bearer ${TOKEN}"}})
    assert (started.command, started.args, started.cwd) == ("h.example", ("s3cret",), "/h.example")
    assert (started.env["A"], called.url, called.headers["A"]) == ("s3cret", "https://h.example", "Bearer s3cret")
    assert dict(started.written) == {"command": "${HOST}", "args[0]": "${TOKEN}", "cwd": "/${HOST}"}
    assert dict(called.written) == {"url": "https://${HOST}"}


def test_descriptions_and_groups_are_not_expanded() -> None:
    spec, _ = read({"command": "x", "description": "${NOPE}"})
    assert spec.description == "${NOPE}"


def test_without_an_environment_nothing_is_expanded_and_no_variable_can_be_asked_for() -> None:
    spec, _ = read({"command": "${HOST}", "args": ["${TOKEN}"], "env": {"A": "$$"}}, environ=None)
    assert (spec.command, spec.args, spec.env["A"]) == ("${HOST}", ("${TOKEN}",), "$$")
    for entry in (
        {"url": "https://h", "bearer_token_env_var": "TOKEN"},
        {"url": "https://h", "env_http_headers": {"A": "TOKEN"}},
        {"command": "x", "env_vars": ["TOKEN"]},
    ):
        assert "files only" in reason(entry, environ=None)


def test_numbers_and_truth_values_become_text_and_null_is_not_set() -> None:
    env = {"I": 1, "F": 1.5, "T": True, "O": False, "N": None, "E": ""}
    started, _ = read({"command": "x", "args": [80, "a"], "env": env})
    assert started.args == ("80", "a")
    assert started.env == {"I": "1", "F": "1.5", "T": "true", "O": "false", "E": ""}
    assert read({"httpUrl": "https://h", "headers": {"A": None, "B": 2}})[0].headers == {"B": "2"}


def test_an_empty_list_in_the_place_of_variables_is_none_of_them() -> None:
    assert read({"command": "x", "env": []})[0].env == {}


def test_a_number_longer_than_python_prints_is_refused() -> None:
    assert reason({"command": "x", "env": {"A": 10**5000}}) == "env.A is too long a number"


def test_a_null_is_the_same_as_nothing() -> None:
    spec, findings = read({"command": "x", "url": None, "disabled": None, "timeout": None, "tools": None, "odd": None})
    assert (spec.disabled, spec.timeout, spec.tools, findings) == (False, None, ToolRules(), ())


@pytest.mark.parametrize(
    ("switches", "disabled"),
    [
        ({}, False),
        ({"disabled": True}, True),
        ({"enabled": False}, True),
        ({"isActive": False}, True),
        ({"disabled": False, "enabled": True, "isActive": True}, False),
        ({"disabled": False, "enabled": True, "isActive": None}, False),
        ({"disabled": False, "enabled": False}, True),
        ({"isActive": False, "enabled": True}, True),
    ],
)
def test_one_switch_that_says_off_is_enough(switches: dict[str, Any], disabled: bool) -> None:
    assert read({"command": "x", **switches})[0].disabled is disabled


@pytest.mark.parametrize(
    ("rules", "allow", "deny"),
    [
        ({}, ("*",), ()),
        ({"tools": ["a", "b_*"]}, ("a", "b_*"), ()),
        ({"tools": []}, (), ()),
        ({"tools": {"allow": ["a"], "deny": ["b"]}}, ("a",), ("b",)),
        ({"tools": {"deny": ["b"]}}, ("*",), ("b",)),
        ({"tools": {"deny": ["b"]}, "disabledTools": ["c"]}, ("*",), ("b", "c")),
        ({"tools": {"allow": ["a"], "deny": ["b"]}, "excludeTools": ["c"]}, ("a",), ("b", "c")),
        ({"enabled_tools": ["a"], "disabled_tools": ["b"]}, ("a",), ("b",)),
        ({"includeTools": ["a"], "disabledTools": ["b"]}, ("a",), ("b",)),
        ({"disabledTools": ["a"], "excludeTools": ["b"], "disabled_tools": ["c"]}, ("*",), ("a", "b", "c")),
    ],
)
def test_tools_are_allowed_and_denied(rules: dict[str, Any], allow: tuple[str, ...], deny: tuple[str, ...]) -> None:
    assert read({"command": "x", **rules})[0].tools == ToolRules(allow, deny)


def test_tools_are_shown_otherwise_and_pinned() -> None:
    fixed = {"repo": "${HOST}/x", "limit": 5, "deep": {"text": "${HOST}"}, "none": None}
    override = {"name": "find", "title": "Find", "description": "d", "fixed": fixed, "hidden": ["debug"]}
    rules = read({"command": "x", "tools": {"override": {"search": override}, "pin": True}})[0].tools
    filled = {**fixed, "repo": "h.example/x"}
    assert rules.override == {"search": ToolOverride("find", "Find", "d", filled, ("debug",))}
    assert rules.pin is True


def test_a_variable_in_a_filled_in_argument_is_not_expanded_when_it_came_over_the_api() -> None:
    entry = {"command": "x", "tools": {"override": {"a": {"fixed": {"k": "${TOKEN}"}}}}}
    assert read(entry, None)[0].tools.override["a"].fixed == {"k": "${TOKEN}"}


def test_the_remaining_keys_are_read() -> None:
    spec, findings = read(
        {
            "command": "x",
            "group": "search",
            "timeout": 600,
            "connect_timeout": 2.5,
            "max_concurrency": 4,
            "retry": {"max": 0, "idempotent": ["get_*"], "trust_annotations": True},
            "description": "finds things",
            "provider": "acme",
        }
    )
    assert findings == ()
    assert (spec.group, spec.timeout, spec.connect_timeout, spec.max_concurrency) == ("search", 600.0, 2.5, 4)
    assert spec.retry == RetryRules(0, ("get_*",), True)
    assert (spec.description, spec.provider, dict(spec.extra)) == ("finds things", "acme", {})


@pytest.mark.parametrize(
    ("entry", "field", "grade", "part"),
    [
        ({"timeout": 30000}, "timeout", "manual", "looks like milliseconds"),
        ({"timeout": 601}, "timeout", "manual", "looks like milliseconds"),
        ({"connect_timeout": 601}, "connect_timeout", "manual", "looks like milliseconds"),
        ({"timeoutSeconds": 3600}, "timeoutSeconds", "approximate", "600 seconds"),
        ({"arg": ["x"]}, "arg", "unsupported", "did you mean args?"),
        ({"größe": 5}, "'größe'", "unsupported", "not known"),
        ({"time_out": 5}, "time_out", "unsupported", "did you mean timeout?"),
        ({"envFile": ".env"}, "envFile", "unsupported", "not known"),
        ({"disabledTool": ["b"]}, "disabledTool", "unsupported", "did you mean disabledTools?"),
        ({"retry": {"maximum": 3}}, "retry.maximum", "unsupported", "not known"),
        ({"retry": {"maxx": 1}}, "retry.maxx", "unsupported", "did you mean retry.max?"),
        ({"headers": {"A": "${NOPE}"}}, "headers", "unsupported", "means nothing"),
        ({"group": "a b"}, "group", "approximate", "a-b"),
        ({"env_vars": ["NOPE"]}, "env_vars", "approximate", "NOPE is not set"),
        ({"name": "other"}, "name", "approximate", "the key it stands under"),
    ],
)
def test_what_is_not_taken_as_written_is_said(entry: dict[str, Any], field: str, grade: str, part: str) -> None:
    spec, (finding,) = read({"command": "x", **entry})
    assert (finding.server, finding.field, finding.grade, finding.source) == ("x", field, grade, "f.json")
    assert part in finding.message
    assert (spec.timeout, spec.connect_timeout) in [(None, None), (600.0, None)]


@pytest.mark.parametrize("key", ["autoApprove", "alwaysAllow", "trust"])
def test_what_a_client_asks_its_user_is_kept_and_said(key: str) -> None:
    spec, (finding,) = read({"command": "x", key: True})
    assert spec.extra == {key: True}
    assert (finding.field, finding.grade) == (key, "approximate")
    assert "client" in finding.message


@pytest.mark.parametrize("key", ["args", "env", "cwd"])
def test_what_only_a_started_server_needs_is_reported_at_a_called_one(key: str) -> None:
    value = {"args": ["-y"], "env": {"A": "s3cret"}, "cwd": "/"}[key]
    spec, (finding,) = read({"url": "https://h/sse", key: value})
    assert (finding.field, finding.grade) == (key, "unsupported")
    assert (spec.args, dict(spec.env), spec.cwd) == ((), {}, None)


def test_keys_of_the_other_kind_of_server_go_unmentioned_when_they_are_empty() -> None:
    assert read({"httpUrl": "https://h", "env": {}, "args": [], "cwd": ""})[1] == ()


def test_unknown_keys_are_kept_and_one_that_is_near_to_none_is_only_named() -> None:
    spec, findings = read({"command": "x", "autoApprove": ["a"], "odd": {"k": 1}, "oauth": {"id": 1}})
    assert dict(spec.extra) == {"autoApprove": ["a"], "odd": {"k": 1}, "oauth": {"id": 1}}
    assert not any("did you mean" in found.message for found in findings)


def test_secrets_do_not_stand_in_the_repr_of_a_server() -> None:
    started, _ = read({"command": "x", "args": ["${TOKEN}"], "env": {"A": "${TOKEN}"}})
    called, _ = read({"url": "https://h/sse?key=${TOKEN}", "headers": {"A": "${TOKEN}"}})
    assert "s3cret" not in repr((started, called))
