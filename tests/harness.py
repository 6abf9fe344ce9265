"""Running the program as users do: `ProxyProcess` is a real `mcp_proxy serve` on a free port, in a directory of its own.

`eventually` is the only place in the tests that waits by asking again. Upstreams that misbehave are in `faults.harness`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp
import jwt

T = TypeVar("T")
ROOT = Path(__file__).resolve().parent.parent
SECRET = "the-secret-of-the-tests-0123456789-0123456789-0123456789-0123456789"  # long enough for HS512
SERVER = os.environ.get("TEST_SERVER", "hypercorn")
"""The HTTP server that the program is tried with; the other one: ``TEST_SERVER=uvicorn``."""
WORKERS = os.environ.get("TEST_WORKERS", "1")
"""The processes that speak HTTP; with more than one: ``TEST_WORKERS=2``."""
CLEAN = ("JWT_", "MCP_", "MCPTB_", "HOST", "PORT", "DEBUG", "LOG_LEVEL", "COVERAGE_")


async def eventually(
    probe: Callable[[], T | Awaitable[T]], timeout: float = 10, *, pause: float = 0.02, what: str = ""
) -> T:
    """Ask until the answer is true, and return it. Raises `AssertionError` after ``timeout`` seconds, with the last answer."""
    end = time.monotonic() + timeout
    while True:
        answer = probe()
        found = await answer if isinstance(answer, Awaitable) else answer
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout} s: {what or probe}; the last answer was {found!r}")
        await asyncio.sleep(pause)


def free_port() -> int:
    """A port of the loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def reserved_port() -> socket.socket:
    """A port of the loopback that nobody else is given until this socket is closed; a server can listen on it."""
    place = socket.socket()
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    place.bind(("127.0.0.1", 0))
    return place


def make_token(secret: str = SECRET, *, algorithm: str = "HS256", ttl: float = 3600, **claims: Any) -> str:
    """A token for ``sub`` "tester" and ``ttl`` seconds, as long as the tests may take together; further claims as given, None leaves one out."""
    now = time.time()
    merged = {"sub": "tester", "iat": int(now), "exp": int(now + ttl)} | claims
    return jwt.encode({k: v for k, v in merged.items() if v is not None}, secret, algorithm=algorithm)


