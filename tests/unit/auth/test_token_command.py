"""``mcp-proxy-api token`` and the two scripts that are the same program."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jwt
import pytest
from click.testing import CliRunner

from mcp_proxy.base.errors import StartError
from mcp_proxy.cli.token import parse_ttl
from mcp_proxy.cli.token import token as command
from mcp_proxy.core.auth.claims import COUNTS
from mcp_proxy.core.auth.revocation import Revocations

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = str(ROOT / "scripts" / "generate_token.py")


@pytest.fixture
def run(monkeypatch, tmp_path, secret):
    """Run the command in an empty directory with JWT_SECRET (or other variables) set."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("MCP_PROXY_", "JWT_")):
            monkeypatch.delenv(name)

    def invoke(*arguments, **environ):
        return CliRunner().invoke(command, arguments, env={"JWT_SECRET": secret, **environ})

    return invoke


def claims_of(result, secret):
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    assert result.stdout.count("\n") == 1
    return jwt.decode(result.stdout.strip(), secret, algorithms=["HS256"], options={"verify_aud": False})


def stopped(result):
    """The one line on stderr of a run that failed."""
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert isinstance(result.exception, SystemExit)
    return result.stderr


def test_a_bare_call_prints_a_token_for_an_hour_alone_on_stdout(run, secret):
    claims = claims_of(run(), secret)
    assert claims["sub"] == "user"
    assert claims["exp"] - claims["iat"] == 3600
    assert len(claims["jti"]) == 32
    assert set(claims) == {"sub", "iat", "exp", "jti"}


def test_every_option_reaches_the_token(run, secret):
    claims = claims_of(
        run("--sub", "alice", "--scope", "tools:read tools:call", "--scope", "logs:read", "--servers", "a,b",
            "--servers", "c", "--tools", "calc.*", "--models", "fast", "--rate", "30", "--ttl", "15m", "--jti", "t-1",
            "--compact", "--rpm", "1", "--tpm", "2", "--max-parallel", "3", "--budget-tokens", "400000000000",
            "--max-tokens", "5"),
        secret,
    )  # fmt: skip
    assert claims["scope"] == "tools:read tools:call logs:read"
    assert (claims["servers"], claims["tools"], claims["models"]) == (["a", "b", "c"], ["calc.*"], ["fast"])
    assert (claims["sub"], claims["rate"], claims["jti"]) == ("alice", 30, "t-1")
    assert {name: claims[name] for name in COUNTS} == {
        "rate": 30, "rpm": 1, "tpm": 2, "max_parallel": 3, "budget_tokens": 400_000_000_000, "max_tokens": 5,
    }  # fmt: skip
    assert claims["exp"] - claims["iat"] == 900
    assert claims["listing"] == "compact"


def test_an_option_given_empty_narrows_to_nothing(run, secret):
    claims = claims_of(run("--scope", "", "--servers", ""), secret)
    assert (claims["scope"], claims["servers"]) == ("", [])


def test_configured_issuer_audience_and_longest_life_shape_the_token(run, secret):
    environ = {"MCP_PROXY_JWT_ISSUER": "me", "MCP_PROXY_JWT_AUDIENCE": "proxy", "MCP_PROXY_JWT_MAX_TTL": "600"}
    claims = claims_of(run(**environ), secret)
    assert (claims["iss"], claims["aud"], claims["exp"] - claims["iat"]) == ("me", "proxy", 600)
    assert "MCP_PROXY_JWT_MAX_TTL" in stopped(run("--ttl", "1h", **environ))


def test_the_secret_may_stand_in_a_dotenv_file(run, secret, tmp_path):
    (tmp_path / ".env").write_text(f"JWT_SECRET='{secret[::-1]}'\n")
    claims_of(run(JWT_SECRET=None), secret[::-1])


