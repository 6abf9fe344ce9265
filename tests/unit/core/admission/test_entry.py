from __future__ import annotations

from typing import Any

import pytest

from mcp_proxy.base.errors import COMMAND_NOT_ALLOWED, UNPROCESSABLE, ProxyError
from mcp_proxy.config.entry import _RETRY_KEYS
from mcp_proxy.config.model import RetryRules, ServerSpec, ToolRules, Transport
from mcp_proxy.core.admission.commands import CommandTemplates
from mcp_proxy.core.admission.entry import check_entry

COMMANDS = CommandTemplates(["uvx mcp-server-time --local-timezone {tz}"])
URL = "https://tools.example/mcp"
STARTED = {"command": "uvx", "args": ["mcp-server-time", "--local-timezone", "UTC"]}


def read(entry: Any, name: str = "mod") -> ServerSpec:
    return check_entry(name, entry, COMMANDS, "the API")


def refusal(entry: Any, name: str = "mod") -> ProxyError:
    with pytest.raises(ProxyError) as raised:
        read(entry, name)
    assert "\n" not in raised.value.message
    return raised.value


def refused_field(entry: Any, name: str = "mod") -> str:
    error = refusal(entry, name)
    assert (error.kind, error.status) == (UNPROCESSABLE, 422)
    assert error.details is not None
    assert error.details["server"] == name
    assert error.details["field"] in error.message
    return str(error.details["field"])


def test_a_server_that_is_called_with_everything_that_can_be_written() -> None:
    spec = read({
        "type": "http", "url": URL, "headers": {"Authorization": "Bearer k"}, "group": "search", "disabled": True,
        "timeout": 30, "connect_timeout": 2, "max_concurrency": 4, "tools": {"allow": ["a*"], "deny": ["ab"]},
        "retry": {"max": 2, "idempotent": ["a*"], "trust_annotations": True}, "description": "d", "name": "mod",
    })  # fmt: skip
    assert spec == ServerSpec(
        "mod", Transport.STREAMABLE_HTTP, "the API", url=URL, headers={"Authorization": "Bearer k"}, group="search",
        disabled=True, timeout=30, connect_timeout=2, max_concurrency=4, tools=ToolRules(("a*",), ("ab",)),
        retry=RetryRules(2, ("a*",), True), description="d", extra={"name": "mod"},
    )  # fmt: skip


def test_a_server_that_is_started() -> None:
    spec = read({**STARTED, "env": {"API_KEY": "k"}})
    assert (spec.transport, spec.command, spec.args[-1], spec.env) == (Transport.STDIO, "uvx", "UTC", {"API_KEY": "k"})


def test_a_command_in_one_list_is_the_same_command() -> None:
    assert read({"command": ["uvx", "mcp-server-time", "--local-timezone", "UTC"]}).args == tuple(STARTED["args"])
    assert refusal({"command": ["uvx", "mcp-server-time", "--from"], "args": ["x"]}).kind is COMMAND_NOT_ALLOWED


def test_variables_stay_as_they_are_written() -> None:
    spec = read({"url": URL, "headers": {"X-Key": "${HOME} ${env:HOME} $$"}})
    assert spec.headers == {"X-Key": "${HOME} ${env:HOME} $$"}
    assert read({**STARTED, "env": {"KEY": "${HOME:-x}"}}).env == {"KEY": "${HOME:-x}"}


@pytest.mark.parametrize("key", ["headres", "foo", "Url2", "max_concurency", "replica_set", "source", "extra"])
def test_an_unknown_key_is_named(key: str) -> None:
    assert refused_field({"url": URL, key: "x"}) == key


def test_a_misspelt_key_is_told_its_nearest() -> None:
    said = refusal({"url": URL, "headres": {}}).message
    assert said == "'mod': headres not known here; did you mean headers?"
    assert "tools.allow" not in refusal({"url": URL, "tool": {}}).message


def test_an_unknown_key_of_any_length_and_form_is_named_in_one_short_line() -> None:
    error = refusal({"url": URL, "a\n\x1b" * 10_000: 1})
    assert len(error.message) + len(str(error.details)) < 500


