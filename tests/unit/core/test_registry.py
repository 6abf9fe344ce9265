"""Changes that are cut short by an asker that leaves, and changes to servers that cannot be used as written."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from mcp_proxy.base.errors import ProxyError
from mcp_proxy.config.state import State, StateStore
from mcp_proxy.core.auth.principal import LOCAL
from mcp_proxy.core.registry import Registry
from tests.flows.inside import Inside, serving
from tests.harness import eventually

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


def states(inside: Inside) -> dict[str, bool]:
    """Every server, refused ones too: whether it is switched off."""
    manager = inside.app.runtime.manager
    return {one.name: one.disabled for one in (*manager.specs.values(), *manager.refused)}


async def refusal(work: Any) -> tuple[int, str]:
    with pytest.raises(ProxyError) as raised:
        await work
    return raised.value.status, raised.value.kind.type


async def test_a_group_that_is_called_like_a_server_is_refused_and_changes_nothing():
    async with serving(**LOOPBACK) as inside:
        registry: Registry = inside.app.runtime.registry
        await registry.add({"one": {**ENTRY, "group": "both"}}, LOCAL)
        several = {"two": {**ENTRY, "group": "three"}, "three": ENTRY}
        assert await refusal(registry.add(several, LOCAL)) == (422, "unprocessable")
        assert await refusal(registry.add({"two": {**ENTRY, "group": "one"}}, LOCAL)) == (422, "unprocessable")
        assert await refusal(registry.patch("one", {"group": "one"}, LOCAL)) == (422, "unprocessable")
        assert states(inside) == {"one": True}


async def refused_by_file(inside: Inside, root: Path) -> None:
    """A file with a server that an unset variable makes useless."""
    place = root / "acme" / "mcp_settings.json"
    place.parent.mkdir()
    place.write_text(json.dumps({"name": "useless", "type": "http", "url": "http://h/${NOBODY_SETS_THIS}"}))
    await eventually(lambda: "useless" in states(inside))


async def test_a_server_that_cannot_be_used_is_switched_off_and_on(tmp_path: Path):
    async with serving(config_dir=tmp_path) as inside:
        registry: Registry = inside.app.runtime.registry
        await refused_by_file(inside, tmp_path)
        await registry.switch("useless", on=False, principal=LOCAL)
        assert states(inside) == {"useless": True}
        await registry.switch("useless", on=True, principal=LOCAL)
        assert states(inside) == {"useless": False}
        assert await refusal(registry.remove("useless", LOCAL)) == (409, "conflict")


async def test_a_server_of_the_api_that_a_file_made_useless_is_mended_or_removed(tmp_path: Path):
    async with serving(config_dir=tmp_path, **LOOPBACK) as inside:
        registry: Registry = inside.app.runtime.registry
        entry = {**ENTRY, "group": "taken"}
        await registry.add({"one": entry, "two": entry}, LOCAL)
        place = tmp_path / "acme" / "mcp_settings.json"
        place.parent.mkdir()
        place.write_text(json.dumps({"name": "taken", "type": "http", "url": "http://h/"}))
        await eventually(lambda: len(inside.app.runtime.manager.refused) == 2)
        await registry.patch("one", {"group": None}, LOCAL)
        await registry.remove("two", LOCAL)
        assert sorted(inside.app.runtime.manager.specs) == ["one", "taken"]
        assert inside.app.runtime.manager.refused == ()
