"""Real MCP clients of every generation, at the proxy's MCP door, over every transport that they have.

Behind the proxy are servers nobody here wrote, legacy and modern; each client lists, calls, reads, and answers what
the servers ask. The clients are in `tests/clients`.
"""

from __future__ import annotations

import asyncio
import functools
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.clients.expected import all_calls, few_calls, plan_for, shortcomings, wrong_questions
from tests.clients.known import HERE, visit
from tests.harness import ProxyProcess, make_token
from tests.servers import known

pytestmark = [pytest.mark.anyio, pytest.mark.live]

ASKING = [sys.executable, str(HERE / "asking_server.py")]
MODERN, LEGACY = "2026-07-28", "2025-11-25"

CLIENTS = [
    ("typescript_sdk_1.mjs", "http", "legacy"),
    ("typescript_sdk_1.mjs", "sse", "legacy"),
    ("typescript_sdk_1.mjs", "stdio", "legacy"),
    ("typescript_sdk_2.mjs", "http", "legacy"),
    ("typescript_sdk_2.mjs", "http", "auto"),
    ("typescript_sdk_2.mjs", "http", "modern"),
    ("typescript_sdk_2.mjs", "sse", "legacy"),
    ("typescript_sdk_2.mjs", "sse", "auto"),
    ("typescript_sdk_2.mjs", "stdio", "legacy"),
    ("typescript_sdk_2.mjs", "stdio", "auto"),
    ("typescript_sdk_2.mjs", "stdio", "modern"),
    ("python_sdk_1.py", "http", "legacy"),
    ("python_sdk_1.py", "sse", "legacy"),
    ("python_sdk_1.py", "stdio", "legacy"),
    ("python_sdk_2.py", "http", "legacy"),
    ("python_sdk_2.py", "http", "auto"),
    ("python_sdk_2.py", "http", "modern"),
    ("python_sdk_2.py", "sse", "legacy"),
    ("python_sdk_2.py", "sse", "auto"),
    ("python_sdk_2.py", "stdio", "legacy"),
    ("python_sdk_2.py", "stdio", "auto"),
    ("python_sdk_2.py", "stdio", "modern"),
    ("fastmcp_client.py", "http", "legacy"),
    ("fastmcp_client.py", "http", "auto"),
    ("fastmcp_client.py", "http", "modern"),
    ("fastmcp_client.py", "sse", "auto"),
    ("fastmcp_client.py", "stdio", "auto"),
]
INSPECTOR = [("http", "legacy"), ("http", "modern"), ("sse", "legacy"), ("stdio", "auto")]


# The servers behind the proxy


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the servers are given: a repository with a note in it. It is also the clients' root."""
    path = tmp_path_factory.mktemp("world").resolve()
    subprocess.run(["git", "init", "-q", str(path)], check=True)
    (path / "note.txt").write_text("grüß dich")
    return path


