"""The proxy is killed in the middle of changes over the API: after the restart, what was answered is there.

Several writers change servers of their own, one change after another. Of each writer's servers the proxy must show,
after the restart, what they were after its last answered change, or after the one that was not answered any more.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.faults.harness import faulty_http
from tests.harness import ProxyProcess, make_token

State = dict[str, dict[str, Any]]
"""Servers by name: what is compared of them."""
WRITERS = 4
_KEYS = {"version", "revision", "servers", "disabled", "enabled"}


@dataclass
class Killed:
    """What a run found."""

    kills: int = 0
    answered: int = 0
    """Changes answered with 2xx."""
    unanswered: Counter[str] = field(default_factory=Counter)
    """What became of changes that were under way when the proxy was killed: ``kept`` or ``lost``."""
    faults: list[str] = field(default_factory=list)
    left: int = 0
    """Temporary files in the state directory at the end."""

    def __str__(self) -> str:
        return (
            f"{self.kills} kills, {self.answered} changes answered, under way {dict(self.unanswered)}, "
            f"{self.left} temporary files left, {len(self.faults)} faults"
        )


class Writer:
    """Changes servers whose names begin with its own; ``sure`` is after the last answer, ``maybe`` after the next."""

    def __init__(self, name: str, url: str, seed: int) -> None:
        self.name, self._url = name, url
        self._random = random.Random(f"{seed} {name}")
        self._serial = 0
        self.sure: State = {}
        self.maybe: State | None = None

    async def change(self, proxy: ProxyProcess, token: str) -> None:
        """One change, answered with 2xx. Raises `aiohttp.ClientError` when the proxy has gone meanwhile."""
        method, path, body, after = self._next()
        self.maybe = after
        reply = await proxy.request(method, path, token=token, **({} if body is None else {"json": body}))
        assert 200 <= reply.status < 300, f"{method} {path} {body}: {reply}"
        self.sure, self.maybe = after, None

    def _next(self) -> tuple[str, str, Any, State]:
        self._serial += 1
        words = f"change {self._serial}"
        names = sorted(self.sure)
        kind = self._random.choice(("add", "add", "patch", "switch", "remove")) if names else "add"
        if kind == "add":
            name = f"{self.name}-{self._serial}"
            body = {"mcpServers": {name: {"url": self._url, "description": words, "disabled": True}}}
            return "POST", "/servers", body, {**self.sure, name: {"description": words, "disabled": True}}
        name = self._random.choice(names)
        was = self.sure[name]
        if kind == "patch":
            body = {"description": words}
            return "PATCH", f"/api/instances/{name}", body, {**self.sure, name: {**was, **body}}
        if kind == "switch":
            off = not was["disabled"]
            path = f"/api/instances/{name}/{'disable' if off else 'enable'}"
            return "POST", path, None, {**self.sure, name: {**was, "disabled": off}}
        after = {other: one for other, one in self.sure.items() if other != name}
        return "DELETE", f"/servers/{name}", None, after

    def check(self, shown: State) -> tuple[str | None, str | None]:
        """What became of the change that was not answered, and what is wrong; each None where there is none."""
        mine = {name: one for name, one in shown.items() if name.startswith(f"{self.name}-")}
        pending, self.maybe = self.maybe, None
        if mine == self.sure:
            return (None if pending is None else "lost"), None
        if pending is not None and mine == pending:
            self.sure = pending
            return "kept", None
        fault = f"{self.name}: answered was {self.sure}, under way {pending}, found is {mine}"
        self.sure = mine
        return None, fault


async def kill_again_and_again(kills: int, seed: int) -> Killed:
    """Kill the proxy so often, each time up to half a second after changes began, and look at what is left."""
    chance = random.Random(seed)
    found = Killed()
    async with faulty_http(args=("--lifetime", "86400")) as upstream:
        writers = [Writer(f"w{number}", upstream.url, seed) for number in range(WRITERS)]
        async with ProxyProcess("--allow-network", "127.0.0.0/8", "--log-level", "WARNING") as proxy:
            for _ in range(kills):
                await _changes_until_killed(proxy, writers, chance.uniform(0.02, 0.5), found)
                state = proxy.directory / ".mcp-proxy" / "servers.json"
                found.faults += _torn(state)
                await proxy.start()
                shown = await _shown(proxy)
                for writer in writers:
                    outcome, fault = writer.check(shown)
                    found.unanswered += Counter([outcome] if outcome else [])
                    found.faults += [fault] if fault else []
            found.left = sum(1 for _ in state.parent.glob(".servers.json.*"))
    return found


async def _changes_until_killed(proxy: ProxyProcess, writers: list[Writer], seconds: float, found: Killed) -> None:
    token = make_token(scope="admin")

    async def work(writer: Writer) -> None:
        while True:
            try:
                await writer.change(proxy, token)
            except aiohttp.ClientError:
                return
            found.answered += 1

    async with asyncio.TaskGroup() as group:
        for writer in writers:
            group.create_task(work(writer))
        await asyncio.sleep(seconds)
        await proxy.kill()
    found.kills += 1


async def _shown(proxy: ProxyProcess) -> State:
    rows: list[Mapping[str, Any]] = (await proxy.get("/api/config", token=make_token(scope="admin"))).json["servers"]
    return {row["name"]: {"description": row["description"], "disabled": bool(row.get("disabled"))} for row in rows}


def _torn(state: Path) -> list[str]:
    """Whether the file is anything but a whole one, or none yet."""
    if not state.exists():
        return []
    try:
        document = json.loads(state.read_bytes())
    except ValueError as error:
        return [f"{state.name} is torn: {error}"]
    return [] if set(document) == _KEYS else [f"{state.name} has the keys {sorted(document)}"]
