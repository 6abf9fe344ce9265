"""Noticing changes of files, by the kernel's notices and by looking."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mcp_proxy.config.sources import Configured, Look, Sources
from mcp_proxy.config.state import State
from mcp_proxy.config.watch import ConfigWatch
from mcp_proxy.settings import Settings

pytestmark = pytest.mark.anyio

BOUND = 20


class Following:
    """What a watch has told of so far."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self.configured = sources.start(State())
        self.times = 0
        self._changed = asyncio.Condition()

    async def on_change(self) -> None:
        self.configured = await asyncio.to_thread(self.sources.reload, State())
        async with self._changed:
            self.times += 1
            self._changed.notify_all()

    async def until(self, what: Callable[[Configured], bool]) -> None:
        async with asyncio.timeout(BOUND), self._changed:
            await self._changed.wait_for(lambda: what(self.configured))

    async def has(self, **commands: str) -> None:
        await self.until(lambda found: {spec.name: spec.command for spec in found.servers.specs} == commands)


def write(path: Path, name: str, command: str) -> None:
    """As many programs do: into a new file, then renamed."""
    beside = path.with_suffix(".new")
    beside.write_text(f'{{"mcpServers": {{"{name}": {{"command": "{command}"}}}}}}')
    beside.replace(path)


@asynccontextmanager
async def following(
    sources: Sources, *, interval: float = 0.05, notices: bool = True, quiet: float = 0.02
) -> AsyncIterator[Following]:
    found = Following(sources)
    watch = ConfigWatch(sources, found.on_change, quiet=quiet, interval=interval, notices=notices)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(watch.run())
        try:
            yield found
        finally:
            task.cancel()


@pytest.fixture(params=["told", "looking"])
def notices(request: pytest.FixtureRequest) -> bool:
    """Once with the kernel's notices, once by looks alone."""
    return bool(request.param == "told")


async def test_a_file_written_in_place_and_one_renamed_over_it_are_noticed(tmp_path: Path, notices: bool) -> None:
    file = tmp_path / "mcp.json"
    write(file, "a", "1")
    async with following(Sources(Settings(config=(file,)), {}), notices=notices) as found:
        write(file, "a", "renamed")
        await found.has(a="renamed")
        file.write_text('{"b": {"command": "in place"}}')
        await found.has(b="in place")


async def test_a_file_that_vanishes_and_comes_back_is_noticed(tmp_path: Path, notices: bool) -> None:
    file = tmp_path / "mcp.json"
    write(file, "a", "1")
    async with following(Sources(Settings(config=(file,)), {}), notices=notices) as found:
        file.unlink()
        await found.until(lambda configured: len(configured.problems) == 1)
        write(file, "a", "2")
        await found.has(a="2")
        assert found.configured.problems == ()


async def test_providers_that_come_and_go_are_noticed(tmp_path: Path, notices: bool) -> None:
    async with following(Sources(Settings(config_dir=tmp_path), {}), notices=notices) as found:
        (tmp_path / "p").mkdir()
        write(tmp_path / "p" / "mcp_settings.json", "a", "1")
        await found.has(a="1")
        write(tmp_path / "p" / "mcp_settings.json", "a", "2")
        await found.has(a="2")
        shutil.rmtree(tmp_path / "p")
        await found.has()


async def test_a_swapped_link_to_a_directory_is_noticed(tmp_path: Path, notices: bool) -> None:
    # As Kubernetes updates a mounted ConfigMap.
    for version in ("..1", "..2", "..3"):
        (tmp_path / version).mkdir()
        write(tmp_path / version / "mcp.json", "a", version)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "mcp.json").symlink_to("..data/mcp.json")
    async with following(Sources(Settings(config=(tmp_path / "mcp.json",)), {}), notices=notices) as found:
        for version in ("..2", "..3"):
            (tmp_path / "..data_tmp").symlink_to(version)
            os.replace(tmp_path / "..data_tmp", tmp_path / "..data")
            await found.has(a=version)
        write(tmp_path / "..3" / "mcp.json", "a", "behind the link")
        await found.has(a="behind the link")


