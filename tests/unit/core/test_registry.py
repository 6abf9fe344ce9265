"""Changes that are cut short: by an asker that leaves, or by a disk that takes its time."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from mcp_proxy.config.state import State, StateStore
from mcp_proxy.core.auth.principal import LOCAL
from tests.flows.inside import serving

pytestmark = pytest.mark.anyio

ENTRY = {"url": "http://127.0.0.1:9/mcp", "disabled": True}
LOOPBACK = {"allow_network": ("127.0.0.0/8",)}


class SlowOnce:
    """`StateStore.save` whose first use waits until it is let go; others are as fast as ever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.go, self.ended = threading.Event(), threading.Event(), threading.Event()
        save = StateStore.save

        def slowly(store: StateStore, state: State) -> None:
            if self.begun.is_set():
                return save(store, state)
            self.begun.set()
            assert self.go.wait(10)
            save(store, state)
            return self.ended.set()

        monkeypatch.setattr(StateStore, "save", slowly)


def kept(directory: Path) -> list[str]:
    """The servers that would be there after a restart."""
    servers: dict[str, Any] = json.loads((directory / "servers.json").read_bytes())["servers"]
    return sorted(servers)


async def test_a_change_whose_asker_leaves_is_finished_before_the_next_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    slow = SlowOnce(monkeypatch)
    async with serving(state_dir=tmp_path, **LOOPBACK) as inside, asyncio.TaskGroup() as group:
        registry = inside.app.runtime.registry
        first = group.create_task(registry.add({"first": ENTRY}, LOCAL))
        assert await asyncio.to_thread(slow.begun.wait, 10)
        first.cancel()
        second = group.create_task(registry.add({"second": ENTRY}, LOCAL))
        await asyncio.wait([second], timeout=0.2)
        slow.go.set()
        assert await asyncio.to_thread(slow.ended.wait, 10)
        await second
        assert first.cancelled()
        assert kept(tmp_path) == sorted(inside.app.runtime.manager.specs) == ["first", "second"]
