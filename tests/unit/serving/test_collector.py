"""The garbage collector of processes that serve."""

from __future__ import annotations

import gc
import socket
from collections.abc import Iterator

import pytest

from mcp_proxy.serving.collector import set_up_collector
from mcp_proxy.serving.terms import Serve, Serving
from mcp_proxy.serving.workers import worker


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


@pytest.mark.anyio
async def test_a_worker_sets_it_up_once_its_server_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []

    async def serve(serving: Serving) -> None:
        happened.append("served")

    def server_named(name: str) -> Serve:
        happened.append(f"{name} loaded")
        return serve

    monkeypatch.setattr(worker, "server_named", server_named)
    monkeypatch.setattr(worker, "set_up_collector", lambda: happened.append("set up"))
    monkeypatch.setattr(worker, "route_foreign", lambda log: None)  # the log of this process is not to change
    owners, channel = socket.socketpair()
    with owners:
        terms = worker.Terms("uvicorn", channel.detach(), [], "127.0.0.1", [])
        await worker._Worker(terms).run()
    assert happened == ["uvicorn loaded", "set up", "served"]
