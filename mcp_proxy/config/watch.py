"""Noticing that files with servers changed. Reading them is `sources`; what follows from it is the registry's.

The kernel tells at once. A look every second finds what it does not tell: changes in network file systems, directories
that came back, what happened just before a directory was watched.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable
from contextlib import aclosing
from pathlib import Path

from watchfiles import awatch
from watchfiles._rust_notify import WatchfilesRustInternalError

from mcp_proxy.config.sources import Look, Sources

QUIET = 0.2
"""Seconds without a further change before the files are read: programs write in several steps."""

_LONGEST_UNQUIET = 2.0
"""Seconds after which they are read although changes go on."""

_Identities = dict[Path, tuple[int, int]]
"""Directories that are there, with device and inode."""

_log = logging.getLogger(__name__)


class ConfigWatch:
    """Calls ``on_change`` after the files have changed and been quiet for a moment.

    ``on_change`` is awaited before anything else is looked at; it is where `Sources.reload` is called. ``interval``:
    seconds between looks. ``notices`` False: looks alone.
    """

    def __init__(
        self,
        sources: Sources,
        on_change: Callable[[], Awaitable[None]],
        *,
        quiet: float = QUIET,
        interval: float = 1.0,
        notices: bool = True,
    ) -> None:
        self._sources = sources
        self._on_change = on_change
        self._quiet = quiet
        self._interval = interval
        self._notices = notices
        self._look: Look = sources.first_look

    async def run(self) -> None:
        """Follow the files until cancelled."""
        logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it counts changes at INFO
        while True:
            await self._follow(await self._directories())

    async def _follow(self, watched: _Identities) -> None:
        """Follow the files as long as the directories are the same ones."""
        async with aclosing(self._changes(watched)) as changes:
            async for changed in changes:
                await self._check(certain=any(self._sources.concerns(path) for path in changed))
                if not watched.keys().isdisjoint(changed) or await self._directories() != watched:
                    return

    async def _check(self, *, certain: bool) -> None:
        """Tell of a change: one that is ``certain``, or that a look shows."""
        look = await asyncio.to_thread(self._sources.look)
        if certain or look != self._look:
            # Kept before the files are read: what changes while they are read shows at the next look.
            self._look = look
            await self._on_change()

    async def _directories(self) -> _Identities:
        return await asyncio.to_thread(_identities, self._sources.watched)

    async def _changes(self, directories: Collection[Path]) -> AsyncGenerator[set[Path]]:
        """Names in these directories that the kernel told of; none when it is time for a look."""
        if self._notices and directories:
            try:
                async with aclosing(self._told(directories)) as told:
                    async for paths in told:
                        yield paths
            except (OSError, WatchfilesRustInternalError) as error:
                # A directory has just gone, or this system has no more watches left.
                _log.warning("files with servers are looked at every %g s, not watched: %s", self._interval, error)
        while True:
            await asyncio.sleep(self._interval)
            yield set()

    async def _told(self, directories: Collection[Path]) -> AsyncGenerator[set[Path]]:
        watching = awatch(
            *directories,
            # What concerns nobody ends the waiting too: where there is much of it there would be no look.
            watch_filter=None,
            debounce=round(_LONGEST_UNQUIET * 1000),
            step=round(self._quiet * 1000),
            rust_timeout=round(self._interval * 1000),
            yield_on_timeout=True,
            recursive=False,
        )
        async with aclosing(watching) as notices:
            async for notice in notices:
                yield {Path(path) for _, path in notice}


def _identities(directories: Iterable[Path]) -> _Identities:
    found: _Identities = {}
    for directory in directories:
        try:
            status = os.stat(directory)
        except OSError:
            continue
        found[directory] = (status.st_dev, status.st_ino)
    return found
