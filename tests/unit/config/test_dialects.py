"""One realistic example per client, and what documents may look like."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_proxy.config.dialects import parse_servers
from mcp_proxy.config.model import ConfigError, Grade, Servers, Transport

ENVIRON = {"GITHUB_TOKEN": "ghp_123", "MCP_INPUT_PERPLEXITY_KEY": "pplx", "HOME": "/home/me"}


def parse(document: object, stem: str | None = "file") -> Servers:
    return parse_servers(document, "file.json", ENVIRON, stem)


CODEX = tomllib.loads("""
model = "gpt-5"
[mcp_servers.figma]
url = "https://mcp.figma.com/mcp"
bearer_token_env_var = "GITHUB_TOKEN"
http_headers = { "X-Region" = "us-east-1" }
env_http_headers = { "X-Home" = "HOME" }
enabled = true
enabled_tools = ["get_*"]
disabled_tools = ["get_secret"]
startup_timeout_sec = 20
tool_timeout_sec = 45
[mcp_servers.docs]
command = "npx"
args = ["-y", "docs"]
env_vars = ["HOME", "NOT_SET"]
env = { MODE = "a" }
""")

CLIENTS: dict[str, tuple[Any, dict[str, dict[str, Any]]]] = {
    "Claude Desktop": (
        {
            "globalShortcut": "Ctrl+Space",
            "mcpServers": {"files": {"command": "npx", "args": ["-y", "server-filesystem", "/tmp"]}},
        },
        {"files": {"transport": "stdio", "command": "npx", "args": ("-y", "server-filesystem", "/tmp")}},
    ),
    "Claude Code": (
        {
            "mcpServers": {
                "web": {
                    "type": "http",
                    "url": "${API_BASE:-https://api.example.com}/mcp",
                    "headers": {"Authorization": "Bearer ${GITHUB_TOKEN}"},
                },
                "old": {"type": "sse", "url": "https://old.example.com/events"},
                "local": {"command": "${HOME}/bin/run", "args": ["$HOME"], "env": {"TOKEN": "${GITHUB_TOKEN}"}},
            }
        },
        {
            "web": {
                "transport": "streamable-http",
                "url": "https://api.example.com/mcp",
                "headers": {"Authorization": "Bearer ghp_123"},
            },
            "old": {"transport": "sse"},
            "local": {"command": "/home/me/bin/run", "args": ("$HOME",), "env": {"TOKEN": "ghp_123"}},
        },
    ),
    "VS Code": (
        {
            "inputs": [{"type": "promptString", "id": "perplexity-key", "password": True}],
            "servers": {
                "perplexity": {
                    "type": "stdio",
                    "command": "npx",
                    "args": ["-y", "server-perplexity"],
                    "env": {"KEY": "${input:perplexity-key}", "PORT": 8080, "DEBUG": True, "GONE": None},
                    "cwd": "/srv",
                },
                "github": {"type": "http", "url": "https://api.githubcopilot.com/mcp"},
            },
        },
        {
            "perplexity": {"env": {"KEY": "pplx", "PORT": "8080", "DEBUG": "true"}, "cwd": "/srv"},
            "github": {"transport": "streamable-http"},
        },
    ),
    "Copilot CLI": (
        {"mcpServers": {"pw": {"type": "local", "command": "npx", "args": ["pw"], "tools": ["*"]}}},
        {"pw": {"transport": "stdio", "allow": ("*",)}},
    ),
    "Cursor": (
        {
            "mcpServers": {
                "remote": {"url": "https://c.example/mcp", "headers": {"Authorization": "${env:GITHUB_TOKEN}"}},
                "typed": {"type": "streamableHttp", "url": "https://c.example/mcp"},
            }
        },
        {
            "remote": {"transport": "auto", "headers": {"Authorization": "ghp_123"}},
            "typed": {"transport": "streamable-http"},
        },
    ),
    "Windsurf": (
        {"mcpServers": {"w": {"serverUrl": "https://w.example/sse"}}},
        {"w": {"transport": "sse", "url": "https://w.example/sse"}},
    ),
    "Cline": (
        {
            "mcpServers": {
                "c": {
                    "type": "streamableHttp",
                    "url": "https://c.example/x",
                    "disabled": True,
                    "autoApprove": ["add"],
                    "timeout": 120,
                },
                "legacy": {"transportType": "http", "url": "https://c.example/x"},
            }
        },
        {
            "c": {"transport": "streamable-http", "disabled": True, "timeout": 120.0},
            "legacy": {"transport": "streamable-http"},
        },
    ),
    "Roo Code": (
        {
            "mcpServers": {
                "r": {
                    "type": "streamable-http",
                    "url": "https://r.example/x",
                    "alwaysAllow": [],
                    "disabledTools": ["rm"],
                }
            }
        },
        {"r": {"transport": "streamable-http", "deny": ("rm",)}},
    ),
    "Gemini CLI": (
        {
            "mcp": {"allowed": ["g"]},
            "mcpServers": {
                "g": {
                    "httpUrl": "https://g.example/mcp",
                    "trust": True,
                    "includeTools": ["a", "b"],
                    "excludeTools": ["b"],
                    "timeout": 30000,
                }
            },
        },
        {"g": {"transport": "streamable-http", "allow": ("a", "b"), "deny": ("b",), "timeout": None}},
    ),
    "Codex": (
        CODEX,
        {
            "figma": {
                "transport": "auto",
                "headers": {"Authorization": "Bearer ghp_123", "X-Region": "us-east-1", "X-Home": "/home/me"},
                "allow": ("get_*",),
                "deny": ("get_secret",),
                "connect_timeout": 20.0,
                "timeout": 45.0,
            },
            "docs": {"transport": "stdio", "env": {"HOME": "/home/me", "MODE": "a"}},
        },
    ),
    "opencode": (
        {
            "$schema": "https://opencode.ai/config.json",
            "mcp": {
                "l": {"type": "local", "command": ["bun", "x", "srv"], "environment": {"A": "b"}, "enabled": False},
                "r": {"type": "remote", "url": "https://o.example/mcp"},
            },
        },
        {
            "l": {"command": "bun", "args": ("x", "srv"), "env": {"A": "b"}, "disabled": True},
            "r": {"transport": "streamable-http"},
        },
    ),
    "opencode 2": (
        {"mcp": {"servers": {"r": {"type": "remote", "url": "https://o.example/mcp"}}}},
        {"r": {"transport": "streamable-http", "disabled": False}},
    ),
    "Zed": (
        {"theme": "One", "context_servers": {"z": {"source": "custom", "command": "z", "args": [], "env": {}}}},
        {"z": {"transport": "stdio", "command": "z"}},
    ),
    "Kiro": (
        {"mcpServers": {"k": {"command": "uvx", "args": ["k"], "disabledTools": ["x"], "autoApprove": ["y"]}}},
        {"k": {"deny": ("x",)}},
    ),
    "MCP Registry remotes": (
        {
            "mcpServers": {
                "reg": {
                    "type": "streamable-http",
                    "url": "https://reg.example/mcp",
                    "headers": [{"name": "X-Key", "value": "${GITHUB_TOKEN}"}],
                }
            }
        },
        {"reg": {"transport": "streamable-http", "headers": {"X-Key": "ghp_123"}}},
    ),
    "FastMCP, bare root map": (
        {
            "weather": {"transport": "streamable-http", "url": "https://f.example/mcp"},
            "local": {"transport": "stdio", "command": "python", "args": ["s.py"], "cwd": "/srv"},
        },
        {"weather": {"transport": "streamable-http"}, "local": {"cwd": "/srv"}},
    ),
    "mcpo": (
        {
            "mcpServers": {
                "s": {"type": "streamable_http", "url": "http://127.0.0.1:8002/mcp", "disabled_tools": ["t"]},
                "e": {"type": "sse", "url": "http://127.0.0.1:8001/events"},
            }
        },
        {"s": {"transport": "streamable-http", "deny": ("t",)}, "e": {"transport": "sse"}},
    ),
    "mcp-proxy's named servers": (
        {"mcpServers": {"fetch": {"enabled": True, "command": "uvx", "args": ["mcp-server-fetch"]}}},
        {"fetch": {"disabled": False, "transport": "stdio"}},
    ),
    "MetaMCP": (
        {
            "mcpServers": {
                "h": {"type": "STREAMABLE_HTTP", "url": "https://m.example/x"},
                "e": {"type": "SSE", "url": "https://m.example/x"},
                "s": {"type": "STDIO", "command": "x"},
            }
        },
        {"h": {"transport": "streamable-http"}, "e": {"transport": "sse"}, "s": {"transport": "stdio"}},
    ),
    "ContextForge": (
        {"name": "cf", "transport": "STREAMABLEHTTP", "url": "https://cf.example/mcp"},
        {"cf": {"transport": "streamable-http"}},
    ),
    "mcpproxy-go, a list": (
        {
            "mcpServers": [
                {"name": "p", "protocol": "http", "url": "https://p.example/mcp", "enabled": True},
                {"name": "q", "protocol": "stdio", "command": "q", "working_dir": "${HOME}"},
            ]
        },
        {"p": {"transport": "streamable-http"}, "q": {"cwd": "/home/me"}},
    ),
    "MCP Router, a single entry": (
        {
            "provider": "zhipu",
            "isActive": False,
            "name": "search",
            "type": "sse",
            "command": "https://open.example.cn/mcp/sse",
            "args": [],
            "env": {},
        },
        {"search": {"transport": "sse", "url": "https://open.example.cn/mcp/sse", "command": None, "disabled": True}},
    ),
    "a nested transport": (
        {
            "mcpServers": {
                "n": {
                    "transport": {"type": "http", "url": "https://n.example/mcp", "headers": {"A": "b"}},
                    "group": "g",
                }
            }
        },
        {"n": {"transport": "streamable-http", "url": "https://n.example/mcp", "headers": {"A": "b"}, "group": "g"}},
    ),
}


@pytest.mark.parametrize("client", CLIENTS)
def test_the_dialect_of_each_client_is_read(client: str) -> None:
    document, expected = CLIENTS[client]
    servers = parse(document)
    assert servers.refused == ()
    assert [spec.name for spec in servers.specs] == list(expected)
    for spec in servers.specs:
        for key, value in expected[spec.name].items():
            found = getattr(spec.tools if key in ("allow", "deny") else spec, key)
            assert found == value, f"{spec.name}.{key}"


def findings(servers: Servers) -> set[tuple[str, str, str]]:
    return {(f.server, f.field, f.grade.value) for f in servers.findings}


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        ("Claude Desktop", {("", "globalShortcut", "approximate")}),
        ("Claude Code", set()),
        ("VS Code", {("", "inputs", "approximate")}),
        ("Cursor", {("remote", "transport", "approximate")}),
        ("Windsurf", set()),
        ("Cline", {("c", "autoApprove", "approximate")}),
        (
            "Gemini CLI",
            {("", "mcp", "approximate"), ("g", "trust", "approximate"), ("g", "timeout", "manual")},
        ),
        (
            "Codex",
            {
                ("", "model", "approximate"),
                ("figma", "transport", "approximate"),
                ("docs", "env_vars", "approximate"),
            },
        ),
        ("opencode", set()),
        ("Zed", {("", "theme", "approximate"), ("z", "source", "unsupported")}),
        ("MCP Router, a single entry", set()),
    ],
)
def test_what_could_not_be_taken_over_exactly_is_said(client: str, expected: set[tuple[str, str, str]]) -> None:
    assert findings(parse(CLIENTS[client][0])) == expected


@pytest.mark.parametrize("document", [{}, [], {"mcpServers": {}}, {"mcpServers": []}, {"mcp": {}}, {"llm": {"a": {}}}])
def test_a_document_without_servers_is_fine(document: object) -> None:
    servers = parse(document)
    assert (servers.specs, servers.refused) == ((), ())


@pytest.mark.parametrize(
    ("document", "part"),
    [
        ("text", "no servers in a known form"),
        (None, "no servers in a known form"),
        ({"ui": {"theme": "dark"}}, "no servers in a known form"),
        ({"mcpServer": {"a": {"command": "x"}}}, "did you mean mcpServers?"),
        ({"mcpServers": None}, "mcpServers must be an object or a list"),
        ({"mcpServers": "x"}, "mcpServers must be an object or a list"),
        ({"mcpServers": [1, "a"]}, "mcpServers holds no servers"),
        ([1, 2], "the list holds no servers"),
        ({"mcpServers": {"command": "npx", "args": []}}, "a server without a name"),
        ({"mcp": 5}, "mcp must be an object or a list"),
        ({"mcpServers": {"a b": {"command": "x"}, "a.b": {"command": "x"}}}, "'a b' and 'a.b'"),
        ([{"name": "a", "command": "x"}, {"name": "a", "command": "y"}], "'a' is written twice"),
        ({"mcpServers": {"a": {"command": "x"}}, "servers": {"a": {"command": "x"}}}, "'a' is written twice"),
    ],
)
def test_a_document_that_cannot_be_used_says_why_and_where(document: object, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(document)
    assert part in str(caught.value)
    assert str(caught.value).startswith("file.json: ")


def test_what_stands_beside_the_servers_below_mcp_is_said() -> None:
    servers = parse({"mcp": {"servers": {"a": {"command": "x"}}, "timeout": 5000}})
    assert findings(servers) == {("", "mcp.timeout", "approximate")}


def test_collections_in_one_document_add_up() -> None:
    servers = parse({"mcpServers": {"a": {"command": "x"}}, "servers": {"b": {"command": "x"}}})
    assert [spec.name for spec in servers.specs] == ["a", "b"]


def test_a_server_may_be_called_like_a_key() -> None:
    servers = parse({"mcpServers": {"url": {"url": "https://a.example/sse"}, "command": {"command": "x"}}})
    assert [spec.name for spec in servers.specs] == ["url", "command"]


def test_llm_beside_bare_servers_is_not_a_server() -> None:
    servers = parse({"a": {"command": "x"}, "llm": {"enabled": True}, "$schema": "s"})
    assert [spec.name for spec in servers.specs] == ["a"]
    assert findings(servers) == {("", "llm", "approximate")}


def test_a_single_entry_without_a_name_is_called_like_its_file() -> None:
    servers = parse({"command": "x"}, stem="my server")
    assert [spec.name for spec in servers.specs] == ["my-server"]
    assert servers.findings[0].message == "'my server' does not fit and is called 'my-server'"


@pytest.mark.parametrize(
    ("written", "name"),
    [("ok_1-A", "ok_1-A"), ("a b/c", "a-b-c"), ("Ünï", "-n-"), ("mcp", "mcp-server"), ("x" * 65, "x" * 64)],
)
def test_a_name_that_does_not_fit_is_fitted_and_reported(written: str, name: str) -> None:
    servers = parse({"mcpServers": {written: {"command": "x"}}})
    assert [spec.name for spec in servers.specs] == [name]
    assert [f.grade for f in servers.findings] == [Grade.APPROXIMATE] * (written != name)


@pytest.mark.parametrize(
    "document", [[{"command": "x"}], [{"name": 5, "command": "x"}], {"mcpServers": {" ": {"command": "x"}}}]
)
def test_an_entry_without_a_name_is_refused(document: object) -> None:
    (refused,) = parse(document).refused
    assert (refused.name, refused.reason) == ("unnamed-1", "has no name")


@pytest.mark.parametrize("entry", [5, "npx", None, [], True])
def test_an_entry_that_is_no_object_is_refused_alone(entry: object) -> None:
    servers = parse({"mcpServers": {"bad": entry, "good": {"command": "x"}}})
    assert [(r.name, r.reason) for r in servers.refused] == [("bad", "must be an object")]
    assert [spec.name for spec in servers.specs] == ["good"]


def test_a_refused_server_that_is_switched_off_says_so() -> None:
    servers = parse(
        {
            "mcpServers": {
                "off": {"command": "${NOPE}", "disabled": True},
                "off2": {"command": "${NOPE}", "isActive": False},
                "on": {"command": "${NOPE}"},
            }
        }
    )
    assert {r.name: r.disabled for r in servers.refused} == {"off": True, "off2": True, "on": False}


def test_a_group_called_like_a_server_refuses_its_member() -> None:
    servers = parse(
        {
            "mcpServers": {
                "a": {"command": "x", "group": "b"},
                "b": {"command": "x", "group": "g"},
                "c": {"command": "x", "group": "broken"},
                "broken": {},
                "d": {"command": "x", "group": "g"},
            }
        }
    )
    assert [spec.name for spec in servers.specs] == ["b", "d"]
    assert {r.name: r.reason for r in servers.refused} == {
        "broken": "has neither command nor url",
        "a": "group is 'b', which is the name of a server",
        "c": "group is 'broken', which is the name of a server",
    }


WORDS = [
    *("mcpServers", "servers", "mcp", "context_servers", "llm", "name", "command", "url", "httpUrl", "args", "env"),
    *("headers", "transport", "type", "disabled", "tools", "allow", "timeout", "retry", "max", "group", "value"),
    *("env_vars", "http_headers", "env_http_headers", "bearer_token_env_var", "connect_timeout", "max_concurrency"),
]
VALUES = ["http://h/sse", "https://u:p@h", "http://[", "sse", "stdio", "${A}", "${", "a", "\ud800", "\0", "mcp"]
KEYS = st.sampled_from(WORDS) | st.text(max_size=8)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(VALUES)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6), max_leaves=30
)
ENTRIES = st.dictionaries(KEYS, JSON, max_size=8)


@settings(deadline=None)
@given(JSON | st.builds(lambda entries: {"mcpServers": entries}, st.dictionaries(KEYS, ENTRIES, max_size=4)))
def test_no_document_raises_anything_but_the_documented_error(document: object) -> None:
    try:
        servers = parse(document)
    except ConfigError:
        return
    names = [*(spec.name for spec in servers.specs), *(refused.name for refused in servers.refused)]
    assert len(names) == len(set(names))
    for spec in servers.specs:
        assert (spec.command is None) != (spec.url is None)
        assert (spec.transport is Transport.STDIO) == (spec.url is None)
    for said in (*(r.reason for r in servers.refused), *(f.message + f.field for f in servers.findings)):
        assert said
        assert said.isprintable()


@settings(deadline=None)
@given(ENTRIES, st.text(min_size=12, alphabet="0123456789"))
def test_no_secret_is_repeated_in_what_is_said(entry: dict[str, Any], secret: str) -> None:
    secret = f"s3-{secret}"  # no variable is called so, and no key
    entry |= {"env": {"TOKEN": secret, "BAD": [secret]}, "headers": {"X-Key": f"{secret}\n"}}
    servers = parse({"mcpServers": {"a": entry, "b": {**entry, "env": {}}}})
    assert secret not in repr(servers)
