"""The command line in processes of its own: what it prints where, and with which exit code it ends."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.harness import FaultyCommand
from tests.harness import CLEAN, ROOT, SECRET, ProxyProcess, eventually, free_port, make_token

pytestmark = pytest.mark.anyio

MODULES = (("-m", "mcp_proxy"), ("-m", "mcp_proxy.main"), ("-c", "from mcp_proxy import main; main()"))


@dataclass(frozen=True)
class Ended:
    """A command that has run."""

    code: int
    out: str
    err: str


async def run(
    *args: str,
    cwd: Path,
    start: tuple[str, ...] = MODULES[0],
    env: Mapping[str, str] | None = None,
    timeout: float = 60,
) -> Ended:
    """Run ``python START ARGS`` with warnings as errors, in an environment without settings of the machine's."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(CLEAN)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", *start, *args, cwd=cwd, stdin=asyncio.subprocess.DEVNULL,
        env={**inherited, "PYTHONPATH": str(ROOT), "JWT_SECRET": SECRET, **(env or {})},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        out, err = await asyncio.wait_for(process.communicate(), timeout)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


@pytest.fixture
def config(child: FaultyCommand, tmp_path: Path) -> str:
    """A file with one server, ``calc``."""
    file = tmp_path / "mcp.json"
    file.write_text(json.dumps({"mcpServers": {"calc": child.entry}}))
    return str(file)


# Starting the program


@pytest.mark.parametrize("start", MODULES)
async def test_the_program_starts_by_each_of_its_names(start: tuple[str, ...], tmp_path: Path):
    ended = await run("--help", start=start, cwd=tmp_path)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("Usage: mcp-proxy-api ")
    for command in ("serve", "check", "tools", "call", "token"):
        assert re.search(rf"^ +{command} ", ended.out, re.M)


@pytest.mark.parametrize(
    "order",
    [
        "from mcp_proxy import main; go(main); import mcp_proxy.main; go(mcp_proxy.main.main); go(mcp_proxy.main)",
        "import mcp_proxy.main; go(mcp_proxy.main.main); from mcp_proxy import main; go(main)",
        "from mcp_proxy import main; go(main); runpy.run_module('mcp_proxy', run_name='__main__')",
        "from mcp_proxy import main, create_app; go(main); from mcp_proxy import main; go(main); create_app",
    ],
)
async def test_both_ways_of_importing_main_work_in_one_interpreter_in_either_order(order: str, tmp_path: Path):
    go = "import runpy, sys\ndef go(main):\n  try: main()\n  except SystemExit as e: print('ended', e.code)\n"
    ended = await run("--version", start=("-c", go + order), cwd=tmp_path)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.count("mcp-proxy-api, version") >= 2


@pytest.mark.parametrize(
    "args",
    [["--help"], ["--version"], ["token"], ["token", "--help"], ["check"], ["serve", "--help"], ["call", "--help"]],
)
async def test_commands_that_need_no_server_load_none(args: list[str], tmp_path: Path):
    code = (
        "import atexit, sys\n"
        "heavy = ('quart', 'hypercorn', 'mcp', 'mcp_types', 'aiohttp')\n"
        "atexit.register(lambda: print('LOADED', [n for n in heavy if n in sys.modules], file=sys.stderr))\n"
        "from mcp_proxy import main; main()"
    )
    ended = await run(*args, start=("-c", code), cwd=tmp_path)
    assert (ended.code, ended.err) == (0, "LOADED []\n")


@pytest.mark.parametrize("args", [["nonsense"], ["serve", "--nonsense"], ["call"]])
async def test_wrong_usage_is_2_and_says_what_is_wrong(args: list[str], tmp_path: Path):
    ended = await run(*args, cwd=tmp_path)
    assert (ended.code, ended.out) == (2, "")
    assert "Traceback" not in ended.err
    assert "rror: " in ended.err


# serve


