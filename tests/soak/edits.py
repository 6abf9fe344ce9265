"""Editing while calls go on: servers are added, edited, renamed, switched and removed by every way there is.

`Editor` makes one change after another and waits until the proxy shows it; what servers there should be is `written`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.harness import ProxyProcess, eventually, make_token
from tests.soak.measures import children
from tests.soak.written import MANNERS, PLACES, Entry, Shown, Written, command, write

_MOST = 12
"""Servers beside the steady ones."""
_PATIENCE = 15.0
"""Seconds after which a change that does not show is a failure and not slowness."""
BROKEN = ('{"mcpServers": {"a": {"url": ', "", "[1, 2]", '{"mcpServers": 3}', "\x00\x01", '{"mcpServer": {}}')


@dataclass
class Made:
    """What was done. ``seconds``: from each change until the proxy showed exactly what is written."""

    kinds: Counter[str] = field(default_factory=Counter)
    file_seconds: list[float] = field(default_factory=list)
    api_seconds: list[float] = field(default_factory=list)
    child_seconds: list[float] = field(default_factory=list)
    """From then until exactly the commands ran that should."""


class Editor:
    """Changes to ``written``, by files and by the API of ``proxy``."""

    def __init__(self, proxy: ProxyProcess, written: Written, url: str, seed: int, ttl: float) -> None:
        """``url``: an upstream for servers that are no commands."""
        self._proxy, self._written, self._url = proxy, written, url
        self._random = random.Random(seed)
        self._token = make_token(ttl=ttl, scope="admin")
        self._serial = 0
        self._marks: Path = written.root / "marks"
        self._marks.mkdir()
        self.made = Made()
        self._moves: list[tuple[str, Callable[[], Awaitable[bool]]]] = [
            *((f"add to {place}", self._in(self._add, place)) for place in PLACES),
            *((f"edit in {place}", self._in(self._edit, place)) for place in PLACES),
            *((f"rename in {place}", self._in(self._rename, place)) for place in PLACES),
            *((f"switch in {place}", self._in(self._switch, place)) for place in PLACES),
            *((f"remove from {place}", self._in(self._remove, place)) for place in PLACES),
            *((f"break {place}", self._in(self._break, place)) for place in PLACES),
            ("POST /servers", self._api_add),
            ("POST /api/instances", self._api_add_one),
            ("PATCH", self._api_patch),
            ("DELETE and POST under another name", self._api_rename),
            ("disable, of the API", self._api_switch),
            ("enable or disable, of a file", self._api_overlay),
            ("DELETE", self._api_remove),
            ("refused", self._api_refused),
        ]

    def others(self) -> list[str]:
        """Servers that may go at any time and are on now."""
        steady = {name for entries in self._written.steady.values() for name in entries}
        return [name for name, shown in self._written.expected().items() if not shown.disabled and name not in steady]

    async def run(self, edits: int, pace: float) -> None:
        """So many changes, one every ``pace`` seconds where the proxy keeps up. All kinds come in turn, shuffled."""
        turn: list[tuple[str, Callable[[], Awaitable[bool]]]] = []
        later: list[tuple[str, Callable[[], Awaitable[bool]]]] = []
        while sum(self.made.kinds.values()) < edits:
            if not turn:
                turn = self._random.sample(self._moves, len(self._moves)) + later
                later = []
            kind, move = turn.pop()
            due = time.monotonic() + pace
            if not await move():
                later.append((kind, move))  # there is nothing to do it to yet
                continue
            self.made.kinds[kind] += 1
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)

    # What the proxy shows

    async def shown(self) -> dict[str, Shown]:
        """Every server, from ``/api/config``; and that ``/servers`` has the same ones."""
        rows = (await self._ask("GET", "/api/config"))["servers"]
        found = {row["name"]: Shown(row["origin"], bool(row.get("disabled")), row.get("description")) for row in rows}
        listed = {row["name"]: row["disabled"] for row in (await self._ask("GET", "/servers"))["servers"]}
        same = listed == {name: one.disabled for name, one in found.items()}
        return found if same else {}

    async def _until_shown(self, seconds: list[float], since: float) -> bool:
        """Wait until the proxy shows what is written, and then until exactly the right commands run."""
        await self._until_equal()
        now = time.monotonic()
        seconds.append(now - since)
        await self.settled()
        self.made.child_seconds.append(time.monotonic() - now)
        return True

    async def _until_equal(self) -> None:
        expected = self._written.expected()

        async def probe() -> bool:
            return await self.shown() == expected

        try:
            await eventually(probe, _PATIENCE, pause=0.05)
        except AssertionError:
            raise AssertionError(f"written is {expected}, shown is {await self.shown()}") from None

    async def settled(self) -> None:
        """Wait until exactly the commands run that should, each once."""
        try:
            await eventually(lambda: not self._astray(), _PATIENCE, pause=0.05)
        except AssertionError:
            raise AssertionError(
                f"commands that should run and do not, or the other way round: {self._astray()}"
            ) from None

    def _astray(self) -> list[str]:
        """Marks of commands that run too often or not at all."""
        lines = [line.split()[-1] for line in children(self._proxy.pid).values() if str(self._marks) in line]
        wanted = Counter(self._written.running())
        running = Counter(lines)
        return sorted(((wanted - running) + (running - wanted)).elements())

    async def until_shown(self) -> None:
        """Wait until the proxy shows what is written."""
        await self._until_equal()

    async def remove_added(self) -> None:
        """Remove everything that the API added."""
        for name in list(self._written.added):
            await self._ask("DELETE", f"/servers/{name}")
            del self._written.added[name]

    # In files

    @staticmethod
    def _in(move: Callable[[str], Awaitable[bool]], place: str) -> Callable[[], Awaitable[bool]]:
        return lambda: move(place)

    async def _add(self, place: str) -> bool:
        if len(self._written.expected()) > _MOST:
            return False
        name = self._name(place)
        self._written.files[place][name] = self._entry()
        return await self._saved(place, name)

    async def _edit(self, place: str) -> bool:
        """Another description, which the connection survives, or another connection."""
        name = self._some(self._written.files[place])
        if name is None:
            return False
        entry = self._written.files[place][name]
        fresh = {**entry, "description": self._words()} if self._random.random() < 0.5 else self._entry()
        self._written.files[place][name] = fresh
        return await self._saved(place, name)

    async def _rename(self, place: str) -> bool:
        name = self._some(self._written.files[place])
        if name is None:
            return False
        entries = self._written.files[place]
        fresh = self._name(place)
        entries[fresh] = entries.pop(name)
        self._written.overlaid.pop(name, None)
        return await self._saved(place, name, fresh)

    async def _switch(self, place: str) -> bool:
        """In the file itself; one that the API has switched is left alone, since that counts."""
        names = [name for name in self._written.files[place] if name not in self._written.overlaid]
        name = self._some(names)
        if name is None:
            return False
        entry = self._written.files[place][name]
        entry["disabled"] = not entry.get("disabled", False)
        return await self._saved(place, name)

    async def _remove(self, place: str) -> bool:
        name = self._some(self._written.files[place])
        if name is None:
            return False
        del self._written.files[place][name]
        self._written.overlaid.pop(name, None)
        return await self._saved(place, name)

    async def _saved(self, place: str, *names: str) -> bool:
        since = time.monotonic()
        manner = self._random.choice(MANNERS)
        for name in names or ("",):
            await self._write(place, name, manner)
            if place != "directory":
                break
        return await self._until_shown(self.made.file_seconds, since)

    async def _write(self, place: str, name: str, manner: str) -> None:
        path = self._written.provider_file(name) if place == "directory" else self._written.file
        if manner == "in two steps" and place != "linked" and path.exists():
            write(path, path.read_text()[:25], "in place")
            await asyncio.sleep(0.05)
        if place == "directory":
            self._written.save_provider(name, manner)
        else:
            self._written.save(place, manner)

    async def _break(self, place: str) -> bool:
        """A file that cannot be used: nothing changes but that it is reported; then it is mended, with a change."""
        name = self._some(self._written.files[place])
        if name is None:
            return False
        before = self._written.expected()
        path = {"file": self._written.file, "linked": self._written.linked}.get(place)
        path = path or self._written.provider_file(name)
        broken = self._random.choice(BROKEN)
        if place == "linked":
            self._written.swap(broken)
        else:
            write(path, broken, self._random.choice(MANNERS[:2]))

        async def reported() -> bool:
            problems = (await self._ask("GET", "/api/config"))["problems"]
            return [problem["source"] for problem in problems] == [str(path)]

        await eventually(reported, _PATIENCE, pause=0.05, what=f"{path} with {broken!r} is reported")
        health = await self._ask("GET", "/health")
        assert health["config_error"] is True
        shown = await self.shown()
        assert shown == before, f"a broken file changed {before} to {shown}"
        self._written.files[place][name]["description"] = self._words()
        done = await self._saved(place, name)
        assert not (await self._ask("GET", "/api/config"))["problems"]
        return done

    # Over the API

    async def _api_add(self) -> bool:
        if len(self._written.expected()) > _MOST:
            return False
        entries = {self._name("api"): self._entry() for _ in range(self._random.choice((1, 2)))}
        since = time.monotonic()
        added = await self._ask("POST", "/servers", {"mcpServers": entries}, 201)
        assert sorted(added["added"]) == sorted(entries)
        self._written.added |= entries
        return await self._until_shown(self.made.api_seconds, since)

    async def _api_add_one(self) -> bool:
        if len(self._written.expected()) > _MOST:
            return False
        name, entry = self._name("api"), self._entry()
        since = time.monotonic()
        await self._ask("POST", "/api/instances", {"name": name, **entry}, 201)
        self._written.added[name] = entry
        return await self._until_shown(self.made.api_seconds, since)

    async def _api_patch(self) -> bool:
        name = self._some(self._written.added)
        if name is None:
            return False
        entry = self._written.added[name]
        patch: Entry = {"description": self._words()}
        if self._random.random() < 0.5:
            patch |= (
                {"args": command(self._mark())["args"]} if "args" in entry else {"headers": {"X-Turn": self._words()}}
            )
        since = time.monotonic()
        await self._ask("PATCH", f"/api/instances/{name}", patch)
        self._written.added[name] = {**entry, **patch}
        return await self._until_shown(self.made.api_seconds, since)

    async def _api_rename(self) -> bool:
        name = self._some(self._written.added)
        if name is None:
            return False
        fresh, entry = self._name("api"), self._written.added[name]
        since = time.monotonic()
        await self._ask("DELETE", f"/servers/{name}")
        await self._ask("POST", "/servers", {"mcpServers": {fresh: entry}}, 201)
        del self._written.added[name]
        self._written.added[fresh] = entry
        return await self._until_shown(self.made.api_seconds, since)

    async def _api_switch(self) -> bool:
        name = self._some(self._written.added)
        if name is None:
            return False
        off = not self._written.added[name].get("disabled", False)
        since = time.monotonic()
        await self._switch_over_api(name, off)
        self._written.added[name]["disabled"] = off
        return await self._until_shown(self.made.api_seconds, since)

    async def _api_overlay(self) -> bool:
        name = self._some([name for entries in self._written.files.values() for name in entries])
        if name is None:
            return False
        off = not self._written.expected()[name].disabled
        since = time.monotonic()
        await self._switch_over_api(name, off)
        place = self._written.place_of(name)
        assert place is not None
        if off == bool(self._written.files[place][name].get("disabled")):
            self._written.overlaid.pop(name, None)
        else:
            self._written.overlaid[name] = off
        return await self._until_shown(self.made.api_seconds, since)

    async def _switch_over_api(self, name: str, off: bool) -> None:
        if self._random.random() < 0.5:
            await self._ask("PATCH", f"/api/instances/{name}", {"disabled": off})
        else:
            await self._ask("POST", f"/api/instances/{name}/{'disable' if off else 'enable'}")

    async def _api_remove(self) -> bool:
        name = self._some(self._written.added)
        if name is None:
            return False
        since = time.monotonic()
        await self._ask("DELETE", self._random.choice(("/servers", "/api/instances")) + f"/{name}")
        del self._written.added[name]
        return await self._until_shown(self.made.api_seconds, since)

    async def _api_refused(self) -> bool:
        """What cannot be added or removed changes nothing."""
        taken = next(iter(self._written.expected()))
        since = time.monotonic()
        await self._ask("POST", "/servers", {"mcpServers": {taken: {"url": self._url}}}, 409)
        await self._ask("POST", "/servers", {"mcpServers": {"good": {"url": self._url}, "bad": {}}}, 422)
        await self._ask("POST", "/servers", {"mcpServers": {"shell": {"command": "sh", "args": ["-c", "true"]}}}, 403)
        await self._ask("DELETE", f"/servers/{taken}", None, 409)
        await self._ask("DELETE", "/servers/nobody", None, 404)
        return await self._until_shown(self.made.api_seconds, since)

    async def _ask(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        more = {} if body is None else {"json": body}
        reply = await self._proxy.request(method, path, token=self._token, **more)
        assert reply.status == status, f"{method} {path} {body}: {reply}"
        return reply.json

    # What to write

    def _name(self, place: str) -> str:
        self._serial += 1
        return f"{place}-{self._serial}"

    def _mark(self) -> str:
        self._serial += 1
        return str(self._marks / f"{self._serial}.jsonl")

    def _words(self) -> str:
        self._serial += 1
        return f"as of change {self._serial}"

    def _entry(self) -> Entry:
        """A command or a URL, on or off."""
        kept: Entry = {"description": self._words()}
        if self._random.random() < 0.2:
            kept["disabled"] = True
        return command(self._mark(), **kept) if self._random.random() < 0.5 else {"url": self._url, **kept}

    def _some(self, names: Any) -> str | None:
        found = list(names)
        return self._random.choice(found) if found else None