def test_unknown_keys_of_what_is_nested_are_named_as_well() -> None:
    assert refused_field({"url": URL, "retry": {"maxx": 1}}) == "retry.maxx"
    assert "tools.alow" in refusal({"url": URL, "tools": {"alow": []}}).message
    assert refused_field({"transport": {"type": "http", "url": URL, "x": 1}}) == "x"
    assert set(_RETRY_KEYS) == {"max", "idempotent", "trust_annotations"}


@pytest.mark.parametrize(
    ("entry", "field"),
    [
        ({**STARTED, "headers": {"X": "y"}}, "headers"), ({"url": URL, "env": {"A": "b"}}, "env"),
        ({"url": URL, "args": ["x"]}, "args"), ({"url": URL, "cwd": "/tmp"}, "cwd"), ({**STARTED, "cwd": "/tmp"}, "cwd"),
        ({**STARTED, "working_dir": "/tmp"}, "cwd"), ({"url": URL, "timeout": 30_000}, "timeout"),
        ({"url": URL, "group": "no such name!"}, "group"),
    ],
)  # fmt: skip
def test_what_would_be_left_out_or_made_to_fit_in_a_file_is_refused(entry: dict[str, Any], field: str) -> None:
    assert refused_field(entry) == field
    assert "not used" not in refusal(entry).message


@pytest.mark.parametrize("header", ["Host", "host", "Content-Length", "Transfer-Encoding", "Connection", "Expect"])
def test_headers_that_belong_to_the_connection_are_refused(header: str) -> None:
    assert refused_field({"url": URL, "headers": {header: "x"}}) == f"headers.{header}"


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({}, "neither command nor url"), ({"command": "uvx", "url": URL}, "both command and url"),
        ({"url": "ftp://x"}, "must begin with http"), ({"url": URL, "timeout": "1"}, "timeout must be"),
        ({"url": URL, "disabled": "no"}, "disabled must be true or false"), ({"url": 5}, "url must be text"),
        ({"url": URL, "type": "carrier-pigeon"}, "type is not a known transport"),
        ({"url": URL, "bearer_token_env_var": "HOME"}, "in files only"), ({**STARTED, "env_vars": ["HOME"]}, "in files only"),
        ({"url": URL, "env_http_headers": {"X": "HOME"}}, "in files only"),
        ({"url": URL, "headers": {"X": "a\r\nb"}}, "control character"), ({"command": "a\0b"}, "cannot be passed on"),
        ([], "must be an object"), ("https://x", "must be an object"), (None, "must be an object"),
        ({"url": "http://me:hidden@x/"}, "user name or password"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_says_why(entry: Any, said: str) -> None:
    error = refusal(entry)
    assert (error.kind, error.details) == (UNPROCESSABLE, {"server": "mod"})
    assert said in error.message
    assert "hidden" not in error.message


@pytest.mark.parametrize("name", ["", "a b", "a.b", "ä", "x" * 65, "mcp", "hook", "v1", "api", "a/b", "../x", "a\n"])
def test_a_name_that_does_not_fit_is_refused(name: str) -> None:
    error = refusal({"url": URL}, name)
    assert (error.kind, error.details) == (UNPROCESSABLE, {"server": name[:64], "field": "name"})


@pytest.mark.parametrize("inner", ["other", 5, ["mod"]])
def test_a_name_inside_the_entry_is_the_same_or_refused(inner: object) -> None:
    assert refused_field({"url": URL, "name": inner}) == "name"


@pytest.mark.parametrize("more", [{}, {"bogus": 1}, {"cwd": "/"}, {"env": {"PATH": "/tmp"}}, {"headers": {"X": "y"}}])
def test_a_command_that_is_not_allowed_is_forbidden_before_anything_else_is_said(more: dict[str, Any]) -> None:
    error = refusal({"command": "sh", "args": ["-c", "id"], **more})
    assert (error.kind, error.status) == (COMMAND_NOT_ALLOWED, 403)


def test_a_variable_that_steers_an_allowed_command_is_named() -> None:
    error = refusal({**STARTED, "env": {"UV_INDEX_URL": "http://evil.example"}})
    assert (error.kind, error.details) == (UNPROCESSABLE, {"field": "env.UV_INDEX_URL"})


def test_keys_that_only_say_what_a_client_asks_its_user_may_stay() -> None:
    assert read({"url": URL, "autoApprove": ["x"], "alwaysAllow": [], "trust": False, "provider": "p"}).url == URL
