from __future__ import annotations

import pytest

from mcp_proxy.base.errors import COMMAND_NOT_ALLOWED, UNPROCESSABLE, ProxyError, StartError
from mcp_proxy.core.admission.commands import CommandTemplates

TEMPLATES = CommandTemplates(
    ["uvx mcp-server-time --local-timezone {tz}", "npx -y @scope/server@1.2.3", "tool 'two words' {a} {b}"]
)


def refusal(*given: str, env: dict[str, str] | None = None, templates: CommandTemplates = TEMPLATES) -> ProxyError:
    with pytest.raises(ProxyError) as raised:
        templates.check(given[0], given[1:], env or {})
    return raised.value


@pytest.mark.parametrize(
    "given",
    [
        ("uvx", "mcp-server-time", "--local-timezone", "Europe/Berlin"),
        ("uvx", "mcp-server-time", "--local-timezone", "a b; rm -rf $(x) {tz}"),
        ("npx", "-y", "@scope/server@1.2.3"),
        ("tool", "two words", "1", "/srv/ä"),
    ],
)
def test_a_command_that_fits_a_template_is_accepted(given: tuple[str, ...]) -> None:
    TEMPLATES.check(given[0], given[1:], {})


@pytest.mark.parametrize(
    "given",
    [
        ("sh", "-c", "id"), ("uvx",), ("uvx", "mcp-server-time"), ("uvx", "mcp-server-time", "--local-timezone"),
        ("uvx", "mcp-server-time", "--local-timezone", "UTC", "more"),
        ("uvx", "mcp-server-time", "--local-timezone", "a", "b"),
        ("uvx", "mcp-server-time", "--local-timezone", "-x"), ("uvx", "mcp-server-time", "--local-timezone", "--from"),
        ("uvx", "mcp-server-time", "--local-timezone", ""), ("uvx", "mcp-server-time", "--local-timezone", "a\0b"),
        ("uvx", "mcp-server-time", "--local-timezone", "a\n"), ("uvx", "mcp-server-time", "--local-timezone", "\na"),
        ("uvx", "mcp-server-time", "--local-timezone", "a\rb"),
        ("uvx", "mcp-server-time ", "--local-timezone", "UTC"), ("UVX", "mcp-server-time", "--local-timezone", "UTC"),
        ("/tmp/uvx", "mcp-server-time", "--local-timezone", "UTC"), ("./npx", "-y", "@scope/server@1.2.3"),
        ("npx -y @scope/server@1.2.3",), ("npx", "-y", "@scope/server@1.2.4"), ("npx", "-y @scope/server@1.2.3"),
        ("npx", "@scope/server@1.2.3", "-y"), ("tool", "two", "words", "1", "2"), ("tool", "two words", "1"), ("",),
    ],
)  # fmt: skip
def test_any_other_command_is_forbidden(given: tuple[str, ...]) -> None:
    error = refusal(*given)
    assert (error.kind, error.status) == (COMMAND_NOT_ALLOWED, 403)
    assert "MCP_PROXY_API_COMMANDS" in error.message


@pytest.mark.parametrize("templates", [(), ("", "  ")])
def test_without_templates_there_is_no_command_that_fits(templates: tuple[str, ...]) -> None:
    for given in (("uvx", "mcp-server-time"), ("",)):
        assert refusal(*given, templates=CommandTemplates(templates)).kind is COMMAND_NOT_ALLOWED


@pytest.mark.parametrize("word", ["{}", "{a b}", "{1}", '{"a": 1}'])
def test_braces_that_name_nothing_stand_for_themselves(word: str) -> None:
    templates = CommandTemplates([f"tool '{word}'"])
    templates.check("tool", [word], {})
    assert refusal("tool", "other", templates=templates).kind is COMMAND_NOT_ALLOWED


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("uvx 'x", "not closed"), ("uvx x\\", "not closed"), ("tool --zone={tz}", "argument of its own"),
        ("tool {a}{b}", "argument of its own"), ("{program} x", "cannot be a placeholder"),
        ("'{program}'", "cannot be a placeholder"), ("/opt/{name}/bin x", "argument of its own"),
    ],
)  # fmt: skip
def test_a_malformed_template_stops_the_start_in_one_line(template: str, reason: str) -> None:
    with pytest.raises(StartError) as raised:
        CommandTemplates(["uvx good", template])
    assert str(raised.value).startswith("MCP_PROXY_API_COMMANDS has ")
    assert reason in str(raised.value)
    assert "\n" not in str(raised.value)


