"""What all tests share. The real servers are in `servers.known`, the program as a process in `harness`."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Tests marked `anyio` run on asyncio, as the program does."""
    return "asyncio"
