"""How the real clients are run: `visit` starts one of the scripts beside this file, and returns what it saw."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.harness import CLEAN
from tests.servers.known import INSTALLED, node

HERE = Path(__file__).resolve().parent
LIMIT = 120  # seconds that one client may take with all of its plan
INTERPRETERS = {
    "inspector_cli.py": sys.executable,
    "typescript_sdk_1.mjs": node(),
    "typescript_sdk_2.mjs": node(),
    "python_sdk_1.py": str(INSTALLED / "legacy/bin/python"),
    "python_sdk_2.py": sys.executable,
    "fastmcp_client.py": str(INSTALLED / "fastmcp/bin/python"),
}


@dataclass(frozen=True, slots=True)
class Visit:
    """What a client printed and how it ended. ``report`` is empty when it did not come to the end of its plan."""

    code: int
    report: dict[str, Any]
    stderr: str


async def visit(
    script: str,
    plan: dict[str, Any],
    directory: Path,
    *,
    era: str,
    transport: str,
    at: str | Sequence[str],
    token: str = "",
) -> Visit:
    """Run a client in ``directory``, on the URL or the stdio command ``at``. Fails the test when it takes too long."""
    _installed(script)
    argv = [
        INTERPRETERS[script],
        str(HERE / script),
        "--plan",
        json.dumps(plan),
        "--era",
        era,
        "--transport",
        transport,
    ]
    argv += ["--token", token] if token else []
    argv += ["--url", at] if isinstance(at, str) else ["--stdio", *at]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(CLEAN)}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *argv, cwd=directory, env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe,
        start_new_session=True,
    )  # fmt: skip
    try:
        out, err = await asyncio.wait_for(process.communicate(), LIMIT)
    except TimeoutError:
        pytest.fail(f"{script} ({era}, {transport}) did not end within {LIMIT} s")
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return Visit(int(process.returncode or 0), _report(out), err.decode(errors="replace"))


def _report(out: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(out.splitlines()[-1]))
    except (ValueError, IndexError):
        return {}


def _installed(script: str) -> None:
    for part in (INTERPRETERS[script], str(INSTALLED / "clients/node_modules")):
        if not Path(part).exists():
            pytest.fail(f"{part} is not installed; run scripts/test")