STEERING = [
    "LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "DYLD_INSERT_LIBRARIES", "GLIBC_TUNABLES", "GCONV_PATH",
    "PATH", "HOME", "XDG_CONFIG_HOME", "TMPDIR", "SHELL", "BASH_ENV", "BASH_FUNC_ls%%", "ENV", "SHELLOPTS", "IFS", "PS4",
    "PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME", "PYTHONWARNINGS", "NODE_OPTIONS", "NODE_PATH", "NODE_EXTRA_CA_CERTS",
    "PERL5LIB", "PERL5OPT", "PERLLIB", "RUBYOPT", "RUBYLIB", "GEM_HOME", "BUNDLE_GEMFILE", "PHPRC", "PHP_INI_SCAN_DIR",
    "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "CLASSPATH", "DOTNET_STARTUP_HOOKS", "CORECLR_PROFILER",
    "GIT_SSH", "GIT_SSH_COMMAND", "GIT_EXEC_PATH", "GIT_CONFIG_COUNT", "GIT_CONFIG_KEY_0", "GIT_PROXY_COMMAND",
    "GIT_EDITOR", "SSH_ASKPASS", "EDITOR", "VISUAL", "PAGER", "MANPAGER", "BROWSER", "DOCKER_HOST", "DOCKER_CONFIG",
    "CONTAINER_HOST", "UV_INDEX_URL", "UV_DEFAULT_INDEX", "PIP_INDEX_URL", "NPM_CONFIG_REGISTRY", "npm_config_registry",
    "npm_config_node_options", "YARN_REGISTRY", "COREPACK_NPM_REGISTRY", "GOFLAGS", "GOPROXY", "CARGO_HOME", "RUSTC",
    "RUSTC_WRAPPER", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "SSL_CERT_FILE", "SSLKEYLOGFILE", "REQUESTS_CA_BUNDLE",
    "OPENSSL_CONF", "OPENSSL_MODULES", "ld_preload", "Path", "LESSOPEN", "NODE_ENV_FILE",
]  # fmt: skip
FREE = [
    "API_KEY", "GITHUB_TOKEN", "GITHUB_PERSONAL_ACCESS_TOKEN", "LOCAL_TIMEZONE", "TZ", "LANG", "DEBUG", "LOG_LEVEL",
    "MY_PATH", "DATABASE_URL", "OPENAI_API_KEY", "GOOGLE_API_KEY", "GIT_AUTHOR_NAME", "GIT_COMMITTER_EMAIL", "ENVIRONMENT",
    "WORLD_NAME", "SLACK_BOT_TOKEN", "ALLOWED_DIRS", "REDIS_URL", "AWS_REGION", "PORT", "NODE_ENV",
]  # fmt: skip


@pytest.mark.parametrize("name", STEERING)
def test_a_variable_that_can_change_what_runs_is_refused_by_its_name_and_without_its_value(name: str) -> None:
    error = refusal("npx", "-y", "@scope/server@1.2.3", env={"API_KEY": "k", name: "secret-value"})
    assert error.kind is UNPROCESSABLE
    assert repr(name) in error.message
    assert error.details == {"field": f"env.{name}"}
    assert "secret-value" not in error.message


@pytest.mark.parametrize("name", FREE)
def test_any_other_variable_is_a_matter_of_the_server(name: str) -> None:
    TEMPLATES.check("npx", ["-y", "@scope/server@1.2.3"], {name: "x"})


def test_a_command_that_is_not_allowed_is_forbidden_whatever_its_variables() -> None:
    assert refusal("sh", "-c", "id", env={"LD_PRELOAD": "/tmp/x.so"}).kind is COMMAND_NOT_ALLOWED
