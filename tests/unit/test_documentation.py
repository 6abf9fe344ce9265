"""The documents say what the program does: settings, errors, commands, routes, keys; links lead somewhere, examples work.

Deployment files are `test_deployment`.
"""

from __future__ import annotations

import ast
import asyncio
import configparser
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mcp_proxy.app import create_app
from mcp_proxy.base.clock import SystemClock
from mcp_proxy.base.errors import KINDS, ORIGIN_NOT_ALLOWED, UNAUTHORIZED, UNKNOWN_HOST, StartError
from mcp_proxy.base.protocol import LEGACY_RESOURCE_NOT_FOUND
from mcp_proxy.cli import COMMANDS
from mcp_proxy.cli.check import env_file
from mcp_proxy.cli.options import default_text
from mcp_proxy.config import address, dialects, entry
from mcp_proxy.config.loader import parse_servers
from mcp_proxy.config.model import Servers
from mcp_proxy.config.syntax import parse_json, parse_toml
from mcp_proxy.core.auth.keys import load_keys
from mcp_proxy.core.auth.principal import Scope
from mcp_proxy.core.upstream.child import INHERITED
from mcp_proxy.settings import SettingInfo, Settings, setting_table
from tests.conformance.test_client_role import RUNS
from tests.conformance.test_server_role import EXPECTED_FAILURES, SCORED
from tests.conformance.upstreams import KINDS as KINDS_OF_SERVERS
from tests.harness import ROOT, ProxyProcess, make_token

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
README = (ROOT / "README.md").read_text()
CONFIG = (ROOT / "docs/reference/config.md").read_text()
ERRORS = (ROOT / "docs/reference/errors.md").read_text()
SETTINGS = (ROOT / "docs/reference/settings.md").read_text()
MCP = (ROOT / "docs/mcp.md").read_text()
CODE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
SECRET_KEY = {"SEARCH_KEY": "a-key"}
DEMO_SERVER = {"command": sys.executable, "args": ["-m", "mcp_proxy.demo"], "cwd": str(ROOT)}
NO_RPC_ERRORS = (UNAUTHORIZED, ORIGIN_NOT_ALLOWED, UNKNOWN_HOST)
"""Kinds with a code of ours that are answered by HTTP before a message is read, or never."""


def fences(text: str, *languages: str) -> Iterator[str]:
    """The fenced blocks in these languages."""
    for match in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        if match[1] in languages:
            yield match[2]


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", CODE.sub("", text))


