"""The garbage collector while the program serves."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from mcp_proxy.server import set_up_collector


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


def test_what_is_there_at_the_start_is_not_looked_at_again_and_what_comes_later_is() -> None:
    before = gc.get_freeze_count()
    set_up_collector()
    assert gc.get_freeze_count() > before + 1000
    later: list[object] = []
    later.append(later)
    assert any(one is later for one in gc.get_objects())
    assert gc.isenabled()
    assert gc.get_threshold()[0] == 10_000
