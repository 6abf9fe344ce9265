"""The proxy in front of servers nobody here wrote, over every transport and era they speak."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.harness import ProxyProcess, eventually, free_port
from tests.servers.known import everything_server, git_server, legacy_server, modern_server, serving, time_server

pytestmark = [pytest.mark.anyio, pytest.mark.live]


def entry(argv: list[str]) -> dict[str, Any]:
    return {"command": argv[0], "args": argv[1:]}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "-q", str(path)], check=True)
    return path


@pytest.fixture(scope="module")
async def proxy(repository: Path) -> AsyncIterator[ProxyProcess]:
    """One proxy before nine servers: every transport, both eras, three programming worlds."""
    async with AsyncExitStack() as stack:

        async def url(argv: list[str]) -> str:
            return await stack.enter_async_context(serving(argv))

        servers: dict[str, Any] = {
            "time": entry(time_server()),
            "git": entry(git_server(repository)),
            "npm-stdio": entry(everything_server("stdio")),
            "npm-sse": {"type": "sse", "url": await url(everything_server("sse"))},
            "npm-http": {"type": "streamableHttp", "url": await url(everything_server("streamableHttp"))},
            "v1-stdio": entry(legacy_server("stdio")),
            "v1-sse": {"transport": "sse", "url": await url(legacy_server("sse"))},
            "v1-http": {"transport": "streamable_http", "url": await url(legacy_server("streamable-http"))},
            "v2-stdio": entry(modern_server("stdio")),
            "v2-http": {"type": "http", "url": await url(modern_server("streamable-http"))},
            "demo": {"command": modern_server()[0], "args": ["-m", "mcp_proxy.demo"]},
        }
        running = await stack.enter_async_context(ProxyProcess(servers=servers, start_timeout=40))
        await running.connected(timeout=90)
        yield running


async def test_each_server_is_spoken_to_in_the_best_era_it_has(proxy: ProxyProcess) -> None:
    rows = {row["name"]: row for row in (await proxy.get("/servers")).json["servers"]}
    found = {name: (row["transport"], row["era"]) for name, row in rows.items()}
    assert found == {
        "time": ("stdio", "modern"),
        "git": ("stdio", "modern"),
        "npm-stdio": ("stdio", "legacy"),
        "npm-sse": ("sse", "legacy"),
        "npm-http": ("streamable-http", "legacy"),
        "v1-stdio": ("stdio", "legacy"),
        "v1-sse": ("sse", "legacy"),
        "v1-http": ("streamable-http", "legacy"),
        "v2-stdio": ("stdio", "modern"),
        "v2-http": ("streamable-http", "modern"),
        "demo": ("stdio", "modern"),
    }
    assert all(row["tools"] > 0 for row in rows.values())


@pytest.mark.parametrize(
    ("server", "tool", "args", "text"),
    [
        ("time", "get_current_time", {"timezone": "UTC"}, "UTC"),
        ("npm-stdio", "echo", {"message": "grüß dich"}, "grüß dich"),
        ("npm-sse", "echo", {"message": "grüß dich"}, "grüß dich"),
        ("npm-http", "get-sum", {"a": 2, "b": 3}, "5"),
        ("v1-stdio", "add", {"a": 2, "b": 3}, "5"),
        ("v1-sse", "echo", {"text": "x" * 100_000}, "x" * 100_000),
        ("v1-http", "add", {"a": 2, "b": 3}, "5"),
        ("v2-stdio", "add", {"a": 2, "b": 3}, "5"),
        ("v2-http", "echo", {"text": "x" * 900_000}, "x" * 900_000),
        ("demo", "add", {"a": 2, "b": 3}, "5"),
    ],
)
async def test_a_tool_of_each_server_answers(
    proxy: ProxyProcess, server: str, tool: str, args: dict[str, Any], text: str
) -> None:
    answer = await proxy.call(tool, args, server=server)
    assert answer.status == 200, answer.json
    assert text in answer.json["content"][0]["text"]
    assert (answer.json["server"], answer.json["isError"]) == (server, False)


async def test_git_answers_about_the_repository_it_was_given(proxy: ProxyProcess, repository: Path) -> None:
    answer = await proxy.call("git_status", {"repo_path": str(repository)})
    assert (answer.status, answer.json["server"], answer.json["isError"]) == (200, "git", False)


async def test_a_tool_that_fails_is_an_answer_and_bad_arguments_are_not_sent(proxy: ProxyProcess) -> None:
    failed = await proxy.call("get_current_time", {"timezone": "Nowhere/Land"})
    assert (failed.status, failed.json["isError"]) == (200, True)
    refused = await proxy.call("get_current_time", {"timezone": 5})
    assert (refused.status, refused.json["error"]["type"]) == (400, "invalid_arguments")
    assert refused.json["error"]["details"]["path"] == "/timezone"


async def test_a_name_that_many_servers_have_is_ambiguous(proxy: ProxyProcess) -> None:
    answer = await proxy.call("add", {"a": 2, "b": 3})
    assert (answer.status, answer.json["error"]["type"]) == (409, "ambiguous_tool")
    assert "v1-http.add" in answer.json["error"]["details"]["candidates"]


@pytest.mark.parametrize(
    "argv",
    [
        pytest.param(lambda: legacy_server("streamable-http"), id="v1-http"),
        pytest.param(lambda: legacy_server("sse"), id="v1-sse"),
        pytest.param(lambda: modern_server("streamable-http"), id="v2-http"),
        pytest.param(lambda: everything_server("streamableHttp"), id="npm-http"),
    ],
)
async def test_a_server_that_is_restarted_is_found_again(argv: Any) -> None:
    port = free_port()
    tool = ("echo", {"message": "x", "text": "x"})
    async with AsyncExitStack() as stack:
        async with serving(argv(), port=port) as url:
            env = {"MCP_URL": url, "MCP_PROXY_HEALTH_INTERVAL": "1"}
            proxy = await stack.enter_async_context(ProxyProcess(env=env))
            await proxy.connected(timeout=30)
            assert (await proxy.call(*tool)).status == 200
        name = next(iter((await proxy.get("/health")).json["servers"]))

        async def state(wanted: str) -> bool:
            return bool((await proxy.get("/health")).json["servers"][name] == wanted)

        await eventually(lambda: state("down"), 15)
        async with serving(argv(), port=port):
            await eventually(lambda: state("connected"), 40)
            assert (await proxy.call(*tool)).status == 200
