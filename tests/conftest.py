"""What all tests share. The real servers are in `servers.known`, the program as a process in `harness`."""

from __future__ import annotations

import os

import pytest


def pytest_configure() -> None:
    """Have the hundreds of processes that are started here keep what they compile, whatever the machine's habit is."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Tests marked `anyio` run on asyncio, as the program does."""
    return "asyncio"