@pytest.fixture(scope="module")
def page(directory: Path) -> Iterator[str]:
    """URL of the note, on a web server that says nothing."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(directory))
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/note.txt"
        server.shutdown()
        thread.join()


def entry(argv: list[str], **more: Any) -> dict[str, Any]:
    return {"command": argv[0], "args": argv[1:], **more}


def few() -> dict[str, Any]:
    """One legacy server and one modern, both over stdio."""
    return {"everything": entry(known.everything_server()), "asking": entry(ASKING)}


@pytest.fixture(scope="module")
async def proxy(directory: Path) -> AsyncIterator[ProxyProcess]:
    async with AsyncExitStack() as stack:
        over_http = await stack.enter_async_context(known.serving(known.everything_server("streamableHttp")))
        over_sse = await stack.enter_async_context(known.serving(known.legacy_server("sse")))
        servers = few() | {
            "remote": {"type": "streamableHttp", "url": over_http},
            "old": {"type": "sse", "url": over_sse},
            "time": entry(known.time_server()),
            "git": entry(known.git_server(directory)),
            "fetch": entry(known.fetch_server()),
            "files": entry(known.filesystem_server(directory)),
            "memory": entry(known.memory_server(), env={"MEMORY_FILE_PATH": str(directory / "memory.jsonl")}),
        }
        running = await stack.enter_async_context(ProxyProcess(servers=servers, start_timeout=40))
        await running.connected(timeout=90)
        yield running


# The clients


def cases(*, stdio: bool) -> pytest.MarkDecorator:
    rows = [row for row in CLIENTS if (row[1] == "stdio") is stdio]
    return pytest.mark.parametrize(
        ("script", "transport", "era"), [pytest.param(*row, id="-".join(row)) for row in rows]
    )


def door(proxy: ProxyProcess, transport: str) -> str:
    return f"{proxy.base_url}/{'sse' if transport == 'sse' else 'mcp'}"


def stdio_command(directory: Path, servers: dict[str, Any] | None = None) -> list[str]:
    config = directory / "servers.json"
    config.write_text(json.dumps({"mcpServers": servers or few()}))
    return [sys.executable, "-m", "mcp_proxy", "stdio", "--config", str(config)]


@pytest.mark.parametrize("script", sorted({script for script, _, _ in CLIENTS}))
async def test_a_client_alone_with_a_server_answers_what_it_asks(script: str, tmp_path: Path) -> None:
    """A client that fails here is broken itself, whatever the proxy does."""
    plan = plan_for(tmp_path, [("trigger-elicitation-request", {}), ("trigger-sampling-request", {"prompt": "a poem"})])
    plan |= {"prompts": [("args-prompt", {"city": "Oslo"})], "resources": ["asking://notes/today"]}
    seen = await visit(script, plan, tmp_path, era="legacy", transport="stdio", at=ASKING)
    assert seen.code == 0, (seen.report, seen.stderr[-3000:])
    assert seen.report["called"]["trigger-elicitation-request"] == [False, "Ada, True"]
    assert seen.report["asked"] == [["elicitation", "Who is it?"], ["sampling", "a poem"]]


@cases(stdio=False)
async def test_a_client_uses_all_servers_through_the_http_doors(
    script: str, transport: str, era: str, proxy: ProxyProcess, directory: Path, page: str
) -> None:
    plan = plan_for(directory, all_calls(directory, page))
    at = door(proxy, transport)
    seen = await visit(script, plan, directory, era=era, transport=transport, at=at, token=make_token())
    assert shortcomings(seen, plan) == []
    assert wrong_questions(seen.report, plan) == []
    assert seen.report["about"][0] == (LEGACY if era == "legacy" or transport == "sse" else MODERN)


@cases(stdio=True)
async def test_a_client_starts_the_proxy_and_uses_its_servers(
    script: str, transport: str, era: str, tmp_path: Path
) -> None:
    plan = plan_for(tmp_path, few_calls())
    seen = await visit(script, plan, tmp_path, era=era, transport=transport, at=stdio_command(tmp_path))
    assert shortcomings(seen, plan) == []
    assert wrong_questions(seen.report, plan) == []
    assert seen.report["about"][0] == (LEGACY if era == "legacy" else MODERN)


@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize("script", ["typescript_sdk_2.mjs", "python_sdk_2.py", "fastmcp_client.py"])
async def test_questions_do_not_cost_a_call_its_progress_or_its_answer(script: str, era: str, tmp_path: Path) -> None:
    """A legacy server asks while its call goes on: the call reports more afterwards, or has ended when the client answers."""
    plan = plan_for(tmp_path, [("progress_after_asking", {}), ("ends_while_asking", {})])
    plan |= {"prompts": [], "resources": [], "lists": ["tools"], "thinking": 0.5}
    at = stdio_command(tmp_path, {"late": entry([*known.legacy_server()[:1], str(HERE / "late_server.py")])})
    seen = await visit(script, plan, tmp_path, era=era, transport="stdio", at=at)
    assert seen.report.get("failed") == {}, seen.stderr[-3000:]
    assert seen.report["called"] == {"progress_after_asking": [False, "done"], "ends_while_asking": [False, "done"]}
    progress = seen.report.get("arrived") or seen.report["progress"]["progress_after_asking"]
    assert progress[:4] == [1, 2, 3, 4]


@pytest.mark.parametrize(("transport", "era"), INSPECTOR)
async def test_the_inspector_lists_calls_and_reads(
    transport: str, era: str, proxy: ProxyProcess, directory: Path, tmp_path: Path
) -> None:
    """A few steps, for each is a process of its own, which over stdio starts a proxy of its own."""
    over_stdio = transport == "stdio"
    plan = plan_for(directory, few_calls()[:1]) | {"resources": ["asking://notes/monday"]}
    plan |= {"prompts": plan["prompts"][:1], "lists": ["tools"] if over_stdio else ["tools", "prompts", "resources"]}
    at = stdio_command(tmp_path) if over_stdio else door(proxy, transport)
    token = "" if over_stdio else make_token()
    seen = await visit("inspector_cli.py", plan, tmp_path, era=era, transport=transport, at=at, token=token)
    assert shortcomings(seen, plan) == []


@pytest.mark.parametrize(("script", "era"), [("typescript_sdk_1.mjs", "legacy"), ("python_sdk_2.py", "modern")])
async def test_a_client_of_one_server_sees_its_names_as_they_are(
    script: str, era: str, proxy: ProxyProcess, tmp_path: Path
) -> None:
    plan = plan_for(tmp_path, [("echo", {"message": "hello"}), ("trigger-elicitation-request", {})])
    plan |= {"prompts": [("args-prompt", {"city": "Oslo"})], "resources": ["asking://notes/today"]}
    at = f"{proxy.base_url}/mcp/asking"
    seen = await visit(script, plan, tmp_path, era=era, transport="http", at=at, token=make_token())
    assert seen.code == 0, (seen.report, seen.stderr[-3000:])
    assert {"echo", "trigger-elicitation-request"} <= set(seen.report["tools"])
    assert not [name for name in seen.report["tools"] + seen.report["prompts"] if "." in name]
    assert seen.report["called"]["trigger-elicitation-request"] == [False, "Ada, True"]


async def test_clients_at_the_same_time_each_answer_their_own_questions(proxy: ProxyProcess, tmp_path: Path) -> None:
    """Each answers a legacy server over stdio and over HTTP, and a modern one."""
    tools = [f"{server}.trigger-elicitation-request" for server in ("everything", "remote", "asking")]
    chosen = [row for row in CLIENTS if row[1] != "stdio" and row[2] != "auto"][::2]

    async def ask(number: int, script: str, transport: str, era: str) -> list[bool]:
        plan = plan_for(tmp_path, [(tool, {}) for tool in tools]) | {"prompts": [], "resources": [], "lists": []}
        plan["elicitation"] = {"name": f"Ada-{number}-", "check": True}
        at = door(proxy, transport)
        seen = await visit(script, plan, tmp_path, era=era, transport=transport, at=at, token=make_token())
        assert seen.code == 0, (seen.report, seen.stderr[-3000:])
        return [f"Ada-{number}-" in seen.report["called"][tool][1] for tool in tools]

    found = await asyncio.gather(*(ask(number, *row) for number, row in enumerate(chosen)))
    assert found == [[True] * len(tools)] * len(chosen)


@pytest.mark.parametrize(
    ("script", "transport", "era"),
    [
        ("typescript_sdk_1.mjs", "http", "legacy"),
        ("typescript_sdk_2.mjs", "http", "modern"),
        ("python_sdk_1.py", "sse", "legacy"),
        ("python_sdk_2.py", "http", "legacy"),
    ],
)
async def test_a_client_without_a_token_is_refused(
    script: str, transport: str, era: str, proxy: ProxyProcess, tmp_path: Path
) -> None:
    before = len(proxy.log_lines(status_code=401))
    at = door(proxy, transport)
    seen = await visit(script, plan_for(tmp_path, []), tmp_path, era=era, transport=transport, at=at)
    assert seen.code != 0
    assert not seen.report.get("tools")
    assert len(proxy.log_lines(status_code=401)) > before