@pytest.mark.parametrize("leave", [shutil.rmtree, lambda path: path.rename(path.with_name("away"))])
async def test_a_directory_that_vanishes_and_comes_back_is_watched_again(
    tmp_path: Path, notices: bool, leave: Callable[[Path], object]
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder / "mcp.json", "a", "1")
    async with following(Sources(Settings(config=(folder / "mcp.json",)), {}), notices=notices) as found:
        leave(folder)
        await found.until(lambda configured: len(configured.problems) == 1)
        folder.mkdir()
        write(folder / "mcp.json", "a", "2")
        await found.has(a="2")
        write(folder / "mcp.json", "a", "3")
        await found.has(a="3")


async def test_the_directory_of_providers_may_vanish_and_come_back(tmp_path: Path, notices: bool) -> None:
    data = tmp_path / "data"
    (data / "p").mkdir(parents=True)
    write(data / "p" / "mcp_settings.json", "a", "1")
    async with following(Sources(Settings(config_dir=data), {}), notices=notices) as found:
        data.rename(tmp_path / "away")
        await found.until(lambda configured: bool(configured.problems))
        await found.has(a="1")
        (data / "q").mkdir(parents=True)
        write(data / "q" / "mcp_settings.json", "b", "2")
        await found.has(b="2")


async def test_a_change_between_the_start_and_the_watch_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "mcp.json"
    write(file, "a", "1")
    sources = Sources(Settings(config=(file,)), {})
    found = Following(sources)
    write(file, "a", "2")
    task = asyncio.get_running_loop().create_task(ConfigWatch(sources, found.on_change, interval=0.05).run())
    try:
        await found.has(a="2")
    finally:
        task.cancel()


class Looks:
    """Stands in for `Sources.look`: nothing ever looks different, and tests can wait for a number of looks."""

    def __init__(self, sources: Sources) -> None:
        self._same = sources.first_look
        self._loop = asyncio.get_running_loop()
        self._looked = asyncio.Semaphore(0)

    def __call__(self) -> Look:
        self._loop.call_soon_threadsafe(self._looked.release)
        return self._same

    async def wait(self, times: int = 1) -> None:
        async with asyncio.timeout(BOUND):
            for _ in range(times):
                await self._looked.acquire()


async def test_the_kernel_tells_of_what_no_look_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mcp.json"
    write(file, "a", "1")
    sources = Sources(Settings(config=(file,)), {})
    async with following(sources) as found:
        looks = Looks(sources)
        monkeypatch.setattr(sources, "look", looks)
        await looks.wait()  # the first look comes after the watch has begun
        write(file, "a", "told")
        await found.has(a="told")


async def test_other_files_in_the_same_directory_are_nobodys_business(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mcp.json"
    write(file, "a", "1")
    sources = Sources(Settings(config=(file,)), {})
    async with following(sources) as found:
        looks = Looks(sources)
        monkeypatch.setattr(sources, "look", looks)
        await looks.wait()
        (tmp_path / "noise.log").write_text("x")
        await looks.wait(3)  # one may have been under way; whatever the kernel told of is followed by one
        assert found.times == 0
        write(file, "a", "2")
        await found.has(a="2")


async def test_many_writes_in_a_row_are_told_of_together(tmp_path: Path) -> None:
    file = tmp_path / "mcp.json"
    write(file, "a", "1")
    async with following(Sources(Settings(config=(file,)), {}), quiet=0.5) as found:
        for number in range(200):
            write(file, "a", str(number))
        await found.has(a="199")
        assert found.times < 10


async def test_where_the_kernel_cannot_watch_looks_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("watchfiles.main.RustNotify", refuse)
    file = tmp_path / "mcp.json"
    write(file, "a", "1")
    async with following(Sources(Settings(config=(file,)), {})) as found:
        write(file, "a", "2")
        await found.has(a="2")
    assert "looked at every" in caplog.text


async def test_a_watch_ends_when_it_is_cancelled(tmp_path: Path, notices: bool) -> None:
    file = tmp_path / "mcp.json"
    write(file, "a", "1")
    async with asyncio.timeout(BOUND), following(Sources(Settings(config=(file,)), {}), notices=notices) as found:
        write(file, "a", "2")
        await found.has(a="2")
