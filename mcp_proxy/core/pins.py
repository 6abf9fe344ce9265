"""Pinned tools: a definition is trusted as it was when it was first seen, and a changed one waits for the operator.

A server that changes what a tool says of itself after it was looked at can make models do other things with it (a "rug
pull"). A server may list a tool differently by what the client can: each of these definitions is approved by itself.
Which servers are pinned is configured; holding tools back is `catalog.control`, the file `config.pin_file`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mcp_proxy.base.errors import CONFLICT, ProxyError
from mcp_proxy.config.model import ServerSpec
from mcp_proxy.config.pin_file import Definition, PinFile
from mcp_proxy.config.state import StoreError
from mcp_proxy.core.catalog.tool import Tool
from mcp_proxy.telemetry.logs import Logger

MOST = 8
"""Definitions of one tool that can be approved beside each other."""
Kind = tuple[str, str | None]
"""Whom a server lists to: what such clients can, and the key of the one client when the list is its own."""
EVERYBODY: Kind = ("", None)
"""Clients without capabilities, and all that are listed the same."""
_MOST_KINDS = 64
"""Per server; of kinds beyond that the ones that listed longest ago are no longer shown as held."""
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
        self._listed: dict[str, dict[Kind, dict[str, Definition]]] = {}
        """What each server lists now, by kind; of kinds other than `EVERYBODY` only what differs."""
        self._unsaved = asyncio.Event()
        self._saving = asyncio.Lock()

    def applies_to(self, spec: ServerSpec) -> bool:
        """Whether this server's tools are pinned."""
        return self._default if spec.tools.pin is None else spec.tools.pin

    def held(self, spec: ServerSpec, tools: Iterable[Tool], kind: Kind = EVERYBODY) -> frozenset[str]:
        """Names of the tools that are not as approved, of all that are listed to ``kind``.

        Tools never seen before are pinned by this. What is approved is approved for every kind.
        """
        if not self.applies_to(spec):
            self._listed.pop(spec.name, None)
            return frozenset()
        known = self._pinned.setdefault(spec.name, {})
        listed = {tool.name: tool.definition for tool in tools}
        self._remember(spec.name, kind, listed)
        for name, definition in listed.items():
            before = known.get(name)
            if before is None or (isinstance(before, dict) and before == _without_meta(definition)):
                known[name] = [definition]
                self._unsaved.set()
        return frozenset(name for name, definition in listed.items() if not _is_approved(known[name], definition))

    def _remember(self, server: str, kind: Kind, listed: dict[str, Definition]) -> None:
        kinds = self._listed.setdefault(server, {})
        kinds.pop(kind, None)
        if kind != EVERYBODY:
            common = kinds.get(EVERYBODY, {})
            listed = {name: one for name, one in listed.items() if common.get(name) != one}
            others = [other for other in kinds if other != EVERYBODY]
            if listed and len(others) >= _MOST_KINDS:
                del kinds[others[0]]
        if listed:
            kinds[kind] = listed

    def left(self, client: str) -> None:
        """The client of that key is gone: what was listed to it alone is held back from nobody."""
        for kinds in self._listed.values():
            for kind in [kind for kind in kinds if kind[1] == client]:
                del kinds[kind]

    def describe(self, spec: ServerSpec) -> dict[str, Any]:
        """``{"pinned": bool, "tools": {name: definitions}, "held": {name: {"pinned": …, "offered": definitions}}}``.

        ``held`` has only what the server lists now, to anybody.
        """
        known = self._pinned.get(spec.name, {})
        held = self._held(spec.name) if self.applies_to(spec) else {}
        return {
            "pinned": self.applies_to(spec),
            "tools": {name: _definitions(one) for name, one in known.items()},
            "held": {
                name: {"pinned": _definitions(known.get(name)), "offered": offered} for name, offered in held.items()
            },
        }

    def _held(self, server: str) -> dict[str, list[Definition]]:
        known = self._pinned.get(server, {})
        held: dict[str, list[Definition]] = {}
        for listed in self._listed.get(server, {}).values():
            for name, definition in listed.items():
                if not _is_approved(known.get(name), definition) and definition not in held.get(name, ()):
                    held.setdefault(name, []).append(definition)
        return held

    async def approve(self, server: str, accepted: Mapping[str, Sequence[Definition]]) -> None:
        """Pin exactly these definitions, by the names of their tools; what the server lists by now is not looked at.

        Definitions that were approved before stay so as long as the server lists them to anybody, and are replaced
        otherwise. Raises `ProxyError` (409), and nothing is approved: too many, or they cannot be kept.
        """
        known = self._pinned.get(server, {})
        after = {name: self._beside(server, name, definitions) for name, definitions in accepted.items()}
        await self._save({**self._pinned, server: {**known, **after}})
        self._pinned.setdefault(server, {}).update(after)

    def _beside(self, server: str, name: str, accepted: Sequence[Definition]) -> list[Definition]:
        """What is approved of a tool once these are. Raises `ProxyError` (409)."""
        now = [listed[name] for listed in self._listed.get(server, {}).values() if name in listed]
        before = self._pinned.get(server, {}).get(name)
        kept = [one for one in before if one in now] if isinstance(before, list) else []
        kept += [one for one in accepted if one not in kept]
        if len(kept) > MOST:
            text = f"{server} lists {name[:200]!r} in more than {MOST} forms; a tool like that cannot be pinned"
            raise ProxyError(CONFLICT, text, details={"server": server})
        return kept

    async def forget(self, server: str) -> None:
        """The server was removed for good: one that gets its name is looked at anew.

        A failure to write that is logged; after a restart the old pins would then hold again.
        """
        self._listed.pop(server, None)
        if self._pinned.pop(server, None):
            self._unsaved.set()
            await self.flush()

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


def _is_approved(pin: Definition | list[Definition] | None, definition: Definition) -> bool:
    return isinstance(pin, list) and definition in pin


def _definitions(pin: Definition | list[Definition] | None) -> list[Definition]:
    """A pin as it is shown: always a list."""
    if pin is None:
        return []
    return list(pin) if isinstance(pin, list) else [pin]


def _without_meta(definition: Definition) -> dict[str, Any]:
    """As pins of version 1 were kept. Today all of a definition counts: clients are shown ``_meta`` too."""
    return {key: value for key, value in definition.items() if key != "_meta"}