@pytest.mark.parametrize(
    ("arguments", "environ", "word"),
    [
        ([], {"JWT_SECRET": ""}, "JWT_SECRET is not set"),
        ([], {"JWT_SECRET": "your-secret-key"}, "placeholder"),
        ([], {"JWT_ALGORITHM": "none"}, "JWT_ALGORITHM"),
        ([], {"JWT_ALGORITHM": "RS256"}, "--key-file"),
        (["--scope", "root"], {}, "not a scope"),
        (["--ttl", "soon"], {}, "accepted: 90, 90s, 15m, 1h, 7d"),
        (["--ttl", "0"], {}, "--ttl"),
        (["--rate", "many"], {}, "--rate"),
        (["--rate", "0"], {}, "--rate"),
        (["--rpm", "-1"], {}, "--rpm"),
        (["--tpm", "1.5"], {}, "--tpm '1.5' is not a number of tokens"),
        (["--max-parallel", "0"], {}, "--max-parallel"),
        (["--budget-tokens", "10000000000000"], {}, "--budget-tokens"),
        (["--max-tokens", "٣"], {}, "--max-tokens"),
        (["--sub", ""], {}, "--sub"),
        (["revoke", ""], {}, "256"),
        (["--bogus"], {}, "--bogus"),
        (["nosuch"], {}, "nosuch"),
        (["--sub"], {}, "--sub"),
        (["revoke"], {}, "JTI"),
        (["revoke", "a", "b"], {}, "extra argument"),
        (["revoke", "--bogus", "a"], {}, "--bogus"),
    ],
)
def test_an_error_is_one_line_and_exit_code_two(run, arguments, environ, word):
    assert word in stopped(run(*arguments, **environ))


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("1h", 3600), ("7d", 604_800)])
def test_times_have_units(text, seconds):
    assert parse_ttl(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "1w", "1.5h", "-1h", "1h30m", "١h"])
def test_other_times_are_refused(text):
    with pytest.raises(StartError):
        parse_ttl(text)


def test_revoking_says_what_it_did_on_stderr(run, tmp_path):
    first, second = run("revoke", "t-1"), run("revoke", "t-1")
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert first.stdout == ""
    assert "t-1 is now revoked" in first.stderr
    assert "was revoked before" in second.stderr
    assert Revocations(tmp_path / ".mcp-proxy").is_revoked("t-1")


def test_revoking_takes_the_state_directory_from_option_or_environment(run, tmp_path):
    assert run("revoke", "a", "--state-dir", str(tmp_path / "one")).exit_code == 0
    assert run("revoke", "b", MCP_PROXY_STATE_DIR=str(tmp_path / "two")).exit_code == 0
    assert Revocations(tmp_path / "one").is_revoked("a")
    assert Revocations(tmp_path / "two").is_revoked("b")


def test_revoking_needs_no_secret(run):
    assert run("revoke", "a", JWT_SECRET=None).exit_code == 0


def test_a_damaged_list_is_reported_in_one_line(run, tmp_path):
    (tmp_path / "revoked.json").write_text("{")
    assert "damaged" in stopped(run("revoke", "a", "--state-dir", str(tmp_path)))


def test_help_has_examples_and_scopes(run):
    text = run("--help").stdout
    assert "mcp-proxy-api token --sub alice" in text
    assert "servers:write" in text
    assert "revoke" in text


@pytest.mark.parametrize("program", [["-m", "mcp_proxy.scripts.generate_token"], [SCRIPT]])
def test_the_scripts_are_the_same_program(program, secret, tmp_path):
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MCP_PROXY_", "JWT_"))}
    result = subprocess.run(
        [sys.executable, "-W", "error", *program, "--sub", "bob"],
        cwd=tmp_path, env={**environ, "JWT_SECRET": secret}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")
    assert jwt.decode(result.stdout.strip(), secret, algorithms=["HS256"])["sub"] == "bob"


def test_the_command_needs_none_of_the_services_libraries():
    program = (
        "import sys; import mcp_proxy.cli.token; "
        "print(sorted({'quart', 'mcp', 'mcp_types', 'aiohttp', 'hypercorn'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "[]"