def section(text: str, title: str) -> str:
    """What stands under a heading, up to the next one of the same level or above."""
    outline = CODE.sub(lambda match: match[0].replace("#", "."), text)  # a comment in an example is no heading
    match = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^(?!\1#)#+ |\Z)", outline, re.DOTALL | re.MULTILINE)
    assert match is not None, f"there is no section {title!r}"
    return text[match.start(2) : match.end(2)]


def anchors(text: str) -> set[str]:
    """The anchors of all headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", CODE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def in_braces(rule: str) -> str:
    """A route as people write it: ``/tools/<server>/<path:tool>`` is ``/tools/{server}/{tool}``."""
    return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule)


# Errors


def test_the_error_page_has_one_section_for_each_kind_in_the_order_of_the_table() -> None:
    assert re.findall(r"^## (\w+)$", ERRORS, re.MULTILINE) == [kind.type for kind in KINDS]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.type)
def test_the_section_of_an_error_begins_with_its_status_and_says_something(kind: Any) -> None:
    text = section(ERRORS, kind.type).strip()

    assert text.startswith(str(kind.status))
    assert len(text) > 60


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.type != "conflict"], ids=lambda kind: kind.type)
def test_the_readme_lists_every_error_that_is_answered_with_its_status(kind: Any) -> None:
    rows = [row for row in section(README, "Errors").splitlines() if f"`{kind.type}`" in row]

    assert any(str(kind.status) in row.split("|")[1] for row in rows)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.type)
def test_the_codes_that_mcp_clients_get_are_those_of_the_table(kind: Any) -> None:
    rows = re.findall(r"^\| (-\d+) \| `(\w+)` \|", section(MCP, "Errors"), re.MULTILINE)
    codes = {int(code) for code, word in rows if word == kind.type} - {LEGACY_RESOURCE_NOT_FOUND}

    assert codes <= {kind.rpc_code}
    if kind.rpc_code > -32000 and kind not in NO_RPC_ERRORS:
        assert codes


# Settings


@pytest.mark.parametrize("row", setting_table(), ids=lambda row: row.env)
def test_every_setting_has_its_row_with_flag_default_and_meaning(row: SettingInfo) -> None:
    flag = f"`{row.flag}`" if row.flag else ""

    assert f"| `{row.env}` | {flag} | {default_text(row.default)} | {row.help} |" in SETTINGS.splitlines()


def test_no_document_names_a_setting_that_does_not_exist() -> None:
    known = {row.env for row in setting_table()} | {"MCP_PROXY_TOKEN"}
    named = {name for path in DOCUMENTS for name in re.findall(r"\bMCP_PROXY_[A-Z_]*[A-Z]\b", path.read_text())}

    assert named <= known


def test_the_example_of_an_env_file_is_the_generated_one() -> None:
    assert (ROOT / ".env.example").read_text() == env_file()


# Commands and routes


def test_the_readme_lists_exactly_the_commands_there_are() -> None:
    listed = re.findall(r"^\| `mcp-proxy-api (\w+)` \|", section(README, "Command line"), re.MULTILINE)

    assert listed == list(COMMANDS)


def test_the_readme_lists_exactly_the_routes_there_are(tmp_path: Path) -> None:
    app = create_app(Settings(no_auth=True, state_dir=tmp_path, log_level="OFF"), Servers())
    served = {
        f"{method} {in_braces(rule.rule)}"
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    listed = re.findall(r"^\| `((?:GET|POST|PATCH|DELETE) [^`?]*)", section(README, "REST"), re.MULTILINE)

    assert sorted(listed) == sorted(served)


@pytest.mark.parametrize("scope", list(Scope))
def test_the_readme_names_every_scope(scope: Scope) -> None:
    assert f"`{scope}`" in section(README, "Tokens")


# Configuration


@pytest.mark.parametrize("key", sorted({*entry._OWN_KEYS, *entry._RETRY_KEYS, *entry._CLIENT_KEYS}))
def test_every_key_of_an_entry_is_in_the_configuration_reference(key: str) -> None:
    assert f"`{key}`" in CONFIG


@pytest.mark.parametrize("container", [*dialects._MAPS, "mcp"])
def test_every_container_of_servers_is_in_the_configuration_reference(container: str) -> None:
    assert re.search(rf'`[^`\n]*["\[]{container}\b[^`\n]*`', section(CONFIG, "Where servers stand"))


def test_every_word_for_a_transport_is_in_the_configuration_reference() -> None:
    words = re.findall(r"`([\w-]+)`", section(CONFIG, "Reaching it"))

    assert set(address._WORDS) <= {re.sub(r"[^a-z]", "", word.lower()) for word in words}


def test_the_variables_that_a_child_inherits_are_in_the_configuration_reference() -> None:
    assert all(f"`{name}`" in section(CONFIG, "Reaching it") for name in INHERITED)


def test_the_configuration_of_the_readme_is_taken_over_without_a_word() -> None:
    example = next(block for block in fences(README, "json") if "mcpServers" in block)

    servers = parse_servers(json.loads(example), "README.md", SECRET_KEY, None)

    assert (servers.refused, servers.findings) == ((), ())
    assert {(spec.name, spec.group) for spec in servers.specs} == {
        ("time", None), ("search-a", "search"), ("search-b", "search"), ("files", None),
    }  # fmt: skip


def test_the_examples_of_other_dialects_mean_the_same_server() -> None:
    text = section(CONFIG, "The same server in other dialects")
    documents = [parse_json(block, "config.md") for block in fences(text, "json", "jsonc")]
    documents += [parse_toml(block, "config.md") for block in fences(text, "toml")]

    found = [parse_servers(document, "config.md", SECRET_KEY, None) for document in documents]

    assert len(found) == 3
    for servers in found:
        assert servers.refused == ()
        assert [(spec.name, spec.url) for spec in servers.specs] == [("search", "https://search.example/mcp")]


# MCP clients


def snippets() -> list[tuple[str, dict[str, Any]]]:
    """The entries of the clients' configurations in the README, with the client's name."""
    clients = section(README, "MCP clients")
    found = []
    for client in ("Claude Desktop", "VS Code", "Cursor"):
        for block in map(json.loads, fences(section(clients, client), "json")):
            found += [(client, server) for server in (block.get("servers") or block["mcpServers"]).values()]
    return found


def test_every_client_is_shown_a_command_and_an_address() -> None:
    shown = {(client, "command" if "stdio" in server.get("args", ()) else "address") for client, server in snippets()}

    assert len(shown) == 6


def test_the_addresses_in_configurations_of_clients_are_those_of_the_door() -> None:
    text = section(README, "MCP clients")

    assert set(re.findall(r"http://127\.0\.0\.1:5000(/\w+)", text)) == {"/mcp", "/sse"}
    for client, server in snippets():
        if "url" in server:
            assert server["url"].endswith(":5000/mcp"), client
            assert server["headers"]["Authorization"].startswith("Bearer "), client


@pytest.mark.anyio
async def test_the_commands_in_configurations_of_clients_serve_mcp(tmp_path: Path) -> None:
    commands = {(server["command"], *server["args"]) for _, server in snippets() if "stdio" in server.get("args", ())}
    claude = re.search(r"^claude mcp add proxy -- (.*)$", section(README, "Claude Code"), re.MULTILINE)
    assert claude is not None
    assert commands == {tuple(claude[1].split())}
    [(command, *arguments)] = commands
    assert command.endswith("/mcp-proxy-api")
    config = tmp_path / "mcp.json"
    config.write_text(json.dumps({"mcpServers": dict.fromkeys(("one", "two"), DEMO_SERVER)}))
    arguments = [str(config) if argument.endswith("mcp.json") else argument for argument in arguments]

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mcp_proxy", *arguments, cwd=tmp_path,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    asked = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}) + "\n"
    out, _ = await asyncio.wait_for(process.communicate(asked.encode()), 60)

    names = {tool["name"] for tool in json.loads(out)["result"]["tools"]}
    assert names == {f"{server}__{tool}" for server in ("one", "two") for tool in ("add", "echo", "now")}


@pytest.mark.anyio
async def test_the_curl_commands_for_the_mcp_door_work_when_pasted() -> None:
    commands = curl_commands(section(section(README, "MCP clients"), "curl"))

    async with ProxyProcess() as proxy:
        await proxy.connected("demo")
        results = [
            (await pasted(command.replace("127.0.0.1:5000", f"127.0.0.1:{proxy.port}"), TOKEN=make_token()))["result"]
            for command in commands
        ]

    introduced, listed, called, called_statelessly = results
    assert introduced["serverInfo"]["name"] == "mcp-proxy-api"
    assert [tool["name"] for tool in listed["tools"]] == ["add", "echo", "now"]
    assert called["structuredContent"] == called_statelessly["structuredContent"] == {"result": 5}


@pytest.mark.parametrize(("revision", "column"), [("2025-11-25", 0), ("2026-07-28", 1)])
def test_the_results_of_the_conformance_suite_are_those_that_the_tests_demand(revision: str, column: int) -> None:
    rows = re.findall(r"^\| a .*? \| (\d+) of (\d+) \| (\d+) of (\d+) \|$", MCP, re.MULTILINE)
    said = sorted((int(row[2 * column]), int(row[2 * column + 1])) for row in rows)
    failing = [len(found) for (_, at), found in EXPECTED_FAILURES.items() if at == revision]
    failing += [0] * (len(KINDS_OF_SERVERS) - len(failing))

    assert said == sorted((SCORED[revision] - some, SCORED[revision]) for some in failing)


def test_the_number_of_client_scenarios_is_that_of_the_tests() -> None:
    assert f"{len(RUNS)} of {len(RUNS)} scenarios" in MCP


# Examples and links


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_examples_parse_in_their_language(path: Path) -> None:
    text = path.read_text()

    for block in fences(text, "json"):
        json.loads(block)
    for block in fences(text, "jsonc"):
        parse_json(block, path.name)
    for block in fences(text, "toml"):
        tomllib.loads(block)
    for block in fences(text, "yaml"):
        assert isinstance(yaml.safe_load(block), dict)
    for block in fences(text, "ini"):
        parser = configparser.ConfigParser(strict=False, interpolation=None)
        parser.read_string(block)
        assert parser.has_option("Service", "ExecStart")
    for block in fences(text, "python"):
        ast.parse(block)
    assert set(re.findall(r"^```(\w+)$", text, re.MULTILINE)) <= {
        "json",
        "jsonc",
        "toml",
        "yaml",
        "ini",
        "sh",
        "python",
    }


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_relative_links_lead_to_files_and_headings_that_exist(path: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(path.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text()), link


def test_every_page_of_the_documentation_can_be_reached_from_the_readme() -> None:
    linked = {(ROOT / link).resolve() for link in re.findall(r"\]\(([^)#:\s]+)", README)}

    assert {path for path in DOCUMENTS if path.name != "README.md"} <= linked


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "JWT_SECRET is not set; make one with: openssl rand -base64 48"),
        ({"jwt_secret": "your-secret-key"}, "JWT_SECRET is a placeholder"),
        ({"jwt_secret": "q8Zw1x"}, "JWT_SECRET has 6 bytes, HS256 needs at least 32"),
    ],
)
def test_what_the_readme_says_about_bad_secrets_is_what_people_read(settings: dict[str, str], said: str) -> None:
    assert said in section(README, "Troubleshooting")
    with pytest.raises(StartError) as caught:
        load_keys(Settings(**settings), SystemClock())  # type: ignore[arg-type]
    assert said in str(caught.value)


@pytest.mark.anyio
async def test_the_curl_commands_of_the_readme_work_when_pasted() -> None:
    commands = curl_commands(section(README, "REST"))
    assert len(commands) >= 8

    async with ProxyProcess() as proxy:
        await proxy.connected("demo")
        for command in commands:
            answer = await pasted(command.replace("127.0.0.1:5000", f"127.0.0.1:{proxy.port}"), TOKEN=make_token())
            assert "error" not in answer, command
            if "method" in command or "/demo/add" in command:
                assert answer["structuredContent"] == {"result": 5}


def curl_commands(text: str) -> list[str]:
    """The curl commands in the shell examples, a line each."""
    blocks = [block.replace("\\\n", "") for block in fences(text, "sh")]
    return [line for block in blocks for line in block.splitlines() if line.startswith("curl ")]


async def pasted(command: str, **variables: str) -> Any:
    """What a shell makes of a command, as JSON."""
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", command, env={"PATH": "/usr/local/bin:/usr/bin:/bin", **variables}, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    return json.loads(out)
