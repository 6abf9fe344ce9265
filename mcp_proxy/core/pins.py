"""Pinned tools: a definition is trusted as it was when it was first seen, and a changed one waits for the operator.

A server that changes what a tool says of itself after it was looked at can make models do other things with it (a "rug
pull"). Which servers are pinned is configured; holding tools back is `catalog.control`, the file `config.pin_file`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from mcp_proxy.base.errors import CONFLICT, TOOL_NOT_FOUND, ProxyError
from mcp_proxy.config.model import ServerSpec
from mcp_proxy.config.pin_file import PinFile
from mcp_proxy.config.state import StoreError
from mcp_proxy.core.catalog.tool import Tool
from mcp_proxy.telemetry.logs import Logger

_PAUSE = 0.2
"""Seconds between the first definition that is new and writing, in which more may come."""


class Pins:
    """What is pinned, and what is held back. `keep` belongs to the runtime."""

    def __init__(self, file: PinFile, *, default: bool, log: Logger) -> None:
        """``default``: whether servers are pinned that do not say. Raises `StartError` for a file that cannot be read."""
        self._file = file
        self._default = default
        self._log = log
        self._pinned = file.load()
        self._held: dict[str, dict[str, Mapping[str, Any]]] = {}
        self._unsaved = asyncio.Event()
        self._saving = asyncio.Lock()

    def applies_to(self, spec: ServerSpec) -> bool:
        """Whether this server's tools are pinned."""
        return self._default if spec.tools.pin is None else spec.tools.pin

    def held(self, spec: ServerSpec, tools: Iterable[Tool]) -> frozenset[str]:
        """Names of the tools that are not what they were; those never seen before are pinned by this."""
        if not self.applies_to(spec):
            self._held.pop(spec.name, None)
            return frozenset()
        known = self._pinned.setdefault(spec.name, {})
        held = self._held.setdefault(spec.name, {})
        changed = set()
        for tool in tools:
            definition = _essence(tool.definition)
            if tool.name not in known:
                known[tool.name] = definition
                self._unsaved.set()
            if known[tool.name] == definition:
                held.pop(tool.name, None)
            else:
                held[tool.name] = definition
                changed.add(tool.name)
        return frozenset(changed)

    def describe(self, spec: ServerSpec) -> dict[str, Any]:
        """``{"pinned": bool, "tools": {name: definition}, "held": {name: {"pinned": …, "offered": …}}}``."""
        known, held = self._pinned.get(spec.name, {}), self._held.get(spec.name, {})
        return {
            "pinned": self.applies_to(spec),
            "tools": dict(known),
            "held": {name: {"pinned": known[name], "offered": offered} for name, offered in held.items()},
        }

    async def approve(self, server: str, names: Iterable[str] | None) -> tuple[str, ...]:
        """Pin tools that are held back as they are now, all of them or those named; returns which.

        Raises `ProxyError`: 404 for one that is not held back; 409 when it cannot be kept, and nothing is approved.
        """
        held = self._held.get(server, {})
        wanted = tuple(held if names is None else dict.fromkeys(names))
        for name in wanted:
            if name not in held:
                raise ProxyError(TOOL_NOT_FOUND, f"{server} has no tool {name[:200]!r} that is held back")
        # As they are now: while this is written the server may announce something else, which nobody has approved.
        accepted = {name: dict(held[name]) for name in wanted}
        await self._save({**self._pinned, server: {**self._pinned.get(server, {}), **accepted}})
        self._pinned.setdefault(server, {}).update(accepted)
        return wanted

    async def forget(self, server: str) -> None:
        """The server was removed for good: one that gets its name is looked at anew. Raises `ProxyError`."""
        self._held.pop(server, None)
        if server in self._pinned:
            await self._save({name: tools for name, tools in self._pinned.items() if name != server})
            self._pinned.pop(server, None)

    async def _save(self, pinned: Mapping[str, Any]) -> None:
        try:
            await self._write(pinned)
        except StoreError as error:
            self._log.error("pins_not_kept", reason=str(error))
            text = "the change could not be kept in the state directory; nothing was changed"
            raise ProxyError(CONFLICT, text) from None

    async def _write(self, pinned: Mapping[str, Any]) -> None:
        async with self._saving:
            copy = {name: dict(tools) for name, tools in pinned.items() if tools}
            await asyncio.to_thread(self._file.save, copy)

    async def keep(self) -> None:
        """Write what is pinned at first sight, as long as the program runs."""
        while True:
            await self._unsaved.wait()
            await asyncio.sleep(_PAUSE)
            await self.flush()

    async def flush(self) -> None:
        """Write what has not been. A failure is logged; the pins hold as long as the program runs."""
        if not self._unsaved.is_set():
            return
        self._unsaved.clear()
        try:
            await self._write(self._pinned)
        except StoreError as error:
            self._log.error("pins_not_kept", reason=str(error))


def _essence(definition: Mapping[str, Any]) -> dict[str, Any]:
    """What counts: everything but ``_meta``, which nobody is shown and which may change by itself."""
    return {key: value for key, value in definition.items() if key != "_meta"}