@dataclass(frozen=True)
class Reply:
    """An HTTP answer, read whole. ``json`` is None when the body is none."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError:
            return None


class ProxyProcess:
    """``async with ProxyProcess(servers={…}) as proxy``: started and answering inside, gone with its children after.

    ``servers`` becomes a file given with --config; ``env`` is added to an environment without settings of the machine's.
    On leaving it is stopped with SIGTERM, and no process of its tree may be left.
    """

    def __init__(
        self,
        *args: str,
        servers: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        directory: Path | None = None,
        start_timeout: float = 60,
        stop_timeout: float = 15,
    ) -> None:
        self.args, self.servers, self.env = list(args), servers, dict(env or {})
        self._stack = ExitStack()
        self.port: int = self._stack.enter_context(reserved_port()).getsockname()[1]  # also between two starts
        self.start_timeout, self.stop_timeout = start_timeout, stop_timeout
        self._directory = directory

    @property
    def base_url(self) -> str:
        """Without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self.process.pid

    async def __aenter__(self) -> Self:
        temporary = tempfile.TemporaryDirectory(prefix="proxy-", ignore_cleanup_errors=True)
        self.directory = self._directory or Path(self._stack.enter_context(temporary))
        self.session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60))
        try:
            await self.start()
        except BaseException:
            await self._leave()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        left = await self._leave()
        if kind is None:
            assert not left, "processes were left behind:\n" + "\n".join(left)

    async def start(self) -> None:
        """Start (again, after `terminate` or `kill`), and wait for /health/live."""
        self._tree: set[int] = set()
        with (self.directory / "stdout").open("ab") as out, (self.directory / "stderr").open("ab") as err:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "mcp_proxy", "serve", *self._arguments(),
                cwd=self.directory, env=self._environment(), stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=err,
            )  # fmt: skip
        await eventually(self._alive, self.start_timeout, what="the proxy answers /health/live")

    def _arguments(self) -> list[str]:
        if self.servers is None:
            return self.args
        file = self.directory / "servers.json"
        file.write_text(json.dumps({"mcpServers": self.servers}))
        return ["--config", str(file), *self.args]

    def _environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(CLEAN)}
        ours = {
            "JWT_SECRET": SECRET,
            "PORT": str(self.port),
            "MCP_PROXY_SERVER": SERVER,
            "MCP_PROXY_WORKERS": WORKERS,
            "PYTHONUNBUFFERED": "1",
        }
        path = os.pathsep.join([str(ROOT), *filter(None, [inherited.get("PYTHONPATH")])])
        return inherited | {"PYTHONPATH": path} | ours | self.env

    async def _alive(self) -> bool:
        if self.process.returncode is not None:
            raise RuntimeError(f"the proxy ended with {self.process.returncode}:\n{self.stderr()[-4000:]}")
        try:
            return (await self.get("/health/live", token=None)).status == 200
        except aiohttp.ClientError:
            return False

    # Asking

    async def request(
        self, method: str, path: str, *, token: str | None = "", headers: Mapping[str, str] | None = None, **more: Any
    ) -> Reply:
        """Any request. ``token``: "" makes an ordinary one, None sends none. ``more`` goes to aiohttp (json=, data=)."""
        named = dict(headers or {})
        if token is not None:
            named.setdefault("Authorization", f"Bearer {token or make_token()}")
        async with self.session.request(method, self.base_url + path, headers=named, **more) as answer:
            return Reply(answer.status, {k.lower(): v for k, v in answer.headers.items()}, await answer.read())

    async def get(self, path: str, **more: Any) -> Reply:
        """GET; see `request`."""
        return await self.request("GET", path, **more)

    async def post(self, path: str, body: Any = None, **more: Any) -> Reply:
        """POST ``body`` as JSON; see `request`."""
        return await self.request("POST", path, json=body, **more)

    async def call(self, tool: str, args: Mapping[str, Any] | None = None, **more: Any) -> Reply:
        """``POST /tools``. ``server`` is a field of the body; the rest as for `request`."""
        body = {"method": tool, "args": dict(args or {})}
        if "server" in more:
            body["server"] = more.pop("server")
        return await self.post("/tools", body, **more)

    async def connected(self, *names: str, timeout: float = 15) -> None:
        """Wait until these servers (none named: all there are) are connected."""

        async def probe() -> bool:
            states = (await self.get("/health", token=None)).json["servers"]
            return bool(states) and all(states.get(name) == "connected" for name in names or states)

        await eventually(probe, timeout, what=f"connected: {', '.join(names) or 'all'}")

    # What it said

    def stderr(self) -> str:
        return (self.directory / "stderr").read_text(errors="replace")

    def stdout(self) -> str:
        return (self.directory / "stdout").read_text(errors="replace")

    def log_lines(self, **fields: Any) -> list[dict[str, Any]]:
        """The JSON lines on stderr that have these fields."""
        found = []
        for line in self.stderr().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and all(entry.get(name) == value for name, value in fields.items()):
                found.append(entry)
        return found

    # Ending

    def tree(self) -> set[int]:
        """Processes that descend from it, itself included, now or when asked before."""
        self._tree |= descendants(self.process.pid)
        return self._tree

    async def terminate(self, timeout: float | None = None) -> int:
        """SIGTERM, and wait for its end. Returns the exit code."""
        return await self._end(signal.SIGTERM, timeout)

    async def kill(self) -> int:
        """SIGKILL, and wait for its end. Returns the exit code."""
        return await self._end(signal.SIGKILL, None)

    async def _end(self, number: signal.Signals, timeout: float | None) -> int:
        self.tree()
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), timeout or self.stop_timeout)

    async def _leave(self) -> list[str]:
        """Stop what runs, and end by force what does not stop. Returns what was left of the tree, as text."""
        left: list[str] = []
        if hasattr(self, "process"):
            try:
                await self.terminate()
            except TimeoutError:
                left.append(f"the proxy itself ({self.pid}) did not stop within {self.stop_timeout} s")
                await self.kill()
            left += await _orphans(self._tree)
            left += [self.stderr()[-2000:]] if left else []
        await self.session.close()
        self._stack.close()
        return left


async def _orphans(tree: Iterable[int], grace: float = 3) -> list[str]:
    """Those of the tree that live on after ``grace`` seconds, named, and then killed."""
    try:
        await eventually(lambda: not any(alive(pid) for pid in tree), grace)
    except AssertionError:
        left = [pid for pid in tree if alive(pid)]
        names = [f"{pid}: {command_line(pid)}" for pid in left]
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        return names
    return []


def alive(pid: int) -> bool:
    """Is there such a process, other than as a zombie?"""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")


def command_line(pid: int) -> str:
    """How the process was started, "" when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def descendants(pid: int) -> set[int]:
    """The process and all that descend from it, as /proc has it now."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            parents.setdefault(parent, []).append(int(entry.name))
    found, todo = {pid}, [pid]
    while todo:
        children = parents.get(todo.pop(), [])
        found.update(children)
        todo += children
    return found
