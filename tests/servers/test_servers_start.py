"""The real servers answer in every mode that tests use them in: a plain handshake, before a proxy is judged by it."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import aiohttp
import pytest

from tests.servers import known

pytestmark = [pytest.mark.anyio, pytest.mark.live]
START = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    return tmp_path


@pytest.mark.parametrize("name", ["time", "git", "everything", "legacy", "modern"])
async def test_a_server_answers_the_handshake_over_stdio(name: str, repository: Path):
    argv = known.git_server(repository) if name == "git" else getattr(known, f"{name}_server")()
    pipe, quiet = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe, stderr=quiet)
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(START).encode() + b"\n")
        reply = json.loads(await asyncio.wait_for(process.stdout.readline(), 20))
        assert reply["result"]["protocolVersion"] == "2025-06-18"
    finally:
        process.kill()
        await process.communicate()


@pytest.mark.parametrize(
    ("name", "mode"),
    [("everything", "streamableHttp"), ("legacy", "streamable-http"), ("modern", "streamable-http")],
)
async def test_a_server_answers_the_handshake_over_streamable_http(name: str, mode: str):
    headers = {"Accept": "application/json, text/event-stream"}
    async with (
        known.serving(getattr(known, f"{name}_server")(mode)) as url,
        aiohttp.ClientSession() as session,
        session.post(url, json=START, headers=headers) as reply,
    ):
        assert reply.status == 200
        assert b'"protocolVersion":"2025-06-18"' in await reply.read()


@pytest.mark.parametrize("name", ["everything", "legacy"])
async def test_a_server_names_its_endpoint_over_sse(name: str):
    async with (
        known.serving(getattr(known, f"{name}_server")("sse")) as url,
        aiohttp.ClientSession() as session,
        session.get(url) as stream,
    ):
        assert (await asyncio.wait_for(stream.content.readline(), 10)).strip() == b"event: endpoint"
