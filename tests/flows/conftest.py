"""Upstreams and applications that the flows of one file share; what changes them is started by the test itself."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.faults.harness import FaultyCommand, FaultyUpstream, faulty_http, faulty_stdio
from tests.flows.inside import Inside, serving


@pytest.fixture(scope="module")
async def upstream() -> AsyncIterator[FaultyUpstream]:
    """A well-behaved upstream over HTTP, with a ledger."""
    async with faulty_http() as one:
        yield one


@pytest.fixture(scope="module")
async def child() -> AsyncIterator[FaultyCommand]:
    """The same for a command over stdio."""
    async with faulty_stdio() as one:
        yield one


@pytest.fixture(scope="module", params=("hypercorn", "uvicorn"))
def server(request: pytest.FixtureRequest) -> str:
    """Each of the HTTP servers in turn, for what is tried under both."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
async def calc(upstream: FaultyUpstream) -> AsyncIterator[Inside]:
    """An application with one server, ``calc``."""
    async with serving({"calc": {"url": upstream.url}}) as inside:
        yield inside
