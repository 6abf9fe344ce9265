"""The services that the cases of the LLM door run against: one of each kind for the whole session.

Cases that a kind cannot have by its nature are declared in `exceptions`, and are not run for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.llm.exceptions import is_exception
from tests.llm.kinds import KINDS, Kind, opened


@pytest.fixture(scope="module", params=KINDS)
async def source(request: pytest.FixtureRequest) -> AsyncIterator[Kind]:
    """A service with a model of each kind in turn."""
    async with opened(request.param) as kind:
        yield kind


@pytest.fixture
async def kind(source: Kind) -> AsyncIterator[Kind]:
    """The same, whose model has not been asked anything, and has nothing left to do at the end."""
    source.brain.forget()
    yield source
    await source.brain.is_idle()


@pytest.fixture
async def fresh(source: Kind) -> AsyncIterator[Kind]:
    """A service of the same kind that nothing has happened to."""
    async with opened(source.name) as kind:
        yield kind


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is declared not to be."""
    here = Path(__file__).parent
    out = [item for item in items if here in item.path.parents and is_exception(item)]
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in out]
