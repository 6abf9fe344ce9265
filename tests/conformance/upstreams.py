"""The kinds of upstream that the door is judged with: the same fixtures over HTTP and stdio, of both eras and of one.

Each is given as the entry that a configuration file has for it.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.harness import ROOT, reserved_port
from tests.servers.known import serving

FIXTURE = [sys.executable, "-m", "tests.conformance.fixture_server"]
ERAS = {"dual": "both", "legacy-only": "legacy", "modern-only": "modern"}
KINDS = ("stdio", "dual", "legacy-only", "modern-only")
"""``stdio`` speaks both eras over pipes (first, because it takes longest); the others are streamable HTTP."""


@asynccontextmanager
async def fixture_over_http(era: str) -> AsyncIterator[str]:
    """A running fixture server; yields its URL. ``era``: "both", "legacy" or "modern"."""
    with reserved_port() as place:
        argv = [*FIXTURE, "--era", era]
        async with serving(argv, {"PYTHONPATH": str(ROOT)}, place.getsockname()[1]) as url:
            yield url


@asynccontextmanager
async def upstream(kind: str) -> AsyncIterator[dict[str, Any]]:
    """An upstream of one of `KINDS`, running for as long as this does; yields its configuration entry."""
    if kind == "stdio":
        yield {"command": FIXTURE[0], "args": [*FIXTURE[1:], "--stdio"], "cwd": str(ROOT)}
        return
    async with fixture_over_http(ERAS[kind]) as url:
        yield {"url": url, "transport": "streamable-http"}