@pytest.mark.parametrize(
    ("env", "args", "words"),
    [
        ({"PORT": "five"}, [], ["PORT", "'five'"]),
        ({"PORT": "70000"}, [], ["PORT", "'70000'", "65535"]),
        ({}, ["--port", "five"], ["--port", "'five'"]),
        ({"LOG_LEVEL": "loud"}, [], ["LOG_LEVEL", "'loud'", "'OFF'"]),
        ({"JWT_ALGORITHM": "none"}, [], ["JWT_ALGORITHM", "'none'", "'HS256'"]),
        ({"MCP_PROXY_CALL_TIMEOUT": "601"}, [], ["MCP_PROXY_CALL_TIMEOUT", "600"]),
        ({"MCP_PROXY_LOG_BODIES": "perhaps"}, [], ["MCP_PROXY_LOG_BODIES", "'perhaps'"]),
        ({"MCP_URL": "ftp://host/"}, [], ["MCP_URL", "http"]),
        ({"MCP_URLS": "http://a/mcp,nonsense"}, [], ["MCP_URLS", "entry 2"]),
        ({"JWT_SECRET": "too-short", "MCP_URL": "http://a/"}, [], ["JWT_SECRET", "32"]),
        ({"JWT_SECRET": "", "MCP_URL": "http://a/"}, [], ["JWT_SECRET"]),
        ({"JWT_SECRET": "your-secret-key-your-secret-key-your", "MCP_URL": "http://a/"}, [], ["JWT_SECRET", "placeholder"]),
        ({}, ["--config", "absent.json"], ["absent.json"]),
        ({}, ["--config", "broken.json"], ["broken.json", "line 2"]),
        ({}, ["--no-auth", "--host", "0.0.0.0"], ["--no-auth", "0.0.0.0", "loopback"]),
        ({"MCP_PROXY_NO_AUTH": "1", "HOST": "192.0.2.1"}, [], ["--no-auth", "192.0.2.1"]),
    ],
)  # fmt: skip
async def test_what_cannot_be_served_stops_the_start_with_one_line_and_2(
    tmp_path: Path, env: dict[str, str], args: list[str], words: list[str]
):
    (tmp_path / "broken.json").write_text('{"mcpServers": {\n "a": oops}}')
    ended = await run("serve", *args, cwd=tmp_path, env=env)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1), ended.err
    assert ended.err.startswith("mcp-proxy-api: ")
    for word in words:
        assert word in ended.err
    assert "too-short" not in ended.err


async def test_a_port_in_use_is_said_in_one_line(tmp_path: Path):
    # The web server leaves its socket to the garbage collector; that is a warning of the interpreter's, not our line.
    start = ("-W", "ignore::ResourceWarning", "-m", "mcp_proxy")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        env = {"PORT": str(port), "LOG_LEVEL": "OFF", "MCP_URL": "http://127.0.0.1:9/"}
        ended = await run("serve", start=start, cwd=tmp_path, env=env)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1), ended.err
    assert f"127.0.0.1:{port} is in use" in ended.err
    assert "--port" in ended.err


async def test_flags_win_over_the_environment_and_that_over_a_file(tmp_path: Path):
    (tmp_path / ".env").write_text("MCP_PROXY_SEPARATOR=__\nMCP_PROXY_NAMING=never\nMCP_PROXY_MAX_BODY=2048\n")
    env = {"MCP_PROXY_NAMING": "always"}
    ended = await run("check", "--port", "7001", cwd=tmp_path, env=env | {"PORT": "7000"})
    assert ended.code == 0
    for line in ("PORT = 7001", "MCP_PROXY_NAMING = always", "MCP_PROXY_SEPARATOR = __", "MCP_PROXY_MAX_BODY = 2048"):
        assert f"  {line}  (changed)\n" in ended.out


async def test_the_demo_start_prints_one_command_that_works_when_a_shell_runs_it():
    async with ProxyProcess(env={"JWT_SECRET": ""}) as proxy:
        await eventually(proxy.stdout, 30, what="the command is printed")
        line = proxy.stdout()
        assert re.fullmatch(r"curl [^\n]+\n", line)
        shell = await asyncio.create_subprocess_exec("sh", "-c", line, stdout=asyncio.subprocess.PIPE)
        answer, _ = await asyncio.wait_for(shell.communicate(), 30)
        assert json.loads(answer)["structuredContent"] == {"result": 5}
        assert json.loads(answer)["server"] == "demo"
        token = re.search(r"Bearer ([^']+)", line)
        assert token
        assert (await proxy.call("echo", {"text": "x"}, token=token[1])).status == 200
        assert token[1] not in proxy.stderr()
        assert await proxy.terminate() == 0
        assert proxy.stdout() == line


async def test_a_start_with_servers_prints_nothing(child: FaultyCommand):
    async with ProxyProcess(servers={"calc": child.entry}) as proxy:
        await proxy.connected("calc")
        assert await proxy.terminate() == 0
        assert proxy.stdout() == ""


async def test_a_setting_that_does_not_exist_is_warned_about_with_the_nearest_one(tmp_path: Path):
    env = {"MCP_PROXY_NAMNIG": "always", "MCP_PROXY_SERVICE_HOST": "10.0.0.1", "MCP_PROXY_PORT": "tcp://10.0.0.1:80"}
    ended = await run("check", cwd=tmp_path, env=env | {"DEBUG": "release"})
    warnings = [line for line in ended.out.splitlines() if line.startswith("warning: ")]
    assert sorted(warnings) == [
        "warning: DEBUG is neither on nor off and counts as off",
        "warning: MCP_PROXY_NAMNIG is not a setting; did you mean MCP_PROXY_NAMING?",
    ]


# check


async def test_check_says_what_a_file_comes_to_and_shows_no_secret(config: str, tmp_path: Path):
    ended = await run("check", "--config", config, cwd=tmp_path)
    assert (ended.code, ended.err) == (0, "")
    assert "  calc: stdio " in ended.out
    assert "JWT_SECRET = set" in ended.out
    assert SECRET not in ended.out


