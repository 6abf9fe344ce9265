"""Upstreams and applications that the flows of one file share; what changes them is started by the test itself."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.faults.harness import FaultyUpstream, faulty_http
from tests.flows.inside import Inside, serving


@pytest.fixture(scope="module")
async def upstream() -> AsyncIterator[FaultyUpstream]:
    """A well-behaved upstream over HTTP, with a ledger."""
    async with faulty_http() as one:
        yield one


@pytest.fixture(scope="module")
async def calc(upstream: FaultyUpstream) -> AsyncIterator[Inside]:
    """An application with one server, ``calc``."""
    async with serving({"calc": {"url": upstream.url}}) as inside:
        yield inside
