"""What of a server's lists can be passed on, and what it lists to clients that offer it more than others. No connection of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from mcp_proxy.base.json import MAX_DEPTH, deeper_than
from mcp_proxy.base.tasks import TaskSet
from mcp_proxy.core.catalog.mirrored import fault as mirrored_fault
from mcp_proxy.core.catalog.offer import Offer, Withheld
from mcp_proxy.core.upstream.client import Client
from mcp_proxy.core.upstream.link import LISTS

_MOST_PROFILES = 256
_FAILED_FOR = 30.0
"""Seconds for which a listing that failed is not tried again."""
Definitions = dict[str, list[dict[str, Any]]]
"""Definitions by the field of their list: ``tools``, ``prompts``, ``resources``, ``resourceTemplates``."""


def sift(listed: Mapping[str, list[dict[str, Any]]], *, mirrors: bool) -> tuple[Definitions, tuple[Withheld, ...]]:
    """What can be offered, and what not. ``mirrors``: calls repeat arguments as HTTP headers."""
    usable: Definitions = {kind: [] for kind in listed}
    withheld = []
    for kind, definitions in listed.items():
        for definition in definitions:
            reason = _unusable(definition, mirrors=mirrors and kind == "tools")
            if reason is None:
                usable[kind].append(definition)
            else:
                withheld.append(Withheld(kind, str(definition[LISTS[kind][2]])[:200], reason))
    return usable, tuple(withheld)


def _unusable(definition: dict[str, Any], *, mirrors: bool) -> str | None:
    if deeper_than(definition, MAX_DEPTH):
        return f"its definition is nested deeper than {MAX_DEPTH}"
    if mirrors and (fault := mirrored_fault(definition.get("inputSchema"))) is not None:
        return f"x-mcp-header: {fault}"
    return None


class Profiles:
    """What one server lists to clients by what they offer (`Client.profile`), asked for once and kept.

    A client whose own link has been used is listed for by itself: what a server lists to it may belong to it alone. After `outdated` everything is asked for again with the next listing, and what is known serves
    meanwhile.
    """

    def __init__(
        self,
        tasks: TaskSet,
        name: str,
        ask: Callable[[Client], Awaitable[Offer | None]],
        on_learned: Callable[[], None],
    ) -> None:
        """``ask`` lists for a client; None: it cannot be known now. ``on_learned`` is called when it was."""
        self._tasks = tasks
        self._name = name
        self._ask = ask
        self._on_learned = on_learned
        self._known: dict[str, tuple[int, Offer | None]] = {}
        self._edition = 0
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._failed: dict[str, float] = {}
        self._apart: set[str] = set()

    def __len__(self) -> int:
        return len(self._known)

    def outdated(self) -> None:
        """What the server lists may have changed."""
        self._edition += 1
        self._failed.clear()

    def set_apart(self, key: str) -> None:
        """The client's link has been used: it is no longer like any other's."""
        self._apart.add(key)

    def announced(self, key: str, profile: str) -> None:
        """The server said on the link of that client that its lists changed."""
        kind = f"{profile} for {key}" if key in self._apart else profile
        if kind in self._known:
            self._known[kind] = (-1, self._known[kind][1])
        self._failed.pop(kind, None)

    def forget(self, key: str) -> None:
        """The client is gone."""
        if key in self._apart:
            self._apart.discard(key)
            for kind in [kind for kind in self._known if kind.endswith(f" for {key}")]:
                del self._known[kind]

    def kind_of(self, client: Client) -> str:
        """Equal for clients that are listed the same; "" for those that are listed what everybody is."""
        if client.profile and client.key in self._apart:
            return f"{client.profile} for {client.key}"
        return client.profile

    def offer_to(self, client: Client, common: Offer) -> Offer:
        """What this client would be listed, as far as that is known; ``common`` is what everybody is."""
        kind = self.kind_of(client)
        _, offer = self._known.get(kind) or self._known.get(client.profile) or (0, None)
        return common if offer is None else offer

    def knows(self, client: Client) -> bool:
        """Whether there is no more to be learned."""
        kind = self.kind_of(client)
        known = self._known.get(kind)
        if not kind or (known is not None and known[0] == self._edition):
            return True
        return asyncio.get_running_loop().time() < self._failed.get(kind, 0.0)

    async def learn(self, client: Client, common: Callable[[], Offer]) -> None:
        """Ask for what clients like this one are listed. Failure leaves what is known."""
        if self.knows(client):
            return
        kind = self.kind_of(client)
        task = self._asking.get(kind)
        if task is None:
            work = self._learn(kind, client, common)
            task = self._asking[kind] = self._tasks.spawn(work, f"learn {self._name}")
            task.add_done_callback(lambda _: self._asking.pop(kind, None))
        # Whoever asks first may leave; the others still want to know.
        await asyncio.wait([task])

    async def _learn(self, kind: str, client: Client, common: Callable[[], Offer]) -> None:
        edition = self._edition
        offer = await self._ask(client)
        if offer is None:
            self._failed[kind] = asyncio.get_running_loop().time() + _FAILED_FOR
            return
        self._failed.pop(kind, None)
        before = self._known.pop(kind, (0, None))[1]
        while len(self._known) >= _MOST_PROFILES:
            del self._known[next(iter(self._known))]
        # "As everybody" stays so when that changes.
        different = None if offer == common() else offer
        self._known[kind] = (edition, different)
        if different != before:
            self._on_learned()