async def test_check_is_1_when_a_server_is_refused_and_2_when_nothing_could_start(tmp_path: Path):
    file = tmp_path / "mcp.json"
    file.write_text('{"mcpServers": {"bad": {"url": "http://${NO_HOST}/"}, "good": {"url": "http://127.0.0.1:9/"}}}')
    ended = await run("check", "--config", str(file), cwd=tmp_path)
    assert ended.code == 1
    assert re.search(r"bad: REFUSED, .*NO_HOST", ended.out)
    ended = await run("check", "--config", str(file), cwd=tmp_path, env={"JWT_SECRET": "short"})
    assert (ended.code, ended.err.count("\n")) == (2, 1)


async def test_the_example_environment_is_itself_sound(tmp_path: Path):
    printed = await run("check", "--env-example", cwd=tmp_path)
    (tmp_path / ".env").write_text(re.sub(r"^# (?=[A-Z_]+=.)", "", printed.out, flags=re.M))
    ended = await run("check", cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert "(changed)" not in ended.out.replace("JWT_SECRET = set  (changed)", "")


# token


@pytest.mark.parametrize(
    "start", [MODULES[0], ("-m", "mcp_proxy.scripts.generate_token"), (str(ROOT / "scripts/generate_token.py"),)]
)
async def test_a_token_stands_alone_on_stdout_and_is_accepted(start: tuple[str, ...], tmp_path: Path):
    import jwt

    command = ["token"] if start == MODULES[0] else []
    told = [
        "--sub",
        "ada",
        "--scope",
        "tools:read",
        "--scope",
        "tools:call",
        "--servers",
        "a,b*",
        "--rate",
        "7",
        "--ttl",
        "15m",
    ]
    ended = await run(*command, *told, start=start, cwd=tmp_path)
    assert (ended.code, ended.err) == (0, "")
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+\n", ended.out)
    claims = jwt.decode(ended.out.strip(), SECRET, algorithms=["HS256"])
    assert claims["exp"] - claims["iat"] == 900
    assert {k: claims[k] for k in ("sub", "servers", "rate")} == {"sub": "ada", "servers": ["a", "b*"], "rate": 7}
    assert sorted(claims["scope"].split()) == ["tools:call", "tools:read"]


@pytest.mark.parametrize("args", [["--scope", "tools:eat"], ["--ttl", "soon"], ["--rate", "-1"], ["--nonsense"]])
async def test_a_token_that_cannot_be_made_is_one_line_and_2(args: list[str], tmp_path: Path):
    ended = await run("token", *args, cwd=tmp_path)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1), ended.err


# tools and call


async def test_tools_and_call_start_the_servers_of_a_file_themselves(config: str, tmp_path: Path, child: FaultyCommand):
    listed = await run("tools", "--config", config, cwd=tmp_path)
    assert (listed.code, listed.err) == (0, "")
    assert listed.out.splitlines() == [
        "echo  [calc]  Return the text",
        "add  [calc]  Add two numbers",
        "count  [calc]  Return how many calls this process has executed, this one included",
    ]
    called = await run("call", "calc.add", "--json", '{"a": 2, "b": 3}', "--config", config, cwd=tmp_path)
    assert (called.code, called.out, called.err) == (0, "5\n", "")
    failed = await run("call", "echo", "--json", '{"text": "x", "fault": "is-error"}', "--config", config, cwd=tmp_path)
    assert (failed.code, failed.out) == (1, "failed as asked\n")
    await eventually(lambda: not child.running(), what="their servers are gone")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["nothing"], "tool_not_found"),
        (["add", "--json", '{"a": 1}'], "invalid_arguments"),
        (["add", "--json", "{"], "--json"),
        (["add", "--json", "[]"], "--json"),
        (["add", "--server", "nobody"], "server_not_found"),
    ],
)
async def test_a_call_that_cannot_be_made_is_one_line_and_2(config: str, tmp_path: Path, args: list[str], words: str):
    ended = await run("call", *args, "--config", config, cwd=tmp_path)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1), ended.err
    assert words in ended.err


async def test_tools_and_call_talk_to_a_running_proxy(child: FaultyCommand, tmp_path: Path):
    async with ProxyProcess(servers={"calc": child.entry}) as proxy:
        await proxy.connected("calc")
        where, env = ["--url", proxy.base_url], {"MCP_PROXY_TOKEN": make_token()}
        listed = await run("tools", *where, "--server", "calc", "--json", cwd=tmp_path, env=env)
        assert [tool["name"] for tool in json.loads(listed.out)["tools"]] == ["echo", "add", "count"]
        called = await run("call", "add", "--json", '{"a": 1, "b": 1}', "--raw", *where, cwd=tmp_path, env=env)
        assert json.loads(called.out)["structuredContent"] == {"sum": 2}
        refused = await run("tools", *where, "--token", make_token(ttl=-600), cwd=tmp_path)
        assert (refused.code, refused.err.count("\n"), "unauthorized" in refused.err) == (2, 1, True)


async def test_no_proxy_at_that_address_is_one_line_and_2(tmp_path: Path):
    ended = await run("tools", "--url", f"http://127.0.0.1:{free_port()}", cwd=tmp_path)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert "no proxy answers" in ended.err
