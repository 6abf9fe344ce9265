"""A server as people are shown it: canonical keys, no secrets."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mcp_proxy.config.describe import MASK, describe
from mcp_proxy.config.dialects import parse_servers
from mcp_proxy.config.model import ServerSpec


def read(entry: dict[str, Any]) -> ServerSpec:
    servers = parse_servers({"mcpServers": {"x": entry}}, "f.json", {"T": "s3cret"}, "f")
    assert servers.refused == ()
    return servers.specs[0]


def test_values_of_env_headers_and_query_are_masked_and_their_names_stay() -> None:
    shown = describe(read({"type": "sse", "url": "https://h/p?key=s3cret&a=s3cret", "headers": {"A": "s3cret"}}))
    assert shown["url"] == f"https://h/p?key={MASK}&a={MASK}"
    assert shown["headers"] == {"A": MASK}
    assert describe(read({"command": "a", "env": {"K": "s3cret"}}))["env"] == {"K": MASK}


def test_where_a_variable_was_filled_in_its_reference_is_shown() -> None:
    shown = describe(read({"command": "${T}/run", "args": ["a", "${T}"], "working_dir": "/${T}"}))
    assert (shown["command"], shown["args"], shown["cwd"]) == ("${T}/run", ["a", "${T}"], "/${T}")
    assert describe(read({"type": "http", "serverUrl": "https://h/${T}/mcp"}))["url"] == "https://h/${T}/mcp"
    assert describe(read({"type": "http", "command": "https://h/${T}/mcp"}))["url"] == "https://h/${T}/mcp"


def test_a_dialect_is_shown_in_the_canonical_keys() -> None:
    shown = describe(
        read({"type": "local", "command": ["bun", "x"], "environment": {"A": "b"}, "enabled": False, "timeout": 5})
    )
    assert shown["transport"] == "stdio"
    assert (shown["command"], shown["args"], shown["env"]) == ("bun", ["x"], {"A": MASK})
    assert shown["disabled"] is True
    assert shown["timeout"] == 5.0
    assert not {"url", "headers", "environment", "enabled"} & set(shown)


def test_what_is_shown_can_be_read_again_as_the_same_server() -> None:
    spec = read(
        {
            "type": "http",
            "url": "https://h/mcp",
            "group": "g",
            "tools": {"allow": ["a*"], "deny": ["ab"]},
            "retry": {"max": 2, "idempotent": ["a"], "trust_annotations": True},
            "connect_timeout": 3,
            "max_concurrency": 7,
            "description": "d",
        }
    )
    again = read(describe(spec))
    assert describe(again) == describe(spec)
    assert (again.tools, again.retry, again.group) == (spec.tools, spec.retry, spec.group)


@given(st.text(alphabet="0123456789", min_size=12))
def test_no_secret_is_shown(digits: str) -> None:
    secret = f"s3{digits}"
    remote = read({"type": "http", "url": f"https://h/?a={secret}#{secret}", "headers": {"A": secret}})
    local = read({"command": "a", "env": {"A": secret}, "unknown": secret})
    assert secret not in json.dumps([describe(remote), describe(local)])
